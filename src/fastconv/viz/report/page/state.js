// What is shown lives behind the # of the address: it survives a reload, can be bookmarked, and "back" works.

const state = {};
function readState() {
  const at = new URLSearchParams(location.hash.slice(1));
  state.view = ["run", "table", "compare", "search"].includes(at.get("view")) ? at.get("view") : "grid";
  state.run = at.get("run") ?? "";
  state.sort = at.get("sort") ?? "";
  state.filter = at.get("filter") ?? "";
  state.hidden = new Set(at.getAll("hide"));
  state.picks = new Set(at.getAll("pick").filter((name) => named.has(name) && named.get(name).health !== "damaged"));
  state.own = at.has("own");
  state.x = at.get("x") ?? "";
  state.y = at.get("y") ?? "";
  state.figure = at.get("figure") ?? "";
  if (state.view === "grid" && alone) { // a run alone has the page to itself
    state.view = "run";
    state.run = runs[0].name;
    history.replaceState(null, "", address({}));
  }
}

/** The address of this state with some of it changed. */
function address(changes) {
  const to = { ...state, ...changes };
  const at = new URLSearchParams();
  if (to.view !== "grid") at.set("view", to.view);
  if (to.view === "run") at.set("run", to.run);
  for (const key of ["sort", "filter", "x", "y", "figure"]) if (to[key]) at.set(key, to[key]);
  for (const health of to.hidden) at.append("hide", health);
  for (const name of to.picks) at.append("pick", name);
  if (to.own) at.set("own", "1");
  return "#" + at;
}

/** Change the state: a new view is a step in the browser's history, anything else is not. */
function change(changes) {
  if (changes.view !== undefined && changes.view !== state.view) {
    delete document.body.dataset.drawn;
    location.hash = address(changes);
  } else {
    history.replaceState(null, "", address(changes));
    show();
  }
}

function choose(run, on) {
  const picks = new Set(state.picks);
  if (on) picks.add(run.name);
  else picks.delete(run.name);
  history.replaceState(null, "", address({ picks }));
  readState(); // the view stays as it is, with its charts and the focus
  showLinks();
}

/** What runs can be sorted by and a table shows: key, title, value, text, and 1 where less comes first. */
function columns() {
  return [
    ["name", "run", (run) => run.name, (run) => run.name, 1],
    ["health", "health", (run) => HEALTHS.indexOf(run.health), (run) => run.health, 1],
    ...figureNames().map(([name, kind]) => ["best." + name, "validation " + titleOf(name),
      (run) => best(run, name), (run) => figureText(name, best(run, name)), kind === "lower" ? 1 : -1]),
    ["training_loss", "training loss", (run) => run.training_loss, (run) => figure(run.training_loss, 4), 1],
    ["test", "test accuracy", (run) => run.test_accuracy, (run) => percent(run.test_accuracy), -1],
    ...differing().map((key) => ["option." + key, key, (run) => option(run, key) ?? null,
      (run) => figure(option(run, key), 4), 1]),
    ["epochs", "epochs", (run) => run.epochs, (run) => figure(run.epochs), -1],
    ["seconds", "training time", (run) => run.seconds, (run) => duration(run.seconds), 1],
    ["started", "started", (run) => run.started, (run) => String(run.started ?? "–").slice(0, 16).replace("T", " "), -1],
  ].map(([key, title, value, text, sign]) => ({ key, title, value, text, sign }))
    .filter(({ key, value }) => ["name", "health"].includes(key) || runs.some((run) => (value(run) ?? null) !== null));
}

const naturally = new Intl.Collator(undefined, { numeric: true }).compare;
function inOrder(a, b) {
  if (known(a) && known(b)) return a - b;
  return naturally(String(a), String(b));
}
/** The column sorted by, and whether the other way round: "-lr" is. */
function order(all = columns()) {
  const key = state.sort.replace(/^-/, "");
  const column = all.find((c) => c.key === key) ?? all.find((c) => c.key === "best." + judged) ?? all[0];
  return { column, turned: column.key === key && state.sort.startsWith("-") };
}

/** The runs in the order chosen; those without the figure come last, equals by name. */
function sorted(list) {
  const { column, turned } = order(), sign = turned ? -column.sign : column.sign;
  return list.map((run) => [column.value(run) ?? null, run]).sort(([a, run], [b, other]) => {
    if (a === null || b === null) return (a === null) - (b === null) || naturally(run.name, other.name);
    return sign * inOrder(a, b) || naturally(run.name, other.name);
  }).map(([, run]) => run);
}

function shown() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return sorted(runs.filter((run) => !state.hidden.has(run.health) && words.every((word) => run.words.includes(word))));
}

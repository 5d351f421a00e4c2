// The grid: a card and a small curve for every run, drawn once, then only sorted, hidden and shown.

const number = (value) => (known(value) ? value : null);
const SORTS = {
  accuracy: ["validation accuracy", (run) => number(run.accuracy), -1],
  loss: ["validation loss", (run) => number(run.loss), 1],
  test: ["test accuracy", (run) => number(run.test_accuracy), -1],
  training: ["training loss", (run) => number(run.training_loss), 1],
  health: ["health", (run) => HEALTHS.indexOf(run.health), 1],
  newest: ["newest first", (run) => (run.started === undefined ? null : run.started), -1],
  lr: ["learning rate", (run) => number(option(run, "lr")), 1],
  seconds: ["training time", (run) => number(run.seconds), 1],
  name: ["name", (run) => run.name, 1],
};
const naturally = new Intl.Collator(undefined, { numeric: true }).compare;

/** The runs in the order chosen; those without the figure come last, equals by name. */
function sorted(list) {
  const [, key, sign] = SORTS[state.sort] ?? SORTS.accuracy;
  const compare = (a, b) => (typeof a === "string" ? naturally(a, b) : a - b);
  return list.map((run) => [key(run), run]).sort(([a, run], [b, other]) => {
    if (a === null || b === null) return (a === null) - (b === null) || naturally(run.name, other.name);
    return sign * compare(a, b) || naturally(run.name, other.name);
  }).map(([, run]) => run);
}

function shown() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return sorted(runs).filter((run) => !state.hidden.has(run.health) && words.every((word) => run.words.includes(word)));
}

// Curves: x is the epoch, y the logarithm of the loss where all losses are positive.
const WIDTH = 240, HEIGHT = 84, EDGE = 6;
const losses = (list) => list.flatMap((run) => [...(run.curve.loss ?? []), ...(run.curve.validation ?? [])]).filter(known);

/** Bottom and top of the scale that runs share: up to three times what they start from, exploded ones leave it. */
function scaleOf(list) {
  const values = losses(list).sort((a, b) => a - b);
  if (!values.length) return null;
  const starts = list.map((run) => (run.curve.loss ?? []).find(known)).filter(known).sort((a, b) => a - b);
  const start = starts.length ? starts[starts.length >> 1] : values[values.length - 1];
  const log = values[0] > 0;
  const top = list.length > 1 ? Math.min(values[values.length - 1], 3 * Math.abs(start)) : values[values.length - 1];
  return { log, bottom: Math.min(values[Math.floor(values.length / 100)], top), top };
}

function pathOf(curve, column, scale) {
  const of = (value) => (scale.log ? Math.log(value) : value);
  const span = of(scale.top) - of(scale.bottom) || 1;
  const epochs = curve.epoch, first = epochs[0] ?? 1, last = epochs[epochs.length - 1] ?? 1;
  let path = "", pen = "M";
  column.forEach((value, i) => {
    if (!known(value)) { pen = "M"; return; }
    const x = EDGE + (WIDTH - 2 * EDGE) * (last > first ? ((epochs[i] ?? i + 1) - first) / (last - first) : 0.5);
    const y = EDGE + (HEIGHT - 2 * EDGE) * (1 - (of(Math.max(value, scale.bottom)) - of(scale.bottom)) / span);
    path += pen + x.toFixed(1) + " " + Math.max(y, 1).toFixed(1);
    // a point alone is a short stroke
    if (pen === "M" && !known(column[i + 1])) path += "h.1";
    pen = "L";
  });
  return path;
}

function drawCurve(node, run, shared) {
  const curve = run.curve, scale = state.own ? scaleOf([run]) : shared;
  node.replaceChildren();
  if (!scale || !(curve.epoch ?? []).length) return;
  node.append(
    svg("path", { class: "training", d: pathOf(curve, curve.loss, scale) }),
    svg("path", { class: "validation", d: pathOf(curve, curve.validation, scale) }));
  if (run.health === "exploded") {
    node.append(svg("path", { class: "lost", d: `M${WIDTH - 18} 6l10 10m0-10l-10 10` }));
  }
}

const hasCurve = (run) => losses([run]).length > 0;

function curveText(run) {
  const seen = (run.curve.loss ?? []).filter(known);
  if (!seen.length) return "no training loss recorded";
  return `training loss from ${figure(seen[0])} to ${figure(seen[seen.length - 1])} in ${run.epochs} epochs`;
}

const cards = new Map();
function makeCard(run, about) {
  const open = runLink(run);
  const curve = svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    role: "img", "aria-label": curveText(run) });
  const pick = el("input", { type: "checkbox", class: "pick", title: "compare", "aria-label": "Compare " + run.name });
  pick.addEventListener("change", () => choose(run, pick.checked));
  const damaged = run.health === "damaged";
  const card = el("li", { class: "card " + classOf(run.health), "data-run": run.name },
    el("div", { class: "row" }, open, damaged ? null : pick),
    hasCurve(run) ? curve : el("p", { class: "why" }, run.reason),
    el("div", { class: "row" }, badge(run.health),
      el("span", { class: "figure", title: "best validation accuracy" }, damaged ? "" : percent(run.accuracy))),
    damaged ? null : el("p", { class: "about" }, about.map((key) => `${key} ${figure(option(run, key), 3)}`).join(" · ")));
  card.title = run.reason;
  cards.set(run, { card, open, curve, pick });
}

function choose(run, on) {
  const picks = new Set(state.picks);
  if (on) picks.add(run.name);
  else picks.delete(run.name);
  history.replaceState(null, "", address({ picks }));
  readState(); // the view stays as it is, with its charts and the focus
  showLinks();
}

function makeGrid() {
  const sound = runs.filter((run) => run.health !== "damaged");
  const about = optionNames(sound).filter((key) => sound.length < 2 || differs(key, sound)).slice(0, 3);
  for (const run of runs) makeCard(run, about);
  for (const [value, [text]] of Object.entries(SORTS)) byId("sort").append(el("option", { value }, text));
  for (const health of HEALTHS) {
    const count = runs.filter((run) => run.health === health).length;
    if (!count) continue;
    const button = el("button", { type: "button", "data-health": health }, badge(health, `${health} ${count}`));
    button.addEventListener("click", () => {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(health)) hidden.add(health);
      change({ hidden });
    });
    byId("legend").append(button);
  }
  byId("filter").addEventListener("input", (event) => change({ filter: event.target.value }));
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("own").addEventListener("change", (event) => change({ own: event.target.checked }));
}

let drawn = null;
function drawCurves() {
  if (drawn === state.own) return;
  drawn = state.own;
  const shared = scaleOf(runs);
  for (const [run, { curve }] of cards) drawCurve(curve, run, shared);
  const range = shared && `${shared.log ? "log scale " : ""}${figure(shared.bottom, 3)} to ${figure(shared.top, 3)}`;
  byId("scale").textContent = "Curves: loss over epochs, thick validation, thin training; "
    + (state.own ? "each on its own scale." : (range ?? "no loss yet") + ".");
}

function showGrid() {
  drawCurves();
  const list = shown();
  const nodes = list.map((run) => cards.get(run).card), now = byId("cards").children;
  if (nodes.length !== now.length || nodes.some((node, i) => node !== now[i])) byId("cards").replaceChildren(...nodes);
  byId("count").textContent = (list.length < runs.length ? `${list.length} of ` : "") + `${runs.length} runs.`;
  if (document.activeElement !== byId("filter")) byId("filter").value = state.filter;
  byId("sort").value = state.sort in SORTS ? state.sort : "accuracy";
  byId("own").checked = state.own;
  for (const button of byId("legend").children) {
    button.setAttribute("aria-pressed", String(!state.hidden.has(button.dataset.health)));
  }
}

// Chosen runs over each other, and all runs as points over two hyperparameters.

function overlay(title, list, validation, training, layout) {
  return chart(title, () => [list.flatMap((run, i) => {
    const { epochs } = detailOf(run), line = { ...lineOf(i), dash: i < 8 ? "solid" : "dashdot" };
    const trace = (column, extra) => ({ x: epochs.epoch, y: epochs[column], type: "scatter",
      mode: (epochs.epoch ?? []).length > 1 ? "lines" : "markers", legendgroup: String(i), name: shortly(run.name), ...extra });
    return [
      hasFigures(epochs[validation]) ? trace(validation, { line }) : null,
      hasFigures(epochs[training]) ? trace(training, { line: { ...line, dash: "dot", width: 1.4 }, showlegend: !hasFigures(epochs[validation]) }) : null,
    ].filter(Boolean);
  }), { xaxis: { title: { text: "epoch" } }, hovermode: "closest", ...layout }], { note: "Solid: validation; dotted: training." });
}

const FACTS = [
  ["health", (run) => run.health], ["best validation accuracy", (run) => percent(run.accuracy)],
  ["best validation loss", (run) => figure(run.loss)], ["test accuracy", (run) => percent(run.test_accuracy)],
  ["epochs", (run) => figure(run.epochs)], ["training time", (run) => duration(run.seconds)],
];

function differences(list) {
  const names = optionNames(list), differing = names.filter((key) => differs(key, list));
  const row = (name, cells, same = false) => el("tr", { class: same ? "same" : "", hidden: same },
    el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));
  const equal = names.filter((key) => !differing.includes(key))
    .map((key) => row(key, list.map((run) => figure(option(run, key))), true));
  const box = el("input", { type: "checkbox" });
  box.addEventListener("change", () => equal.forEach((line) => { line.hidden = !box.checked; }));
  const heads = list.map((run, i) => {
    const key = el("span", {}, "■ ");
    key.style.color = lineOf(i).color;
    return el("th", { scope: "col" }, key, el("a", { class: "name", href: address({ view: "run", run: run.name }) }, run.name));
  });
  return el("section", { class: "panel wide" }, el("h3", {}, "What differs"),
    el("div", { class: "scroll" }, el("table", { class: "columns", "aria-label": "Differences" },
      el("thead", {}, el("tr", {}, el("td", {}), ...heads)),
      el("tbody", {}, ...FACTS.map(([name, fact]) => row(name, list.map(fact))),
        ...differing.map((key) => row(key, list.map((run) => figure(option(run, key))))), ...equal))),
    equal.length ? el("label", { class: "check note" }, box, ` show the ${equal.length} options that are equal, too`) : null);
}

function showCompare() {
  const list = sorted(runs.filter((run) => state.picks.has(run.name)));
  const head = el("div", { class: "head" }, el("a", { href: address({ view: "grid" }) }, "← all runs"));
  const title = el("h2", { tabIndex: -1 }, list.length ? `${list.length} runs compared` : "Nothing to compare yet");
  if (!list.length) {
    byId("compare").replaceChildren(head, title, el("p", { class: "note" }, "Tick the boxes of two or more runs, then come back."));
    return;
  }
  byId("compare").replaceChildren(head, title, el("div", { class: "panels" },
    overlay("Loss", list, "validation_loss", "loss", { yaxis: { type: "log" } }),
    overlay("Accuracy", list, "validation_accuracy", "accuracy", { yaxis: { tickformat: ".0%" } }),
    differences(list)));
}

const numeric = (key) => runs.filter((run) => known(option(run, key)));

/** An axis of a hyperparameter: logarithmic; zeros stand a decade below the smallest, under their own tick. */
function axisOf(key, list) {
  const values = list.map((run) => option(run, key)), positive = values.filter((value) => value > 0);
  if (!positive.length || Math.min(...values) < 0 || Math.max(...positive) < 5 * Math.min(...positive)) {
    return { layout: { title: { text: literal(key) } }, place: (value) => value };
  }
  const zero = Math.min(...positive) / 10, none = values.includes(0);
  const low = Math.floor(Math.log10(Math.min(...positive))), high = Math.ceil(Math.log10(Math.max(...positive)));
  const stride = Math.max(1, Math.ceil((high - low) / 7)), decades = [];
  for (let decade = low; decade <= high; decade += stride) if (!none || 10 ** decade > 1.5 * zero) decades.push(decade);
  return {
    layout: { title: { text: literal(key) }, type: "log",
      tickvals: [...(none ? [zero] : []), ...decades.map((d) => 10 ** d)],
      ticktext: [...(none ? ["0"] : []), ...decades.map((d) => String(Number((10 ** d).toPrecision(1))))] },
    place: (value) => (value === 0 ? zero : value),
  };
}

function showSearch() {
  const keys = optionNames(runs).filter((key) => numeric(key).length);
  const head = [el("div", { class: "head" }, el("a", { href: address({ view: "grid" }) }, "← all runs")), el("h2", { tabIndex: -1 }, "Search")];
  if (keys.length < 2) {
    byId("search").replaceChildren(...head, el("p", { class: "note" }, "No two numeric hyperparameters in these runs."));
    return;
  }
  const x = keys.includes(state.x) ? state.x : keys[0];
  const y = keys.includes(state.y) ? state.y : keys.find((key) => key !== x);
  const list = sorted(shown().filter((run) => known(option(run, x)) && known(option(run, y))));
  const picker = (text, value, name) => {
    const select = el("select", { id: "axis-" + name }, ...keys.map((key) => el("option", { value: key, selected: key === value }, key)));
    select.addEventListener("change", () => change({ [name]: select.value }));
    return el("label", {}, text, select);
  };
  const across = axisOf(x, list), up = axisOf(y, list);
  const traces = () => HEALTHS.filter((health) => health in SYMBOLS).flatMap((health) => {
    const some = list.filter((run) => run.health === health);
    if (!some.length) return [];
    const line = { width: 1, color: colour("text") };
    const shape = { name: health, legendgroup: health, type: "scatter", mode: "markers" };
    return [{ // for the legend alone: there a shape has no accuracy
      ...shape, x: [null], y: [null], marker: { size: 11, symbol: SYMBOLS[health], color: colour("faint"), line },
    }, {
      ...shape, showlegend: false, x: some.map((run) => across.place(option(run, x))), y: some.map((run) => up.place(option(run, y))),
      customdata: some.map((run) => run.index), hoverinfo: "text",
      text: some.map((run) => literal(`${run.name}: ${percent(run.accuracy)}, ${x} ${figure(option(run, x))}, ${y} ${figure(option(run, y))}`)),
      marker: { size: 11, symbol: SYMBOLS[health], color: some.map((run) => run.accuracy ?? null), coloraxis: "coloraxis", line },
    }];
  });
  const plot = chart("Best validation accuracy", () => [traces(), {
    xaxis: across.layout, yaxis: up.layout, hovermode: "closest", showlegend: true,
    coloraxis: { colorscale: "Viridis", colorbar: { tickformat: ".0%", thickness: 14, outlinewidth: 0 } },
  }], { wide: true, note: "A point is a run; click it. The shape is its health, the colour its accuracy.",
    onPoint: (point) => change({ view: "run", run: runs[point.customdata].name }) });
  const rows = list.map((run) => el("tr", {}, el("td", {}, el("a", { class: "name", href: address({ view: "run", run: run.name }) }, run.name)),
    el("td", {}, percent(run.accuracy)), el("td", {}, figure(option(run, x))), el("td", {}, figure(option(run, y))), el("td", {}, badge(run.health))));
  byId("search").replaceChildren(...head, el("div", { class: "tools" }, picker("Across ", x, "x"), picker("Up ", y, "y")), el("div", { class: "panels" }, plot,
    el("section", { class: "panel wide scroll" }, el("table", { "aria-label": "Runs" },
      el("thead", {}, el("tr", {}, ...["run", "validation accuracy", x, y, "health"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, ...rows)))));
}

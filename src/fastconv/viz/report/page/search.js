// All runs as points over two hyperparameters, coloured by accuracy, and the same as a list.

const numeric = (key) => runs.filter((run) => known(option(run, key)));

const titleOf = (key) => ({ text: literal(key), standoff: 10 });

/** An axis of a hyperparameter: logarithmic; zeros stand a decade below the smallest, under their own tick. */
function axisOf(key, list) {
  const values = list.map((run) => option(run, key)), positive = values.filter((value) => value > 0);
  if (!positive.length || Math.min(...values) < 0 || Math.max(...positive) < 5 * Math.min(...positive)) {
    return { layout: { title: titleOf(key) }, place: (value) => value };
  }
  const zero = Math.min(...positive) / 10, none = values.includes(0);
  const low = Math.floor(Math.log10(Math.min(...positive))), high = Math.ceil(Math.log10(Math.max(...positive)));
  const stride = Math.max(1, Math.ceil((high - low) / 7)), decades = [];
  for (let decade = low; decade <= high; decade += stride) if (!none || 10 ** decade > 1.5 * zero) decades.push(decade);
  return {
    layout: { title: titleOf(key), type: "log",
      tickvals: [...(none ? [zero] : []), ...decades.map((d) => 10 ** d)],
      ticktext: [...(none ? ["0"] : []), ...decades.map((d) => figure(10 ** d, 1))] },
    place: (value) => (value === 0 ? zero : value),
  };
}

function showSearch() {
  const keys = optionNames(runs).filter((key) => numeric(key).length);
  const head = [el("div", { class: "head" }, backLink()), el("h2", { tabIndex: -1 }, "Search")];
  if (keys.length < 2) {
    byId("search").replaceChildren(...head, el("p", { class: "note" }, "No two numeric hyperparameters in these runs."));
    return;
  }
  const x = keys.includes(state.x) ? state.x : keys[0];
  const y = keys.includes(state.y) ? state.y : keys.find((key) => key !== x);
  const list = sorted(shown().filter((run) => known(option(run, x)) && known(option(run, y))));
  const picker = (text, value, name) => {
    const choices = keys.map((key) => el("option", { value: key, selected: key === value }, key));
    const select = el("select", { id: "axis-" + name }, ...choices);
    select.addEventListener("change", () => change({ [name]: select.value }));
    return el("label", {}, text, select);
  };
  const panels = el("div", { class: "panels" }, scatter(x, y, list), listing(x, y, list));
  byId("search").replaceChildren(...head,
    el("div", { class: "tools" }, picker("Across ", x, "x"), picker("Up ", y, "y")), panels);
}

function scatter(x, y, list) {
  const across = axisOf(x, list), up = axisOf(y, list);
  const about = (run) => `${run.name}: ${percent(run.accuracy)}, `
    + `${x} ${figure(option(run, x))}, ${y} ${figure(option(run, y))}`;
  const traces = () => HEALTHS.filter((health) => health in SYMBOLS).flatMap((health) => {
    const some = list.filter((run) => run.health === health);
    if (!some.length) return [];
    const shape = { name: health, legendgroup: health, type: "scatter", mode: "markers" };
    const line = { width: 1, color: colour("text") };
    const marker = (colours) => ({ size: 11, symbol: SYMBOLS[health], line, ...colours });
    const points = (part, colours) => ({
      ...shape, showlegend: false, hoverinfo: "text", marker: marker(colours),
      x: part.map((run) => across.place(option(run, x))), y: part.map((run) => up.place(option(run, y))),
      text: part.map((run) => literal(about(run))), customdata: part.map((run) => run.index),
    });
    const tested = some.filter((run) => known(run.accuracy)), others = some.filter((run) => !known(run.accuracy));
    return [
      { ...shape, x: [null], y: [null], marker: marker({ color: colour("faint") }) }, // for the legend alone
      ...(tested.length ? [points(tested, { color: tested.map((run) => run.accuracy), coloraxis: "coloraxis" })] : []),
      ...(others.length ? [points(others, { color: colour("panel") })] : []),
    ];
  });
  return chart("Best validation accuracy", () => [traces(), {
    xaxis: across.layout, yaxis: up.layout, hovermode: "closest", showlegend: true,
    coloraxis: { colorscale: "Viridis", colorbar: { tickformat: ".0%", thickness: 14, outlinewidth: 0 } },
  }], {
    wide: true,
    note: "A point is a run; click it. The shape is its health, the colour its accuracy; empty: none known.",
    onPoint: (point) => change({ view: "run", run: runs[point.customdata].name }),
  });
}

function listing(x, y, list) {
  const rows = list.map((run) => el("tr", {},
    el("td", {}, runLink(run)),
    el("td", {}, percent(run.accuracy)), el("td", {}, figure(option(run, x), 4)), el("td", {}, figure(option(run, y), 4)),
    el("td", {}, badge(run.health))));
  const heads = ["run", "validation accuracy", x, y, "health"].map((text) => el("th", { scope: "col" }, text));
  return el("section", { class: "panel wide scroll" }, el("table", { class: "lines", "aria-label": "Runs" },
    el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)));
}

// All runs over their hyperparameters: parallel coordinates, what matters, points over two of them.

const axisTitle = (key) => ({ text: literal(key), standoff: 10 });

/** An axis of a hyperparameter: logarithmic where its values are magnitudes apart; zeros stand a decade below the smallest, under their own tick. */
function axisOf(key, values) {
  const positive = values.filter((value) => value > 0);
  if (key === "seed" || !positive.length || Math.min(...values) < 0 || Math.max(...positive) < 5 * Math.min(...positive)) {
    return { layout: { title: axisTitle(key) }, place: (value) => value, log: false };
  }
  const zero = Math.min(...positive) / 10, none = values.includes(0);
  const low = Math.floor(Math.log10(Math.min(...positive))), high = Math.ceil(Math.log10(Math.max(...positive)));
  const stride = Math.max(1, Math.ceil((high - low) / 7)), decades = [];
  for (let decade = low; decade <= high; decade += stride) if (!none || 10 ** decade > 1.5 * zero) decades.push(decade);
  return {
    layout: { title: axisTitle(key), type: "log",
      tickvals: [...(none ? [zero] : []), ...decades.map((d) => 10 ** d)],
      ticktext: [...(none ? ["0"] : []), ...decades.map((d) => figure(10 ** d, 1))] },
    place: (value) => (value === 0 ? zero : value), log: true,
  };
}

/** What points may be placed by: the numeric options, differing ones first, and the figure itself. */
function placesOf(name) {
  const keys = optionNames(sound()).filter((key) => differs(key, sound()) && sound().some((run) => known(option(run, key))));
  return [...keys.map((key) => [key, key]), ["=", titleOf(name)]];
}
const valueAt = (run, key, name) => (key === "=" ? best(run, name) : option(run, key));

function showSearch() {
  const names = figureNames().map(([name]) => name);
  const name = names.includes(state.figure) ? state.figure : names[0] ?? judged, places = placesOf(name);
  const top = [keep("title", 0, () => el("h2", { tabIndex: -1 }, "Search"))];
  showTools(shown());
  if (places.length < 2) {
    const text = "These runs differ in no numeric hyperparameter.";
    arrange(byId("search"), [...top, keep("hint", text, () => note(text))]);
    return;
  }
  const keys = places.map(([key]) => key), x = keys.includes(state.x) ? state.x : keys[0];
  const y = keys.includes(state.y) ? state.y : keys.find((key) => key !== x);
  const list = shown().filter((run) => known(valueAt(run, x, name)) && known(valueAt(run, y, name)));
  const pick = (text, id, values, now, set) => keep(id, [values, now], () => el("label", {}, text, selection(id, values, now, set)));
  const box = keep("panels", 0, () => el("div", { class: "panels" }));
  const figureChoice = pick("Figure ", "axis-figure", names.map((one) => [one, titleOf(one)]), name, (figure) => change({ figure }));
  const axes = arrange(keep("axes", 0, () => el("div", { class: "tools wide" })), [
    pick("Across ", "axis-x", places, x, (to) => change({ x: to })), pick("Up ", "axis-y", places, y, (to) => change({ y: to })),
  ]);
  arrange(byId("search"), [...top, arrange(keep("figure", 0, () => el("div", { class: "tools" })), [figureChoice]), box]);
  arrange(box, [parallelPanel(shown(), name), importancePanel(), axes, scatter(x, y, name, list)]);
}

function scatter(x, y, name, list) {
  const at = (key) => axisOf(key === "=" ? titleOf(name) : key, list.map((run) => valueAt(run, key, name)));
  const across = at(x), up = at(y), share = kindOf(name) === "share", lower = kindOf(name) === "lower";
  const about = (run) => [`${run.name}: ${titleOf(name)} ${figureText(name, best(run, name))}`,
    ...[x, y].filter((key) => key !== "=").map((key) => `${key} ${figure(option(run, key))}`)].join(", ");
  const traces = () => HEALTHS.filter((health) => health in SYMBOLS).flatMap((health) => {
    const some = list.filter((run) => run.health === health);
    if (!some.length) return [];
    const shape = { name: health, legendgroup: health, type: "scatter", mode: "markers" };
    const line = { width: 1, color: colour("text") };
    const marker = (colours) => ({ size: 11, symbol: SYMBOLS[health], line, ...colours });
    const points = (part, colours) => ({
      ...shape, showlegend: false, hoverinfo: "text", marker: marker(colours),
      x: part.map((run) => across.place(valueAt(run, x, name))), y: part.map((run) => up.place(valueAt(run, y, name))),
      text: part.map((run) => literal(about(run))), customdata: part.map((run) => run.id),
    });
    const having = some.filter((run) => known(best(run, name))), others = some.filter((run) => !known(best(run, name)));
    return [
      { ...shape, x: [null], y: [null], marker: marker({ color: colour("faint") }) }, // for the legend alone
      ...(having.length ? [points(having, { color: having.map((run) => best(run, name)), coloraxis: "coloraxis" })] : []),
      ...(others.length ? [points(others, { color: colour("panel") })] : []),
    ];
  });
  const format = (key) => (key === "=" && share ? { tickformat: ".0%" } : {});
  return chart("Best validation " + titleOf(name), () => [traces(), {
    xaxis: { ...across.layout, ...format(x) }, yaxis: { ...up.layout, ...format(y) }, hovermode: "closest", showlegend: true,
    coloraxis: { colorscale: "Viridis", reversescale: lower,
      colorbar: { tickformat: share ? ".0%" : "", thickness: 14, outlinewidth: 0 } },
  }], {
    wide: true,
    about: "A point is a run; click it. The shape is its health, the colour its figure; empty: none known.",
    onPoint: (point) => { if (numbered.has(point.customdata)) change({ view: "run", run: numbered.get(point.customdata).name }); },
  });
}

// ---- which hyperparameters matter

let weighed = { of: null, found: null };
/** Ask for the importances once for each state of the runs that somebody looks at. */
function weigh() {
  if (weighed.of === runs) return;
  weighed.of = runs;
  source.importance().then((found) => {
    weighed.found = found;
    if (state.view === "search") show();
  }, complain);
}

function importancePanel() {
  weigh();
  const found = weighed.found;
  if (!found) return null;
  return keep("importance", found, () => {
    const title = "What matters";
    if (found.missing) return widePanel(title, note("The importance of hyperparameters needs scikit-learn: ", el("code", {}, found.missing)));
    const most = Math.max(...found.options.map(([, value]) => value), 1e-9);
    const rows = found.options.slice(0, 12).map(([key, value]) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = Math.max(0, (100 * value) / most) + "%";
      return el("tr", {}, el("th", { scope: "row" }, key), el("td", { class: "bars" }, bar), el("td", {}, percent(value).replace(/\.\d+/, "")));
    });
    return widePanel(title, el("table", { "aria-label": "Importance of hyperparameters" }, el("tbody", {}, ...rows)),
      note(`A random forest foresees ${percent(Math.max(0, found.explained)).replace(/\.\d+/, "")} of the variance of `
        + `the best validation ${titleOf(found.figure)} of runs that it has not seen (${found.runs} runs). `
        + "It foresees less if an option's values are shuffled: the bars are how that loss is shared among the options."));
  });
}

// Chosen runs over each other, and what differs in their options.

function overlay(name, list) {
  const validation = "validation_" + name, percents = name === "accuracy" || kindOf(name) === "share";
  const traces = list.flatMap((run, i) => {
    const { epochs } = details.get(run.id), line = { ...lineOf(i), dash: i < 8 ? "solid" : "dashdot" };
    const trace = (column, extra) => (hasFigures(epochs[column]) ? [{
      x: epochs.epoch, y: epochs[column], type: "scatter", mode: (epochs.epoch ?? []).length > 1 ? "lines" : "markers",
      legendgroup: String(i), name: shortly(run.name), ...extra,
    }] : []);
    const thin = { line: { ...line, dash: "dot", width: 1.4 }, showlegend: !hasFigures(epochs[validation]) };
    return [...trace(validation, { line }), ...trace(name, thin)];
  });
  const xaxis = epochAxis(Math.max(...list.map((run) => run.epochs)));
  const positive = traces.every((trace) => trace.y.every((value) => value === null || value > 0));
  const yaxis = { type: name === "loss" && positive ? "log" : "linear", tickformat: percents ? ".0%" : "" };
  return chart(headline(name), () => [traces, { xaxis, yaxis, hovermode: "closest", showlegend: true }],
    { about: "Solid: validation; dotted: training." });
}

function differences(list) {
  const names = optionNames(list), some = names.filter((key) => differs(key, list));
  const row = (name, cells, same = false) => el("tr", { class: same ? "same" : "", hidden: same },
    el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));
  const facts = columns().filter(({ key }) => key !== "name" && !key.startsWith("option."))
    .map(({ title, text }) => row(title, list.map(text)));
  const equal = names.filter((key) => !some.includes(key))
    .map((key) => row(key, list.map((run) => figure(option(run, key))), true));
  const box = el("input", { type: "checkbox" });
  box.addEventListener("change", () => equal.forEach((line) => { line.hidden = !box.checked; }));
  const heads = list.map((run, i) => {
    const key = el("span", {}, "■ ");
    key.style.color = lineOf(i).color;
    return el("th", { scope: "col" }, key, runLink(run));
  });
  return widePanel("What differs",
    el("div", { class: "scroll tallest" }, el("table", { class: "columns", "aria-label": "Differences" },
      el("thead", {}, el("tr", {}, el("td", {}), ...heads)),
      el("tbody", {}, ...facts, ...some.map((key) => row(key, list.map((run) => figure(option(run, key))))), ...equal))),
    equal.length ? el("label", { class: "check note" }, box, ` show the ${equal.length} options that are equal, too`) : null);
}

function showCompare() {
  const list = sorted(runs.filter((run) => state.picks.has(run.name))).filter((run) => details.get(run.id)?.epochs);
  const count = list.length === 1 ? "One run" : `${list.length} runs`;
  const text = list.length ? `${count} compared` : "Nothing to compare yet";
  const top = [keep("head", 0, () => el("div", { class: "head" }, backLink())),
    keep("title", text, () => el("h2", { tabIndex: -1 }, text))];
  if (!list.length) {
    arrange(byId("compare"), [...top, keep("hint", 0, () => note("Tick the boxes of two or more runs, then come back."))]);
    return;
  }
  const names = [...new Set(list.flatMap((run) => epochFigures(details.get(run.id).epochs)))];
  const box = keep("panels", 0, () => el("div", { class: "panels" }));
  arrange(byId("compare"), [...top, box]);
  const told = list.map(({ curve, ...run }) => run);
  arrange(box, [...names.map((name) => overlay(name, list)), keep("differences", [told, isDark()], () => differences(list))]);
}

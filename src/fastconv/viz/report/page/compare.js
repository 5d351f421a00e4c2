// Chosen runs over each other, and what differs in their options.

function overlay(title, list, validation, training, layout) {
  const traces = () => list.flatMap((run, i) => {
    const { epochs } = detailOf(run), line = { ...lineOf(i), dash: i < 8 ? "solid" : "dashdot" };
    const trace = (column, extra) => (hasFigures(epochs[column]) ? [{
      x: epochs.epoch, y: epochs[column], type: "scatter", mode: (epochs.epoch ?? []).length > 1 ? "lines" : "markers",
      legendgroup: String(i), name: shortly(run.name), ...extra,
    }] : []);
    const thin = { line: { ...line, dash: "dot", width: 1.4 }, showlegend: !hasFigures(epochs[validation]) };
    return [...trace(validation, { line }), ...trace(training, thin)];
  });
  const xaxis = epochAxis(Math.max(...list.map((run) => run.epochs)));
  const note = "Solid: validation; dotted: training.";
  return chart(title, () => [traces(), { xaxis, hovermode: "closest", ...layout }], { note });
}

const FACTS = [
  ["health", (run) => run.health], ["best validation accuracy", (run) => percent(run.accuracy)],
  ["best validation loss", (run) => figure(run.loss)], ["test accuracy", (run) => percent(run.test_accuracy)],
  ["epochs done", (run) => figure(run.epochs)], ["training time", (run) => duration(run.seconds)],
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
    return el("th", { scope: "col" }, key, runLink(run));
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
  const head = el("div", { class: "head" }, backLink());
  const count = list.length === 1 ? "One run" : `${list.length} runs`;
  const title = el("h2", { tabIndex: -1 }, list.length ? `${count} compared` : "Nothing to compare yet");
  if (!list.length) {
    const note = "Tick the boxes of two or more runs, then come back.";
    byId("compare").replaceChildren(head, title, el("p", { class: "note" }, note));
    return;
  }
  byId("compare").replaceChildren(head, title, el("div", { class: "panels" },
    overlay("Loss", list, "validation_loss", "loss", { yaxis: { type: "log" } }),
    overlay("Accuracy", list, "validation_accuracy", "accuracy", { yaxis: { tickformat: ".0%" } }),
    differences(list)));
}

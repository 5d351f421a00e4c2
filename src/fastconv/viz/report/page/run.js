// One run in full: figures, curves, what was watched, hyperparameters, filters.

function table(pairs, caption) {
  const row = (key, value) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, figure(value)));
  const rows = Object.entries(pairs).map(([key, value]) => row(key, value));
  return el("table", { "aria-label": caption }, el("tbody", {}, ...rows));
}

function figures(pairs) {
  return el("dl", { class: "figures" },
    ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function curves(title, x, columns, { log = false, percents = false } = {}) {
  const traces = () => columns.filter(([, column]) => hasFigures(column)).map(([name, column, dash], i) => ({
    x, y: column, name, type: "scatter", mode: x.length > 40 ? "lines" : "lines+markers",
    line: { ...lineOf(i), dash: dash ?? "solid" },
  }));
  if (!columns.some(([, column]) => hasFigures(column))) return null;
  return chart(title, () => [traces(), {
    xaxis: epochAxis(x.length),
    yaxis: { type: log ? "log" : "linear", tickformat: percents ? ".0%" : "" },
  }]);
}

function watched(title, steps, columns, { note = "", log = false, share = false, band = null } = {}) {
  if (!columns || !Object.values(columns).some(hasFigures)) return null;
  const shapes = () => (band ? [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: band[0], y1: band[1], line: { width: 0 },
    fillcolor: colour("learning"), opacity: 0.13, layer: "below" }] : []);
  const many = Object.keys(columns).length > 16;
  return chart(title, () => [lines(steps.step, columns), {
    xaxis: { title: { text: "step" } },
    yaxis: {
      type: log ? "log" : "linear", exponentformat: "power",
      rangemode: share ? "tozero" : "normal", tickformat: share ? ".0%" : "",
    },
    shapes: shapes(), hovermode: many ? "closest" : "x unified", ...(many ? { showlegend: false } : {}),
  }], { note: many ? note + " Shades run from the first layer to the last." : note });
}

const FIGURES = {
  mean: ["Activations: mean", ""],
  std: ["Activations: standard deviation", "Wanted: neither vanishing nor exploding from layer to layer."],
  zeros: ["Activations: share of zeros", ""], saturated: ["Activations: share saturated", ""],
  dead: ["Dead units: share", "Units that answer no image at all learn no more."],
};

function filtersPanel(filters) {
  if (!filters) return null;
  const title = el("h3", {}, "First-layer filters");
  if (filters.error) return el("section", { class: "panel" }, title, el("p", { class: "note" }, filters.error));
  const times = Math.max(1, Math.min(24, Math.floor(400 / Math.max(filters.width, filters.height))));
  return el("section", { class: "panel" }, title,
    el("img", { class: "filters", src: filters.uri, width: filters.width * times, height: filters.height * times,
      alt: `${filters.shown} filters of ${filters.layer}` }),
    el("p", { class: "note" }, `${filters.layer}, shape ${filters.shape.join("×")}; ${filters.shown} shown, `
      + "each with its own contrast, 0 is grey."));
}

// ---- the test: classes, confusions, the worst mistakes

function classesTable(rows) {
  const head = ["class", "images", "right", "precision", "recall"];
  const share = (value) => (value === null ? "–" : percent(value));
  return el("table", { "aria-label": "Classes" },
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([name, images, right, precision, recall]) => el("tr", {},
      el("th", { scope: "row" }, name),
      ...[figure(images), figure(right), share(precision), share(recall)].map((text) => el("td", {}, text))))));
}

function confusionTable(counts, names) {
  const most = Math.max(1, ...counts.flatMap((row, i) => row.filter((_, j) => i !== j)));
  const cell = (count, hit, text) => {
    const node = el("td", { class: hit ? "hit" : "", title: text }, count ? figure(count) : "");
    if (!hit) node.style.setProperty("--share", `${Math.round((70 * count) / most)}%`);
    return node;
  };
  return el("div", { class: "scroll" }, el("table", { class: "confusion", "aria-label": "Confusion" },
    el("thead", {}, el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col" }, el("span", {}, name))))),
    el("tbody", {}, ...counts.map((row, i) => el("tr", {}, el("th", { scope: "row" }, names[i]),
      ...row.map((count, j) => cell(count, i === j, `${names[i]}, taken for ${names[j]}`)))))));
}

function testPanels(test) {
  if (!test) return [];
  const panel = (title, ...parts) => el("section", { class: "panel" }, el("h3", {}, title), ...parts);
  if (test.error) return [panel("Test", el("p", { class: "note" }, test.error))];
  const names = test.rows.map(([name]) => name);
  const picture = (mistake) => el("figure", {},
    el("img", { src: mistake.uri, width: mistake.width, height: mistake.height, title: mistake.image,
      alt: `${mistake.image}: ${mistake.label}, taken for ${mistake.taken}` }),
    el("figcaption", {}, el("b", {}, mistake.label), ` taken for ${mistake.taken}, ${percent(mistake.chance)}`));
  return [
    panel("Test: precision and recall", el("div", { class: "scroll" }, classesTable(test.rows))),
    test.confusion && panel("Test: which class is taken for which", confusionTable(test.confusion, names),
      el("p", { class: "note" }, "A row is a class, a column what its images were taken for.")),
    test.worst.length ? panel("Test: the worst mistakes", el("div", { class: "mistakes" }, ...test.worst.map(picture)))
      : null,
  ];
}

function eventsPanel(events) {
  if (!events.length) return null;
  return el("section", { class: "panel" }, el("h3", {}, "What happened"), el("table", { "aria-label": "Events" },
    el("thead", {}, el("tr", {}, ...["step", "event", ""].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...events.map((event) => el("tr", {}, ...event.map((value) => el("td", {}, figure(value))))))));
}

function optionsPanel(run, detail) {
  const more = [["Result", detail.result], ["More of the configuration", detail.config], ["Environment", detail.env]];
  return el("section", { class: "panel" }, el("h3", {}, "Hyperparameters"), table(run.options, "Hyperparameters"),
    ...more.filter(([, pairs]) => Object.keys(pairs).length)
      .map(([title, pairs]) => el("details", {}, el("summary", {}, title), table(pairs, title))));
}

function showRun() {
  const run = named.get(state.run), node = byId("run");
  const back = backLink();
  if (!run) {
    node.replaceChildren(back, el("h2", { tabIndex: -1 }, "No such run"), el("p", {}, state.run));
    return;
  }
  const order = shown(), at = order.indexOf(run);
  const to = (other, text) => (other ? runLink(other, text) : null);
  const head = [
    el("div", { class: "head" }, back, to(order[at - 1], "↑ previous"), at >= 0 ? to(order[at + 1], "↓ next") : null),
    el("div", { class: "head" }, el("h2", { class: "name", tabIndex: -1 }, run.name), badge(run.health), pickBox(run)),
    el("p", {}, run.reason),
  ];
  if (run.health === "damaged") {
    node.replaceChildren(...head);
    return;
  }
  if (run.ended && run.ended !== run.reason) head.push(el("p", { class: "note" }, `${run.status}: ${run.ended}`));
  const { epochs, steps, ...detail } = detailOf(run), x = epochs.epoch ?? (epochs.loss ?? []).map((_, i) => i + 1);
  const anyPenalty = (epochs.penalty ?? []).some(Boolean);
  const isPositive = (column) => column.every((value) => value === null || value > 0);
  const panels = [
    curves("Loss", x, [["validation", epochs.validation_loss], ["training", epochs.loss, "dash"],
      ["penalty", anyPenalty ? epochs.penalty : null, "dot"]], { log: true }),
    curves("Accuracy", x, [["validation", epochs.validation_accuracy], ["training", epochs.accuracy, "dash"]],
      { percents: true }),
    ...testPanels(detail.test),
    filtersPanel(detail.filters),
    eventsPanel(detail.events),
    optionsPanel(run, detail),
    watched("Loss at steps", steps, { loss: steps.loss }, { log: true }),
    hasFigures(steps.lr) ? watched("Learning rate", steps, { lr: steps.lr }, { log: isPositive(steps.lr) })
      : curves("Learning rate", x, [["learning rate", epochs.lr]]),
    watched("Update ratio: |update| / |weights|", steps, detail.update_ratio,
      { log: true, band: [3e-4, 3e-3], note: "Wanted: about 1e-3 (the band)." }),
    watched("Gradient norm", steps, detail.grad_norm, { log: true }),
    ...Object.entries(detail.activations).map(([key, columns]) => watched(FIGURES[key][0], steps, columns,
      { note: FIGURES[key][1], log: key === "std", share: !["mean", "std"].includes(key) })),
  ];
  node.replaceChildren(...head, figures([
    ["best validation accuracy", percent(run.accuracy)], ["best validation loss", figure(run.loss)],
    ["test accuracy", percent(run.test_accuracy)], ["epochs", figure(run.epochs)],
    ["training time", duration(run.seconds)], ["status", run.status],
  ]), el("div", { class: "panels" }, ...panels.filter(Boolean)));
}

function pickBox(run) {
  if (run.health === "damaged") return null;
  const box = el("input", { type: "checkbox", checked: state.picks.has(run.name) });
  box.addEventListener("change", () => choose(run, box.checked));
  return el("label", { class: "check" }, box, " compare");
}

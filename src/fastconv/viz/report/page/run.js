// One run in full: figures, curves, test, filters, what was watched, hyperparameters.

const TIMES = ["epoch", "steps", "lr", "penalty", "seconds", "step_ms", "images_per_second", "gradient_norm", "clipped"];

function pairs(entries, caption) {
  const row = ([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, figure(value)));
  return el("dl", { class: "pairs", "aria-label": caption }, ...entries.map(row));
}

function figures(list) {
  return el("dl", { class: "figures" },
    ...list.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function curves(title, x, columns, { log = false, percents = false } = {}) {
  const some = columns.filter(([, column]) => hasFigures(column));
  if (!some.length) return null;
  const mode = x.length > 40 ? "lines" : "lines+markers", positive = some.every(([, c]) => c.every((v) => v === null || v > 0));
  return chart(title, () => [some.map(([name, column, dash], i) => ({
    x, y: column, name, type: "scatter", mode, line: { ...lineOf(i), dash: dash ?? "solid" },
  })), {
    xaxis: epochAxis(x.length),
    yaxis: { type: log && positive ? "log" : "linear", tickformat: percents ? ".0%" : "" },
  }]);
}

/** All figures that epochs have, training and validation together: loss and accuracy first. */
function epochFigures(epochs) {
  const names = Object.keys(epochs).map((key) => key.replace(/^validation_/, "")).filter((name) => !TIMES.includes(name));
  return [...new Set(["loss", "accuracy", ...names])]
    .filter((name) => hasFigures(epochs[name]) || hasFigures(epochs["validation_" + name]));
}
const headline = (name) => name[0].toUpperCase() + titleOf(name).slice(1);

function epochPanels(epochs, x) {
  return epochFigures(epochs).map((name) => curves(headline(name), x, [
    ["validation", epochs["validation_" + name]],
    ["training", hasFigures(epochs["validation_" + name]) || ["loss", "accuracy"].includes(name) ? epochs[name] : null, "dash"],
    ["penalty", name === "loss" && (epochs.penalty ?? []).some(Boolean) ? epochs.penalty : null, "dot"],
  ], { log: name === "loss", percents: name === "accuracy" || kindOf(name) === "share" }));
}

function eventsPanel(events) {
  if (!events.length) return null;
  return panel("What happened", el("div", { class: "scroll" }, el("table", { "aria-label": "Events" },
    el("thead", {}, el("tr", {}, ...["step", "event", ""].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...events.map((event) => el("tr", {}, ...event.map((value) => el("td", {}, figure(value)))))))));
}

function optionsPanel(options, detail) {
  const entries = Object.entries(options), given = entries.filter(([, value]) => value !== null);
  const unset = entries.filter(([, value]) => value === null).map(([key]) => key);
  const more = [["Result", detail.result], ["More of the configuration", detail.config], ["Environment", detail.env]];
  return widePanel("Hyperparameters", pairs(given, "Hyperparameters"), unset.length ? note("Not set: " + unset.join(", ")) : null,
    ...more.filter(([, some]) => Object.keys(some).length)
      .map(([title, some]) => el("details", {}, el("summary", {}, title), pairs(Object.entries(some), title))));
}

/** Panels made of data alone, each kept where its data are the same. */
const still = (key, data, make) => [keep(key, data, () => el("div", { class: "contents" }, ...[make()].flat().filter(Boolean)))];

function runPanels(run, detail) {
  const { epochs, steps } = detail, x = epochs.epoch ?? (epochs.loss ?? []).map((_, i) => i + 1);
  const varies = (column) => new Set((column ?? []).filter(known)).size > 1; // else it is said among the hyperparameters
  const isPositive = (column) => column.every((value) => value === null || value > 0);
  const more = { result: detail.result, config: detail.config, env: detail.env };
  return [
    ...epochPanels(epochs, x),
    ...still("options", [run.options, more], () => optionsPanel(run.options, more)),
    ...still("test", detail.test, () => testPanels(detail.test)),
    ...still("events", detail.events, () => eventsPanel(detail.events)),
    ...still("filters", detail.filters, () => filtersPanel(detail.filters)),
    watched("Loss at steps", steps, { loss: steps.loss }, { log: isPositive(steps.loss) }),
    varies(steps.lr) ? watched("Learning rate", steps, { lr: steps.lr }, { log: isPositive(steps.lr) })
      : curves("Learning rate", x, [["learning rate", varies(epochs.lr) ? epochs.lr : null]]),
    watched("Update ratio: |update| / |weights|", steps, detail.update_ratio,
      { log: true, band: [3e-4, 3e-3], about: "Wanted: about 1e-3 (the band)." }),
    watched("Gradient norm", steps, detail.grad_norm, { log: true }),
    curves("Gradient norm before clipping", x, [["gradient norm", epochs.gradient_norm]], { log: true }),
    ...activationPanels(steps, detail.activations),
  ];
}

function showRun() {
  const run = named.get(state.run), node = byId("run"), list = shown(), at = list.indexOf(run);
  const to = (other, text) => (other ? keep("to " + text, other.name, () => runLink(other, text)) : null);
  const back = runs.length > 1 || !run ? keep("back", 0, backLink) : null;
  const ways = arrange(keep("ways", 0, () => el("div", { class: "head" })),
    [back, to(list[at - 1], "↑ previous"), at >= 0 ? to(list[at + 1], "↓ next") : null]);
  const title = keep("title", run?.name, () => el("h2", { class: "name", tabIndex: -1 }, run ? run.name : "No such run"));
  if (!run) {
    arrange(node, [ways, title, note(state.run)]);
    return;
  }
  const head = arrange(keep("head", 0, () => el("div", { class: "head" })), [
    title, keep("badge", run.health, () => badge(run.health)),
    runs.length > 1 ? keep("pick", [run.health, state.picks.has(run.name)], () => pickBox(run)) : null,
  ]);
  const ended = run.ended && run.ended !== run.reason ? `${run.status}: ${run.ended}` : "";
  const texts = keep("texts", [run.reason, ended], () => el("div", {}, el("p", {}, run.reason), ended ? note(ended) : null));
  const detail = details.get(run.id);
  if (run.health === "damaged" || !detail?.epochs) {
    arrange(node, [ways, head, texts]);
    return;
  }
  const list2 = [
    ...figureNames().filter(([name]) => known(best(run, name)))
      .map(([name]) => ["best validation " + titleOf(name), figureText(name, best(run, name))]),
    ["test accuracy", percent(run.test_accuracy)],
    ...(detail.test?.figures ? [["test R²", figure(detail.test.figures.r2, 4)], ["test mean absolute error", figure(detail.test.figures.mae, 4)]] : []),
    ["training loss", figure(run.training_loss, 4)],
    ["epochs", figure(run.epochs)], ["training time", duration(run.seconds)], ["status", run.status],
  ].filter(([, value]) => value !== "–");
  const box = keep("panels", 0, () => el("div", { class: "panels" }));
  arrange(node, [ways, head, texts, keep("figures", list2, () => figures(list2)), box]);
  arrange(box, runPanels(run, detail));
}

function pickBox(run) {
  if (run.health === "damaged") return el("span");
  const box = el("input", { type: "checkbox", checked: state.picks.has(run.name) });
  box.addEventListener("change", () => choose(named.get(run.name), box.checked));
  return el("label", { class: "check" }, box, " compare");
}

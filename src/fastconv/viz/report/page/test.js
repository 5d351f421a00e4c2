// What a test told of a run: classes, confusions, the worst mistakes; or how far predicted numbers are off.

function classesTable(rows, samples) {
  const pixels = samples === "pixels", head = ["class", samples, "right", "precision", "recall", ...(pixels ? ["IoU"] : [])];
  const share = (value) => (value === null ? "–" : percent(value));
  return el("table", { "aria-label": "Classes" },
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([name, count, right, precision, recall, iou]) => el("tr", {},
      el("th", { scope: "row" }, name),
      ...[figure(count), figure(right), share(precision), share(recall), ...(pixels ? [share(iou)] : [])]
        .map((text) => el("td", {}, text))))));
}

function confusionTable(counts, names) {
  const most = Math.max(1, ...counts.flatMap((row, i) => row.filter((_, j) => i !== j)));
  const cell = (count, hit, text) => {
    const node = el("td", { class: hit ? "hit" : "", title: text }, count ? figure(count) : "");
    if (!hit) node.style.setProperty("--share", `${Math.round((70 * count) / most)}%`);
    return node;
  };
  return el("table", { class: "confusion", "aria-label": "Confusion" },
    el("thead", {}, el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col" }, el("span", {}, name))))),
    el("tbody", {}, ...counts.map((row, i) => el("tr", {}, el("th", { scope: "row" }, names[i]),
      ...row.map((count, j) => cell(count, i === j, `${names[i]}, taken for ${names[j]}`))))));
}

function mistakePicture(mistake, samples) {
  const row = samples === "rows";  // of which there is no picture
  return el("figure", {},
    row ? null : el("img", { src: mistake.uri, width: mistake.width, height: mistake.height, title: mistake.image,
      alt: `${mistake.image}: ${mistake.label}, taken for ${mistake.taken}` }),
    el("figcaption", {}, row ? `${mistake.image}: ` : "", el("b", {}, mistake.label),
      ` taken for ${mistake.taken}, ${percent(mistake.chance)}` + (samples === "pixels" ? " of the pixels wrong" : "")));
}

const NUMBERS = [["r2", "R²"], ["mae", "mean absolute error"], ["rmse", "root mean square error"], ["bias", "mean error"],
  ["mae_of_mean", "error of always the mean"]];

function worstRows(rows) {
  return el("table", { "aria-label": "Worst rows" },
    el("thead", {}, el("tr", {}, ...["test row", "true", "predicted", "off by"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([name, right, said]) => el("tr", {}, el("th", { scope: "row" }, name),
      ...[right, said, said - right].map((value) => el("td", {}, figure(value, 4)))))));
}

function numberPanels({ target, count, figures: found, true: right, predicted, worst }) {
  const points = (x, y) => ({ x, y, type: "scatter", mode: "markers", name: target, showlegend: false,
    marker: { color: lineOf(0).color, size: 5, opacity: right.length > 400 ? 0.4 : 0.8 } });
  const rule = (x, y) => ({ x, y, type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
    line: { color: colour("faint"), width: 1 } });
  const all = [...right, ...predicted], ends = [Math.min(...all), Math.max(...all)], name = literal(target);
  const some = right.length < count ? ` ${figure(right.length)} of ${figure(count)} rows are drawn.` : "";
  return [
    chart("Test: predicted against true", () => [[rule(ends, ends), points(right, predicted)],
      { hovermode: "closest", xaxis: { title: { text: `${name}, true` } }, yaxis: { title: { text: "predicted" } } }],
    { about: "Points on the line are right." + some }),
    chart("Test: errors", () => [[rule(ends, [0, 0]), points(predicted, predicted.map((value, i) => value - right[i]))],
      { hovermode: "closest", xaxis: { title: { text: `${name}, predicted` } }, yaxis: { title: { text: "predicted − true" } } }],
    { about: "Wanted: no pattern around 0." }),
    panel("Test: how far numbers are off", pairs(NUMBERS.map(([key, text]) => [text, figure(found[key], 4)]), "Test"),
      worst.length ? el("div", { class: "scroll" }, worstRows(worst)) : null),
  ];
}

function testPanels(test) {
  if (!test) return [];
  if (test.error) return [panel("Test", note(test.error))];
  if (test.target !== undefined) return numberPanels(test);
  const scroll = (...parts) => el("div", { class: "scroll" }, ...parts), names = test.rows.map(([name]) => name);
  return [
    test.confusion === null ? null : panel("Test: which class is taken for which", scroll(confusionTable(test.confusion, names)),
      note(`A row is a class, a column what its ${test.samples} were taken for.`)),
    panel("Test: precision and recall", scroll(classesTable(test.rows, test.samples))),
    test.worst.length
      ? widePanel("Test: the worst mistakes",
        el("div", { class: test.samples === "pixels" ? "mistakes wide" : "mistakes" },
          ...test.worst.map((one) => mistakePicture(one, test.samples))),
        test.samples === "pixels" ? note("The image, its mask, and the mask that the net gives; pale yellow is of no class.") : null) : null,
  ].filter(Boolean);
}

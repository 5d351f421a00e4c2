// The small curves of cards: x is the epoch, y the logarithm of the loss where all losses are positive.

const WIDTH = 240, HEIGHT = 84, EDGE = 6;
const losses = (list) => list.flatMap((run) => [...(run.curve.loss ?? []), ...(run.curve.validation ?? [])]).filter(known);
const hasCurve = (run) => losses([run]).length > 0;

/** Bottom and top of the scale that runs share: up to three times what they start from, exploded ones leave it. */
function scaleOf(list) {
  const values = losses(list).sort((a, b) => a - b);
  if (!values.length) return null;
  const starts = list.map((run) => (run.curve.loss ?? []).find(known)).filter(known).sort((a, b) => a - b);
  const start = starts.length ? starts[starts.length >> 1] : values[values.length - 1];
  const top = list.length > 1 ? Math.min(values[values.length - 1], 3 * Math.abs(start)) : values[values.length - 1];
  const bottom = Math.min(values[Math.floor(values.length / 100)], top);
  return { log: values[0] > 0, bottom: rounded(bottom, Math.floor), top: rounded(top, Math.ceil) };
}

/** To two digits, so that a scale seldom moves while runs go on. */
function rounded(value, round) {
  if (!value) return 0;
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 1);
  return round(value / unit + (round === Math.floor ? 1e-9 : -1e-9)) * unit;
}

/** How far up a value stands, 0 to 1; what lies beyond the top sticks out. */
function height({ log, bottom, top }, value) {
  const of = (v) => (log ? Math.log(v) : v);
  return (of(Math.max(value, bottom)) - of(bottom)) / (of(top) - of(bottom) || 1);
}
const across = (epoch, epochs) => {
  const first = epochs[0] ?? 1, last = epochs[epochs.length - 1] ?? 1;
  return last > first ? (epoch - first) / (last - first) : 0.5;
};

function pathOf(curve, column, scale) {
  let path = "", pen = "M";
  column.forEach((value, i) => {
    if (!known(value)) { pen = "M"; return; }
    const x = EDGE + (WIDTH - 2 * EDGE) * across(curve.epoch[i] ?? i + 1, curve.epoch);
    const y = EDGE + (HEIGHT - 2 * EDGE) * (1 - height(scale, value));
    path += pen + x.toFixed(1) + " " + Math.max(y, 1).toFixed(1);
    // a point alone is a short stroke
    if (pen === "M" && !known(column[i + 1])) path += "h.1";
    pen = "L";
  });
  return path;
}

/** At most five round values between bottom and top. */
function ticksOf({ log, bottom, top }) {
  if (!(top > bottom)) return [top];
  const few = (list) => list.filter((_, i) => i % Math.ceil(list.length / 5) === 0);
  if (!log) {
    const unit = 10 ** Math.floor(Math.log10(top - bottom)), step = [0.2, 0.5, 1].find((s) => (top - bottom) / (s * unit) <= 5) * unit;
    const first = Math.ceil(bottom / step);
    return Array.from({ length: Math.floor(top / step) - first + 1 }, (_, i) => (first + i) * step);
  }
  const low = Math.floor(Math.log10(bottom)), count = Math.ceil(Math.log10(top)) - low + 1;
  const decades = Array.from({ length: count }, (_, i) => 10 ** (low + i));
  const inside = (list) => list.filter((v) => v >= bottom * 0.999 && v <= top * 1.001);
  const tens = inside(decades);
  return tens.length > 2 ? few(tens) : few(inside(decades.flatMap((d) => [d, 2 * d, 5 * d])));
}

function curveText(run) {
  const seen = (run.curve.loss ?? []).filter(known);
  if (!seen.length) return "no training loss recorded";
  return `training loss from ${figure(seen[0])} to ${figure(seen[seen.length - 1])} in ${plural(run.epochs, "epoch")}`;
}

/** The curve of a card; a large one has axes. */
function drawCurve(run, scale, large) {
  const { curve } = run, epochs = curve.epoch ?? [];
  const picture = svg("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    role: "img", "aria-label": curveText(run) });
  const top = (share) => (EDGE + (HEIGHT - 2 * EDGE) * (1 - share)) / HEIGHT;
  const ticks = large ? ticksOf(scale) : [];
  for (const value of ticks) {
    picture.append(svg("path", { class: "tick", d: `M0 ${(HEIGHT * top(height(scale, value))).toFixed(1)}h${WIDTH}` }));
  }
  picture.append(svg("path", { class: "training", d: pathOf(curve, curve.loss, scale) }),
    svg("path", { class: "validation", d: pathOf(curve, curve.validation, scale) }));
  const tall = large ? 6 : 10; // a large curve is stretched
  const cross = `M${WIDTH - 18} 6l10 ${tall}m0-${tall}l-10 ${tall}`;
  if (run.health === "exploded") picture.append(svg("path", { class: "lost", d: cross }));
  if (!large) return picture;
  const up = ticks.map((value) => {
    const label = el("span", {}, figure(value, 2));
    label.style.top = 100 * top(height(scale, value)) + "%";
    return label;
  });
  const ends = [...new Set([epochs[0], epochs[(epochs.length - 1) >> 1], epochs[epochs.length - 1]])].filter(known);
  const along = ends.map((epoch) => {
    const label = el("span", {}, figure(epoch));
    label.style.left = (100 * (EDGE + (WIDTH - 2 * EDGE) * across(epoch, epochs))) / WIDTH + "%";
    return label;
  });
  return el("div", { class: "axes" }, el("div", { class: "up", "aria-hidden": "true" }, ...up), picture,
    el("div", { class: "along", "aria-hidden": "true" }, ...along), el("div", { class: "unit", "aria-hidden": "true" }, "epoch"));
}

// Parallel coordinates: an axis for each option that differs and one for the figure; a line is a run.

const TALL = 300, TOP = 44, AXES = 9;
let showRanges = () => {};
const ranges = new Map(); // axis: [low, high] of what is chosen, as shares of its height

function parallelAxes(list, name) {
  const keys = differing().filter((key) => {
    const values = new Set(list.map((run) => option(run, key)));
    return values.size > 1 && ([...values].every((v) => known(v) || v === null || v === undefined) || values.size <= 12);
  });
  return [...keys.slice(0, AXES - 1), "="].map((key) => {
    const values = list.map((run) => valueAt(run, key, name)), figures = values.filter(known);
    if (figures.length && values.every((v) => known(v) || v === null || v === undefined)) {
      const axis = key === "=" ? { place: (v) => v, log: false } : axisOf(key, figures), places = figures.map(axis.place);
      const of = (v) => (axis.log ? Math.log10(axis.place(v)) : v), ends = [Math.min(...places), Math.max(...places)];
      const low = of(ends[0]), span = of(ends[1]) - low || 1, text = (v) => (key === "=" ? figureText(name, v) : figure(v, 3));
      const few = [...new Set(figures)], some = few.length < 5 ? few : [...ends, (ends[0] + ends[1]) / 2];
      const ticks = axis.log ? axis.layout.tickvals.map((v, i) => [v, axis.layout.ticktext[i]]) : some.map((v) => [v, text(v)]);
      return { key, at: (v) => (known(v) ? (of(v) - low) / span : null),
        ticks: ticks.map(([v, t]) => [(of(v) - low) / span, t]).filter(([s]) => s > -0.01 && s < 1.01) };
    }
    const words = [...new Set(values.map((v) => figure(v)))].sort(naturally);
    const at = (v) => (words.length > 1 ? words.indexOf(figure(v)) / (words.length - 1) : 0.5);
    return { key, at, ticks: words.map((word) => [at(word), word]) };
  });
}

function parallelPanel(all, name) {
  const list = all.filter((run) => run.health !== "damaged");
  if (list.length < 2) return null;
  const marks = list.map((run) => [run.id, run.name, run.options, best(run, name)]);
  return keep("parallel", [marks, name, isDark()], () => {
    const box = el("div", { class: "parallel" }), label = el("p", { class: "note", role: "status" });
    const draw = () => drawParallel(box, label, list, name);
    new ResizeObserver(draw).observe(box);
    return widePanel("Parallel coordinates", box, label);
  });
}

function drawParallel(box, label, list, name) {
  const wide = Math.max(box.clientWidth, 90 * parallelAxes(list, name).length), axes = parallelAxes(list, name);
  const x = (i) => 60 + ((wide - 130) * i) / Math.max(1, axes.length - 1), y = (share) => TOP + TALL * (1 - share);
  const ends = list.map((run) => best(run, name)).filter(known), low = Math.min(...ends), span = Math.max(...ends) - low || 1;
  const better = kindOf(name) === "lower" ? (share) => 1 - share : (share) => share;
  const drawn = list.map((run) => {
    const points = axes.map(({ key, at }, i) => [x(i), at(valueAt(run, key, name))]).filter(([, share]) => share !== null)
      .map(([px, share]) => [px, y(share)]);
    const path = svg("path", { d: points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("") });
    if (known(best(run, name))) path.style.stroke = shade(better((best(run, name) - low) / span));
    return { run, points, path };
  }).sort((a, b) => (best(a.run, name) ?? -Infinity) - (best(b.run, name) ?? -Infinity));
  const picture = svg("svg", { width: wide, height: TOP + TALL + 16, role: "img",
    "aria-label": `${list.length} runs over ${axes.length} axes; the table has the same figures` }, ...drawn.map(({ path }) => path));
  const parts = axes.map((axis, i) => axisGroup(axis, x(i), y, name, filter));
  picture.append(...parts.map(({ group }) => group));
  showRanges = () => {
    for (const { show } of parts) show();
    filter();
  };
  function inside({ run }) {
    return axes.every(({ key, at }) => {
      const range = ranges.get(key), share = at(valueAt(run, key, name));
      return !range || (share !== null && share >= range[0] - 1e-9 && share <= range[1] + 1e-9);
    });
  }
  function filter() {
    let count = 0;
    for (const line of drawn) {
      const on = inside(line);
      count += on;
      line.path.classList.toggle("out", !on);
    }
    say(count < list.length ? `${count} of ${list.length} runs; click an axis to take its range away.` : "");
  }
  const say = (text) => { label.textContent = text || "A line is a run; click it. Drag along an axis to choose a range of it."; };
  let near = null;
  const pointAt = (event) => {
    const area = picture.getBoundingClientRect(), some = drawn.filter((line) => !line.path.classList.contains("out"));
    const found = nearest(some, event.clientX - area.left, event.clientY - area.top);
    if (found === near) return;
    near?.path.classList.remove("near");
    near = found;
    near?.path.classList.add("near");
    if (near) label.textContent = `${near.run.name}: ${titleOf(name)} ${figureText(name, best(near.run, name))}`;
    else filter();
  };
  picture.addEventListener("pointermove", pointAt);
  picture.addEventListener("click", (event) => {
    pointAt(event); // a finger has not moved there
    if (near && !event.target.closest(".axis")) change({ view: "run", run: near.run.name });
  });
  box.replaceChildren(picture);
  filter();
}

/** The line that passes a point most closely, if it is within 8 pixels. */
function nearest(drawn, px, py) {
  let found = null, least = 8;
  for (const line of drawn) {
    const i = line.points.findIndex(([at]) => at >= px);
    if (i < 1) continue;
    const [[x0, y0], [x1, y1]] = [line.points[i - 1], line.points[i]];
    const away = Math.abs(y0 + ((y1 - y0) * (px - x0)) / (x1 - x0) - py) / Math.hypot(1, (y1 - y0) / (x1 - x0));
    if (away <= least) [found, least] = [line, away];
  }
  return found;
}

function axisGroup({ key, ticks }, x, y, name, filter) {
  const what = key === "=" ? titleOf(name) : key;
  const group = svg("g", { class: "axis" }), chosen = svg("rect", { class: "range", x: x - 7, width: 14, rx: 3 });
  const title = svg("text", { x, y: 18, "text-anchor": "middle", class: "title" }, shortText(what, 14));
  title.append(svg("title", {}, what));
  const hit = svg("rect", { class: "hit", tabindex: 0, role: "group", x: x - 14, width: 28, y: y(1) - 8, height: y(0) - y(1) + 16,
    "aria-label": `Range of ${what}: the keys up and down move its lower end, with shift its upper end` });
  group.append(svg("path", { d: `M${x} ${y(0)}V${y(1)}` }), chosen, title,
    ...ticks.map(([share, text]) => svg("text", { x: x + 6, y: y(share) + 4 }, shortText(text, 10))), hit);
  const show = () => {
    const range = ranges.get(key);
    chosen.setAttribute("visibility", range ? "visible" : "hidden");
    if (!range) return;
    chosen.setAttribute("y", y(range[1]));
    chosen.setAttribute("height", y(range[0]) - y(range[1]));
  };
  const shareAt = (event) => {
    const area = hit.getBoundingClientRect();
    return Math.min(1, Math.max(0, 1 - (event.clientY - area.top - 8) / (area.height - 16)));
  };
  let from = null;
  hit.addEventListener("pointerdown", (event) => {
    from = shareAt(event);
    hit.setPointerCapture(event.pointerId);
  });
  hit.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = shareAt(event);
    if (Math.abs(to - from) < 0.01) ranges.delete(key);
    else ranges.set(key, [Math.min(from, to), Math.max(from, to)]);
    show();
    filter();
  });
  hit.addEventListener("pointerup", (event) => {
    if (Math.abs(shareAt(event) - from) < 0.01) ranges.delete(key);
    from = null;
    show();
    filter();
  });
  hit.addEventListener("pointercancel", () => { from = null; });
  hit.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key], [low, high] = ranges.get(key) ?? [0, 1];
    if (!step) return;
    event.preventDefault();
    const next = event.shiftKey ? [low, Math.min(1, Math.max(low, high + step))] : [Math.max(0, Math.min(high, low + step)), high];
    if (next[0] > 0 || next[1] < 1) ranges.set(key, next);
    else ranges.delete(key);
    show();
    filter();
  });
  show();
  return { group, show };
}
const shortText = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

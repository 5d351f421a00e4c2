// What all parts share: elements made of text only, figures as text, the signs of health.

const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("page").textContent);

/** An element. Properties are set, never parsed; children that are strings become text. */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") node.className = value;
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const panel = (title, ...parts) => el("section", { class: "panel" }, el("h3", {}, title), ...parts);
const widePanel = (title, ...parts) => el("section", { class: "panel wide" }, el("h3", {}, title), ...parts);
const note = (...parts) => el("p", { class: "note" }, ...parts);

function selection(id, values, chosen, choose) {
  const select = el("select", { id }, ...values.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
  select.addEventListener("change", () => choose(select.value));
  return select;
}

// Each health has a colour, a shape and its name, so that none is told by colour alone.
const SHAPES = {
  "learning": "M8 1a7 7 0 1 0 .01 0z",
  "too slow": "M1 2h14l-7 13z",
  "exploded": "M3 1l5 5 5-5 2 2-5 5 5 5-2 2-5-5-5 5-2-2 5-5-5-5z",
  "overfitting": "M8 0l8 8-8 8-8-8z",
  "running": "M3 1l12 7-12 7z",
  "unknown": "M2 2h12v12h-12z",
  "damaged": "M1 1h14v14h-14zM4 4v8h8v-8z",
};
const HEALTHS = Object.keys(SHAPES);
const SYMBOLS = {
  "learning": "circle", "too slow": "triangle-down", "exploded": "x", "overfitting": "diamond",
  "running": "triangle-right", "unknown": "square",
};
const classOf = (health) => health.replace(" ", "-");

function badge(health, text = health) {
  const shape = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: SHAPES[health], "fill-rule": "evenodd" }));
  return el("span", { class: "health " + classOf(health) }, shape, text);
}

/** A link to a run; `showLinks` keeps where it leads. */
const runLink = (run, text = run.name) => el("a", { class: "name", href: "#", "data-run": run.name, title: run.name }, text);
const backLink = () => el("a", { class: "back", href: "#" }, "← all runs");

const known = (value) => typeof value === "number" && Number.isFinite(value);
const hasFigures = (column) => Array.isArray(column) && column.some(known);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const percent = (share) => (known(share) ? (100 * share).toFixed(2) + " %" : "–");
function figure(value, digits = 5) {
  if (value === null || value === undefined) return "–";
  if (!known(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const [digitsOf, power] = Number(value.toPrecision(digits)).toExponential().split("e");
  return power < -3 || power > 8 ? `${digitsOf}e${Number(power)}` : String(Number(value.toPrecision(digits)));
}
function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

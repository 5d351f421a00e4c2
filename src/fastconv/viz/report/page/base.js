// What all parts share: the data, elements made of text only, the state kept in the address.

const page = JSON.parse(document.getElementById("runs").textContent);
const byId = (id) => document.getElementById(id);

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
const option = (run, key) => (Object.hasOwn(run.options, key) ? run.options[key] : undefined);

const runs = page.runs.map((run, index) => ({
  ...run, index,
  words: [run.name, run.health, run.status, ...Object.entries(run.options).map(([key, value]) => key + "=" + value)]
    .join("\n").toLowerCase(),
}));
const named = new Map(runs.map((run) => [run.name, run]));

/** All option names, those in which the runs differ first, the rate and the penalty before all others. */
const differs = (key, among) => new Set(among.map((run) => JSON.stringify(option(run, key) ?? null))).size > 1;
function optionNames(among) {
  const names = [...new Set(among.flatMap((run) => Object.keys(run.options)))];
  const rank = (key) => (differs(key, among) ? 0 : 4) + Math.min(...["lr", "l2"].map((k, i) => (k === key ? i : 2)));
  return names.sort((a, b) => rank(a) - rank(b));
}

/** What a run keeps for its own page, parsed when asked for. */
const details = new Map();
function detailOf(run) {
  if (!details.has(run.index)) details.set(run.index, JSON.parse(byId("run-" + run.index).textContent));
  return details.get(run.index);
}

// The state lives behind the # of the address: it survives a reload, can be bookmarked, and "back" works.
const state = {};
function readState() {
  const at = new URLSearchParams(location.hash.slice(1));
  state.view = ["run", "compare", "search"].includes(at.get("view")) ? at.get("view") : "grid";
  state.run = at.get("run") ?? "";
  state.sort = at.get("sort") ?? "accuracy";
  state.filter = at.get("filter") ?? "";
  state.hidden = new Set(at.getAll("hide"));
  state.picks = new Set(at.getAll("pick").filter((name) => named.has(name) && named.get(name).health !== "damaged"));
  state.own = at.has("own");
  state.x = at.get("x") ?? "lr";
  state.y = at.get("y") ?? "l2";
}

/** The address of this state with some of it changed. */
function address(changes) {
  const to = { ...state, ...changes };
  const at = new URLSearchParams();
  if (to.view !== "grid") at.set("view", to.view);
  if (to.view === "run") at.set("run", to.run);
  if (to.sort !== "accuracy") at.set("sort", to.sort);
  if (to.filter) at.set("filter", to.filter);
  for (const health of to.hidden) at.append("hide", health);
  for (const name of to.picks) at.append("pick", name);
  if (to.own) at.set("own", "1");
  if (to.x !== "lr") at.set("x", to.x);
  if (to.y !== "l2") at.set("y", to.y);
  return "#" + at;
}

/** Change the state: a new view is a step in the browser's history, anything else is not. */
function change(changes) {
  if (changes.view !== undefined && changes.view !== state.view) location.hash = address(changes);
  else {
    history.replaceState(null, "", address(changes));
    route();
  }
}

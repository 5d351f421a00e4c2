// Plotly: started when the first chart is wanted, every text escaped for its own markup, redrawn on a change of theme.

function plotly() {
  if (!window.Plotly) document.head.append(el("script", { text: JSON.parse(byId("plotly").textContent) }));
  return window.Plotly;
}

/** Plotly reads a few tags and entities in text: take their meaning away. */
const literal = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const shortly = (text, most = 28) => literal(text.length > most ? text.slice(0, most - 1) + "…" : text);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

// Okabe and Ito's colours, told apart by all; dashes go on where they end.
const SERIES = () => (dark.matches
  ? ["#56b4e9", "#e69f00", "#35c79a", "#e394c6", "#f0e442", "#ff7a3d", "#8fa8ff", "#d0d4d9"]
  : ["#0072b2", "#c77700", "#00805c", "#a8478a", "#8a7a00", "#d0480a", "#3b3fa8", "#3d434b"]);
const DASHES = ["solid", "dash", "dot", "dashdot"];
const lineOf = (i) => ({ color: SERIES()[i % 8], dash: DASHES[Math.floor(i / 8) % 4], width: 2 });

function layoutOf(own) {
  const line = colour("line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 12 },
    margin: { l: 55, r: 12, t: 8, b: 40 }, hovermode: "x unified",
    hoverlabel: { bgcolor: colour("ground"), bordercolor: colour("line"), namelength: 40 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
  };
}

let charts = [];
/** A chart in a panel; `make` gives its traces and layout anew for each theme. */
function chart(title, make, { wide = false, note = "", onPoint = null } = {}) {
  const node = el("div", { class: "chart", role: "img", "aria-label": title });
  charts.push({ node, make, onPoint });
  return el("section", { class: "panel" + (wide ? " wide tall" : "") }, el("h3", {}, title), node,
    note ? el("p", { class: "note" }, note) : null);
}

/** Draw what `chart` has put on the page, one after the other, so that the first are seen and keys answer. */
async function drawCharts() {
  const mine = charts;
  delete document.body.dataset.drawn;
  for (const { node, make, onPoint } of mine) {
    await new Promise((next) => { setTimeout(next); });
    if (mine !== charts) return;
    const [traces, layout] = make();
    const full = layoutOf({ showlegend: traces.length > 1, ...layout });
    plotly().react(node, traces, full, { responsive: true, displaylogo: false });
    if (onPoint && !node.dataset.bound) {
      node.dataset.bound = "1";
      node.on("plotly_click", (event) => onPoint(event.points[0]));
    }
  }
  document.body.dataset.drawn = String(mine.length);
}

function clearCharts() {
  for (const { node } of charts) if (window.Plotly) window.Plotly.purge(node);
  charts = [];
}
dark.addEventListener("change", drawCharts);

/** Epochs are whole numbers. */
const epochAxis = (count) => ({ title: { text: "epoch" }, ...(count <= 12 ? { dtick: 1 } : {}) });

const hasFigures = (column) => Array.isArray(column) && column.some(known);

/** One line a name over steps, e.g. the ratios of all parameters; deep nets get shades from first to last layer. */
function lines(x, columns) {
  const names = Object.keys(columns).filter((name) => hasFigures(columns[name]));
  return names.map((name, i) => ({
    x, y: columns[name], name: shortly(name), type: "scatter",
    mode: x.length > 1 ? "lines" : "markers",
    line: names.length > 16 ? { color: shade(i / (names.length - 1)), width: 1.5 } : lineOf(i),
  }));
}

/** A point of the viridis colours, cut where they would not show on this ground. */
function shade(share) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = (dark.matches ? 0.25 + 0.75 * share : 0.85 * share) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return "rgb(" + stops[low].map((c, k) => Math.round(c + (at - low) * (stops[low + 1][k] - c))).join(",") + ")";
}

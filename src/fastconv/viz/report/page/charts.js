// Plotly: started when the first chart is wanted, every text escaped for its own markup, redrawn where data or theme differ.

let starting = null;
function plotly() {
  return starting ??= source.plotly().then((text) => {
    document.head.append(el("script", { text }));
    return window.Plotly;
  });
}

/** Plotly reads a few tags and entities in text: take their meaning away. */
const literal = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const shortly = (text, most = 28) => literal(text.length > most ? text.slice(0, most - 1) + "…" : text);
const BUTTONS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];
const coarse = matchMedia("(pointer: coarse)"); // a finger on a chart scrolls the page

function layoutOf(own) {
  const line = colour("line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 12 },
    margin: { l: 55, r: 12, t: 8, b: 40 }, hovermode: "x unified", uirevision: "keep", dragmode: coarse.matches ? false : "zoom",
    modebar: { bgcolor: "transparent", color: colour("faint"), activecolor: colour("text") },
    hoverlabel: { bgcolor: colour("ground"), bordercolor: colour("line"), namelength: 40 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
  };
}

const charts = new Map();
/** A chart in a panel, one a title; `make` gives its traces and layout. */
function chart(title, make, { wide = false, about = "", onPoint = null } = {}) {
  if (!charts.has(title)) {
    const node = el("div", { class: "chart", role: "img", "aria-label": title });
    charts.set(title, { node, text: note(), panel: null, drawn: "" });
  }
  const entry = charts.get(title);
  entry.panel ??= el("section", { class: "panel" + (wide ? " wide tall" : "") }, el("h3", {}, title), entry.node, entry.text);
  Object.assign(entry, { make, onPoint });
  entry.text.textContent = about;
  entry.text.hidden = !about;
  return entry.panel;
}

/** Draw what is on the page and not drawn yet, one after the other, so that the first are seen and keys answer. */
let drawing = 0;
async function drawCharts() {
  const mine = ++drawing;
  for (const [title, entry] of charts) if (!entry.node.isConnected) dropChart(title);
  for (const entry of [...charts.values()]) {
    const [traces, layout] = entry.make();
    const full = layoutOf({ showlegend: traces.length > 1, ...layout }), mark = JSON.stringify([traces, full]);
    if (entry.drawn === mark) continue;
    const library = await plotly();
    await new Promise((next) => { setTimeout(next); });
    if (mine !== drawing) return;
    library.react(entry.node, traces, full, { responsive: true, displaylogo: false, modeBarButtons: BUTTONS,
      ...(coarse.matches ? { displayModeBar: false } : {}) });
    if (!entry.drawn) entry.node.on("plotly_click", (event) => entry.onPoint?.(event.points[0]));
    entry.drawn = mark;
  }
  if (mine === drawing) document.body.dataset.drawn = String(charts.size);
}

function dropChart(title) {
  if (charts.get(title).drawn) window.Plotly.purge(charts.get(title).node);
  charts.delete(title);
}

/** Epochs are whole numbers. */
const epochAxis = (count) => ({ title: { text: "epoch" }, ...(count <= 12 ? { dtick: 1 } : {}) });

/** One line a name over steps, e.g. the ratios of all parameters; deep nets get shades from first to last layer. */
function lines(x, columns) {
  const names = Object.keys(columns).filter((name) => hasFigures(columns[name]));
  return names.map((name, i) => ({
    x, y: columns[name], name: shortly(name), type: "scatter",
    mode: x.length > 1 ? "lines" : "markers",
    line: names.length > 16 ? { color: shade(i / (names.length - 1)), width: 1.5 } : lineOf(i),
  }));
}

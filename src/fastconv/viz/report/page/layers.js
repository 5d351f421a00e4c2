// What was watched at single steps: a line for each layer or parameter.

const FIGURES = {
  mean: ["Activations: mean", ""],
  std: ["Activations: standard deviation", "Wanted: neither vanishing nor exploding from layer to layer."],
  zeros: ["Activations: share of zeros", ""], saturated: ["Activations: share saturated", ""],
  dead: ["Dead units: share", "Units that answer no image at all learn no more."],
};
const SHARES = ["zeros", "saturated", "dead"];

function watched(title, steps, columns, { about = "", log = false, share = false, band = null } = {}) {
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
  }], { about: many ? about + " Shades run from the first layer to the last." : about });
}

/** The figures of activations; of shares only the layers that have any, and none that is 0 everywhere. */
function activationPanels(steps, activations) {
  const none = [], panels = Object.entries(activations).map(([key, columns]) => {
    const share = SHARES.includes(key);
    const some = share ? Object.fromEntries(Object.entries(columns).filter(([, column]) => column.some(Boolean))) : columns;
    if (!Object.keys(some).length) {
      none.push(FIGURES[key][0].toLowerCase());
      return null;
    }
    const fewer = Object.keys(some).length < Object.keys(columns).length ? " Layers that have none are left out." : "";
    return watched(FIGURES[key][0], steps, some, { about: FIGURES[key][1] + fewer, log: key === "std", share });
  });
  const rest = none.length ? `Not drawn, since 0 in all layers and steps: ${none.join("; ")}.` : "";
  return [...panels, rest ? keep("none", rest, () => note(rest)) : null];
}

function filtersPanel(filters) {
  if (!filters) return null;
  const title = "First-layer filters";
  if (filters.error) return panel(title, note(filters.error));
  const times = Math.max(1, Math.min(24, Math.floor(400 / Math.max(filters.width, filters.height))));
  return panel(title,
    el("img", { class: "filters", src: filters.uri, width: filters.width * times, height: filters.height * times,
      alt: `${filters.shown} filters of ${filters.layer}` }),
    note(`${filters.layer}, shape ${filters.shape.join("×")}; ${filters.shown} shown, `
      + "each with its own contrast, 0 is grey."));
}

// Which view is shown, and when the page loads itself again.

const VIEWS = { grid: showGrid, run: showRun, compare: showCompare, search: showSearch };
let before = null;

function route() {
  const left = before;
  readState();
  before = { view: state.view, run: state.run };
  if (state.view !== "grid" && document.readyState === "loading") return; // details are still coming in
  const moved = left !== null && (left.view !== state.view || left.run !== state.run);
  clearCharts();
  for (const name of Object.keys(VIEWS)) byId(name).hidden = name !== state.view;
  VIEWS[state.view]();
  for (const link of document.querySelectorAll("nav a")) {
    link.href = address({ view: link.dataset.view });
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  showTray();
  document.title = (state.view === "run" ? state.run + " – " : "") + page.title;
  drawCharts();
  if (moved) focusOn(left);
}

/** Put the focus where reading goes on: at a view's heading, or back at the card one came from. */
function focusOn(left) {
  if (state.view !== "grid") {
    window.scrollTo(0, 0);
    byId(state.view).querySelector("h2")?.focus({ preventScroll: true });
  } else if (left.view === "run" && named.has(left.run)) cards.get(named.get(left.run)).open.focus();
}

function showTray() {
  const count = state.picks.size;
  byId("picked").textContent = count ? `(${count})` : "";
  byId("tray").hidden = !count || state.view !== "grid";
  const go = el("button", { type: "button", class: "main" }, `Compare ${count} run${count > 1 ? "s" : ""}`);
  go.addEventListener("click", () => change({ view: "compare" }));
  const clear = el("button", { type: "button" }, "Clear");
  clear.addEventListener("click", () => change({ picks: new Set() }));
  byId("tray").replaceChildren(go, clear);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.view !== "grid" && !(event.target instanceof HTMLSelectElement)) change({ view: "grid" });
});
window.addEventListener("hashchange", route);

byId("title").textContent = page.title;
byId("written").textContent = "as of " + page.written;
makeGrid();
readState();
if (state.view === "grid") route();
else document.addEventListener("DOMContentLoaded", route);
requestAnimationFrame(() => requestAnimationFrame(() => {
  performance.mark("ready"); // the first frame is on the screen and answers
  document.body.dataset.ready = "";
}));

if (page.reload) {
  const hold = el("input", { type: "checkbox", id: "hold" });
  byId("written").append(", read again every " + figure(page.reload) + " s ", el("label", { class: "check" }, hold, " hold"));
  const again = () => {
    const typing = document.activeElement === byId("filter");
    if (!hold.checked && !typing && !document.hidden) location.reload();
  };
  window.addEventListener("load", () => setInterval(again, 1000 * page.reload));
}

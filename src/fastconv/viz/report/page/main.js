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
  showLinks();
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

/** All that leads elsewhere takes the present state along. */
function showLinks() {
  for (const link of document.querySelectorAll("nav a")) {
    link.href = address({ view: link.dataset.view });
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const link of document.querySelectorAll("a[data-run]")) link.href = address({ view: "run", run: link.dataset.run });
  for (const link of document.querySelectorAll("a.back")) link.href = address({ view: "grid" });
  for (const { pick, card } of cards.values()) pick.checked = state.picks.has(card.dataset.run);
  showTray();
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
  const inList = event.target instanceof HTMLSelectElement;
  if (event.key === "Escape" && state.view !== "grid" && !inList) change({ view: "grid" });
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
  const label = el("label", { class: "check" }, hold, " hold");
  byId("written").append(`, read again every ${figure(page.reload)} s `, label);
  let touched = -Infinity; // not under somebody's hands, nor before everything is drawn
  for (const kind of ["pointermove", "pointerdown", "wheel", "keydown"]) {
    addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  }
  const again = () => {
    const busy = performance.now() - touched < 3000 || !("drawn" in document.body.dataset);
    if (!hold.checked && !busy && !document.hidden) location.reload();
  };
  window.addEventListener("load", () => setInterval(again, 1000 * page.reload));
}

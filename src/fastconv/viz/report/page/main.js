// Which view is shown, what the keys do, and how the page begins.

const VIEWS = { grid: showGrid, run: showRun, table: showTable, compare: showCompare, search: showSearch };
let before = null, showing = 0;

/** Show the view that the address names, its runs' details fetched first. */
async function show() {
  const mine = ++showing, left = before;
  delete document.body.dataset.drawn;
  readState();
  const list = state.view === "run" ? [named.get(state.run)] : state.view === "compare" ? [...state.picks].map((name) => named.get(name)) : [];
  try {
    await Promise.all(list.filter((run) => run && run.health !== "damaged").map(detailOf));
  } catch (error) {
    complain(error);
  }
  if (mine !== showing) return;
  before = { view: state.view, run: state.run };
  const moved = left !== null && (left.view !== state.view || left.run !== state.run);
  if (moved) {
    kept.clear();
    for (const title of [...charts.keys()]) dropChart(title);
  }
  for (const name of Object.keys(VIEWS)) byId(name).hidden = name !== state.view;
  byId("tools").hidden = !["grid", "table", "search"].includes(state.view);
  for (const node of document.querySelectorAll("#tools .grid")) node.hidden = state.view !== "grid";
  document.querySelector("nav").hidden = runs.length < 2;
  VIEWS[state.view]();
  showLinks();
  document.title = (state.view === "run" ? state.run + " – " : "") + page.title;
  drawCharts().catch(complain);
  if (moved) focusOn(left);
}

/** Put the focus where reading goes on: at a view's heading, or back at the card one came from. */
function focusOn(left) {
  if (state.view !== "grid") {
    window.scrollTo(0, 0);
    byId(state.view).querySelector("h2")?.focus({ preventScroll: true });
  } else if (left.view === "run" && named.has(left.run)) cards.get(named.get(left.run).id)?.open.focus();
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
  for (const { pick, run } of cards.values()) if (run) pick.checked = state.picks.has(run.name);
  const count = state.picks.size;
  byId("picked").textContent = count ? `(${count})` : "";
  byId("tray").hidden = !count || !["grid", "table"].includes(state.view);
  arrange(byId("tray"), [keep("tray", count, () => el("span", {},
    button("main", `Compare ${plural(count, "run")}`, { view: "compare" }), " ", button("", "Clear", { picks: new Set() })))]);
}

function button(kind, text, changes) {
  const made = el("button", { type: "button", class: kind }, text);
  made.addEventListener("click", () => change(changes));
  return made;
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.target instanceof HTMLSelectElement) return;
  if (ranges.size && state.view === "search") {
    ranges.clear();
    showRanges();
  } else if (state.view !== "grid" && runs.length > 1) change({ view: "grid" });
});
window.addEventListener("hashchange", show);

async function begin() {
  byId("title").textContent = page.title;
  if (!window.DecompressionStream) throw new Error("This browser is too old for this page: it has no DecompressionStream.");
  await look();
  await show();
  if (page.reload) keepReloading(page.reload);
  if (page.live) keepLooking(page.live);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    performance.mark("ready"); // the first frame is on the screen and answers
    document.body.dataset.ready = "";
  }));
}
begin().catch(complain);

// All runs as a table; a click on the head of a column sorts by it, another one the other way round.

function headOf(column, sorting) {
  const mine = column.key === sorting.column.key, up = mine && (column.sign === 1) !== sorting.turned;
  const button = keep("head " + column.key, column.title, () => {
    const made = el("button", { type: "button" }, column.title);
    made.addEventListener("click", () => {
      const now = order();
      change({ sort: now.column.key === column.key && !now.turned ? "-" + column.key : column.key });
    });
    return made;
  });
  const head = keep("column " + column.key, column.title, () => el("th", { scope: "col" }, button));
  if (mine) head.setAttribute("aria-sort", up ? "ascending" : "descending");
  else head.removeAttribute("aria-sort");
  return head;
}

function rowOf(run, all) {
  const cells = all.map((column) => column.text(run));
  return keep("row " + run.id, [cells, run.reason], () => el("tr", { title: run.reason }, ...all.map(({ key }, i) => {
    if (key === "name") return el("th", { scope: "row" }, runLink(run));
    return el("td", {}, key === "health" ? badge(run.health) : cells[i]);
  })));
}

/** A table of these runs with these columns, the one that is there already if there is one. */
function runsTable(list, all) {
  const sorting = order(columns());
  const head = keep("table head", 0, () => el("tr")), body = keep("table body", 0, () => el("tbody"));
  arrange(head, all.map((column) => headOf(column, sorting)));
  arrange(body, list.map((run) => rowOf(run, all)));
  return keep("table", 0, () => el("div", { class: "scroll tallest", tabIndex: 0, role: "region", "aria-label": "Runs" },
    el("table", { class: "lines", "aria-label": "Runs" }, el("thead", {}, head), body)));
}

function showTable() {
  const list = shown();
  showTools(list);
  arrange(byId("table"), [runsTable(list, columns())]);
}

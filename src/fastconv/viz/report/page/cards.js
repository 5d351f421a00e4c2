// The grid: a card and a curve for every run, large ones where the runs are few.

const FEW = 12;
const cards = new Map(); // of runs by their numbers

function cardOf(run) {
  if (!cards.has(run.id)) {
    const pick = el("input", { type: "checkbox", class: "pick", title: "compare" });
    pick.addEventListener("change", () => choose(numbered.get(run.id), pick.checked));
    cards.set(run.id, { card: el("li"), open: runLink(run), pick, curve: el("div"), low: el("div"), mark: null });
  }
  return cards.get(run.id);
}

/** The figure that runs are judged by; of a run without it, one that it has, by name. */
function figureOf(run) {
  const others = [[titleOf(run.usual ?? ""), run.usual ? figureText(run.usual, best(run, run.usual)) : "–"],
    ["test accuracy", percent(run.test_accuracy)], ["training loss", figure(run.training_loss, 4)]];
  const [name, text] = known(best(run, judged)) ? [`best validation ${titleOf(judged)}`, figureText(judged, best(run, judged))]
    : others.map(([other, value]) => [other, value === "–" ? "–" : `${other} ${value}`]).find(([, value]) => value !== "–") ?? ["", "–"];
  return el("span", { class: "figure", title: name }, text);
}

/** Put on a card what it has to show, where that is something else than it shows. */
function fillCard(run, about, scale, large) {
  const parts = cardOf(run), { card, open, pick, low } = parts;
  const mark = JSON.stringify([about, scale, large, judged]);
  if (parts.run === run && parts.mark === mark) return card;
  Object.assign(parts, { run, mark });
  const damaged = run.health === "damaged";
  card.className = "card " + classOf(run.health);
  card.dataset.run = run.name;
  card.title = run.reason;
  pick.setAttribute("aria-label", "Compare " + run.name);
  pick.hidden = damaged;
  parts.curve = scale && hasCurve(run) ? drawCurve(run, scale, large) : el("p", { class: "why" }, run.reason);
  const facts = about.filter((key) => (option(run, key) ?? null) !== null).map((key) => `${key} ${figure(option(run, key), 3)}`);
  const more = [plural(run.epochs ?? 0, "epoch"), duration(run.seconds), ...(run.status === run.health ? [] : [run.status])];
  low.replaceChildren(
    el("div", { class: "row" }, badge(run.health), damaged ? "" : figureOf(run)),
    el("p", { class: "about" }, damaged ? "" : facts.join(" · ")),
    ...(large && !damaged ? [el("p", { class: "about" }, more.join(" · "))] : []));
  arrange(card, [parts.head ??= el("div", { class: "row" }, open, pick), parts.curve, low]);
  return card;
}

function showLegend() {
  const counts = HEALTHS.map((health) => [health, runs.filter((run) => run.health === health).length]);
  arrange(byId("legend"), counts.filter(([, count]) => count).map(([health, count]) => {
    const button = keep("legend " + health, count, () => {
      const made = el("button", { type: "button", "data-health": health }, badge(health, `${health} ${count}`));
      made.addEventListener("click", () => {
        const hidden = new Set(state.hidden);
        if (!hidden.delete(health)) hidden.add(health);
        change({ hidden });
      });
      return made;
    });
    button.setAttribute("aria-pressed", String(!state.hidden.has(health)));
    return button;
  }));
}

/** What stands above cards, table and search: filter, order, how many. */
function showTools(list) {
  const all = columns(), { column, turned } = order(all);
  arrange(byId("sort"), all.map(({ key, title }) => keep("sort " + key, title, () => el("option", { value: key }, title))));
  byId("sort").value = column.key;
  byId("sort").title = turned ? "the other way round" : "";
  showLegend();
  byId("count").textContent = (list.length < runs.length ? `${list.length} of ` : "") + plural(runs.length, "run") + ".";
  if (document.activeElement !== byId("filter")) byId("filter").value = state.filter;
  byId("own").checked = state.own;
  byId("scale").textContent = "";
}
byId("filter").addEventListener("input", (event) => change({ filter: event.target.value }));
byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
byId("own").addEventListener("change", (event) => change({ own: event.target.checked }));

function showGrid() {
  const list = shown(), large = runs.length <= FEW, shared = state.own ? null : scaleOf(runs);
  const about = differing().slice(0, large ? 8 : 3);
  showTools(list);
  for (const id of [...cards.keys()]) if (!numbered.has(id)) cards.delete(id);
  byId("cards").className = large ? "large" : "";
  arrange(byId("cards"), list.map((run) => fillCard(run, about, shared ?? scaleOf([run]), large)));
  const range = shared && `${shared.log ? "log scale " : ""}${figure(shared.bottom, 3)} to ${figure(shared.top, 3)}`;
  byId("scale").textContent = "Curves: loss over epochs, thick validation, thin training; "
    + (state.own ? "each on its own scale." : (range ?? "no loss yet") + ".");
}

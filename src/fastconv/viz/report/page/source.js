// The runs, and where they come from: blocks of this page, or the server that a live page asks.

async function inflate(name) {
  const packed = Uint8Array.from(atob(byId(name).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`the board answers ${answer.status}`);
  return answer;
}

let written = null; // of all details that a page holds
const fromPage = {
  runs: async () => ({ runs: JSON.parse(await inflate("runs")), gone: [], judged: page.judged, written: page.written }),
  detail: async (run) => (await (written ??= inflate("details").then(JSON.parse)))[run.id],
  plotly: () => inflate("plotly"),
  importance: async () => page.importance,
};
const fromServer = {
  runs: async (since) => (await ask(`runs?since=${since}`)).json(),
  detail: async (run) => (await ask(`detail/${run.id}`)).json(),
  plotly: async () => (await ask("plotly.js")).text(),
  importance: async () => (await ask("importance")).json(),
};
const source = page.live ? fromServer : fromPage;

let runs = [], judged = "loss", alone = false; // whether the first run to come has no other beside it yet
const numbered = new Map(), named = new Map(), details = new Map();
const option = (run, key) => (Object.hasOwn(run.options, key) ? run.options[key] : undefined);
const best = (run, name) => (Object.hasOwn(run.best, name) ? run.best[name] : null);

/** Put new and changed runs into the list, and take those away that are gone. */
function take(news) {
  for (const run of news.runs) {
    run.words = [run.name, run.health, run.status, ...Object.entries(run.options).map(([key, value]) => key + "=" + value)]
      .join("\n").toLowerCase();
    numbered.set(run.id, run);
    details.delete(run.id);
  }
  for (const id of news.gone) {
    numbered.delete(id);
    details.delete(id);
  }
  alone = numbered.size === 1 && (alone || !runs.length);
  runs = [...numbered.values()];
  named.clear();
  for (const run of runs) named.set(run.name, run);
  judged = news.judged;
}

/** What a run keeps for its own page, fetched when asked for. */
async function detailOf(run) {
  if (!details.has(run.id)) details.set(run.id, await source.detail(run));
  return details.get(run.id);
}

/** The figures of validation, the one that runs are judged by first: name and kind. */
function figureNames() {
  const kinds = new Map(runs.flatMap((run) => Object.entries(run.kinds)));
  return [...kinds].filter(([name]) => runs.some((run) => known(best(run, name))))
    .sort(([a], [b]) => (b === judged) - (a === judged));
}
const kindOf = (name) => runs.find((run) => Object.hasOwn(run.kinds, name))?.kinds[name] ?? "";
const figureText = (name, value) => (kindOf(name) === "share" ? percent(value) : figure(value, 4));
const titleOf = (name) => name.replaceAll("_", " ");

/** All option names, those in which the runs differ first, the rate and the penalty before all others. */
const differs = (key, among) => // among the runs that have it: an older one does not know every option
  new Set(among.filter((run) => option(run, key) !== undefined).map((run) => JSON.stringify(option(run, key)))).size > 1;
function optionNames(among) {
  const names = [...new Set(among.flatMap((run) => Object.keys(run.options)))];
  const rank = new Map(names.map((key) => [key,
    (differs(key, among) ? 0 : 4) + Math.min(...["lr", "l2"].map((k, i) => (k === key ? i : 2)))]));
  return names.sort((a, b) => rank.get(a) - rank.get(b));
}
const sound = () => runs.filter((run) => run.health !== "damaged");
const differing = () => optionNames(sound()).filter((key) => sound().length < 2 || differs(key, sound()));

// A live page asks its server again and again what is new; a written one may load itself anew.

let version = 0;
function say(text) {
  if (byId("written").textContent !== text) byId("written").textContent = text;
}

/** Put what is new into the page, and say whether it was reached. */
async function look() {
  const news = await source.runs(version);
  version = news.version ?? version;
  byId("problem").hidden = !news.problem;
  byId("problem").textContent = news.problem ?? "";
  if (page.live) say("live");
  if (!news.runs.length && !news.gone.length) return false;
  take(news);
  if (!page.live) say("as of " + news.written);
  return true;
}

function complain(error) {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
}

function keepLooking(seconds) {
  let waiting = 0;
  const again = async () => {
    clearTimeout(waiting);
    if (document.hidden) return; // looked at again, it asks at once
    try {
      if (await look()) await show();
    } catch {
      say("the board does not answer; trying again");
    }
    waiting = setTimeout(again, 1000 * seconds);
  };
  document.addEventListener("visibilitychange", again);
  waiting = setTimeout(again, 1000 * seconds);
}

function keepReloading(seconds) {
  const hold = el("input", { type: "checkbox", id: "hold" });
  byId("written").after(el("span", {}, `, read again every ${figure(seconds)} s `), el("label", { class: "check" }, hold, " hold "));
  let touched = -Infinity; // not under somebody's hands, nor before everything is drawn
  for (const kind of ["pointermove", "pointerdown", "wheel", "keydown"]) {
    addEventListener(kind, () => { touched = performance.now(); }, { passive: true });
  }
  setInterval(() => {
    const busy = performance.now() - touched < 3000 || !("drawn" in document.body.dataset);
    if (!hold.checked && !busy && !document.hidden) location.reload();
  }, 1000 * seconds);
}

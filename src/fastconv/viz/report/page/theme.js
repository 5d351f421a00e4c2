// Light or dark: as the system says, or as the reader has chosen.

const THEMES = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" };
const system = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
const isDark = () => (theme === "auto" ? system.matches : theme === "dark");

function setTheme(name) {
  theme = name in THEMES ? name : "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = THEMES[theme];
  byId("theme").setAttribute("aria-label", `Colours: ${theme}`);
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(theme) + 1) % names.length]);
  try {
    localStorage.setItem("fastconv theme", theme);
  } catch { /* a browser that keeps nothing for files */ }
  show();
});
system.addEventListener("change", () => show());
try {
  setTheme(localStorage.getItem("fastconv theme"));
} catch {
  setTheme("auto");
}

/** A colour of the style sheet as numbers, of the theme that is on. */
const probe = el("span", { hidden: true });
document.body.append(probe);
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// Okabe and Ito's colours, told apart by all; dashes go on where they end.
const SERIES = () => (isDark()
  ? ["#56b4e9", "#e69f00", "#35c79a", "#e394c6", "#f0e442", "#ff7a3d", "#8fa8ff", "#d0d4d9"]
  : ["#0072b2", "#c77700", "#00805c", "#a8478a", "#8a7a00", "#d0480a", "#3b3fa8", "#3d434b"]);
const DASHES = ["solid", "dash", "dot", "dashdot"];
const lineOf = (i) => ({ color: SERIES()[i % 8], dash: DASHES[Math.floor(i / 8) % 4], width: 2 });

/** A point of the viridis colours, cut where they would not show on this ground. */
function shade(share) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = (isDark() ? 0.25 + 0.75 * share : 0.85 * share) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return "rgb(" + stops[low].map((c, k) => Math.round(c + (at - low) * (stops[low + 1][k] - c))).join(",") + ")";
}

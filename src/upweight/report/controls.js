// Keys, the skip link and the theme.

const KEYS = {
  ArrowRight: () => move(1), j: () => move(1), ArrowLeft: () => move(-1), k: () => move(-1),
  "?": () => byId("keys").showModal(), "/": () => byId("filter").focus(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
  // Arrows scroll a table that is wider than the screen.
  if (event.key.startsWith("Arrow") && event.target instanceof Element && event.target.closest(".scroll")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function remembered(value) {
  // Storage may be disabled for files; then the choice lasts as long as the page is open.
  try {
    if (value) localStorage.setItem("upweight-theme", value);
    return localStorage.getItem("upweight-theme");
  } catch { return null; }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

function startControls() {
  const theme = remembered();
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  nameTheme();
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remembered(document.documentElement.dataset.theme);
    nameTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  byId("keys-open").addEventListener("click", () => byId("keys").showModal());
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("query").focus(); });
  document.addEventListener("keydown", onKey);
}

// The page as a whole: which query is shown, the navigator, keys, theme.

const STATE = { query: -1, onlyWrong: false };

function choose(q, { scroll = true } = {}) {
  if (q === STATE.query) return;
  STATE.query = q;
  const entry = DATA.queries[q];
  drawQuery(q);
  drawStrongest(q);
  drawCourse(q);
  drawPlot(q);
  refreshTable();
  for (const item of document.querySelectorAll("#query-list button")) {
    if (Number(item.dataset.query) === q) {
      item.setAttribute("aria-current", "true");
      if (scroll) item.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else item.removeAttribute("aria-current");
  }
  byId("status").textContent = `Query ${entry.id}` + (entry.predicted === null ? "" : `, predicted ${entry.predicted}`);
  // replace, not assign: stepping through queries must not fill the browser history.
  location.replace("#query=" + encodeURIComponent(entry.id));
}

function fromAddress() {
  const match = /^#query=(.*)$/.exec(location.hash);
  if (!match) return -1;
  let id = match[1];
  try { id = decodeURIComponent(id); } catch { return -1; }
  return DATA.queries.findIndex((entry) => entry.id === id);
}

function visible() {
  return DATA.queries.map((_, q) => q).filter((q) => !STATE.onlyWrong || DATA.queries[q].wrong);
}

function move(step) {
  const queries = visible();
  const at = queries.indexOf(STATE.query);
  const next = at < 0 ? 0 : Math.min(queries.length - 1, Math.max(0, at + step));
  if (queries.length) choose(queries[next]);
}

function navigatorItem(q) {
  const entry = DATA.queries[q];
  const preview = DATA.previews[entry.preview];
  const line = entry.predicted === null ? entry.label
    : entry.label === null ? "→ " + entry.predicted
    : entry.wrong ? `${entry.label} → ${entry.predicted}` : DATA.classes ? entry.predicted : `${entry.predicted} (true ${entry.label})`;
  const tooltip = entry.wrong ? `true label ${entry.label}, wrongly predicted ${entry.predicted}`
    : [entry.label === null ? "" : "true label " + entry.label, entry.predicted === null ? "" : "predicted " + entry.predicted].filter(Boolean).join(", ");
  const text = preview.kind === "text" ? preview.text.slice(0, 70)
    : preview.kind === "row" ? rowInWords(preview, 2) : null;
  return el("li", null, el("button", { type: "button", "data-query": q, title: tooltip, onclick: () => choose(q, { scroll: false }) },
    preview.kind === "image" ? picture(preview, "") : null,
    el("span", { class: "who" }, el("span", { class: "id" }, entry.id), text ? el("span", { class: "excerpt", dir: "auto" }, text) : null,
      line === null ? null : el("span", { class: entry.wrong ? "went wrong" : "went" }, entry.wrong ? "✗ " : "", line))));
}

function drawNavigator() {
  byId("query-list").replaceChildren(...visible().map(navigatorItem));
  const wrong = DATA.queries.filter((entry) => entry.wrong).length;
  byId("nav-count").textContent = DATA.queries.length + (wrong ? `, ${wrong} wrong` : "");
  byId("only-wrong-box").hidden = wrong === 0 || wrong === DATA.queries.length;
  const current = document.querySelector(`#query-list button[data-query="${STATE.query}"]`);
  if (current) current.setAttribute("aria-current", "true");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
  // Arrows scroll a table that is wider than the screen.
  if (event.key.startsWith("Arrow") && event.target instanceof Element && event.target.closest(".scroll")) return;
  const act = {
    ArrowRight: () => move(1), j: () => move(1), ArrowLeft: () => move(-1), k: () => move(-1),
    "?": () => byId("keys").showModal(), "/": () => byId("filter").focus(),
  }[event.key];
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

function start() {
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
  byId("only-wrong").addEventListener("change", (event) => {
    STATE.onlyWrong = event.target.checked;
    drawNavigator();
    if (STATE.onlyWrong && !DATA.queries[STATE.query].wrong) move(0);
  });
  if (DATA.queriesLeftOut) {
    byId("queries-left-out").textContent = DATA.queriesLeftOut;
    byId("queries-left-out").hidden = false;
  }
  byId("notes").append(...DATA.notes.map((note) => el("li", null, note)));
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => { const q = fromAddress(); if (q >= 0) choose(q); });
  addEventListener("resize", () => { fitPlot(); fitCourse(); });
  if (DATA.course) byId("course").hidden = false;
  fitPlot();
  fitCourse();
  buildTable();
  startOverview();
  startPrinting();
  drawNavigator();
  choose(Math.max(0, fromAddress()), { scroll: false });
}

start();

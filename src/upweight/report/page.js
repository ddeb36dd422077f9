// The page as a whole: which query is shown, and the navigator.

const STATE = { query: -1, onlyWrong: false };

function choose(q, { scroll = true } = {}) {
  if (q === STATE.query) return;
  STATE.query = q;
  const entry = DATA.queries[q];
  drawQuery(q);
  drawStrongest(q);
  drawInputs(q);
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

// What decides the query and its training examples was written by Python for every query; one is shown.
function drawInputs(q) {
  const all = [...document.querySelectorAll("#inputs > [data-query]")];
  for (const part of all) part.hidden = Number(part.dataset.query) !== q;
  if (byId("inputs")) byId("inputs").hidden = all.every((part) => part.hidden);
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

function drawNavigator() {
  byId("query-list").replaceChildren(...visible().map((q) => navigatorItem(q, DATA.queries[q])));
  const wrong = DATA.queries.filter((entry) => entry.wrong).length;
  byId("nav-count").textContent = DATA.queries.length + (wrong ? `, ${wrong} wrong` : "");
  byId("only-wrong-box").hidden = wrong === 0 || wrong === DATA.queries.length;
  const current = document.querySelector(`#query-list button[data-query="${STATE.query}"]`);
  if (current) current.setAttribute("aria-current", "true");
}

function start() {
  startControls();
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

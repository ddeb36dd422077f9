// The viewer as a whole: which query is shown, and a list of queries that is asked for page by page.

const STATE = { query: -1, onlyWrong: false, text: "", page: 0, listed: [], total: 0, size: 1, strongest: null };

function drawPart(part) {
  const q = part.at;
  STATE.query = q;
  DATA.queries[q] = part.entry;
  STATE.strongest = [...part.entry.top.proponents, ...part.entry.top.opponents].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))[0];
  adopt(part);
  drawQuery(q);
  drawStrongest(q);
  drawBoth(part);
  drawPlot(q);
  refreshTable();
  markCurrent(true);
  if (!DATA.overview && byId("overview").hidden) askWholeSet();
  const { id, predicted } = part.entry;
  byId("status").textContent = `Query ${id}` + (predicted === null ? "" : `, predicted ${predicted}`);
  if (DATA.transport === "fetch") location.replace("#query=" + encodeURIComponent(id));
}

function choose(q) {
  if (q === STATE.query) return;
  ask("query", "query", { at: q }, (part) => {
    drawPart(part);
    if (!STATE.listed.includes(q)) listQueries({ at: q });
  });
}

function chooseById(id) {
  ask("query", "query", { id }, (part) => {
    drawPart(part);
    listQueries({ at: part.at });
  });
}

function markCurrent(scroll) {
  for (const item of document.querySelectorAll("#query-list button")) {
    const isCurrent = Number(item.dataset.query) === STATE.query;
    if (isCurrent) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
    if (isCurrent && scroll) item.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

// Ask for a page of queries; with {at}, for the page that has this query; `then` gets the places on it.
function listQueries(page, then) {
  ask("queries", "queries", { text: STATE.text, wrong: STATE.onlyWrong ? 1 : 0, ...page }, (part) => {
    adopt(part);
    Object.assign(STATE, { listed: part.rows.map((row) => row.at), total: part.total, page: part.page, size: part.size });
    byId("query-list").replaceChildren(...part.rows.map((row) => navigatorItem(row.at, row)));
    const pages = Math.max(1, Math.ceil(part.total / part.size));
    const count = (n) => n.toLocaleString("en-US");
    byId("nav-count").textContent = part.total === DATA.count ? count(DATA.count) + (DATA.wrong ? `, ${count(DATA.wrong)} wrong` : "")
      : `${count(part.total)} of ${count(DATA.count)}`;
    byId("queries-page").textContent = part.total ? `page ${count(part.page + 1)} of ${count(pages)}` : "No query matches.";
    byId("queries-previous").disabled = part.page === 0;
    byId("queries-next").disabled = part.page >= pages - 1;
    markCurrent(false);
    if (then) then(STATE.listed);
  });
}

function turnQueries(step, then) {
  const page = STATE.page + step;
  if (page >= 0 && page * STATE.size < STATE.total) listQueries({ page }, then);
}

function move(step) {
  const at = STATE.listed.indexOf(STATE.query) + step;
  if (at >= 0 && at < STATE.listed.length) choose(STATE.listed[at]);
  else if (at < 0) turnQueries(-1, (listed) => choose(listed[listed.length - 1]));
  else turnQueries(1, (listed) => choose(listed[0]));
}

function idInAddress() {
  const match = /^#query=(.*)$/.exec(location.hash);
  try { return match && decodeURIComponent(match[1]); } catch { return null; }
}

function refilter() {
  listQueries({ page: 0 }, (listed) => { if (listed.length && !listed.includes(STATE.query)) choose(listed[0]); });
}

function start() {
  startControls();
  KEYS.f = () => byId("query-filter").focus();
  KEYS.c = () => { if (STATE.strongest) openExample(STATE.strongest[0]); };
  byId("only-wrong-box").hidden = DATA.wrong === 0 || DATA.wrong === DATA.count;
  byId("only-wrong").addEventListener("change", (event) => { STATE.onlyWrong = event.target.checked; refilter(); });
  byId("query-filter").addEventListener("input", (event) => { STATE.text = event.target.value; refilter(); });
  byId("queries-previous").addEventListener("click", () => turnQueries(-1));
  byId("queries-next").addEventListener("click", () => turnQueries(1));
  byId("notes").append(...DATA.notes.map((note) => el("li", null, note)));
  addEventListener("hashchange", () => {
    const id = idInAddress();
    if (id !== null && (!DATA.queries[STATE.query] || id !== DATA.queries[STATE.query].id)) chooseById(id);
  });
  addEventListener("resize", fitPlot);
  fitPlot();
  buildTable();
  const id = idInAddress();
  if (id === null) listQueries({ page: 0 }, (listed) => choose(listed[0]));
  else chooseById(id);
}

start();

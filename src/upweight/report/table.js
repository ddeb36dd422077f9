// All training examples for the current query: sorted, filtered, twenty-five rows at a time.

const TABLE = { column: "score", descending: true, text: "", label: "", page: 0, rows: null, matching: 0, size: 25 };
const COLUMNS = [
  { name: "rank", title: "rank", means: "1 = strongest proponent" },
  { name: "id", title: "training example" },
  { name: "label", title: DATA.classes ? "label" : "target" },
  { name: "score", title: "score", means: "with it minus without it" },
  { name: "strength", title: "strength", means: "absolute value of the score" },
];

// Ranks of names in reading order: numbers by value, everything else by its digits and letters.
function readingOrder(names) {
  const numeric = names.every((n) => n !== null && n !== "" && Number.isFinite(Number(n.replace("−", "-"))));
  const value = numeric ? names.map((n) => Number(n.replace("−", "-"))) : null;
  const collator = new Intl.Collator("en", { numeric: true });
  const order = names.map((_, i) => i).sort(numeric ? (a, b) => value[a] - value[b] : (a, b) => collator.compare(names[a] || "", names[b] || ""));
  const rank = new Uint32Array(names.length);
  order.forEach((place, position) => { rank[place] = position; });
  return rank;
}

function tableRow({ place, score, rank, other, otherRank }, q, scale) {
  const bar = el("span", { class: "fill" });
  bar.style.width = (100 * Math.abs(score)) / scale + "%";
  return el("tr", { title: score === null ? null : removal(score) },
    el("td", { class: "number quiet" }, rank.toLocaleString("en-US")),
    el("th", { scope: "row" }, el("span", { class: "glance" }, glance(place), exampleName(place))),
    el("td", null, labelTag(place, DATA.queries[q], true)),
    el("td", { class: "number" }, signed(score)),
    el("td", { class: "strength" }, el("span", { class: "track " + (score < 0 ? "opp" : "pro"), "aria-hidden": "true" }, bar),
      el("span", { class: "hidden" }, score === null ? "not known" : plain(Math.abs(score)))),
    other === undefined || otherRank === null ? null
      : el("td", { class: "number" }, signed(other), " ", el("small", null, "rank " + otherRank.toLocaleString("en-US"))));
}

function drawRows(q) {
  rowsAt(q, ({ rows, page, matching, of, scale }) => {
    TABLE.page = page;
    TABLE.matching = matching;
    const pages = Math.max(1, Math.ceil(matching / TABLE.size)), start = page * TABLE.size;
    byId("table-body").replaceChildren(...rows.map((row) => tableRow(row, q, scale)));
    const chosen = matching === of ? "" : ` that match, of ${of.toLocaleString("en-US")}`;
    byId("table-count").textContent = rows.length
      ? `${(start + 1).toLocaleString("en-US")}–${(start + rows.length).toLocaleString("en-US")} of ${matching.toLocaleString("en-US")}${chosen}`
      : "No training example matches the filter.";
    for (const [id, dead] of [["first", page === 0], ["previous", page === 0], ["next", page >= pages - 1], ["last", page >= pages - 1]]) {
      byId("page-" + id).disabled = dead;
    }
    for (const { name } of COLUMNS) {
      const direction = name === TABLE.column ? (TABLE.descending ? "descending" : "ascending") : "none";
      byId("column-" + name).setAttribute("aria-sort", direction);
    }
  });
}

function refreshTable() {
  TABLE.page = 0;
  TABLE.rows = null;
  drawRows(STATE.query);
}

function sortBy(name) {
  const same = TABLE.column === name;
  TABLE.descending = same ? !TABLE.descending : ["score", "strength", "other"].includes(name);
  TABLE.column = name;
  refreshTable();
}

function turn(page) {
  TABLE.page = page;
  drawRows(STATE.query);
}

function saveTable() {
  csvOf(STATE.query, (text) => {
    const link = el("a", { download: "scores.csv" });
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function buildTable() {
  startRows();
  const box = el("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false",
    placeholder: TRAIN.searched,
    oninput: (event) => { TABLE.text = event.target.value; refreshTable(); } });
  const names = TRAIN.names.filter((n) => n !== null);
  const order = readingOrder(TRAIN.names);
  const choice = names.length < 2 || names.length > 60 ? null : el("label", null, "Label ", el("select", { id: "label-filter",
    onchange: (event) => { TABLE.label = event.target.value; refreshTable(); } },
    el("option", { value: "" }, "all"),
    TRAIN.names.map((name, code) => [name, code]).filter(([name]) => name !== null)
      .sort((a, b) => order[a[1]] - order[b[1]]).map(([name, code]) => el("option", { value: code }, name))));
  const heads = COLUMNS.map(({ name, title, means }) => el("th", { scope: "col", id: "column-" + name, "aria-sort": "none" },
    el("button", { type: "button", title: means || `sort by ${title}`, onclick: () => sortBy(name) }, title,
      name === "score" && WORDS.effect && WORDS.unit ? el("small", null, ` (${WORDS.unit})`) : null)));
  const button = (name, text, go) => el("button", { type: "button", id: "page-" + name, onclick: go }, text);
  byId("table").append(
    el("div", { class: "controls" }, el("label", null, "Filter ", box), choice,
      el("button", { type: "button", id: "save", onclick: saveTable }, "Save as CSV")),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Training examples" }, el("table", { class: "plain big" },
      el("caption", { class: "hidden" }, "Scores of the training examples for the current query"),
      el("thead", null, el("tr", null, heads)), el("tbody", { id: "table-body" }))),
    el("div", { class: "pager" },
      button("first", "First", () => turn(0)), button("previous", "Previous", () => turn(TABLE.page - 1)),
      el("span", { id: "table-count", role: "status" }),
      button("next", "Next", () => turn(TABLE.page + 1)),
      button("last", "Last", () => turn(Math.ceil(TABLE.matching / TABLE.size) - 1))));
  for (const note of DATA.tableNotes) byId("table-notes").append(el("p", { class: "note" }, el("b", null, "Left out: "), note));
}

// All training examples for the current query: sorted, filtered, twenty-five rows at a time.

const TABLE = { column: "score", descending: true, text: "", label: "", page: 0, rows: null, size: 25 };
const COLUMNS = [
  { name: "rank", title: "rank", means: "1 = strongest proponent" },
  { name: "id", title: "training example" },
  { name: "label", title: DATA.classes ? "label" : "target" },
  { name: "score", title: "score", means: "with it minus without it" },
  { name: "strength", title: "strength", means: "absolute value of the score" },
];
let idOrder = null;
let labelOrder = null;
let haystacks = null;
let ranks = { q: -1, of: null };

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

function haystack(row, places) {
  if (!haystacks) haystacks = new Array(TRAIN.count);
  const place = places ? places[row] : row;
  if (haystacks[place] === undefined) {
    const excerpt = DATA.train.excerpts ? DATA.train.excerpts[place] : "";
    haystacks[place] = `${TRAIN.id(place)}\n${TRAIN.label(place) ?? ""}\n${excerpt}`.toLowerCase();
  }
  return haystacks[place];
}

function rankOf(q) {
  if (ranks.q !== q) {
    const { scores } = scoresOf(q);
    const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
    const of = new Uint32Array(order.length);
    // The strongest opponents keep their true rank if the middle of the list is not on the page.
    const gap = DATA.train.total - order.length;
    order.forEach((row, position) => { of[row] = position + 1 + (position >= order.length / 2 ? gap : 0); });
    ranks = { q, of };
  }
  return ranks.of;
}

function keyOf(q) {
  const { places, scores } = scoresOf(q);
  const place = (row) => (places ? places[row] : row);
  if (TABLE.column === "score") return (row) => scores[row];
  if (TABLE.column === "strength") return (row) => Math.abs(scores[row]);
  if (TABLE.column === "rank") { const of = rankOf(q); return (row) => of[row]; }
  if (TABLE.column === "label") {
    labelOrder = labelOrder || readingOrder(TRAIN.names);
    return (row) => labelOrder[TRAIN.codes[place(row)]];
  }
  if (!Array.isArray(DATA.train.ids)) return place;
  idOrder = idOrder || readingOrder(DATA.train.ids);
  return (row) => idOrder[place(row)];
}

function selectRows(q) {
  const { places, scores } = scoresOf(q);
  const needle = TABLE.text.trim().toLowerCase();
  const wanted = TABLE.label === "" ? -1 : Number(TABLE.label);
  const rows = [];
  for (let row = 0; row < scores.length; row++) {
    if (wanted >= 0 && TRAIN.codes[places ? places[row] : row] !== wanted) continue;
    if (needle && !haystack(row, places).includes(needle)) continue;
    rows.push(row);
  }
  const key = keyOf(q);
  const sign = TABLE.descending ? -1 : 1;
  TABLE.rows = rows.sort((a, b) => sign * (key(a) - key(b)) || a - b);
}

function tile(place) {
  const { columns, width, height, count } = DATA.train.sheet;
  const side = 32 / Math.max(width, height);
  const node = el("span", { class: "tile" });
  node.style.width = width * side + "px";
  node.style.height = height * side + "px";
  node.style.backgroundSize = `${columns * width * side}px ${Math.ceil(count / columns) * height * side}px`;
  node.style.backgroundPosition = `${-(place % columns) * width * side}px ${-Math.floor(place / columns) * height * side}px`;
  return node;
}

function glance(place) {
  if (DATA.train.sheet) return tile(place);
  if (DATA.train.excerpts) return el("span", { class: "excerpt", dir: "auto" }, DATA.train.excerpts[place]);
  const index = TRAIN.preview(place);
  if (index === undefined) return null;
  const preview = DATA.previews[index];
  if (preview.kind === "image") return picture(preview, "");
  const text = preview.kind === "text" ? preview.text : rowInWords(preview, 4);
  return el("span", { class: "excerpt", dir: "auto" }, text.length > 90 ? text.slice(0, 89) + "…" : text);
}

function tableRow(row, q, scale) {
  const { places, scores } = scoresOf(q);
  const place = places ? places[row] : row;
  const score = scores[row];
  const bar = el("span", { class: "fill" });
  bar.style.width = (100 * Math.abs(score)) / scale + "%";
  return el("tr", { title: removal(score) },
    el("td", { class: "number quiet" }, rankOf(q)[row].toLocaleString("en-US")),
    el("th", { scope: "row" }, el("span", { class: "glance" }, glance(place), el("span", { class: "id" }, TRAIN.id(place)))),
    el("td", null, labelTag(place, DATA.queries[q], true)),
    el("td", { class: "number" }, signed(score)),
    el("td", { class: "strength" }, el("span", { class: "track " + (score < 0 ? "opp" : "pro"), "aria-hidden": "true" }, bar),
      el("span", { class: "hidden" }, plain(Math.abs(score)))));
}

function drawRows(q) {
  const { scores } = scoresOf(q);
  let scale = 1e-300;
  for (const score of scores) scale = Math.max(scale, Math.abs(score));
  const pages = Math.max(1, Math.ceil(TABLE.rows.length / TABLE.size));
  TABLE.page = Math.min(TABLE.page, pages - 1);
  const start = TABLE.page * TABLE.size;
  const part = TABLE.rows.slice(start, start + TABLE.size);
  byId("table-body").replaceChildren(...part.map((row) => tableRow(row, q, scale)));
  const from = part.length ? start + 1 : 0;
  const chosen = TABLE.rows.length === scores.length ? "" : ` that match, of ${scores.length.toLocaleString("en-US")}`;
  byId("table-count").textContent = part.length
    ? `${from.toLocaleString("en-US")}–${(start + part.length).toLocaleString("en-US")} of ${TABLE.rows.length.toLocaleString("en-US")}${chosen}`
    : "No training example matches the filter.";
  for (const [id, dead] of [["first", TABLE.page === 0], ["previous", TABLE.page === 0], ["next", TABLE.page >= pages - 1], ["last", TABLE.page >= pages - 1]]) {
    byId("page-" + id).disabled = dead;
  }
  for (const { name } of COLUMNS) {
    const direction = name === TABLE.column ? (TABLE.descending ? "descending" : "ascending") : "none";
    byId("column-" + name).setAttribute("aria-sort", direction);
  }
}

function refreshTable() {
  TABLE.page = 0;
  selectRows(STATE.query);
  drawRows(STATE.query);
}

function sortBy(name) {
  const same = TABLE.column === name;
  TABLE.descending = same ? !TABLE.descending : name === "score" || name === "strength";
  TABLE.column = name;
  refreshTable();
}

function turn(page) {
  TABLE.page = page;
  drawRows(STATE.query);
}

function saveTable() {
  const q = STATE.query;
  const { places, scores } = scoresOf(q);
  // A spreadsheet would run a cell that starts like a formula.
  const cell = (text) => `"${(/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" : "") + text.replaceAll('"', '""')}"`;
  const lines = TABLE.rows.map((row) => {
    const place = places ? places[row] : row;
    return [cell(TRAIN.id(place)), cell(TRAIN.label(place) ?? ""), scores[row], rankOf(q)[row]].join(",");
  });
  const text = ["id,label,score,rank", ...lines].join("\r\n") + "\r\n";
  const link = el("a", { download: "scores.csv" });
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function buildTable() {
  // One style rule, instead of a copy of the large picture in every row. This package made the base64 address.
  if (DATA.train.sheet) document.styleSheets[0].insertRule(`.tile { background-image: url("${DATA.train.sheet.uri}"); }`);
  const box = el("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false",
    placeholder: DATA.train.excerpts ? "id, label or content" : "id or label",
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
      button("last", "Last", () => turn(Math.ceil(TABLE.rows.length / TABLE.size) - 1))));
  for (const note of DATA.tableNotes) byId("table-notes").append(el("p", { class: "note" }, el("b", null, "Left out: "), note));
}

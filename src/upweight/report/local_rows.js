// The rows of the table of all training examples: sorted and filtered in the page itself.

let idOrder = null;
let labelOrder = null;
let haystacks = null;
let ranks = { q: -1, of: null };

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

// The places of the rows on the page for this query.
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

// Call `show` with a page of the rows for this query: at once here, later if they come from a server.
function rowsAt(q, show) {
  if (!TABLE.rows) selectRows(q);
  const { places, scores } = scoresOf(q);
  let scale = 1e-300;
  for (const score of scores) scale = Math.max(scale, Math.abs(score));
  const pages = Math.max(1, Math.ceil(TABLE.rows.length / TABLE.size));
  const page = Math.min(TABLE.page, pages - 1);
  const rows = TABLE.rows.slice(page * TABLE.size, (page + 1) * TABLE.size).map((row) => (
    { place: places ? places[row] : row, score: scores[row], rank: rankOf(q)[row] }));
  show({ rows, page, matching: TABLE.rows.length, of: scores.length, scale });
}

// Call `show` with all rows that match, as a table for a spreadsheet.
function csvOf(q, show) {
  const { places, scores } = scoresOf(q);
  // A spreadsheet would run a cell that starts like a formula.
  const cell = (text) => `"${(/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" : "") + text.replaceAll('"', '""')}"`;
  const lines = TABLE.rows.map((row) => {
    const place = places ? places[row] : row;
    return [cell(TRAIN.id(place)), cell(TRAIN.label(place) ?? ""), scores[row], rankOf(q)[row]].join(",");
  });
  show(["id,label,score,rank", ...lines].join("\r\n") + "\r\n");
}

// One style rule, instead of a copy of the large picture in every row. This package made the base64 address.
function startRows() {
  if (DATA.train.sheet) document.styleSheets[0].insertRule(`.tile { background-image: url("${DATA.train.sheet.uri}"); }`);
}

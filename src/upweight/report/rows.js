// Rows of a table: the columns that matter first, and the values that differ from those of the query.

const FIRST_COLUMNS = 8;
const PROSE = 60;  // characters; a longer value is shown as a passage

function cellText(column, row) {
  if (column.codes) return column.levels[column.codes[row]];
  const value = column.values[row];
  return value === null ? "missing" : String(value).replaceAll("-", "−");
}

// The shift of the label that this value alone would predict.
function shiftOf(column, row) {
  if (column.codes) return column.shifts[column.codes[row]];
  const value = column.values[row];
  return value === null ? 0 : column.slope * (value - column.mean);
}

// One function per column, in the order in which they matter; it returns {name, value, other}, `other` of the query.
function cellsOf(preview, compared) {
  if (preview.pairs) {
    const other = new Map(compared && compared.pairs ? compared.pairs : []);
    // A value that is not listed is 0, unless some values of the query are not on the page.
    const absent = compared && compared.sparse && !compared.more ? "0" : undefined;
    return preview.pairs.map(([name, value]) => () => ({ name, value, other: other.get(name) ?? absent }));
  }
  const query = compared && compared.row !== undefined ? compared.row : null;
  const weight = (column) => {
    const own = shiftOf(column, preview.row);
    if (query === null) return Math.abs(own);
    const other = shiftOf(column, query);
    return Math.max(Math.abs(own), Math.abs(other), Math.abs(own - other));
  };
  const { columns } = DATA.table;
  const weights = columns.map(weight);
  return columns.map((_, i) => i).sort((a, b) => weights[b] - weights[a] || a - b).map((i) => () => ({
    name: columns[i].name, value: cellText(columns[i], preview.row), other: query === null ? undefined : cellText(columns[i], query) }));
}

function rowInWords(preview, most) {
  return cellsOf(preview).slice(0, most).map((cell) => cell()).map(({ name, value }) => `${name} ${value}`).join(", ");
}

function cellNode({ name, value, other }, limit) {
  const differs = other !== undefined && other !== value, same = other === value;
  const prose = value.length > PROSE;
  const title = differs ? `${value}; the query has ${other}` : same ? `${value}, as the query` : value;
  const mark = differs ? el("small", { class: "other" }, " ≠ ", other.length > PROSE ? other.slice(0, PROSE) + "…" : other)
    : same ? el("small", { class: "equal" }, " =") : null;
  return el("div", { class: (differs ? "differs " : same ? "same " : "") + (prose ? "prose" : "") },
    el("dt", { title: name }, name),
    prose ? el("dd", null, passage({ text: value }, limit), mark) : el("dd", { title }, el("span", { class: "value" }, value), mark));
}

function rowNode(preview, limit, compared) {
  const cells = cellsOf(preview, compared);
  const shown = (some) => some.map((cell) => cellNode(cell(), limit));
  const first = el("dl", { class: "pairs" }, shown(cells.slice(0, FIRST_COLUMNS)));
  const total = preview.pairs ? cells.length + preview.more : DATA.table.total;
  if (total <= FIRST_COLUMNS) return first;
  const rest = cells.slice(FIRST_COLUMNS);
  const all = el("details", { class: "rest" }, el("summary", null, rest.length ? counted(rest.length, preview.sparse ? "more value" : "more column") : "other columns"));
  // A wide row has thousands of cells: they are made when somebody wants to see them.
  all.addEventListener("toggle", () => {
    if (!all.open || all.querySelector("dl")) return;
    all.append(el("dl", { class: "pairs" }, shown(rest)),
      cells.length < total ? el("p", { class: "quiet" }, `${cells.length.toLocaleString("en-US")} of ${counted(total, preview.sparse ? "value" : "column")} are on this page.`) : "");
  });
  return el("div", null, first, all);
}

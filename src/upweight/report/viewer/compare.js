// A query beside one training example: all that is known of both, and the queries that the example affects most.

function scoreLines(part) {
  return part.scores.map(({ method, score, rank }, number) => inWordsOf(number, () => el("p", { class: "answer" },
    el("b", null, method), ": score ", el("b", null, withUnit(signed(score))), `, rank ${rank.toLocaleString("en-US")} of ${DATA.train.total.toLocaleString("en-US")}. `,
    score === null ? null : removal(score))));
}

function cellsTable(part) {
  const own = DATA.previews[part.examples[part.row].preview], query = DATA.previews[part.entry.preview];
  const rows = cellsOf(own, query).map((cell) => cell());
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Columns" }, el("table", { class: "plain cells" },
    el("thead", null, el("tr", null, ["column", "query", "training example"].map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", null, rows.map(({ name, value, other }) => {
      const differs = other !== undefined && other !== value;
      return el("tr", { class: differs ? "differs" : "same" }, el("th", { scope: "row" }, name), el("td", null, other ?? "–"), el("td", null, value, differs ? el("small", null, " ≠") : null));
    }))));
}

function affectedList(title, queries) {
  if (!queries.length) return null;
  const line = (query) => el("li", null,
    el("button", { type: "button", class: "link id", onclick: () => { byId("compare").close(); choose(query.at); } }, query.id),
    query.predicted === null ? null : el("span", { class: query.wrong ? "went wrong" : "went" }, (query.wrong ? "✗ " : "") + (query.wrong ? `${query.label} → ${query.predicted}` : query.predicted)),
    el("span", { class: "number" }, withUnit(signed(query.score))));
  return el("section", null, el("h3", null, title), el("ol", { class: "affected" }, queries.map(line)));
}

function drawExample(part) {
  adopt(part);
  const { entry } = part, example = part.examples[part.row], kind = DATA.previews[entry.preview].kind;
  const asTable = kind === "row" && DATA.previews[example.preview].kind === "row";
  const range = part.interval;
  byId("compare-title").textContent = `Query ${entry.id} and training example ${example.id}`;
  byId("compare-body").className = kind;
  byId("compare-body").replaceChildren(...[
    el("div", { class: "pair" },
      el("section", null, el("h3", null, "Query ", el("span", { class: "id" }, entry.id)), verdict(entry),
        asTable ? null : show(entry.preview, "query " + entry.id, 4000)),
      el("section", null, el("h3", null, "Training example ", el("span", { class: "id" }, example.id)),
        el("p", { class: "says" }, labelTag(part.row, entry) || "no label"),
        asTable ? null : show(example.preview, "training example " + example.id, 4000))),
    ...scoreLines(part),
    range ? el("p", { class: "interval" }, `${byId("verification").dataset.level} interval ${signed(range[0])} to ${signed(range[1])}`) : null,
    asTable ? cellsTable(part) : null,
    el("p", { class: "definition" }, "Mean score over all queries: ", el("b", null, withUnit(signed(part.mean))), ". Of all queries, it affects these most:"),
    el("div", { class: "pair" },
      affectedList(WORDS.loss ? "It helped most" : "It raised most", part.queries.raised),
      affectedList(WORDS.loss ? "It harmed most" : "It lowered most", part.queries.lowered))].filter(Boolean));
}

function openExample(place) {
  ask("example", "example", { at: STATE.query, row: place }, (part) => {
    drawExample(part);
    if (!byId("compare").open) byId("compare").showModal();
    byId("compare").scrollTop = 0;
  });
}

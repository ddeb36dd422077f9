// Over all queries: groups of training examples, and what two methods have in common.

function groupsTable({ column, rows, total }) {
  const scale = Math.max(1e-300, ...rows.map((row) => Math.abs(row.mean)));
  const words = WORDS.loss ? "harms" : "lowers";
  const heads = [["", column], ["number", "training examples"], ["number", "mean summed score"], BAR_HEAD,
    ...(DATA.wrong ? [["number", "of mistakes", "mean summed score over the wrongly predicted queries"],
      ["number", "worst for", `wrongly predicted queries that this group ${words} most`]] : [])];
  const line = (row) => {
    const bar = el("span", { class: "fill" });
    bar.style.width = (100 * Math.abs(row.mean)) / scale + "%";
    return el("tr", null, el("th", { scope: "row" }, el("span", { class: "label" }, row.name)),
      el("td", { class: "number" }, row.size.toLocaleString("en-US")), el("td", { class: "number" }, signed(row.mean)),
      el("td", { class: "strength" }, el("span", { class: "track " + (row.mean < 0 ? "opp" : "pro"), "aria-hidden": "true" }, bar)),
      ...(DATA.wrong ? [el("td", { class: "number" }, signed(row.onMistakes)), el("td", { class: "number" }, row.worst.toLocaleString("en-US"))] : []));
  };
  return [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Groups by " + column }, el("table", { class: "plain overall groups" },
    el("caption", null, "Groups by " + column),
    el("thead", null, el("tr", null, heads.map(([kind, text, title, small]) => el("th", { scope: "col", class: kind, title }, text, small && small.cloneNode(true))))),
    el("tbody", null, rows.map(line)))),
    rows.length < total ? el("p", { class: "quiet" }, `The ${rows.length} strongest of ${counted(total, "group")}.`) : null];
}

function agreementLine(agreement) {
  if (!agreement) return null;
  const shared = (n) => n.toFixed(1);
  return el("p", { class: "definition" }, el("b", null, DATA.methods.join(" and ")),
    ` have in common, on average over ${counted(agreement.queries, "query")}: `, el("b", null, shared(agreement.proponents)), " of the ten strongest proponents and ",
    el("b", null, shared(agreement.opponents)), " of the ten strongest opponents.");
}

function askWholeSet() {
  byId("overview").hidden = false;
  byId("overview-body").replaceChildren(el("p", { class: "quiet" }, "Adding up the scores of all queries …"));
  ask("whole", "whole", {}, (part) => {
    for (const [q, id] of Object.entries(part.names)) DATA.queries[q] = DATA.queries[q] || { id };
    DATA.overview = { ...part.overview, previews: part.previews, table: part.table };
    drawOverview();
    byId("groups-body").replaceChildren(...[
      part.groups.length ? el("p", { class: "definition" }, "A summed score is the sum of the scores of all training examples of a group: what the query would lose without all of them, to first order.") : null,
      ...part.groups.flatMap(groupsTable), agreementLine(part.agreement)].filter(Boolean));
  });
}

// ---- two methods for one query -------------------------------------------------------------------------------------

const BOTH = { side: "proponents" };

// Draw with the words of a method: its unit, and whether the size of its scores means something.
function inWordsOf(method, draw) {
  const own = { ...WORDS };
  if (method) Object.assign(WORDS, DATA.otherWords);
  const drawn = draw();
  Object.assign(WORDS, own);
  return drawn;
}

function methodColumn(part, method) {
  const listed = part.both.tops[method][BOTH.side];
  const name = DATA.methods[method], other = DATA.methods[1 - method];
  const side = BOTH.side === "proponents" ? "pro" : "opp";
  const scale = Math.max(1e-300, ...listed.map(([, score]) => Math.abs(score)));
  const shared = new Set(part.both.tops[1 - method][BOTH.side].map(([place]) => place));
  const cards = listed.map(([place, score, rank]) => {
    const node = card([place, score, null], part.entry, scale, side);
    // Rows and texts would be long twice; their id opens them.
    if (kindOf(part.entry) !== "image") node.querySelector(".thumb").remove();
    node.querySelector(".head").append(el("small", { class: shared.has(place) ? "shared" : null },
      shared.has(place) ? "also in the other list" : `rank ${rank.toLocaleString("en-US")} by ${other}`));
    return node;
  });
  return el("section", { class: "side " + side }, el("h3", null, name), cards.length ? el("ol", { class: "cards whole" }, cards)
    : el("p", { class: "quiet" }, `No ${BOTH.side}.`));
}

function drawBoth(part) {
  byId("both").hidden = !part.both;
  if (!part.both) return;
  adopt(part);
  const { agreement } = part.both;
  const tabs = ["proponents", "opponents"].map((side) => el("button", { type: "button", "aria-pressed": String(BOTH.side === side),
    onclick: () => { BOTH.side = side; drawBoth(part); byId("both-body").querySelector("[aria-pressed=true]").focus(); } }, side));
  byId("both-body").className = kindOf(part.entry);
  byId("both-body").replaceChildren(
    el("p", { class: "definition" }, "For this query: Spearman ", el("b", null, agreement.spearman === null ? "not known" : plain(agreement.spearman)),
      " over all training examples; in common are ", el("b", null, agreement.proponents), " of the ten strongest proponents and ",
      el("b", null, agreement.opponents), " of the ten strongest opponents."),
    el("div", { class: "controls" }, el("div", { class: "tabs", role: "group", "aria-label": "Which side" }, tabs)),
    el("div", { class: "sides" }, [0, 1].map((method) => inWordsOf(method, () => methodColumn(part, method)))));
}

// Over all queries: the training examples that matter most, and those behind the mistakes.

const OVERVIEW = { order: "strength" };
const ORDERS = {
  strength: ["matter most", "Largest mean absolute score over all queries."],
  helped: WORDS.loss ? ["helped most", "Highest mean score over all queries."] : ["raised it most", "Highest mean score over all queries."],
  harmed: WORDS.loss ? ["harmed most", "Lowest mean score over all queries."] : ["lowered it most", "Lowest mean score over all queries."],
  mistakes: ["behind mistakes", "Most often among the ten strongest opponents of a wrongly predicted query."],
};
const LINKS_SHOWN = 8;
const BAR_HEAD = ["strength", "", "the mean score as a bar", el("span", { class: "hidden" }, "as a bar")];

function exampleNode(row) {
  const preview = DATA.previews[row.preview];
  const text = preview.kind === "row" ? rowInWords(preview, 4) : preview.kind === "text" ? preview.text.slice(0, 120) : null;
  return el("span", { class: "glance" }, preview.kind === "image" ? picture(preview, "") : null,
    text ? el("span", { class: "excerpt", dir: "auto", title: text }, text) : null, el("span", { class: "id" }, row.id));
}

function overviewRow(row, scale) {
  const bar = el("span", { class: "fill" });
  bar.style.width = (100 * Math.abs(row.mean)) / scale + "%";
  const count = (n, kind = "") => el("td", { class: "number " + kind }, n.toLocaleString("en-US"));
  return el("tr", null,
    el("th", { scope: "row" }, exampleNode(row)),
    el("td", null, row.label === null ? null : el("span", { class: "label" }, row.label)),
    el("td", { class: "number" }, signed(row.mean)),
    el("td", { class: "number size" }, plain(row.strength)),
    el("td", { class: "strength" }, el("span", { class: "track " + (row.mean < 0 ? "opp" : "pro"), "aria-hidden": "true" }, bar)),
    count(row.helped, "times"), count(row.harmed, "times"), DATA.overview.mistakes ? count(row.mistakes) : null);
}

function overviewTable() {
  const { rows, orders, mistakes } = DATA.overview;
  const scale = Math.max(1e-300, ...rows.map((row) => Math.abs(row.mean)));
  const words = WORDS.loss ? ["helped", "harmed"] : ["raised", "lowered"];
  const unit = WORDS.effect && WORDS.unit ? el("small", null, ` (${WORDS.unit})`) : null;
  const among = (side) => `queries of which it is among the ten strongest ${side}`;
  const heads = [["", "training example"], ["", DATA.classes ? "label" : "target"], ["number", "mean score", "with it minus without it", unit],
    ["number size", "mean size", "mean absolute score"], BAR_HEAD, ["number times", words[0], among("proponents")], ["number times", words[1], among("opponents")],
    ...(mistakes ? [["number", "mistakes", "wrongly predicted " + among("opponents")]] : [])];
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Training examples over all queries" },
    el("table", { class: "plain overall" },
      el("thead", null, el("tr", null, heads.map(([kind, text, title, small]) => el("th", { scope: "col", class: kind, title }, text, small && small.cloneNode(true))))),
      el("tbody", null, orders[OVERVIEW.order].map((row) => overviewRow(rows[row], scale)))));
}

function queryLink(q) {
  return el("button", { type: "button", class: "link", onclick: () => { choose(q); byId("query").focus(); byId("query").scrollIntoView(); } }, DATA.queries[q].id);
}

function mistakesTable() {
  const { groups } = DATA.overview;
  if (!groups.length) return null;
  const behind = ({ id, label, mean }) => el("li", null, el("span", { class: "id" }, id), label === null ? null : el("span", { class: "label" }, label),
    el("span", { class: "quiet" }, withUnit(signed(mean))));
  const links = (group) => group.queries.slice(0, LINKS_SHOWN).map((q) => [queryLink(q), " "]);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Mistakes" }, el("table", { class: "plain overall kinds" },
    el("caption", null, "Mistakes, and the training examples that contribute most to them: their strongest opponents on average"),
    el("thead", null, el("tr", null, [DATA.classes ? "true label → predicted" : "mistake", "queries", "training examples behind them"].map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", null, groups.map((group) => el("tr", null,
      el("th", { scope: "row", class: "wrong" }, group.name),
      el("td", { class: "links" }, el("b", null, group.count.toLocaleString("en-US")), " ", links(group).flat(), group.count > Math.min(LINKS_SHOWN, group.queries.length) ? "…" : null),
      el("td", null, group.opponents.length ? el("ol", { class: "behind" }, group.opponents.map(behind)) : "none"))))));
}

function drawOverview() {
  if (DATA.overview.previews) adopt(DATA.overview);
  const { count, mistakes, orders, notes } = DATA.overview;
  const tabs = Object.keys(orders).map((name) => el("button", {
    type: "button", "aria-pressed": String(OVERVIEW.order === name),
    onclick: () => { OVERVIEW.order = name; drawOverview(); byId("overview-body").querySelector("[aria-pressed=true]").focus(); } }, ORDERS[name][0]));
  byId("overview-body").replaceChildren(
    el("p", { class: "definition" }, `Means of the scores of ${counted(count, "query")}`, mistakes ? `, of which ${mistakes.toLocaleString("en-US")} are mistakes` : null, ". ",
      notes.join(" ")),
    mistakesTable() || "",
    tabs.length ? el("div", { class: "controls" }, el("div", { class: "tabs", role: "group", "aria-label": "Which training examples" }, tabs),
      el("span", { class: "quiet" }, ORDERS[OVERVIEW.order][1])) : el("p", { class: "quiet" }, "No training example has an effect on these queries."),
    tabs.length ? overviewTable() : "");
}

function startOverview() {
  if (!DATA.overview) return;
  byId("overview").hidden = byId("to-overview").hidden = false;
  drawOverview();
}

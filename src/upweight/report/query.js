// One query: the example, the prediction, and its strongest training examples.

function verdict(entry) {
  if (entry.predicted === null) return null;
  if (entry.label === null) return el("p", { class: "says" }, "Predicted ", el("b", null, entry.predicted), ".");
  return el("p", { class: "says" },
    "Predicted ", el("b", null, entry.predicted), entry.wrong ? ", but the true label is " : `, true ${DATA.classes ? "label" : "value"} `,
    el("b", null, entry.label), entry.wrong ? ". " : ".", entry.wrong ? el("span", { class: "wrong" }, "✗ wrong") : null);
}

function optimumLine(entry) {
  if (!entry.atOptimum) return null;
  return el("p", { class: "measured" }, "At the optimum of its training objective, where scores are taken, the model would predict ",
    el("b", null, entry.atOptimum), ".");
}

function measuredLine(entry) {
  if (entry.measured === null || entry.measured === undefined) return null;
  const value = WORDS.loss ? -entry.measured : entry.measured;
  return el("p", { class: "measured" }, WORDS.loss ? "Loss " : WORDS.quantity + " ",
    el("b", null, plain(value)), WORDS.unit ? " " + WORDS.unit : "");
}

// Whether the examples behind the prediction have to do with it.
function supportLine(entry) {
  if (!entry.support) return null;
  if (!entry.support.flagged) return el("p", { class: "measured" }, "Support: ", entry.support.sentence);
  return el("p", { class: "answer" }, el("span", { class: "wrong" }, "⚑ unusual support"), " ", entry.support.sentence,
    entry.wrong ? " These speak for the predicted label." : null);
}

function chances(entry) {
  if (!entry.probabilities) return null;
  const rows = entry.probabilities.map(([name, p]) => {
    const kind = name === entry.predicted ? (entry.wrong ? "bad" : "good") : name === entry.label ? "true" : "";
    const mark = name === entry.predicted ? "predicted" : name === entry.label ? "true" : "";
    const fillBar = el("span", { class: "fill" });
    fillBar.style.width = 100 * (p || 0) + "%";
    return el("tr", { class: kind },
      el("th", { scope: "row", title: name }, name), el("td", { class: "track" }, fillBar),
      el("td", { class: "number" }, percent(p)), el("td", { class: "mark" }, mark));
  });
  const left = entry.classes - rows.length;
  return el("table", { class: "chances" },
    el("caption", null, left ? `Probabilities (${rows.length} of ${entry.classes} classes)` : "Probabilities"),
    el("tbody", null, rows));
}

// The answer in one or two sentences, above the pictures.
function answer(entry) {
  const { proponents, opponents } = entry.top;
  const parts = [];
  if (entry.wrong && opponents.length) {
    const alike = opponents.filter(([position]) => TRAIN.label(position) === entry.predicted).length;
    parts.push(el("b", null, `${alike} of the ${opponents.length} strongest opponents`),
      ` ${alike === 1 ? "carries" : "carry"} the label ${entry.predicted} that the model predicted. `);
  } else if (DATA.classes && entry.label !== null && entry.predicted !== null && proponents.length) {
    const alike = proponents.filter(([position]) => TRAIN.label(position) === entry.label).length;
    parts.push(el("b", null, `${alike} of the ${proponents.length} strongest proponents`), ` ${alike === 1 ? "carries" : "carry"} its label ${entry.label}. `);
  }
  const strongest = entry.wrong ? opponents[0] || proponents[0] : proponents[0] || opponents[0];
  if (strongest) {
    const sentence = removal(strongest[1]);
    parts.push(`Strongest ${strongest[1] > 0 ? "proponent" : "opponent"}: `, el("b", null, TRAIN.id(strongest[0])),
      ". ", sentence);
  }
  return parts.length ? el("p", { class: "answer" }, parts) : null;
}

function kindOf(entry) {
  return DATA.previews[entry.preview].kind;
}

function queryParts(entry, titleId = null) {
  return [
    el("div", { class: "seen" }, show(entry.preview, "query " + entry.id, 700)),
    el("div", { class: "query-text" },
      el("h2", { id: titleId }, "Query ", el("span", { class: "id" }, entry.id)),
      verdict(entry), optimumLine(entry), measuredLine(entry), answer(entry), supportLine(entry)),
    chances(entry)].filter(Boolean);
}

function drawQuery(q) {
  const entry = DATA.queries[q];
  byId("query").className = "query " + kindOf(entry);
  byId("query").replaceChildren(...queryParts(entry, "query-title"));
}

// ---- proponents and opponents --------------------------------------------------------------------------------------

function labelTag(position, entry, bare) {
  const label = TRAIN.label(position);
  if (label === null) return null;
  const what = bare ? null : el("small", null, DATA.classes ? "label" : "target");
  if (DATA.classes && entry.wrong && label === entry.predicted) {
    return el("span", { class: "label predicted", title: "the label the model wrongly predicted" }, what, label,
      el("small", null, "= predicted"));
  }
  if (DATA.classes && entry.label !== null && label !== entry.label) {
    return el("span", { class: "label differs", title: "not the true label of the query" }, what, label,
      el("small", null, "≠ true label"));
  }
  return el("span", { class: "label" }, what, label);
}

function card([position, score, range], entry, scale, side) {
  const bar = el("span", { class: "fill" });
  bar.style.width = Math.max(0.5, (100 * Math.abs(score)) / scale) + "%";
  const level = byId("verification").dataset.level;
  const interval = range && range[0] !== null && range[1] !== null && signed(range[0]) !== signed(range[1])
    ? `${level} interval from retraining: ${signed(range[0])} to ${signed(range[1])}` : null;
  const id = TRAIN.id(position);
  return el("li", { class: "card", title: removal(score) + (interval ? " " + interval + "." : "") },
    el("div", { class: "thumb" },
      show(TRAIN.preview(position), "training example " + id, CARD_TEXT, DATA.previews[entry.preview])),
    el("div", { class: "facts" },
      el("div", { class: "head" }, exampleName(position), labelTag(position, entry)),
      el("div", { class: "score" },
        el("span", { class: "track " + side, "aria-hidden": "true" }, bar),
        el("span", { class: "number" }, withUnit(signed(score)))),
      interval ? el("div", { class: "interval" }, `${level} interval ${signed(range[0])} to ${signed(range[1])}`) : null,
      el("span", { class: "hidden" }, removal(score))));
}

function column(title, word, side, examples, entry, scale, explains) {
  const cards = el("ol", { class: "cards" }, examples.map((example) => card(example, entry, scale, side)));
  // A phone shows five at first, so that the opponents are not far below; the style sheet shows the button only there.
  const more = el("button", { type: "button", class: "more-cards", onclick: () => { cards.classList.add("whole"); more.remove(); } },
    `Show all ${examples.length}`);
  const body = examples.length
    ? [cards, examples.length > 5 ? more : null]
    : el("p", { class: "quiet" }, `No training example has a ${side === "pro" ? "positive" : "negative"} score.`);
  return el("section", { class: "side " + side },
    el("h3", null, title, " ", el("small", null, `(${word})`)),
    el("p", { class: "quiet" }, explains), body);
}

function strongestParts(entry) {
  const { proponents, opponents } = entry.top;
  const scale = Math.max(1e-300, ...[...proponents, ...opponents].map(([, score]) => Math.abs(score)));
  const without = WORDS.loss ? ["raise the loss", "lower the loss"] : [`lower the ${WORDS.quantity}`, `raise the ${WORDS.quantity}`];
  const words = WORDS.loss ? ["helped", "harmed"] : ["raised it", "lowered it"];
  return [
    el("p", { class: "definition" }, el("b", null, "Score"),
      ` = ${WORDS.measurement} of this query with the training example minus without it. All bars share one scale.`,
      kindOf(entry) === "row" ? " = marks a value that the query has too; ≠ stands before the query’s own value where it differs." : null),
    el("div", { class: "sides" },
      column("Proponents", words[0], "pro", proponents, entry, scale, `Removing one would ${without[0]}.`),
      column("Opponents", words[1], "opp", opponents, entry, scale, `Removing one would ${without[1]}.`))];
}

function drawStrongest(q) {
  const entry = DATA.queries[q];
  byId("strongest").className = kindOf(entry);
  byId("strongest").replaceChildren(...strongestParts(entry));
}

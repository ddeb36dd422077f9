// Predicted against actual effects of all removals that were verified by retraining.

const PLOT = { kind: null, only: false };
const BOX = { width: 560, height: 460, left: 78, right: 16, top: 14, bottom: 56 };

function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(Number((i * step).toPrecision(12)));
  return values;
}

function pointsOf(q) {
  const check = DATA.check;
  const points = [];
  check.queries.forEach((query, row) => check.removals.forEach((removed, column) => {
    const [x, y] = [check.predicted[row][column], check.actual[row][column]];
    if (removed.kind !== PLOT.kind || x === null || y === null || (PLOT.only && query !== q)) return;
    points.push({ x, y, removed, query, isThisQuery: query === q });
  }));
  return points.sort((a, b) => a.isThisQuery - b.isThisQuery);
}

function span(values) {
  let [low, high] = [0, 0];
  for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
  const margin = (high - low || 1) * 0.06;
  return [low - margin, high + margin];
}

function glyph(point, x, y) {
  const r = point.isThisQuery ? 5 : 3.5;
  const kind = `point ${point.isThisQuery ? "this-query" : "other-query"}`;
  return PLOT.kind === "one"
    ? svg("circle", { class: kind, cx: x, cy: y, r })
    : svg("path", { class: kind, d: `M${x - r * 1.2} ${y}L${x} ${y - r * 1.2}L${x + r * 1.2} ${y}L${x} ${y + r * 1.2}Z` });
}

function describe(point) {
  const query = point.query < 0 ? "a query not on this page" : "query " + DATA.queries[point.query].id;
  const size = point.removed.size > 1 ? ` (${counted(point.removed.size, "training example")})` : "";
  return `${query}, removing ${point.removed.name}${size}: predicted ${signed(point.x)}, actual ${signed(point.y)}`;
}

function axes(sx, sy, xs, ys) {
  const { width, height, left, right, top, bottom } = BOX;
  const unit = WORDS.unit ? ` (${WORDS.unit})` : "";
  const marks = [];
  for (const t of ticks(xs[0], xs[1], 5)) {
    marks.push(svg("line", { class: t === 0 ? "zero" : "grid", x1: sx(t), x2: sx(t), y1: top, y2: height - bottom }),
      svg("text", { class: "tick", x: sx(t), y: height - bottom + 18, "text-anchor": "middle" }, tick(t)));
  }
  for (const t of ticks(ys[0], ys[1], 6)) {
    marks.push(svg("line", { class: t === 0 ? "zero" : "grid", y1: sy(t), y2: sy(t), x1: left, x2: width - right }),
      svg("text", { class: "tick", x: left - 8, y: sy(t) + 4, "text-anchor": "end" }, tick(t)));
  }
  const middle = (height - bottom + top) / 2;
  return [...marks,
    svg("text", { class: "axis", x: (left + width - right) / 2, y: height - 10, "text-anchor": "middle" },
      "predicted score" + (WORDS.effect ? unit : " (RANK, no unit)")),
    svg("text", { class: "axis", x: 18, y: middle, "text-anchor": "middle", transform: `rotate(-90 18 ${middle})` },
      "actual, by retraining" + unit)];
}

function scatter(points) {
  const { width, height, left, right, top, bottom } = BOX;
  let [xs, ys] = [span(points.map((p) => p.x)), span(points.map((p) => p.y))];
  // If both axes have the same unit, sizes can be compared, and the axes share one scale.
  if (WORDS.effect) xs = ys = [Math.min(xs[0], ys[0]), Math.max(xs[1], ys[1])];
  const sx = (v) => left + ((v - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
  const sy = (v) => height - bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
  const info = el("p", { class: "point-text", "aria-hidden": "true" }, "Point at a mark to read it.");
  const marks = points.map((point) => {
    const mark = glyph(point, sx(point.x), sy(point.y));
    mark.append(svg("title", null, describe(point)));
    mark.addEventListener("pointerenter", () => { info.textContent = describe(point); });
    return mark;
  });
  const ideal = WORDS.effect
    ? svg("line", { class: "ideal", x1: sx(xs[0]), y1: sy(xs[0]), x2: sx(xs[1]), y2: sy(xs[1]) }) : null;
  const name = `Scatter plot of ${counted(points.length, "removal")}: predicted against actual score`;
  return [svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name }, axes(sx, sy, xs, ys), [ideal], marks), info];
}

function numbersTable(q) {
  const check = DATA.check;
  const row = check.queries.indexOf(q);
  if (row < 0) return el("p", { class: "quiet" }, "This query was not among the verified ones.");
  const columns = check.removals.map((removed, column) => [removed, column]).filter(([removed]) => removed.kind === PLOT.kind);
  const lines = columns.map(([removed, column]) => el("tr", null,
    el("th", { scope: "row" }, removed.name), el("td", { class: "number" }, removed.size.toLocaleString("en-US")),
    el("td", { class: "number" }, signed(check.predicted[row][column])),
    el("td", { class: "number" }, signed(check.actual[row][column]))));
  return el("details", null, el("summary", null, "This query’s numbers"),
    el("div", { class: "scroll" }, el("table", { class: "plain" },
      el("thead", null, el("tr", null, ["removed", "training examples", "predicted", "actual"].map((t, i) => el("th", { scope: "col", class: i ? "number" : null }, t)))),
      el("tbody", null, lines))));
}

function plotControls(q) {
  const kinds = [["one", "single examples"], ["group", "groups"]];
  const buttons = kinds.map(([kind, name]) => {
    const number = DATA.check.removals.filter((r) => r.kind === kind).length;
    return el("button", {
      type: "button", "aria-pressed": String(PLOT.kind === kind), disabled: number === 0,
      onclick: () => { PLOT.kind = kind; drawPlot(q); byId("plot").querySelector("[aria-pressed=true]").focus(); },
    }, `${name} (${number})`);
  });
  const checkbox = el("input", { type: "checkbox", onchange: (event) => { PLOT.only = event.target.checked; drawPlot(q); byId("only-this-query").focus(); } });
  checkbox.id = "only-this-query";
  checkbox.checked = PLOT.only;
  return el("div", { class: "controls" }, el("div", { class: "tabs", role: "group", "aria-label": "What was removed" }, buttons),
    el("label", null, checkbox, " this query only (zooms in)"));
}

function drawPlot(q) {
  const check = DATA.check;
  if (!check) {
    byId("plot").replaceChildren(el("p", { class: "quiet" },
      "Not verified: no model was retrained without some of the training examples, so predicted effects cannot be compared with actual ones."));
    return;
  }
  const has = (kind) => check.removals.some((r) => r.kind === kind);
  if (!PLOT.kind || !has(PLOT.kind)) PLOT.kind = has("one") ? "one" : "group";
  const kind = PLOT.kind === "one" ? "single examples" : "groups";
  const points = pointsOf(q);
  const legend = el("p", { class: PLOT.kind === "group" ? "legend groups" : "legend" },
    el("span", { class: "key this-query" }, "this query"), PLOT.only ? null : el("span", { class: "key other-query" }, "other queries"),
    WORDS.effect ? el("span", { class: "key line" }, "predicted = actual") : null);
  const caption = el("dl", { class: "numbers" },
    check.agreement[PLOT.kind].map(([name, value]) =>
      el("div", null, el("dt", null, name), el("dd", null, value))));
  byId("plot").replaceChildren(plotControls(q),
    el("div", { class: "plot-row" },
      el("figure", null, points.length ? scatter(points) : el("p", { class: "quiet" }, "No verified removal of this kind for this query.")),
      el("div", { class: "plot-side" }, legend, caption,
        el("p", { class: "quiet" }, WORDS.effect
          ? `Over all verified ${kind}. On the dashed line, predicted and actual effects are equal.`
          : `Over all verified ${kind}. For RANK scores, points should rise from left to right; only their order means something.`),
        check.note ? el("p", { class: "note" }, check.note) : null)),
    numbersTable(q));
}

// A narrow screen gets a smaller drawing, because the letters of a scaled drawing would be too small.
function fitPlot() {
  const width = Math.max(300, Math.min(560, byId("plot").clientWidth));
  if (width === BOX.width) return;
  BOX.width = width;
  BOX.height = Math.min(460, Math.max(320, Math.round(width * 0.9)));
  if (STATE.query >= 0) drawPlot(STATE.query);
}

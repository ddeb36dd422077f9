// The course of training: the loss of the query and of one training example, and the effect of its steps on the query.

const COURSE = { position: null };
const STRIP = { width: 560, left: 66, right: 12, top: 12 };

function stripAxes(sx, sy, ys, height, last) {
  const { width, left, right, top } = STRIP;
  const bottom = last ? 30 : 12;
  const steps = DATA.course.steps;
  const marks = ticks(ys[0], ys[1], 4).flatMap((t) => [
    svg("line", { class: t === 0 ? "zero" : "grid", x1: left, x2: width - right, y1: sy(t), y2: sy(t) }),
    svg("text", { class: "tick", x: left - 8, y: sy(t) + 4, "text-anchor": "end" }, tick(t))]);
  const named = last ? ticks(steps[0], Math.max(steps[0] + 1, steps[steps.length - 1]), 5).flatMap((t) =>
    svg("text", { class: "tick", x: sx(t), y: height - bottom + 18, "text-anchor": "middle" }, tick(t))) : [];
  return [...marks, ...named, svg("line", { class: "zero", x1: left, x2: left, y1: top, y2: height - bottom })];
}

function strip(height, values, last, name, draw) {
  const { width, left, right, top } = STRIP;
  const bottom = last ? 30 : 12;
  const steps = DATA.course.steps;
  const [low, high] = [steps[0], Math.max(steps[0] + 1, steps[steps.length - 1])];
  const ys = span(values);
  const margin = 14;
  const sx = (v) => left + margin + ((v - low) / (high - low)) * (width - left - right - 2 * margin);
  const sy = (v) => height - bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (height - top - bottom);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name },
    stripAxes(sx, sy, ys, height, last), draw(sx, sy));
}

function curve(kind, values, sx, sy) {
  const points = values.map((v, i) => [sx(DATA.course.steps[i]), sy(v)]).filter(([, y]) => Number.isFinite(y));
  return [svg("polyline", { class: "curve " + kind, points: points.map((p) => p.join(",")).join(" ") }),
    ...points.map(([x, y]) => svg("circle", { class: "curve-point " + kind, cx: x, cy: y, r: 2.5 }))];
}

function courseTable(ofQuery, ofExample, pushes) {
  const quantity = WORDS.loss ? "loss" : WORDS.quantity;
  const head = ["step", `${quantity} of the query`, `${quantity} of the example`, "effect of its steps"];
  const lines = DATA.course.steps.map((step, i) => el("tr", null, el("th", { scope: "row" }, step.toLocaleString("en-US")),
    el("td", { class: "number" }, plain(ofQuery[i])), el("td", { class: "number" }, plain(ofExample[i])), el("td", { class: "number" }, signed(pushes[i]))));
  return el("details", null, el("summary", null, "Numbers"), el("div", { class: "scroll" }, el("table", { class: "plain" },
    el("thead", null, el("tr", null, head.map((t, i) => el("th", { scope: "col", class: i ? "number" : null }, t)))), el("tbody", null, lines))));
}

function courseOf(q, position) {
  const course = DATA.course.queries[q];
  const asLoss = (values) => (WORDS.loss ? values.map((v) => (v === null ? null : -v)) : values);
  const [ofQuery, ofExample, pushes] = [asLoss(course.measured), asLoss(DATA.course.train[position]), course.pushes[position]];
  const quantity = WORDS.loss ? "Loss" : WORDS.quantity;
  const curves = strip(170, [...ofQuery, ...ofExample], false, `${quantity} of the query and of training example ${TRAIN.id(position)} over the training`,
    (sx, sy) => [...curve("of-query", ofQuery, sx, sy), ...curve("of-example", ofExample, sx, sy)]);
  const thick = Math.max(1, Math.min(10, (0.7 * (STRIP.width - STRIP.left)) / pushes.length));
  const bars = strip(150, pushes, true, `Effect on the query of the optimiser steps along training example ${TRAIN.id(position)}, over the training`,
    (sx, sy) => pushes.map((v, i) => svg("rect", { class: v < 0 ? "push opp" : "push pro", x: sx(DATA.course.steps[i]) - thick / 2, width: thick,
      y: Math.min(sy(0), sy(v)), height: Math.max(0.5, Math.abs(sy(v) - sy(0))) },
      svg("title", null, `step ${DATA.course.steps[i]}: ${signed(v)}`))));
  return el("figure", null,
    el("p", { class: "legend" }, el("span", { class: "key of-query" }, `${quantity} of the query`), el("span", { class: "key of-example" }, "of the training example")),
    curves, el("p", { class: "legend" }, el("span", { class: "key pro" }, "its steps helped"), el("span", { class: "key opp" }, "its steps harmed")),
    bars, el("p", { class: "quiet" }, "Horizontal axis: optimiser steps. A bar is the effect, on the measurement of the query, of the steps nearest to a checkpoint along the gradient of this example."),
    courseTable(ofQuery, ofExample, pushes));
}

function drawCourse(q) {
  if (!DATA.course) return;
  const course = DATA.course.queries[q];
  byId("course").hidden = false;
  if (!course) {
    byId("course-body").replaceChildren(el("p", { class: "quiet" }, "This query was not followed over the training."));
    return;
  }
  const { proponents, opponents } = DATA.queries[q].top;
  const choices = [...proponents.map(([position]) => [position, "proponent"]), ...opponents.map(([position]) => [position, "opponent"])]
    .filter(([position]) => course.pushes[position]);
  if (!choices.some(([position]) => position === COURSE.position)) COURSE.position = choices[0][0];
  const choice = el("select", { onchange: (event) => { COURSE.position = Number(event.target.value); drawCourse(q); byId("course-choice").focus(); } },
    choices.map(([position, side]) => el("option", { value: position, selected: position === COURSE.position }, `${TRAIN.id(position)} (${side})`)));
  choice.id = "course-choice";
  byId("course-body").replaceChildren(el("div", { class: "controls" }, el("label", null, "Training example ", choice)), courseOf(q, COURSE.position));
}

// As in the verification plot, a narrow screen gets a smaller drawing with letters of the same size.
function fitCourse() {
  if (!DATA.course) return;
  const width = Math.max(280, Math.min(560, byId("course-body").clientWidth || 560));
  if (width === STRIP.width) return;
  STRIP.width = width;
  if (STATE.query >= 0) drawCourse(STATE.query);
}

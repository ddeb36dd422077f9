"use strict";
// Text of the data set is set only as text nodes and attributes of known names: nothing of it is parsed as HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const CARD_TEXT = 220;  // characters on a card; where more fit, a picture has its legend too

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "oninput" || name === "onchange") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}

// ---- numbers -------------------------------------------------------------------------------------------------------

function plain(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e-4 && size < 1e6) text = size.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
  else text = size.toExponential(digits - 1).replace("e-", "e−").replace("e+", "e");
  return (value < 0 ? "−" : "") + text;
}

// A tick is a round number, without trailing zeros.
function tick(value) {
  const size = Math.abs(value);
  const plainly = size === 0 || (size >= 1e-4 && size < 1e6);
  return plainly ? String(Number(size.toPrecision(6))).replace(/^/, value < 0 ? "−" : "") : plain(value, 2);
}

function signed(value, digits = 3) {
  return value > 0 ? "+" + plain(value, digits) : plain(value, digits);
}

function percent(p) {
  if (p === null) return "–";
  if (p > 0 && p < 0.001) return "<0.1 %";
  if (p < 1 && p > 0.999) return ">99.9 %";
  return (100 * p).toFixed(1) + " %";
}

function counted(n, noun) {
  return n.toLocaleString("en-US") + " " + (n === 1 ? noun : noun.endsWith("y") ? noun.slice(0, -1) + "ies" : noun + "s");
}

// ---- previews ------------------------------------------------------------------------------------------------------

// A part of a viewer brings its own previews; those of a report are all in the page.
function adopt({ previews, table, examples }) {
  Object.assign(DATA, { previews, table, examples: examples || {} });
}

function picture(preview, what) {
  const kind = Math.max(preview.width, preview.height) <= 64 ? "shot pixels" : "shot";
  return el("img", { class: kind, src: preview.uri, width: preview.width, height: preview.height, alt: what });
}

// Where there is room, a picture with marks has their names, and a button that shows it without them.
function markedPicture(preview, what) {
  const names = preview.marks.map(({ name }) => name).join(", ");
  const shot = picture(preview, names ? `${what}, marked: ${names}` : what);
  const button = el("button", { type: "button", class: "link", "aria-pressed": "false" }, "without marks");
  button.addEventListener("click", () => {
    const isPlain = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", String(isPlain));
    shot.src = isPlain ? preview.plain : preview.uri;
  });
  return el("div", { class: "marked" }, shot, el("p", { class: "marks" },
    preview.marks.map(({ name, uri }) => el("span", null, el("img", { src: uri, alt: "", width: 22, height: 14 }), name)), names ? button : null));
}

function passage(preview, limit) {
  const text = preview.text;
  const rest = preview.more ? ` … (${counted(preview.more, "more character")} not on this page)` : "";
  if (text.length <= limit * 1.2) return el("p", { class: "passage", dir: "auto" }, text, rest);
  const cut = text.slice(0, limit).replace(/\s+\S*$/, "");
  const whole = el("p", { class: "passage", dir: "auto", hidden: true }, text, rest);
  const start = el("p", { class: "passage", dir: "auto", title: text.slice(0, 2000) }, cut + " …");
  const more = el("button", { type: "button", class: "link", "aria-expanded": "false" }, "full text");
  more.addEventListener("click", () => {
    whole.hidden = !whole.hidden;
    start.hidden = !whole.hidden;
    more.textContent = whole.hidden ? "full text" : "less";
    more.setAttribute("aria-expanded", String(!whole.hidden));
  });
  return el("div", null, start, whole, more);
}

// The lines of a series, on the scale of its own values; a gap is a missing value.
function linesOf(preview, what) {
  const { lines, low, high } = preview;
  const points = (line) => line.map(([x, y]) => `${4 + 232 * x},${76 - 72 * y}`).join(" ");
  return el("div", { class: "signal" },
    svg("svg", { viewBox: "0 0 240 80", role: "img", "aria-label": `${what}: ${plain(low)} to ${plain(high)}` },
      lines.map((line, i) => svg("polyline", { points: points(line), class: "channel channel-" + (i % 4) }))),
    el("small", null, `${plain(low)} to ${plain(high)}`));
}

function show(index, what, limit, compared) {
  const preview = DATA.previews[index];
  if (preview.lines) return linesOf(preview, what);
  if (preview.audio) {
    return el("div", { class: "signal" }, picture(preview, "spectrogram of " + what),
      el("audio", { controls: true, preload: "none", src: preview.audio, "aria-label": "play " + what }), el("small", null, preview.scale));
  }
  if (preview.kind === "image") return preview.marks && limit > CARD_TEXT ? markedPicture(preview, what) : picture(preview, what);
  return preview.kind === "text" ? passage(preview, limit) : rowNode(preview, limit, compared);
}

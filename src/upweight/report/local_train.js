// The training examples of a report, which are all in the page.

const TRAIN = {
  count: Array.isArray(DATA.train.ids) ? DATA.train.ids.length : DATA.train.ids.count,
  id: (place) => (Array.isArray(DATA.train.ids) ? DATA.train.ids[place] : String(place)),
  names: DATA.train.labels.names,
  codes: new (DATA.train.labels.width === 1 ? Uint8Array : Uint32Array)(bytes(DATA.train.labels.codes)),
  label: (place) => TRAIN.names[TRAIN.codes[place]],
  preview: (place) => DATA.train.previews[place],
  searched: DATA.train.excerpts ? "id, label or content" : "id or label",
};

const decoded = new Map();

// {places, scores}: the scores on the page for one query; `places` is null when all training examples are there.
function scoresOf(q) {
  if (!decoded.has(q)) {
    const entry = DATA.queries[q];
    decoded.clear();
    decoded.set(q, {
      places: entry.places ? new Uint32Array(bytes(entry.places)) : null,
      scores: new Float32Array(bytes(entry.scores)),
    });
  }
  return decoded.get(q);
}

// Beside a score: the id of a training example.
function exampleName(place) {
  return el("span", { class: "id" }, TRAIN.id(place));
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

// The training examples of a viewer: those of the part that came last.

const TRAIN = {
  id: (place) => DATA.examples[place].id,
  names: DATA.train.names,
  label: (place) => DATA.examples[place].label,
  preview: (place) => DATA.examples[place].preview,
  searched: "id, label or content",
};

// Beside a score: the id of a training example, which opens it beside the query.
function exampleName(place) {
  return el("button", { type: "button", class: "link id", title: "compare with the query", onclick: () => openExample(place) }, TRAIN.id(place));
}

function glance(place) {
  const { line, preview } = DATA.examples[place];
  if (line !== undefined) return el("span", { class: "excerpt", dir: "auto" }, line);
  const shown = DATA.previews[preview];
  return shown.kind === "image" ? picture(shown, "") : el("span", { class: "excerpt" }, shown.text || "");
}

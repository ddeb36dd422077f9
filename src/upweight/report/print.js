// On paper there is no navigator: every query is printed, one after the other.

function drawPrinted() {
  if (byId("printed").hasChildNodes()) return;
  byId("printed").append(el("h2", null, counted(DATA.queries.length, "query")), ...DATA.queries.map((entry, q) => el("article", null,
    el("section", { class: "query " + kindOf(entry) }, queryParts(entry)),
    el("section", { class: kindOf(entry) }, strongestParts(entry)), printedInputs(q))));
}

function printedInputs(q) {
  const part = document.querySelector(`#inputs > [data-query="${q}"]`);
  if (!part) return null;
  const copy = part.cloneNode(true);
  copy.hidden = false;
  return copy;
}

function startPrinting() {
  addEventListener("beforeprint", drawPrinted);
  addEventListener("afterprint", () => byId("printed").replaceChildren());
  // A browser without a window renders for paper without these events.
  const paper = matchMedia("print");
  paper.addEventListener("change", () => (paper.matches ? drawPrinted() : byId("printed").replaceChildren()));
  if (paper.matches) drawPrinted();
}

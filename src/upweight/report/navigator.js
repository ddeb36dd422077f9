// One query in the list of all.

function navigatorItem(q, entry) {
  const preview = DATA.previews[entry.preview];
  const line = entry.predicted === null ? entry.label
    : entry.label === null ? "→ " + entry.predicted
    : entry.wrong ? `${entry.label} → ${entry.predicted}` : DATA.classes ? entry.predicted : `${entry.predicted} (true ${entry.label})`;
  const tooltip = entry.wrong ? `true label ${entry.label}, wrongly predicted ${entry.predicted}`
    : [entry.label === null ? "" : "true label " + entry.label, entry.predicted === null ? "" : "predicted " + entry.predicted].filter(Boolean).join(", ");
  const text = preview.kind === "text" ? preview.text.slice(0, 70)
    : preview.kind === "row" ? rowInWords(preview, 2) : null;
  return el("li", null, el("button", { type: "button", "data-query": q, title: tooltip, onclick: () => choose(q, { scroll: false }) },
    preview.kind === "image" ? picture(preview, "") : null,
    el("span", { class: "who" }, el("span", { class: "id" }, entry.id), text ? el("span", { class: "excerpt", dir: "auto" }, text) : null,
      line === null ? null : el("span", { class: entry.wrong ? "went wrong" : "went" }, entry.wrong ? "✗ " : "", line))));
}

// The review: one suspect at a time. Decisions are in the storage of the browser until they are saved as a patch.

const SUSPECTS = DATA.suspects;
const STORE = "upweight-review-" + DATA.train.checksum + "-" + DATA.key;
const KEEP = "keep", DROP = "drop";
// `decided` maps the index of a suspect to KEEP, DROP or the index of a label; `history` holds the steps that undo reverts.
const REVIEW = { at: 0, decided: new Map(), history: [] };

function stored(value) {
  // Storage may be disabled for files; then decisions last as long as the page is open.
  try {
    if (value !== undefined) localStorage.setItem(STORE, value);
    return localStorage.getItem(STORE);
  } catch { return null; }
}

function remember() {
  stored(JSON.stringify({ at: REVIEW.at, decided: [...REVIEW.decided], history: REVIEW.history }));
}

function recall() {
  let saved;
  try { saved = JSON.parse(stored() || "null"); } catch { return; }
  if (!saved || !Array.isArray(saved.decided) || !Array.isArray(saved.history)) return;
  const valid = (place) => Number.isInteger(place) && place >= 0 && place < SUSPECTS.length;
  const choice = (c) => c === KEEP || c === DROP || (Number.isInteger(c) && c >= 0 && c < DATA.labels.length);
  REVIEW.decided = new Map(saved.decided.filter(([place, c]) => valid(place) && choice(c)));
  REVIEW.history = saved.history.filter((step) => Array.isArray(step) && valid(step[0]) && (step[1] === null || choice(step[1])));
  if (valid(saved.at)) REVIEW.at = saved.at;
}

function name(label) {
  return DATA.labels[label].text;
}

function stateOf(place) {
  const decision = REVIEW.decided.get(place), suspect = SUSPECTS[place];
  if (decision === undefined) return { kind: "undecided", text: "not decided" };
  if (decision === DROP) return { kind: "dropped", text: "dropped" };
  if (decision === KEEP || decision === suspect.label) return { kind: "kept", text: `kept as ${name(suspect.label)}` };
  return { kind: decision === suspect.suggested ? "accepted" : "relabelled", text: `${name(suspect.label)} → ${name(decision)}` };
}

function decide(decision) {
  const place = REVIEW.at, before = REVIEW.decided.get(place);
  REVIEW.history.push([place, before === undefined ? null : before]);
  REVIEW.decided.set(place, decision);
  const words = stateOf(place).text;
  for (let step = 1; step <= SUSPECTS.length; step += 1) {
    const next = (place + step) % SUSPECTS.length;
    if (!REVIEW.decided.has(next)) { REVIEW.at = next; break; }
    if (step === SUSPECTS.length) REVIEW.at = Math.min(place + 1, SUSPECTS.length - 1);
  }
  draw(`${SUSPECTS[place].name}: ${words}`);
}

function undo() {
  const last = REVIEW.history.pop();
  if (!last) return;
  const [place, before] = last;
  if (before === null) REVIEW.decided.delete(place);
  else REVIEW.decided.set(place, before);
  REVIEW.at = place;
  draw(`${SUSPECTS[place].name}: undone`);
}

function move(step) {
  REVIEW.at = Math.min(SUSPECTS.length - 1, Math.max(0, REVIEW.at + step));
  draw("");
}

function labelBox(title, label, chance) {
  return el("div", null, el("dt", null, title), el("dd", { class: "name", dir: "auto" }, name(label)),
    chance === null ? null : el("dd", { class: "chance" }, `probability ${percent(chance)}`));
}

function drawSuspect() {
  const suspect = SUSPECTS[REVIEW.at], state = stateOf(REVIEW.at);
  const reasons = [["loss", plain(suspect.loss)], ["leave-one-out loss", suspect.alone === null ? null : plain(suspect.alone)],
    ["harm", suspect.harm === null ? null : signed(suspect.harm)]].filter(([, value]) => value !== null);
  byId("suspect").className = "suspect " + state.kind;
  byId("suspect").replaceChildren(
    el("p", { class: "where" }, el("span", null, `${REVIEW.at + 1} of ${SUSPECTS.length}`), el("span", { class: "id" }, suspect.name)),
    el("div", { class: "seen" }, show(suspect.preview, "training example " + suspect.name, 900)),
    el("dl", { class: "labels" }, labelBox("Label given", suspect.label, suspect.chances[0]), labelBox("Suggested", suspect.suggested, suspect.chances[1])),
    el("p", { class: "why" }, ...reasons.flatMap(([word, value], i) => [i ? " · " : "", word + " ", el("b", null, value)])),
    el("p", { class: "decision", hidden: state.kind === "undecided" }, "Decided: " + state.text));
  byId("accept-text").textContent = `it is ${name(suspect.suggested)}`;
  byId("reject-text").textContent = `${name(suspect.label)} is right`;
  byId("other").replaceChildren(el("option", { value: "" }, "choose …"),
    ...DATA.labels.map((label, i) => (i === suspect.label || i === suspect.suggested ? null : el("option", { value: i }, label.text))).filter(Boolean));
  byId("other-box").hidden = DATA.labels.length < 3;
  byId("undo").disabled = REVIEW.history.length === 0;
  byId("previous").disabled = REVIEW.at === 0;
  byId("next").disabled = REVIEW.at === SUSPECTS.length - 1;
}

function counts() {
  const tally = { accepted: 0, relabelled: 0, dropped: 0, kept: 0 };
  for (const place of REVIEW.decided.keys()) tally[stateOf(place).kind] += 1;
  return tally;
}

function drawProgress() {
  const tally = counts(), done = REVIEW.decided.size;
  byId("bar").max = SUSPECTS.length;
  byId("bar").value = done;
  byId("bar").textContent = `${done} of ${SUSPECTS.length}`;
  byId("tally").textContent = `${done} of ${SUSPECTS.length} decided: ${tally.accepted + tally.relabelled} relabelled, ${tally.dropped} dropped, ${tally.kept} kept`;
  const changes = tally.accepted + tally.relabelled + tally.dropped;
  byId("summary").textContent = changes ? `${counted(changes, "change")} to the training set; labels that were kept are not part of it.` : "Nothing to change yet.";
  byId("save").disabled = changes === 0;
  const shown = SUSPECTS.map((suspect, place) => {
    const state = stateOf(place);
    return el("li", null, el("button", { type: "button", "aria-current": place === REVIEW.at ? "true" : null, onclick: () => { REVIEW.at = place; draw(""); } },
      el("span", { class: "id" }, suspect.name), el("span", { class: state.kind }, state.text)));
  });
  byId("list").replaceChildren(...shown);
}

function draw(message) {
  drawSuspect();
  drawProgress();
  byId("status").textContent = message;
  remember();
}

function crc32(text) {
  // Of a text of ASCII characters, as Python's zlib.crc32.
  let crc = -1;
  for (let i = 0; i < text.length; i += 1) {
    crc ^= text.charCodeAt(i);
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function patch() {
  // Ids and labels are pieces of JSON that Python wrote, so that the patch has them digit for digit.
  const decisions = [];
  for (const [place, decision] of [...REVIEW.decided].sort((a, b) => a[0] - b[0])) {
    const suspect = SUSPECTS[place];
    if (decision === KEEP || decision === suspect.label) continue;
    const label = decision === DROP ? `"drop":true` : `"new":${DATA.labels[decision].value}`;
    decisions.push(`{"id":${suspect.id},"old":${DATA.labels[suspect.label].value},${label}}`);
  }
  const facts = JSON.stringify({ ...DATA.patch, train: { checksum: DATA.train.checksum, examples: DATA.train.examples } });
  const text = (between) => `${facts.slice(0, -1)},"decisions":[${decisions.join(between)}]`;
  return `${text(",\n ")},\n"crc32":${crc32(text(",") + "}")}}\n`;
}

function save() {
  if (byId("save").disabled) return;
  const file = new Blob([patch()], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(file), download: "patch.json" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  byId("status").textContent = "patch saved";
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
  const act = {
    a: () => decide(SUSPECTS[REVIEW.at].suggested), r: () => decide(KEEP), d: () => decide(DROP), u: undo, s: save,
    ArrowRight: () => move(1), j: () => move(1), ArrowLeft: () => move(-1), k: () => move(-1),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function start() {
  recall();
  byId("accept").addEventListener("click", () => decide(SUSPECTS[REVIEW.at].suggested));
  byId("reject").addEventListener("click", () => decide(KEEP));
  byId("drop").addEventListener("click", () => decide(DROP));
  byId("undo").addEventListener("click", undo);
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("save").addEventListener("click", save);
  byId("other").addEventListener("change", (event) => { if (event.target.value !== "") decide(Number(event.target.value)); });
  document.addEventListener("keydown", onKey);
  draw("");
}

start();

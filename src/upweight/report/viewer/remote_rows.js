// Questions to the server, or to the page around this one; and the rows of the table, which come from there.

const WAITING = new Map();
let asked = 0;

// Call `then` with a part of the viewer. Of several questions of one kind, only the last one is answered.
const LATEST = new Map();
function ask(kind, path, parameters, then) {
  const number = ++asked;
  LATEST.set(kind, number);
  const answered = (part) => {
    byId("trouble").hidden = true;
    if (LATEST.get(kind) === number) then(part);
  };
  const failed = (why) => {
    byId("trouble").textContent = why;
    byId("trouble").hidden = false;
  };
  if (DATA.transport === "fetch") {
    fetch(path + "?" + new URLSearchParams(parameters)).then(
      async (response) => (response.ok ? answered(await response.json()) : failed(await response.text())),
      () => failed("The viewer does not answer any more: start upweight view again, and open the address that it prints."));
  } else {
    WAITING.set(number, { answered, failed });
    parent.postMessage({ upweight: number, path, parameters }, "*");
  }
}

addEventListener("message", (event) => {
  if (event.source !== parent || !event.data || !WAITING.has(event.data.upweight)) return;
  const { answered, failed } = WAITING.get(event.data.upweight);
  WAITING.delete(event.data.upweight);
  if (event.data.error === undefined) answered(event.data.part);
  else failed(event.data.error);
});

function wanted(q) {
  return { at: q, text: TABLE.text, label: TABLE.label, sort: TABLE.column, down: TABLE.descending ? 1 : 0, page: TABLE.page };
}

function rowsAt(q, show) {
  ask("rows", "rows", wanted(q), (part) => {
    adopt(part);
    show({ ...part, of: DATA.train.total, scale: part.scale || 1e-300 });
  });
}

function csvOf(q, show) {
  ask("csv", "csv", wanted(q), (part) => show(part.text));
}

function startRows() {
  if (DATA.methods.length > 1) COLUMNS.push({ name: "other", title: "by " + DATA.methods[1], means: "score and rank by the other method" });
}

// The viewer in a notebook: its page in a frame of its own, and a way for its questions to Python and back.

function render({ model, el }) {
  const view = crypto.getRandomValues(new Uint32Array(1))[0];  // a notebook may show one widget in several places
  const frame = document.createElement("iframe");
  frame.title = "upweight viewer";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  Object.assign(frame.style, { width: "100%", height: model.get("height") + "px", border: "1px solid #8884", borderRadius: "6px" });
  frame.srcdoc = model.get("page");
  const question = ({ source, data }) => {
    if (source !== frame.contentWindow || !data || data.upweight === undefined) return;
    model.send({ view, number: data.upweight, path: String(data.path), parameters: { ...data.parameters } });
  };
  const answer = (message) => {
    if (message.view !== view) return;
    const part = message.part === undefined ? undefined : JSON.parse(message.part);
    frame.contentWindow.postMessage({ upweight: message.number, part, error: message.error }, "*");
  };
  addEventListener("message", question);
  model.on("msg:custom", answer);
  el.append(frame);
  return () => {
    removeEventListener("message", question);
    model.off("msg:custom", answer);
  };
}

export default { render };

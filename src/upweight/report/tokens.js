// The number of the token under the finger or the pointer, and what a common span corresponds to in the other texts.

const reading = document.getElementById("reading");

function show(event) {
  const token = event.target.closest(".passage i");
  if (token) reading.textContent = `${token.title}  ${token.textContent.trim()}`;
  reading.hidden = !token;
  for (const marked of document.querySelectorAll("u.same")) marked.classList.remove("same");
  const span = event.target.closest("u[data-span]");
  if (!span) return;
  const section = span.closest(".texts");
  for (const other of section.querySelectorAll(`u[data-span="${span.dataset.span}"]`)) other.classList.add("same");
}

document.addEventListener("click", show);
document.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse") show(event); });

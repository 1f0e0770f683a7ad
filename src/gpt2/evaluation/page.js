// A panel with the numbers of a token, for pointer, finger and keys.
"use strict";
const panel = document.querySelector("aside");
const hint = panel.textContent;
let chosen = null;  // the token whose numbers stay

function element(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

function cell(text, column) {
  const made = element(column ? "dd" : "dt", text);
  const share = column && text.match(/^[\d.e-]+%/);
  if (share) made.style.setProperty("--share", share[0]);
  return made;
}

function show(token) {
  if (!token) return panel.replaceChildren(hint);
  token.numbers ??= token.title;
  token.removeAttribute("title");  // or else the browser shows it too
  const rows = token.numbers.split("\n").map((line) => element("div", ...line.split("\t").map(cell)));
  panel.replaceChildren(element("dl", ...rows));
}

function choose(token) {
  chosen?.classList.remove("chosen");
  chosen = token;
  chosen?.classList.add("chosen");
  chosen?.scrollIntoView({ block: "nearest" });
  show(chosen);
}

const tokenAt = (event) => event.target.closest?.(".text span");
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse") show(tokenAt(event) ?? chosen);
});
document.addEventListener("click", (event) => {
  if (tokenAt(event)) choose(tokenAt(event));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") choose(null);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const text = event.target.closest(".text");
  if (!step || !text || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const tokens = [...text.querySelectorAll("span")];
  const i = tokens.indexOf(chosen);
  choose(tokens[i + step] ?? tokens[Math.max(i, 0)]);
});

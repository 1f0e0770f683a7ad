"use strict";
// The text stands in the page as plain text, so that it can be read, searched and printed without
// this script. Here the paragraphs near the window are cut into tokens, which have colours and
// details. The numbers of a text are packed columns, one entry a token; see page.py.

const COLOURS = {  // how a token is coloured: the upper limits of all classes but the last
  rank: { prefix: "k", limits: [10, 100, 1000], of: (text, i) => text.models[0].rank[i] },
  probability: {  // in negative nats: 1/2, 1/10, 1/100, 1/1000
    prefix: "k",
    limits: [2, 10, 100, 1000].map(Math.log),
    of: (text, i) => text.models[0].surprise[i] / 1000,
  },
  entropy: { prefix: "k", limits: [1, 2, 4, 6], of: (text, i) => text.models[0].entropy[i] / 1000 },
  difference: {
    prefix: "d",
    limits: [-2, -0.5, 0.5, 2],
    of: (text, i) => (text.models[0].surprise[i] - text.models[1].surprise[i]) / 1000,
  },
};
const MOST_TO_PRINT = 100000;  // tokens that are coloured for the printer
const details = document.getElementById("details");
const hint = details.firstElementChild;
const texts = [...document.querySelectorAll("section")].map(openText);
let chosen = null;  // {text, i}: the token whose details stay

// Packed columns -------------------------------------------------------------------------------

function fromBase64(string) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(string);  // new, and much faster
  return Uint8Array.from(atob(string), (character) => character.charCodeAt(0));
}

async function unpack(column) {
  const packed = fromBase64(column.data);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return new { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[column.bytes](buffer);
}

async function unpackAll(columns) {
  const names = Object.keys(columns);
  const values = await Promise.all(names.map((name) => unpack(columns[name])));
  return Object.fromEntries(names.map((name, i) => [name, values[i]]));
}

function openText(section) {
  const data = JSON.parse(section.querySelector("script").textContent);
  const place = section.querySelector(".text");
  const text = { section, place, data, paragraphs: [...place.querySelectorAll("p")], ready: null };
  let first = 0;
  text.paragraphs.forEach((paragraph, k) => {
    Object.assign(paragraph, { text, first, size: data.paragraphs[k] });
    first += paragraph.size;
  });
  text.size = first;
  return text;
}

function load(text) {
  text.ready ??= (async () => {
    Object.assign(text, await unpackAll(text.data.shared));
    text.models = await Promise.all(text.data.models.map(async (model) => ({
      name: model.name, ...(await unpackAll(model.columns)),
    })));
  })();
  return text.ready;
}

// Colours --------------------------------------------------------------------------------------

function className(text, i) {
  const { prefix, limits, of } = COLOURS[document.documentElement.dataset.colour];
  const value = of(text, i);
  const k = limits.findIndex((limit) => value <= limit);
  return prefix + (k < 0 ? limits.length : k);
}

function colour(paragraph) {
  const { text, first, size } = paragraph;
  if (!text.models || paragraph.cut) return;
  const whole = paragraph.textContent;
  const spans = [];
  let start = 0;
  for (let i = first; i < first + size; i++) {
    if (!text.length[i]) continue;  // a part of the character that a later token ends
    const span = document.createElement("span");
    span.textContent = whole.slice(start, start += text.length[i]);
    span.dataset.i = i;
    span.className = className(text, i);
    spans.push(span);
  }
  paragraph.replaceChildren(...spans);
  paragraph.cut = true;
  mark();
}

function uncolour(paragraph) {
  if (!paragraph.cut) return;
  paragraph.textContent = paragraph.textContent;
  paragraph.cut = false;
}

function recolour() {
  for (const span of document.querySelectorAll(".text span")) {
    span.className = className(span.parentElement.text, Number(span.dataset.i));
  }
  mark();
}

// Two steps: to watch each paragraph of a long text all the time would make scrolling slow.
const blockWatcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    for (const paragraph of target.children) {
      if (isIntersecting) watcher.observe(paragraph);
      else leave(paragraph);
    }
  }
}, { rootMargin: "1000px 0px" });

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.near = isIntersecting;
    if (isIntersecting) load(target.text).then(() => target.near && colour(target));
    else uncolour(target);
  }
}, { rootMargin: "500px 0px" });

function leave(paragraph) {
  watcher.unobserve(paragraph);
  paragraph.near = false;
  uncolour(paragraph);
}

// Details --------------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (p) => (p >= 0.0995 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)) + "%";

// White space that would not be seen, in words or signs.
const visible = (string) => string.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "␣");

function tokenText(text, i) {
  const spelled = spanOf(text, i)?.textContent ?? "";
  if (text.length[i] && text.length[i - 1] !== 0) return visible(spelled);
  let first = i;
  while (first > 0 && !text.length[first - 1]) first--;
  let last = i;
  while (last < text.size - 1 && !text.length[last]) last++;
  return first === last
    ? visible(spelled)
    : `${visible(spelled)} (part ${i - first + 1} of ${last - first + 1})`;
}

function numbers(text, i) {
  const rows = {
    "Probability": (m) => percent(Math.exp(-m.surprise[i] / 1000)),
    "Log-probability": (m) => (-m.surprise[i] / 1000).toFixed(3),
    "Rank": (m) => String(m.rank[i]),
    "Entropy": (m) => (m.entropy[i] / 1000).toFixed(3),
    "Likeliest token": (m) => percent(m.top[i] / 1000),
  };
  const table = element("table");
  if (text.models.length > 1) {
    const heads = text.models.map((m) => element("th", { scope: "col", textContent: m.name }));
    table.append(element("tr", {}, element("td"), ...heads));
  }
  for (const [name, show] of Object.entries(rows)) {
    const cells = text.models.map((m) => element("td", { textContent: show(m) }));
    table.append(element("tr", {}, element("th", { scope: "row", textContent: name }), ...cells));
  }
  return table;
}

function alternatives(text, model, i) {
  const list = element("ol");
  const count = text.data.top;
  for (let k = i * count; k < (i + 1) * count; k++) {
    const id = model.alternative[k];
    const share = model.share[k] / 10000;
    const bar = element("div", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    const word = element("code", {
      textContent: visible(text.data.vocabulary[id]),
      className: id === text.id[i] ? "actual" : "",
    });
    const name = element("bdi", {}, word);
    list.append(element("li", {}, name, element("span", { className: "share",
      textContent: percent(share) }), bar));
  }
  list.ariaLabel = `The likeliest tokens by ${model.name}`;
  return list;
}

function show(token) {
  if (!token) return details.replaceChildren(hint);
  const { text, i } = token;
  const title = element("p", {}, element("bdi", {},
    element("code", { textContent: tokenText(text, i) })),
    ` token ${i + 1} of ${text.size}, id ${text.id[i]}`);
  const columns = element("div", { className: "columns" }, numbers(text, i));
  if (text.data.top) columns.append(...text.models.map((m) => alternatives(text, m, i)));
  details.replaceChildren(title, columns);
}

// Choosing a token -----------------------------------------------------------------------------

function paragraphOf(text, i) {
  return text.paragraphs.find(({ first, size }) => first <= i && i < first + size);
}

// The span that shows a token: its own, or that of the character which it is a part of.
function spanOf(text, i) {
  let shown = i;
  while (shown < text.size - 1 && !text.length[shown]) shown++;
  return paragraphOf(text, i)?.querySelector(`[data-i="${shown}"]`);
}

function mark() {
  document.querySelector(".chosen")?.classList.remove("chosen");
  if (chosen) spanOf(chosen.text, chosen.i)?.classList.add("chosen");
}

async function choose(text, i) {
  await load(text);
  if (i < 0 || i >= text.size) return;
  const paragraph = paragraphOf(text, i);
  colour(paragraph);
  chosen = { text, i };
  mark();
  spanOf(text, i)?.scrollIntoView({ block: "nearest" });
  show(chosen);
}

function tokenAt(target) {
  const span = target.closest?.(".text span");
  return span && { text: span.parentElement.text, i: Number(span.dataset.i) };
}

// The token above (-1) or below (1) of one: the first on another line that reaches its middle.
function vertical(text, i, direction) {
  const box = spanOf(text, i).getBoundingClientRect();
  const middle = (box.left + box.right) / 2;
  let best = i;
  let line = null;
  for (let j = i + direction; j >= 0 && j < text.size; j += direction) {
    colour(paragraphOf(text, j));
    const other = text.length[j] && spanOf(text, j).getBoundingClientRect();
    if (!other || Math.abs(other.top - box.top) < box.height / 2) continue;
    if (line !== null && Math.abs(other.top - line) >= box.height / 2) break;
    line = other.top;
    best = j;
    if (direction > 0 ? other.right > middle : other.left <= middle) break;
  }
  return best;
}

const MOVES = {
  ArrowRight: (text, i) => i + 1,
  ArrowLeft: (text, i) => i - 1,
  ArrowDown: (text, i) => vertical(text, i, 1),
  ArrowUp: (text, i) => vertical(text, i, -1),
  Home: () => 0,
  End: (text) => text.size - 1,
};

// Events ---------------------------------------------------------------------------------------

for (const text of texts) {
  if (text.size <= MOST_TO_PRINT) load(text);
  for (const block of text.place.children) blockWatcher.observe(block);
  text.place.addEventListener("keydown", async (event) => {
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    await load(text);
    if (chosen?.text === text) choose(text, move(text, chosen.i));
    else choose(text, event.key === "End" ? text.size - 1 : 0);
  });
}
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse") show(tokenAt(event.target) ?? chosen);
});
document.addEventListener("click", (event) => {
  const token = tokenAt(event.target);
  if (token) choose(token.text, token.i);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  chosen = null;
  mark();
  show(null);
});
document.getElementById("controls").addEventListener("change", (event) => {
  document.documentElement.dataset.colour = event.target.value;
  recolour();
});
window.addEventListener("beforeprint", () => {
  for (const text of texts) {
    if (text.size <= MOST_TO_PRINT) text.paragraphs.forEach(colour);
  }
});

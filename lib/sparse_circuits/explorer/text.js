// Words and elements: numbers as text, tokens out of a typed prompt, new elements.

const SVG = "http://www.w3.org/2000/svg";
const CHIPS = 120;
const TITLE = 70;
const BOUNDARY = "·";
const code = (token) => make("code", {}, token);

function formatNumber(value) {
  const size = Math.abs(value);
  if (size < 0.005) return "0";
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2).replace("-", "−");
}

/** A weight to four digits, as Python's `.4g` writes those of ordinary size. */
function formatWeight(value) {
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function formatShare(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return share > 0.999 && share < 1 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`;
}

/** Make an element; attributes that start with "on" are listeners, null attributes are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * Split a typed prompt into token numbers: at each place the longest token that fits, as it is spelled or as it is
 * shown (␣ and ⏎ stand for space and line break). White space and the dot that ends a token are skipped where they
 * begin none. Only `inputs` may stand in a prompt.
 */
function readPrompt(text, { spelling, vocabulary, inputs }) {
  const forms = inputs.flatMap((id) => [[spelling[id], id], [vocabulary[id], id]]);
  forms.sort((a, b) => b[0].length - a[0].length);
  const tokens = [];
  for (let rest = text.replaceAll("\\n", "\n"); rest; ) {
    const match = forms.find(([form]) => rest.startsWith(form));
    if (match) tokens.push(match[1]);
    else if (rest[0].trim() && rest[0] !== BOUNDARY) {
      const known = inputs.slice(0, CHIPS).map((id) => vocabulary[id]).join("  ");
      throw new Error(`No token of this model begins “${rest}”. Its tokens are: ${known}${inputs.length > CHIPS ? "  …" : ""}`);
    }
    rest = rest.slice(match ? match[0].length : 1);
  }
  return tokens;
}

function readsAs(text, tokens, page) {
  try {
    return readPrompt(text, page).join() === tokens.join();
  } catch {
    return false;
  }
}

/** Write tokens as text that reads back as the same tokens: in one piece if that works, else with spaces or dots. */
function spell(tokens, page) {
  const names = tokens.map((token) => page.vocabulary[token]);
  const texts = ["", " ", BOUNDARY].map((between) => names.join(between));
  return texts.find((text) => readsAs(text, tokens, page)) ?? texts[0];
}

/** The text of a prompt where it need not read back: of a big vocabulary in one piece, and of a long one the end. */
function titleOf(tokens, page) {
  if (page.vocabulary.length <= CHIPS) return spell(tokens, page);
  const text = tokens.map((token) => page.vocabulary[token]).join("");
  return text.length > TITLE ? `…${text.slice(-TITLE)}` : text;
}

/** A line is thin: an invisible wide one takes the pointer and says what it is. */
function hitOf(wire, { label, weight }) {
  const hit = wire.querySelector(".scx-line").cloneNode();
  hit.setAttribute("class", "scx-hit");
  hit.removeAttribute("style");
  const title = document.createElementNS(SVG, "title");
  title.textContent = `${label}, weight ${formatWeight(weight)}`;
  return [title, hit];
}

// Where heads look: strips in the drawing, and a table for each head of the circuit.

const WHOLE_PATTERN = 20;
const MOST_SEEN = 5;

/** Show the patterns of an explorer's heads at its chosen token. */
function showHeads(explorer) {
  const pattern = (layer, head) => explorer.now.cache[`blocks.${layer}.attn.hook_pattern`][head];
  const names = explorer.tokens.map((token) => explorer.vocabulary[token]);
  for (const box of explorer.host.querySelectorAll(".scx-head")) {
    showStrip(box, pattern(box.dataset.layer, box.dataset.head)[explorer.position], names);
  }
  const table = names.length > WHOLE_PATTERN ? seenTable : patternTable;
  explorer.part("heading").hidden = !explorer.heads.length;
  explorer.part("attention").replaceChildren(...explorer.heads.map(([layer, head]) =>
    make("div", { class: "scx-scroll" }, make("table", { class: "scx-pattern" },
      make("caption", {}, `Layer ${layer}, head ${head}`),
      ...table(pattern(layer, head), names, explorer.position)))));
}

function showStrip(box, row, names) {
  const step = (box.dataset.width - 10) / names.length;
  const most = row.indexOf(Math.max(...row));
  const where = row[most] > 0.5 ? `→ ${names[most].slice(0, 8)} ${Math.round(100 * row[most])} %` : "spreads";
  box.querySelector("text").textContent = `head ${box.dataset.head} ${where}`;
  box.querySelector(".scx-strip").replaceChildren(...names.map((_, source) => {
    const height = 1 + 14 * (row[source] ?? 0);
    const bar = document.createElementNS(SVG, "rect");
    Object.entries({ x: 5 + source * step, y: 29 - height, width: Math.max(1, step - 2), height })
      .forEach(([name, value]) => bar.setAttribute(name, value));
    return bar;
  }));
}

/** All of a pattern: a row for each token that looks. */
function patternTable(pattern, names, position) {
  const cells = (row, query) => names.map((name, key) => make("td", key > query ? {} : {
    style: `--scx-a:${row[key]}`, title: `${names[query]} looks at ${name}: ${formatShare(row[key])}`,
  }, key > query ? "" : Math.round(100 * row[key])));
  return [
    make("thead", {}, make("tr", {}, make("td"),
      ...names.map((name) => make("th", { scope: "col" }, make("span", {}, name))))),
    make("tbody", {}, ...pattern.map((row, query) =>
      make("tr", { class: query === position ? "scx-chosen" : null },
        make("th", { scope: "row" }, names[query]), ...cells(row, query)))),
  ];
}

/** In a long prompt only the row of the chosen token, and of that what it sees most. */
function seenTable(pattern, names, position) {
  const row = pattern[position];
  const seen = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, MOST_SEEN);
  return [make("tbody", {}, ...seen.map((key) => make("tr", {},
    make("th", { scope: "row" }, names[key]), make("td", { class: "scx-place" }, `token ${key + 1}`),
    make("td", { style: `--scx-a:${row[key]}` }, Math.round(100 * row[key])))))];
}

// Set the mathematics of the page as MathML, which browsers draw and screen readers read. KaTeX weighs 0.3 MB, so a page
// fetches it, from this site, only when it holds mathematics.
(() => {
  const source = new URL("vendor/katex.js", document.currentScript.src).href;

  // Browsers know the mathematical alphabets by their characters, not by the attribute that KaTeX writes.
  const alphabets = {
    "bold": [0x1d400, 0x1d41a, 0x1d7ce],
    "bold-italic": [0x1d468, 0x1d482],
    "script": [0x1d49c, 0x1d4b6],
    "fraktur": [0x1d504, 0x1d51e],
    "double-struck": [0x1d538, 0x1d552, 0x1d7d8],
    "monospace": [0x1d670, 0x1d68a, 0x1d7f6],
  };
  // Letters that had a character of their own before the alphabets came.
  const older = {
    "script": {B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ"},
    "double-struck": {C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ"},
    "fraktur": {C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ"},
  };
  const inAlphabet = (name, letter) => {
    const kind = ["A", "a", "0"].findIndex((first, i) => letter >= first && letter <= ["Z", "z", "9"][i]);
    const start = alphabets[name][kind];
    if (older[name]?.[letter] || start === undefined) return older[name]?.[letter] ?? letter;
    return String.fromCodePoint(start + letter.codePointAt(0) - ["A", "a", "0"][kind].codePointAt(0));
  };

  // KaTeX writes small spaces as bare characters, which browsers skip in a formula.
  const widths = {"\u200a": 0.0556, "\u2009": 0.1667, "\u2005": 0.2222};
  const spaceFor = (characters) => {
    const space = document.createElementNS("http://www.w3.org/1998/Math/MathML", "mspace");
    const width = [...characters].reduce((sum, character) => sum + (widths[character] ?? 0), 0);
    space.setAttribute("width", `${characters.includes("\u2063") ? -width : width}em`);
    return space;
  };

  const set = (place) => {
    const written = place.textContent.trim();
    const formula = written.match(/^\\[([]([\s\S]*)\\[)\]]$/)?.[1] ?? written;
    katex.render(formula, place, {displayMode: place.tagName === "DIV", output: "mathml", throwOnError: false});
    for (const name of Object.keys(alphabets)) {
      for (const letters of place.querySelectorAll(`[mathvariant="${name}"]`)) {
        letters.textContent = [...letters.textContent].map((letter) => inAlphabet(name, letter)).join("");
        letters.removeAttribute("mathvariant");
      }
    }
    for (const row of place.querySelectorAll("math *:not(mi, mn, mo, ms, mtext, annotation)")) {
      for (const node of [...row.childNodes]) {
        if (node.nodeType === Node.TEXT_NODE) node.replaceWith(spaceFor(node.data));
      }
    }
    // Only as combining characters do hat and tilde grow with what they stand on.
    for (const accent of place.querySelectorAll("mover > mo:last-child")) {
      accent.textContent = {"^": "\u0302", "~": "\u0303"}[accent.textContent] ?? accent.textContent;
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    const places = document.querySelectorAll(".math");
    if (places.length === 0) return;
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => places.forEach(set);
    document.head.append(script);
  });
})();

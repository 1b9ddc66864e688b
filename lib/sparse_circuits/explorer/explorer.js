// The page of one circuit: draws what `forward` computes into the elements that Python wrote, and cuts edges.

const LEADING = 4;

class Explorer {
  constructor(host) {
    this.host = host;
    Object.assign(this, host.circuit);
    this.weights = unpackWeights(this.weights);
    this.fixed = Object.fromEntries(Object.entries(this.fixed).map(([hook, record]) => [hook, unpack(record)]));
    this.inputs ??= [...this.vocabulary.keys()];
    this.nodes = this.nodes.map(([name, words, hook, index, bias]) => ({ name, words, hook, index, bias }));
    this.cut = new Set();
    this.values = [...host.querySelectorAll("[data-hook]")].map((mark) => ({
      mark, hook: mark.dataset.hook, index: Number(mark.dataset.index), title: mark.querySelector("title").textContent,
    }));
    this.buildPrompt();
    this.buildEdges();
    this.panel = new NodePanel(this);
    this.part("restore").addEventListener("click", () => this.restoreAll());
    host.dataset.ready = "";
    this.choose(0);
  }

  /** Name what an edge joins and find its weight among the values that `forward` reads. */
  readEdge([matrixNumber, index, source, target], i) {
    const name = this.matrices[matrixNumber];
    const matrix = this.weights[name];
    const slot = slotOf(matrix, index);
    const { hook, index: sourceIndex } = this.nodes[source];
    // What attention writes is read after the tokens are mixed.
    const carried = name.endsWith("W_O") ? hook.replace("hook_v", "hook_z") : hook;
    const label = this.rows[i].querySelector(".scx-name").textContent;
    return { matrix, slot, weight: matrix.value[slot], source, target, carried, sourceIndex, label };
  }

  part(name) {
    return this.host.querySelector(".scx-" + name);
  }

  /** Logits at every position of a prompt, with the cuts of this moment. */
  run(tokens) {
    return forward(this, this.weights, tokens);
  }

  /** The same before any cut. */
  runUncut(tokens) {
    const set = (value) => this.cut.forEach((i) => { this.edges[i].matrix.value[this.edges[i].slot] = value(i); });
    set((i) => this.edges[i].weight);
    const run = this.run(tokens);
    set(() => 0);
    return run;
  }

  // ---- prompt

  buildPrompt() {
    const own = make("option", { value: "own" }, "your own prompt");
    this.select = make("select", { "aria-label": "Prompt", onchange: () => this.choose(this.select.value) },
      ...this.prompts.map(({ tokens }, i) => make("option", { value: i }, titleOf(tokens, this))), own);
    this.input = make("input", { type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off" });
    this.problem = make("p", { class: "scx-problem", role: "alert" });
    const edit = (tokens) => { this.input.value = this.spell(tokens); this.readOwn(); };
    const chips = this.inputs.slice(0, CHIPS).map((id) => make("button", {
      type: "button", "aria-label": `append token ${this.vocabulary[id]}`, onclick: () => edit([...this.tokens, id]),
    }, this.vocabulary[id]));
    this.builder = make("details", { class: "scx-builder" },
      make("summary", {}, "Build your own prompt"),
      make("form", { onsubmit: (event) => { event.preventDefault(); this.readOwn(); } },
        make("label", {}, "Tokens, with or without spaces ", this.input),
        make("button", { type: "submit" }, "Run"),
        make("button", { type: "button", onclick: () => edit(this.tokens.slice(0, -1)) }, "Remove last"),
        make("div", { class: "scx-chips", role: "group", "aria-label": "Append a token" }, ...chips)),
      make("p", {}, this.vocabulary.length > CHIPS ? `At each place the longest token is read; ${BOUNDARY} ends one.` : ""),
      this.problem);
    this.strip = make("div", { class: "scx-tokens", role: "group", "aria-label": "Tokens; choose the one to look at" });
    const choice = make("label", { class: "scx-choice" }, "Prompt ", this.select);
    this.part("prompt").append(choice, this.strip, this.builder);
  }

  /** Text that reads back as these tokens. */
  spell(tokens) {
    return spell(tokens, this);
  }

  choose(choice) {
    if (choice === "own") {
      this.builder.open = true;
      this.readOwn();
      this.input.focus();
      return;
    }
    const { tokens, answer } = this.prompts[choice];
    this.setPrompt(tokens, answer);
    this.input.value = this.spell(tokens);
  }

  readOwn() {
    try {
      const tokens = readPrompt(this.input.value, this);
      if (!tokens.length) throw new Error("The prompt is empty: append a token.");
      if (tokens.length > this.config.n_ctx) {
        throw new Error(`The prompt has ${tokens.length} tokens; this model reads ${this.config.n_ctx}.`);
      }
      this.setPrompt(tokens, null);
      this.select.value = "own";
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  setPrompt(tokens, answer) {
    Object.assign(this, { tokens, answer, position: tokens.length - 1 });
    this.problem.textContent = "";
    this.intactRun = this.runUncut(tokens);
    this.update();
  }

  // ---- edges

  buildEdges() {
    this.part("svg").setAttribute("role", "group");
    this.marks = [...this.host.querySelectorAll("g[data-edge]")];
    this.wires = [...this.host.querySelectorAll("g[data-wire]")];
    this.rows = [...this.host.querySelectorAll("tr[data-edge]")];
    this.edges = this.edges.map((edge, i) => this.readEdge(edge, i));
    this.wires.forEach((wire, i) => wire.prepend(...hitOf(wire, this.edges[i])));
    this.marks.forEach((line, i) => {
      line.setAttribute("role", "button");
      line.setAttribute("tabindex", "0");
      line.setAttribute("aria-label", "Cut " + line.querySelector("title").textContent);
      line.addEventListener("keydown", (event) => this.onKey(event, i));
    });
    this.buttons = this.rows.map((row) => {
      const button = make("button", { type: "button", "aria-label": "Cut " + row.querySelector(".scx-name").textContent });
      row.querySelector(".scx-state").replaceChildren(button);
      return button;
    });
    [this.marks, this.wires, this.buttons].forEach((list) => list.forEach((target, i) =>
      target.addEventListener("click", () => this.toggle(i))));
    [this.marks, this.wires, this.rows].forEach((list) => list.forEach((target, i) => {
      for (const type of ["pointerenter", "focusin"]) target.addEventListener(type, () => this.point(i));
    }));
  }

  onKey(event, i) {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.toggle(i);
    else if (step) this.marks[(i + step + this.marks.length) % this.marks.length].focus();
    else return;
    event.preventDefault();
  }

  toggle(i) {
    const { matrix, slot, label, weight } = this.edges[i];
    const restored = this.cut.delete(i);
    if (!restored) this.cut.add(i);
    matrix.value[slot] = restored ? weight : 0;
    this.update(`${restored ? "Restored" : "Cut"} ${label}.`);
    this.point(i);
  }

  restoreAll() {
    for (const i of this.cut) this.edges[i].matrix.value[this.edges[i].slot] = this.edges[i].weight;
    this.cut.clear();
    this.update("Restored all edges.");
  }

  /** Say of one edge what it is and what it carries at the chosen token. */
  point(i) {
    const { carried, sourceIndex, label, weight } = this.edges[i];
    const activation = this.now.cache[carried][this.position][sourceIndex];
    const carries = this.cut.has(i) ? "is cut and carries nothing."
      : `carries ${formatNumber(activation)} × ${formatNumber(weight)} = ${formatNumber(activation * weight)}.`;
    const note = this.rows[i].querySelector(".scx-note").cloneNode(true);
    this.part("detail").replaceChildren(make("strong", {}, label),
      `At token ${this.position + 1}, `, code(this.vocabulary[this.tokens[this.position]]), `, this edge ${carries}`,
      make("span", {}, ...note.childNodes));
    [this.marks, this.wires, this.rows].forEach((list) => list.forEach((item, j) =>
      item.classList.toggle("scx-pointed", i === j)));
  }

  // ---- what the model does now

  update(action = "") {
    this.now = this.run(this.tokens);
    this.showEdges();
    this.showTokens();
    this.showVerdict(action);
    this.showLeading();
    this.showNodes();
    showHeads(this);
    this.panel.update();
  }

  prediction(run, position = this.position) {
    const logits = run.logits[position];
    const shares = softmax(Array.from(logits));
    const best = logits.indexOf(Math.max(...logits));
    return { logits, shares, best };
  }

  showEdges() {
    this.edges.forEach(({ carried, sourceIndex }, i) => {
      const cut = this.cut.has(i);
      const idle = Math.abs(this.now.cache[carried][this.position][sourceIndex]) < 1e-3;
      for (const item of [this.marks[i], this.wires[i], this.rows[i]]) item?.classList.toggle("scx-cut", cut);
      this.wires[i].classList.toggle("scx-idle", idle);
      for (const button of [this.marks[i], this.buttons[i]]) button?.setAttribute("aria-pressed", cut);
      this.buttons[i].textContent = cut ? "✕ cut" : "kept";
    });
    const kept = this.edges.filter((_, i) => !this.cut.has(i));
    const ends = (edges) => edges.flatMap(({ source, target }) => [source, target]);
    const cutOff = new Set(ends(this.edges));
    ends(kept).forEach((node) => cutOff.delete(node));
    this.part("kept").textContent = kept.length;
    this.part("touched").textContent = this.nodes.length - cutOff.size;
    this.part("restore").setAttribute("aria-disabled", !this.cut.size);
  }

  showTokens() {
    const focused = [...this.strip.children].indexOf(document.activeElement);
    this.strip.replaceChildren(...this.tokens.map((token, position) => {
      const next = this.vocabulary[this.prediction(this.now, position).best];
      const before = this.vocabulary[this.prediction(this.intactRun, position).best];
      const changed = next !== before;
      const words = `token ${position + 1}, ${this.vocabulary[token]}, next ${next}`;
      return make("button", {
        type: "button",
        class: changed ? "scx-changed" : null,
        "aria-label": words + (changed ? `, intact ${before}` : ""),
        "aria-pressed": position === this.position,
        onclick: () => { this.position = position; this.update(); },
      }, make("b", {}, this.vocabulary[token]), make("span", {}, (changed ? "≠ " : "→ ") + next));
    }));
    if (focused >= 0) this.strip.children[Math.min(focused, this.tokens.length - 1)].focus();
  }

  showVerdict(action) {
    const { best, shares } = this.prediction(this.now);
    const intact = this.prediction(this.intactRun).best;
    const judged = this.answer !== null && this.position === this.tokens.length - 1;
    const right = best === (judged ? this.answer : intact);
    const verdict = judged ? (right ? "✓ right" : "✗ wrong") : (right ? "= as intact" : "≠ intact");
    const wanted = right ? [] : judged ? ["; the answer is ", code(this.vocabulary[this.answer])]
      : ["; the intact model says ", code(this.vocabulary[intact])];
    this.part("verdict").classList.toggle("scx-bad", !right);
    this.part("verdict").replaceChildren(make("strong", {}, verdict), " next token ", code(this.vocabulary[best]),
      ` ${formatShare(shares[best])}`, ...wanted, ". ", make("span", {}, action));
  }

  showLeading() {
    const [now, intact] = [this.now, this.intactRun].map((run) => this.prediction(run));
    const top = ({ logits }) => [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, LEADING);
    const leading = [...new Set([...top(intact), ...top(now)])].sort((a, b) => intact.logits[b] - intact.logits[a]);
    this.part("leading").tBodies[0].replaceChildren(...leading.map((token) =>
      make("tr", { class: token === now.best ? "scx-best" : null },
        make("th", { scope: "row" }, this.vocabulary[token]),
        make("td", { class: "scx-bar", style: `--scx-a:${now.shares[token]}` }, formatShare(now.shares[token])),
        make("td", {}, formatNumber(now.logits[token])),
        make("td", {}, formatShare(intact.shares[token])),
        make("td", {}, formatNumber(intact.logits[token])))));
    this.host.querySelectorAll(".scx-logit[data-token]").forEach((box) => {
      const token = Number(box.dataset.token);
      box.classList.toggle("scx-best", token === now.best);
      box.style.setProperty("--scx-a", now.shares[token]);
    });
    this.showOtherLogit(now);
    const box = this.part("token-box")?.querySelector("text");
    if (box) box.textContent = `${this.position + 1}: ${this.vocabulary[this.tokens[this.position]]}`;
  }

  /** The last box names the leading token among those that have no box of their own. */
  showOtherLogit({ logits, shares, best }) {
    const box = this.part("other-logit");
    if (!box) return;
    const boxes = [...this.host.querySelectorAll(".scx-logit[data-token]")];
    const shown = new Set(boxes.map(({ dataset }) => Number(dataset.token)));
    const others = [...logits.keys()].filter((token) => !shown.has(token));
    const other = others.reduce((a, b) => (logits[b] > logits[a] ? b : a));
    box.querySelector("text").textContent = this.vocabulary[other];
    box.classList.toggle("scx-best", other === best);
    box.style.setProperty("--scx-a", shares[other]);
  }

  showNodes() {
    for (const { mark, hook, index, title } of this.values) {
      const value = this.now.cache[hook][this.position][index];
      const text = formatNumber(value);
      mark.style.setProperty("--scx-a", Math.abs(value) / (1 + Math.abs(value)));
      mark.classList.toggle("scx-below", value < 0);
      mark.classList.toggle("scx-zero", text === "0");
      const written = mark.querySelector(".scx-value");
      if (written) written.textContent = text;
      mark.querySelector("title").textContent = `${title} = ${text}`;
    }
  }
}

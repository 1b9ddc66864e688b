// One node at a time: chosen in the drawing by mouse or keys, shown with all that it reads, writes and does.

const STEPS = { ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0] };

class NodePanel {
  constructor(explorer) {
    this.explorer = explorer;
    this.box = explorer.part("chosen-node");
    const { nodes } = explorer;
    const number = new Map(nodes.map(({ hook, index }, i) => [`${hook} ${index}`, i]));
    this.marks = [];
    for (const mark of explorer.host.querySelectorAll(".scx-node")) {
      this.marks[number.get(`${mark.dataset.hook} ${mark.dataset.index}`)] = mark;
    }
    // One stop for Tab in the whole drawing; arrows go from node to node.
    this.marks.forEach((mark, i) => {
      mark.setAttribute("role", "button");
      mark.setAttribute("tabindex", i ? "-1" : "0");
      mark.setAttribute("aria-label", `${nodes[i].name}, ${nodes[i].words}`);
      mark.addEventListener("click", () => this.choose(i));
      mark.addEventListener("keydown", (event) => this.onKey(event, i));
      mark.addEventListener("focus", () => this.stopAt(i));
    });
    this.chosen = null;
  }

  stopAt(i) {
    this.marks.forEach((mark, j) => mark.setAttribute("tabindex", i === j ? "0" : "-1"));
  }

  onKey(event, i) {
    if (event.key === "Enter" || event.key === " ") this.choose(i);
    else if (event.key === "Escape") this.choose(null);
    else if (event.key in STEPS) this.marks[this.neighbour(i, STEPS[event.key])].focus();
    else return;
    event.preventDefault();
  }

  /** The nearest node in a direction; what lies aside counts as farther. */
  neighbour(i, [right, down]) {
    const middles = this.marks.map((mark) => {
      const { x, y, width, height } = mark.querySelector("rect, circle").getBBox();
      return [x + width / 2, y + height / 2];
    });
    const distance = ([x, y]) => {
      const [dx, dy] = [x - middles[i][0], y - middles[i][1]];
      const ahead = dx * right + dy * down;
      return ahead > 1 ? ahead + 3 * Math.abs(dx * down + dy * right) : Infinity;
    };
    const away = middles.map(distance);
    const nearest = away.indexOf(Math.min(...away));
    return away[nearest] < Infinity ? nearest : i;
  }

  /** Choose a node; the one that is chosen already, or null, ends the choice. */
  choose(i) {
    this.chosen = i === this.chosen ? null : i;
    this.marks.forEach((mark, j) => mark.setAttribute("aria-pressed", j === this.chosen));
    const { edges, wires, host } = this.explorer;
    const touches = ({ source, target }) => source === this.chosen || target === this.chosen;
    wires.forEach((wire, j) => wire.classList.toggle("scx-lit", touches(edges[j])));
    const { hook, index } = this.explorer.nodes[this.chosen] ?? {};
    for (const line of host.querySelectorAll("[data-channel]")) {
      line.classList.toggle("scx-lit", isResidual(hook) && Number(line.dataset.channel) === index);
    }
    this.explorer.part("svg").classList.toggle("scx-choosing", this.chosen !== null);
    this.update();
  }

  update() {
    this.box.hidden = this.chosen === null;
    if (this.box.hidden) return;
    const focused = document.activeElement?.dataset?.key;
    this.box.replaceChildren(...this.describe());
    if (focused) this.box.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  describe() {
    const { edges, nodes } = this.explorer;
    const { name, words, hook, index, bias } = nodes[this.chosen];
    const numbered = edges.map((edge, i) => ({ ...edge, i }));
    const close = make("button", { type: "button", "data-key": "close", onclick: () => this.choose(null) }, "Close");
    return [
      make("p", { class: "scx-node-name" }, make("strong", {}, name), ` ${words}`,
        bias === null ? "" : `, bias ${formatWeight(bias)}`, close),
      this.strip(hook, index),
      ...this.edgeTable("Reads", numbered.filter(({ target }) => target === this.chosen), "source"),
      ...this.edgeTable("Writes", numbered.filter(({ source }) => source === this.chosen), "target"),
      ...(isResidual(hook) ? this.channel(index) : []),
    ];
  }

  /** The activation at each token of the prompt, as numbers on a strip of colour. */
  strip(hook, index) {
    const { now, tokens, vocabulary, position } = this.explorer;
    const values = now.cache[hook].map((row) => row[index]);
    const most = Math.max(...values.map(Math.abs)) || 1;
    return make("ol", { class: "scx-heat", "aria-label": "Activation at each token of the prompt", tabindex: "0" },
      ...values.map((value, pos) => make("li", {
        class: [value < 0 ? "scx-below" : "", pos === position ? "scx-chosen" : ""].join(" "),
        style: `--scx-a:${Math.abs(value) / most}`,
      }, make("b", {}, vocabulary[tokens[pos]]), make("span", {}, formatNumber(value)))));
  }

  edgeTable(title, edges, far) {
    if (!edges.length) return [];
    const { nodes, now, position, cut } = this.explorer;
    const sorted = edges.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    return [make("div", { class: "scx-scroll" }, make("table", { class: "scx-joined" },
      make("caption", {}, `${title} over ${edges.length} ${edges.length === 1 ? "edge" : "edges"}`),
      make("thead", {}, make("tr", {}, ...["node", "weight", "carries", "edge"].map((name) =>
        make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...sorted.map(({ i, weight, label, carried, sourceIndex, ...edge }) =>
        make("tr", { class: cut.has(i) ? "scx-cut" : null },
          make("th", { scope: "row" }, this.link(edge[far], title)),
          make("td", {}, formatWeight(weight)),
          make("td", {}, cut.has(i) ? "0" : formatNumber(now.cache[carried][position][sourceIndex] * weight)),
          make("td", { class: "scx-state" }, make("button", {
            type: "button", "data-key": `edge ${i}`, "aria-label": `Cut ${label}`, "aria-pressed": cut.has(i),
            onclick: () => this.explorer.toggle(i),
          }, cut.has(i) ? "✕ cut" : "kept")))))))];
  }

  link(node, where) {
    const { name } = this.explorer.nodes[node];
    return make("button", {
      type: "button", class: "scx-link", "data-key": `${where} ${node}`,
      onclick: () => { this.choose(node); this.stopAt(node); },
    }, name);
  }

  /** Who else uses a residual channel: nodes of the circuit before and after, embedding and unembedding. */
  channel(index) {
    const { nodes, channels } = this.explorer;
    const others = [...nodes.keys()].filter((i) =>
      i !== this.chosen && isResidual(nodes[i].hook) && nodes[i].index === index);
    const list = (title, items) => make("p", {}, `${title}: `,
      ...(items.length ? items.flatMap((item, i) => [i ? ", " : "", item]) : ["none"]));
    const weighed = (pairs) => pairs.map(([token, weight]) =>
      make("span", { class: "scx-weighed" }, code(token), ` ${formatWeight(weight)}`));
    const [writing, reading] = channels[index];
    const before = others.filter((i) => i < this.chosen && isWrite(nodes[i].hook));
    const after = others.filter((i) => i > this.chosen && !isWrite(nodes[i].hook));
    return [make("div", { class: "scx-traffic" },
      make("p", { class: "scx-node-name" }, `Residual channel ${index}`),
      list("Written before, in this circuit, by", before.map((i) => this.link(i, "before"))),
      list("Read later, in this circuit, by", after.map((i) => this.link(i, "after"))),
      list("Tokens whose embedding writes it most", weighed(writing)),
      list("Next tokens whose logit reads it most", weighed(reading)))];
  }
}

const isWrite = (hook) => /hook_(attn|mlp)_out$/.test(hook);
const isResidual = (hook) => isWrite(hook) || /ln[12]\.hook_normalized$/.test(hook);

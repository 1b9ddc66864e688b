// The page of one attribution graph: draws its units and wires, and lets a reader go through them by mouse and keys.

const STEPS = { ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0] };
const [THINNEST, THICKEST, HALF_HEIGHT, PNG_SCALE] = [0.6, 5, 8.5, 2];
const PAINTED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "font", "text-anchor"];

class GraphView {
  constructor(host) {
    this.host = host;
    Object.assign(this, host.circuit);
    this.identifier = host.dataset.explorer;
    this.state = new GraphState(host.circuit);
    this.svg = this.part("svg");
    this.svg.setAttribute("role", "group");
    this.wireLayer = this.part("wires");
    this.boxLayer = this.part("boxes");
    this.boxes = [...host.querySelectorAll("[data-node]")];
    this.stop = 0;
    this.chosen = null;
    this.buildControls();
    this.panel = new GraphPanel(this);
    host.dataset.ready = "";
    this.draw();
  }

  part(name) {
    return this.host.querySelector(".scx-" + name);
  }

  // ---- the whole drawing

  buildControls() {
    const toggle = (words, flag) => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, words);
      button.addEventListener("click", () => {
        this.state[flag] = !this.state[flag];
        button.setAttribute("aria-pressed", this.state[flag]);
        this.draw(`${words}: ${this.state[flag] ? "on" : "off"}.`);
      });
      return button;
    };
    const file = make("input", { type: "file", accept: ".json,application/json", hidden: "", tabindex: "-1" });
    file.addEventListener("change", () => this.load(file));
    this.part("controls").append(
      toggle("Collapse supernodes", "collapsed"),
      toggle("Only pinned and grouped", "onlyPinned"),
      make("button", { type: "button", onclick: () => this.saveReading() }, "Save JSON"),
      make("button", { type: "button", onclick: () => file.click() }, "Open JSON"),
      file,
      make("button", { type: "button", onclick: () => this.savePicture() }, "Save PNG"));
  }

  say(words) {
    if (words) this.part("verdict").textContent = words;
  }

  draw(words = "") {
    this.units = this.state.units();
    this.wires = this.state.wires(this.units);
    if (!this.unitOf(this.chosen)) this.chosen = null;
    this.drawWires();
    this.drawBoxes();
    this.panel.update();
    this.say(words);
  }

  unitOf(id) {
    return id === null ? null : this.units.find(({ members }) => members.includes(id)) ?? null;
  }

  chosenUnit() {
    return this.unitOf(this.chosen);
  }

  drawWires() {
    const chosen = this.chosenUnit();
    const touches = ({ source, target }) => source === chosen || target === chosen;
    const ordered = [...this.wires].sort((a, b) => a.share - b.share);
    this.wireLayer.replaceChildren(...ordered.map((wire) => {
      const { source, target, weight, share } = wire;
      const path = document.createElementNS(SVG, "path");
      const [y, end] = [source.y - HALF_HEIGHT, target.y + HALF_HEIGHT];
      const bend = (y - end) / 2;
      path.setAttribute("d", `M${source.x} ${y}C${source.x} ${y - bend} ${target.x} ${end + bend} ${target.x} ${end}`);
      path.setAttribute("class", `scx-line ${weight > 0 ? "scx-positive" : "scx-negative"}`
        + (chosen ? (touches(wire) ? " scx-lit" : " scx-dim") : ""));
      path.style.strokeWidth = (THINNEST + (THICKEST - THINNEST) * Math.sqrt(share)).toFixed(1);
      return path;
    }));
  }

  drawBoxes() {
    const chosen = this.chosenUnit();
    const joined = new Set(this.wires.flatMap(({ source, target }) =>
      (source === chosen ? [target.key] : target === chosen ? [source.key] : [])));
    const singles = new Map(this.units.filter(({ group }) => !group).map((unit) => [unit.members[0], unit]));
    this.boxLayer.querySelectorAll("[data-group]").forEach((box) => box.remove());
    this.marks = new Map();
    this.boxes.forEach((box, id) => {
      const unit = singles.get(id);
      box.style.display = unit ? "" : "none";
      if (!unit) return;
      this.mark(box, unit, unit === chosen, chosen && !joined.has(unit.key) && unit !== chosen);
      box.classList.toggle("scx-pinned", this.state.pins.has(id));
      box.classList.toggle("scx-grouped", Boolean(this.state.groupOf(id)));
      const marks = [this.state.pins.has(id) && "pinned", this.state.groupOf(id)?.name, this.state.notes.get(id)];
      const { name, words } = this.state.nodes[id];
      box.setAttribute("aria-label", [name, words, ...marks.filter(Boolean)].join(", "));
    });
    for (const unit of this.units.filter(({ group }) => group)) {
      const box = this.groupBox(unit);
      this.boxLayer.append(box);
      this.mark(box, unit, unit === chosen, chosen && !joined.has(unit.key) && unit !== chosen);
    }
    if (!this.marks.has(this.stop)) this.stop = this.marks.keys().next().value;
    this.stopAt(this.stop);
  }

  groupBox({ name, members, x, y, width }) {
    const box = document.createElementNS(SVG, "g");
    box.setAttribute("class", "scx-unit scx-group");
    box.dataset.group = name;
    const [rect, text] = ["rect", "text"].map((tag) => document.createElementNS(SVG, tag));
    const place = { x: x - width / 2, y: y - HALF_HEIGHT - 2, width, height: 2 * HALF_HEIGHT + 4, rx: 8 };
    for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
    text.setAttribute("x", x);
    text.setAttribute("y", y + 3.5);
    text.textContent = name;
    box.append(rect, text);
    box.setAttribute("aria-label", `supernode ${name}, ${members.length} nodes`);
    return box;
  }

  /** Make a box that can be chosen; the first node stands for its supernode. */
  mark(box, unit, chosen, dim) {
    const id = unit.members[0];
    this.marks.set(id, box);
    box.setAttribute("role", "button");
    box.setAttribute("aria-pressed", Boolean(chosen));
    box.classList.toggle("scx-dim", Boolean(dim));
    box.onclick = () => this.choose(id);
    box.onkeydown = (event) => this.onKey(event, id, unit);
    box.onfocus = () => this.stopAt(id);
  }

  // ---- one node

  stopAt(id) {
    this.stop = id;
    this.marks.forEach((box, other) => box.setAttribute("tabindex", other === id ? "0" : "-1"));
  }

  onKey(event, id, unit) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") this.choose(id);
    else if (event.key === "Escape") this.choose(null);
    else if (event.key.toLowerCase() === "p" && !unit.group) this.pin(id);
    else if (event.key in STEPS) this.marks.get(this.neighbour(unit, STEPS[event.key])).focus();
    else return;
    event.preventDefault();
  }

  /** The nearest unit in a direction; what lies aside counts as farther. */
  neighbour(unit, [right, down]) {
    let [nearest, least] = [unit, Infinity];
    for (const other of this.units) {
      const [dx, dy] = [other.x - unit.x, other.y - unit.y];
      const ahead = dx * right + dy * down;
      const distance = ahead > 1 ? ahead + 3 * Math.abs(dx * down + dy * right) : Infinity;
      if (distance < least) [nearest, least] = [other, distance];
    }
    return nearest.members[0];
  }

  /** Choose the unit of a node; the one that is chosen already, or null, ends the choice. */
  choose(id, always = false) {
    const again = id !== null && this.unitOf(id) === this.chosenUnit();
    this.chosen = again && !always ? null : id;
    const hidden = this.chosen !== null && !this.unitOf(this.chosen);
    this.draw(hidden ? "This node is not shown: turn off “Only pinned and grouped”." : "");
    if (always && this.chosenUnit()) this.marks.get(this.chosenUnit().members[0]).focus();
  }

  pin(id) {
    const pinned = this.state.togglePin(id);
    this.redraw(`${pinned ? "Pinned" : "Unpinned"} ${this.state.nodes[id].name}.`);
  }

  group(id, name) {
    const { name: node } = this.state.nodes[id];
    this.state.putInto(id, name);
    this.redraw(name ? `Put ${node} into ${name}.` : `Took ${node} out of its supernode.`);
  }

  rename(group, name) {
    const renamed = this.state.rename(group, name);
    this.redraw(renamed ? `The supernode is called ${name}.` : "Give a name that no other supernode has.");
  }

  note(id, text) {
    this.state.note(id, text);
    this.panel.list.replaceChildren(...this.panel.reading());
  }

  /** Draw anew and leave the focus where it was, if what had it is still there. */
  redraw(words) {
    const { className, tagName } = document.activeElement;
    const inPanel = this.panel.box.contains(document.activeElement);
    this.draw(words);
    const name = typeof className === "string" && className ? "." + className.split(" ").join(".") : "";
    if (inPanel) (this.panel.box.querySelector(tagName + name) ?? this.marks.get(this.stop)).focus();
  }

  // ---- files

  offer(blob, name) {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    this.say(`Saved ${name}.`);
  }

  saveReading() {
    const text = JSON.stringify(this.state.stored(), null, 2);
    this.offer(new Blob([text], { type: "application/json" }), "reading.json");
  }

  async load(file) {
    try {
      this.state.read(JSON.parse(await file.files[0].text()));
      this.draw(`Opened ${file.files[0].name}.`);
    } catch (error) {
      this.say(error.message);
    }
    file.value = "";
  }

  /** The drawing as it stands, with its colours written into it. */
  async savePicture() {
    const copy = this.svg.cloneNode(true);
    const originals = this.svg.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((element, i) => {
      const style = getComputedStyle(originals[i]);
      element.setAttribute("style", style.display === "none" ? "display:none"
        : PAINTED.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    });
    const { width, height } = this;
    for (const [key, value] of Object.entries({ xmlns: SVG, width, height, style: "" })) copy.setAttribute(key, value);
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
    await image.decode();
    const canvas = make("canvas", { width: Math.ceil(PNG_SCALE * width), height: Math.ceil(PNG_SCALE * height) });
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(this.host).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => this.offer(blob, "graph.png"), "image/png");
  }
}

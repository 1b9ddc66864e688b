// Beside the drawing: the chosen node with what enters and leaves it, and the reader's supernodes, pins and notes.

const MOST_JOINED = 12;

class GraphPanel {
  constructor(view) {
    this.view = view;
    this.state = view.state;
    this.box = view.part("chosen-node");
    this.list = view.part("reading");
  }

  update() {
    const unit = this.view.chosenUnit();
    this.box.hidden = !unit;
    if (unit) this.box.replaceChildren(...(unit.group ? this.ofGroup(unit) : this.ofNode(unit)), ...this.joined(unit));
    this.list.replaceChildren(...this.reading());
  }

  heading(name, words) {
    const close = make("button", { type: "button", "aria-label": "Close", onclick: () => this.view.choose(null) }, "✕");
    return make("p", { class: "scx-node-name" }, close, make("strong", {}, name), ` ${words}`);
  }

  ofNode({ members: [id] }) {
    const { name, kind, words, value, share } = this.state.nodes[id];
    const numbers = kind === "feature" ? `activation ${formatWeight(value)}, `
      : kind === "logit" ? `logit ${formatWeight(value)} above the mean, ` : "";
    const pinned = this.state.pins.has(id);
    const pin = make("button", {
      type: "button", class: "scx-pin", "aria-pressed": pinned, onclick: () => this.view.pin(id),
    }, pinned ? "Unpin" : "Pin");
    return [
      this.heading(name, words),
      make("p", {}, `${numbers}${formatShare(share)} of the influence on the logits. `, pin),
      this.grouping(id),
      this.noteField(id),
    ];
  }

  /** A field that takes the name of a supernode, old or new. */
  grouping(id) {
    const group = this.state.groupOf(id);
    const names = make("datalist", { id: `${this.view.identifier}-groups` },
      ...this.state.groups.map(({ name }) => make("option", { value: name })));
    const input = make("input", {
      type: "text", class: "scx-group-name", list: names.id, value: group?.name ?? "", autocomplete: "off",
    });
    const put = (event) => {
      event.preventDefault();
      this.view.group(id, input.value.trim());
    };
    return make("form", { class: "scx-grouping", onsubmit: put },
      make("label", {}, "Supernode ", input), names,
      make("button", { type: "submit" }, "Put into"),
      group ? make("button", { type: "button", onclick: () => this.view.group(id, "") }, "Take out") : "");
  }

  noteField(id) {
    const field = make("textarea", { class: "scx-note-field", rows: "2" }, this.state.notes.get(id) ?? "");
    field.addEventListener("input", () => this.view.note(id, field.value));
    return make("label", { class: "scx-noting" }, "Note ", field);
  }

  ofGroup({ group, members }) {
    const rename = make("input", { type: "text", value: group.name, "aria-label": "Name of the supernode" });
    rename.addEventListener("change", () => this.view.rename(group, rename.value.trim()));
    return [
      this.heading(group.name, `supernode of ${members.length} nodes`),
      make("p", {}, "Name ", rename),
      make("p", {}, ...members.flatMap((id) => [this.jump(id), " "])),
    ];
  }

  jump(id) {
    const { name, words } = this.state.nodes[id];
    return make("button", { type: "button", title: words, onclick: () => this.view.choose(id, true) }, name);
  }

  joined(unit) {
    const wires = this.view.wires;
    const table = (caption, joined, end) => {
      const rows = joined.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
      const more = rows.length - MOST_JOINED;
      return make("table", { class: "scx-joined" },
        make("caption", {}, rows.length ? `${caption} (${rows.length})` : `${caption}: nothing drawn`),
        make("tbody", {}, ...rows.slice(0, MOST_JOINED).map((wire) => make("tr", {},
          make("th", { scope: "row" }, this.toUnit(wire[end])),
          make("td", {}, `${wire.weight > 0 ? "+" : ""}${formatWeight(wire.weight)}`),
          make("td", {}, formatShare(wire.share)))),
          ...(more > 0 ? [make("tr", {}, make("td", { colspan: "3" }, `and ${more} smaller ones`))] : [])));
    };
    return [
      table("Enters here", wires.filter(({ target }) => target.key === unit.key), "source"),
      table("Goes from here to", wires.filter(({ source }) => source.key === unit.key), "target"),
    ];
  }

  toUnit(unit) {
    const words = unit.group ? `supernode of ${unit.members.length} nodes` : this.state.nodes[unit.members[0]].words;
    const choose = () => this.view.choose(unit.members[0], true);
    return make("button", { type: "button", title: words, onclick: choose }, unit.name);
  }

  reading() {
    const { groups, pins, notes, nodes } = this.state;
    const listOf = (heading, items) => items.length
      ? [make("p", { class: "scx-heading" }, heading), make("ul", {}, ...items.map((item) => make("li", {}, ...item)))]
      : [];
    const empty = !groups.length && !pins.size && !notes.size;
    return [
      ...(empty ? [make("p", {}, "Nothing is pinned, grouped or noted yet.")] : []),
      ...listOf("Supernodes", groups.map(({ name, members }) =>
        [make("strong", {}, name), " ", ...members.flatMap((id) => [this.jump(id), " "])])),
      ...listOf("Pinned", [...pins].map((id) => [this.jump(id), ` ${nodes[id].words}`])),
      ...listOf("Notes", [...notes].map(([id, text]) => [this.jump(id), ` ${text}`])),
    ];
  }
}

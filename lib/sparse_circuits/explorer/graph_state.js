// What a reader makes of a graph: pins, supernodes, notes. Nothing here touches the page.

const [NODE_WIDTH, LETTER_WIDTH, STEP_ASIDE] = [36, 6.6, 24];

function overlap(one, other) {
  return Math.abs(one.x - other.x) < (one.width + other.width) / 2 + 4 && Math.abs(one.y - other.y) < STEP_ASIDE - 2;
}

class GraphState {
  constructor({ nodes, edges, reading }) {
    this.nodes = nodes.map(([name, kind, x, y, words, value, share, inflow], id) =>
      ({ id, name, kind, x, y, words, value, share, inflow }));
    this.edges = edges.map(([source, target, weight]) => ({ source, target, weight }));
    this.numbers = new Map(this.nodes.map(({ name, id }) => [name, id]));
    this.collapsed = false;
    this.onlyPinned = false;
    this.read(reading);
  }

  /** Take over a stored reading; an error names what does not fit this graph. */
  read({ format, groups = {}, pins = [], notes = {} }) {
    if (format !== this.format) {
      if (this.format) throw new Error(`This is no reading of a graph: its format is ${format ?? "not given"}.`);
      this.format = format;
    }
    const find = (name) => {
      if (!this.numbers.has(name)) throw new Error(`This drawing has no node ${name}; the reading is of another graph.`);
      return this.numbers.get(name);
    };
    const read = {
      pins: new Set(pins.map(find)),
      groups: Object.entries(groups).map(([name, members]) => ({ name, members: members.map(find) })),
      notes: new Map(Object.entries(notes).map(([name, text]) => [find(name), text])),
    };
    Object.assign(this, read);
  }

  /** The reading as `Reading.load` of the library reads it, and `read` above. */
  stored() {
    const names = (ids) => [...ids].map((id) => this.nodes[id].name);
    return {
      format: this.format,
      groups: Object.fromEntries(this.groups.map(({ name, members }) => [name, names(members)])),
      pins: names(this.pins),
      notes: Object.fromEntries([...this.notes].map(([id, text]) => [this.nodes[id].name, text])),
    };
  }

  groupOf(id) {
    return this.groups.find(({ members }) => members.includes(id));
  }

  /** Put a node into the supernode of a name, which is made if there is none; without a name take it out. */
  putInto(id, name) {
    for (const group of this.groups) group.members = group.members.filter((member) => member !== id);
    if (name) {
      const group = this.groups.find((known) => known.name === name);
      if (group) group.members.push(id);
      else this.groups.push({ name, members: [id] });
    }
    this.groups = this.groups.filter(({ members }) => members.length);
  }

  rename(group, name) {
    if (!name.trim() || this.groups.some((other) => other !== group && other.name === name)) return false;
    group.name = name;
    return true;
  }

  note(id, text) {
    if (text.trim()) this.notes.set(id, text);
    else this.notes.delete(id);
  }

  togglePin(id) {
    const pinned = !this.pins.delete(id);
    if (pinned) this.pins.add(id);
    return pinned;
  }

  /** Whether a node is drawn: all are, or those that are pinned or in a supernode, and the logits. */
  isShown(id) {
    return !this.onlyPinned || this.pins.has(id) || this.nodes[id].kind === "logit" || Boolean(this.groupOf(id));
  }

  /** What is drawn: nodes, and supernodes in place of theirs if these are collapsed. */
  units() {
    const grouped = this.collapsed ? this.groups : [];
    const inside = new Set(grouped.flatMap(({ members }) => members));
    const mean = (members, axis) => members.reduce((sum, id) => sum + this.nodes[id][axis], 0) / members.length;
    const units = this.nodes.filter(({ id }) => this.isShown(id) && !inside.has(id))
      .map(({ id, x, y, name }) => ({ key: `n${id}`, members: [id], x, y, width: NODE_WIDTH, name, group: null }));
    grouped.forEach((group, i) => {
      const { name, members } = group;
      const width = Math.max(48, LETTER_WIDTH * name.length + 14);
      const unit = { key: `g${i}`, members, x: mean(members, "x"), y: mean(members, "y"), width, name, group };
      const { y } = unit;
      for (let step = 1; step < 12 && units.some((other) => overlap(unit, other)); step += 1) {
        unit.y = y + (step % 2 ? -1 : 1) * Math.ceil(step / 2) * STEP_ASIDE;
      }
      units.push(unit);
    });
    return units;
  }

  /** The edges between units: sums over their nodes, with sign, and as a share of all that enters the target. */
  wires(units = this.units()) {
    const unitOf = new Map(units.flatMap((unit, i) => unit.members.map((id) => [id, i])));
    const sums = new Map();
    for (const { source, target, weight } of this.edges) {
      const [from, to] = [unitOf.get(source), unitOf.get(target)];
      if (from === undefined || to === undefined || from === to) continue;
      const key = from * units.length + to;
      sums.set(key, (sums.get(key) ?? 0) + weight);
    }
    return [...sums].map(([key, weight]) => {
      const [source, target] = [Math.floor(key / units.length), key % units.length];
      const inflow = units[target].members.reduce((sum, id) => sum + this.nodes[id].inflow, 0);
      return { source: units[source], target: units[target], weight, share: inflow ? Math.abs(weight) / inflow : 0 };
    });
  }
}

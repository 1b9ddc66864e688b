// The forward pass of `sparse_circuits.Transformer`, in float64 and without a library.
// Activations are kept under the hook names of the Python model, one Float64Array per token.

function readBytes(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Unpack a record of `payload.pack` into {shape, index, value}: the flat indices that are stored, and what is there. */
function unpack({ shape, gaps, f4, f8 }) {
  const { buffer } = readBytes(f4 ?? f8);
  const value = f4 === undefined ? new Float64Array(buffer) : Float64Array.from(new Float32Array(buffer));
  const index = new Int32Array(value.length).map((_, i) => i);
  if (gaps !== undefined) {
    let [slot, at, shift] = [0, 0, 0];
    for (const byte of readBytes(gaps)) {
      at += (byte & 127) * 2 ** shift;
      shift += 7;
      if (byte < 128) {
        index[slot++] = at++;
        shift = 0;
      }
    }
  }
  return { shape, index, value };
}

/** Dense vectors of the biases and sinks, and matrices as {columns, start, column, value}: row r is start[r]...start[r + 1]. */
function unpackWeights(records) {
  const weights = {};
  for (const [name, record] of Object.entries(records)) {
    const { shape, index, value } = unpack(record);
    const size = shape.reduce((product, n) => product * n, 1);
    if (!name.split(".").pop().startsWith("W_")) {
      weights[name] = new Float64Array(size);
      index.forEach((at, i) => { weights[name][at] = value[i]; });
      continue;
    }
    const columns = shape[shape.length - 1];
    const start = new Int32Array(size / columns + 1);
    for (const at of index) start[Math.floor(at / columns) + 1]++;
    for (let row = 1; row < start.length; row++) start[row] += start[row - 1];
    weights[name] = { columns, start, column: index.map((at) => at % columns), value };
  }
  return weights;
}

/** Where entry `index` of the flattened matrix stands among its stored values. */
function slotOf({ columns, start, column }, index) {
  return column.indexOf(index % columns, start[Math.floor(index / columns)]);
}

/** Add x W to `out`; the rows of W begin at `first` and its columns at `offset` of `out` (one head of several). */
function addProduct(out, x, { start, column, value }, first = 0, offset = 0) {
  for (let i = 0; i < x.length; i++) {
    if (x[i] === 0) continue;
    for (let slot = start[first + i]; slot < start[first + i + 1]; slot++) out[offset + column[slot]] += x[i] * value[slot];
  }
  return out;
}

function rowOf({ columns, start, column, value }, row) {
  const out = new Float64Array(columns);
  for (let slot = start[row]; slot < start[row + 1]; slot++) out[column[slot]] = value[slot];
  return out;
}

function add(a, b) {
  return a.map((value, i) => value + b[i]);
}

function rmsNorm(x, eps) {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value) => value / Math.sqrt(meanSquare + eps));
}

/** The entry that would stand at `place` if `values` were sorted upwards (Hoare's selection; it moves them about). */
function select(values, place) {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    const pivot = values[(low + high) >> 1];
    let [i, j] = [low, high];
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) {
        const moved = values[i];
        values[i++] = values[j];
        values[j--] = moved;
      }
    }
    if (place <= j) high = j;
    else if (place >= i) low = i;
    else break;
  }
  return values[place];
}

/** AbsTopK: all but the `count` entries of largest magnitude become zero; of equal ones the first stay. */
function keepLargest(x, count) {
  const magnitude = x.map(Math.abs);
  const threshold = select(magnitude.slice(), x.length - count);
  const kept = new Float64Array(x.length);
  let tied = count;
  for (const size of magnitude) if (size > threshold) tied--;
  for (let i = 0; i < x.length; i++) {
    if (magnitude[i] > threshold || (magnitude[i] === threshold && tied-- > 0)) kept[i] = x[i];
  }
  return kept;
}

/** Complementary error function, double precision: a series of positive terms near zero, a continued fraction beyond. */
function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2.5) {
    // erf(x) = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!
    let term = x;
    let sum = x;
    for (let n = 1; term > sum * 1e-17; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let tail = x;
  for (let n = 80; n > 0; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * tail);
}

const ACTIVATIONS = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => 0.5 * x * erfc(-x * Math.SQRT1_2),
};

/** Softmax; a sink is one more logit whose share of the attention goes nowhere. */
function softmax(scores, sink) {
  const top = Math.max(...scores, sink ?? -Infinity);
  const exps = scores.map((score) => Math.exp(score - top));
  const total = exps.reduce((sum, value) => sum + value, 0) + (sink === undefined ? 0 : Math.exp(sink - top));
  return exps.map((value) => value / total);
}

/** Attention of one layer on normalised inputs `read[pos]`; returns what it writes to the residual stream. */
function attention(cfg, weights, prefix, read, keep) {
  const { n_heads: heads, d_model: dModel, d_head: dHead } = cfg;
  const w = (name) => weights[prefix + name];
  // Heads side by side, so that a channel is found at head * d_head + channel.
  const [q, k, v] = ["Q", "K", "V"].map((name) => keep(`${prefix}hook_${name.toLowerCase()}`, read.map((x) => {
    const out = Float64Array.from(w("b_" + name));
    for (let head = 0; head < heads; head++) addProduct(out, x, w("W_" + name), head * dModel, head * dHead);
    return out;
  })));
  const mixed = read.map(() => new Float64Array(heads * dHead));
  const patterns = [];
  for (let head = 0; head < heads; head++) {
    const channels = [head * dHead, (head + 1) * dHead];
    const score = (query, key) => {
      let sum = 0;
      for (let c = channels[0]; c < channels[1]; c++) sum += query[c] * key[c];
      return sum / Math.sqrt(dHead);
    };
    patterns.push(q.map((query, pos) => softmax(k.slice(0, pos + 1).map((key) => score(query, key)), w("sink")?.[head])));
    patterns[head].forEach((row, pos) => row.forEach((share, source) => {
      for (let c = channels[0]; c < channels[1]; c++) mixed[pos][c] += share * v[source][c];
    }));
  }
  keep(prefix + "hook_pattern", patterns);
  return keep(prefix + "hook_z", mixed).map((z) => addProduct(Float64Array.from(w("b_O")), z, w("W_O")));
}

/**
 * Run the model on a list of token numbers. By hook name, `kept` says how many coordinates AbsTopK keeps and `fixed`
 * what the coordinates {index, value} are then set to, which is how nodes are ablated.
 * Returns {logits, cache}: logits[pos][token], cache[hook name][pos][coordinate] and, of the patterns,
 * cache[hook name][head][query][key].
 */
function forward({ config: cfg, kept, fixed }, weights, tokens) {
  const cache = {};
  const settle = (name, row) => {
    const settled = name in kept ? keepLargest(row, kept[name]) : row;
    fixed[name]?.index.forEach((at, i) => { settled[at] = fixed[name].value[i]; });
    return settled;
  };
  const keep = (name, rows) => (cache[name] = name.endsWith("pattern") ? rows : rows.map((row) => settle(name, row)));
  let x = keep("hook_embed", tokens.map((token) => rowOf(weights.W_E, token)));
  if (weights.W_pos) x = x.map((row, pos) => add(row, rowOf(weights.W_pos, pos)));
  keep("blocks.0.hook_resid_pre", x);
  for (let layer = 0; layer < cfg.n_layers; layer++) {
    const block = `blocks.${layer}.`;
    const w = (name) => weights[block + "mlp." + name];
    const normalised = (name) => keep(block + name + ".hook_normalized", x.map((row) => rmsNorm(row, cfg.rms_eps)));
    const attnOut = keep(block + "hook_attn_out", attention(cfg, weights, block + "attn.", normalised("ln1"), keep));
    x = x.map((row, pos) => add(row, attnOut[pos]));
    const neurons = keep(block + "mlp.hook_post", normalised("ln2").map((row) =>
      addProduct(Float64Array.from(w("b_in")), row, w("W_in")).map(ACTIVATIONS[cfg.act_fn])));
    const mlpOut = keep(block + "hook_mlp_out", neurons.map((row) =>
      addProduct(Float64Array.from(w("b_out")), row, w("W_out"))));
    x = x.map((row, pos) => add(row, mlpOut[pos]));
  }
  const last = keep("ln_final.hook_normalized", x.map((row) => rmsNorm(row, cfg.rms_eps)));
  const logits = last.map((row, pos) => {
    const out = addProduct(Float64Array.from(weights.b_U), row, weights.W_U);
    return weights.W_bigram ? add(out, rowOf(weights.W_bigram, tokens[pos])) : out;
  });
  return { logits, cache };
}

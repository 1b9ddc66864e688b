// The forward pass of `sparse_circuits.Transformer`, in float64 and without a library.
// Activations are kept under the hook names of the Python model, one Float64Array per token.

/** Unpack {shape, index, value} records of non-zero entries into dense arrays. */
function unpackWeights(sparse) {
  const weights = {};
  for (const [name, { shape, index, value }] of Object.entries(sparse)) {
    const dense = new Float64Array(shape.reduce((product, size) => product * size, 1));
    index.forEach((flat, i) => { dense[flat] = value[i]; });
    weights[name] = dense;
  }
  return weights;
}

/** out[j] = bias[j] + sum_i x[i] W[i, j], where W and bias may start inside a larger array (one head of several). */
function affine(x, W, bias, columns, startW = 0, startBias = 0) {
  const out = new Float64Array(columns);
  for (let j = 0; j < columns; j++) out[j] = bias ? bias[startBias + j] : 0;
  for (let i = 0; i < x.length; i++) {
    if (x[i] === 0) continue;
    for (let j = 0; j < columns; j++) out[j] += x[i] * W[startW + i * columns + j];
  }
  return out;
}

function add(a, b) {
  return a.map((value, i) => value + b[i]);
}

function rmsNorm(x, eps) {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value) => value / Math.sqrt(meanSquare + eps));
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
  const write = read.map(() => Float64Array.from(w("b_O")));
  const all = { q: [], k: [], v: [], z: [] };
  const patterns = [];
  for (let head = 0; head < heads; head++) {
    const project = (name) => read.map((x) =>
      affine(x, w("W_" + name), w("b_" + name), dHead, head * dModel * dHead, head * dHead));
    const [q, k, v] = ["Q", "K", "V"].map(project);
    const sink = w("sink")?.[head];
    const score = (query, key) => query.reduce((sum, value, c) => sum + value * key[c], 0) / Math.sqrt(dHead);
    const pattern = q.map((query, position) => softmax(k.slice(0, position + 1).map((key) => score(query, key)), sink));
    const z = pattern.map((row) =>
      row.reduce((sum, share, source) => add(sum, v[source].map((value) => share * value)), new Float64Array(dHead)));
    z.forEach((mixed, position) => {
      write[position] = add(write[position], affine(mixed, w("W_O"), null, dModel, head * dHead * dModel));
    });
    patterns.push(pattern);
    Object.entries({ q, k, v, z }).forEach(([name, rows]) => all[name].push(rows));
  }
  // Heads side by side, so that a channel is found at head * d_head + channel.
  for (const [name, byHead] of Object.entries(all)) {
    keep[`${prefix}hook_${name}`] = read.map((_, position) =>
      Float64Array.from(byHead.flatMap((rows) => Array.from(rows[position]))));
  }
  keep[prefix + "hook_pattern"] = patterns;
  return write;
}

/**
 * Run the model on a list of token numbers.
 * Returns {logits, cache}: logits[pos][token], cache[hook name][pos][coordinate] and, of the patterns,
 * cache[hook name][head][query][key].
 */
function forward(cfg, weights, tokens) {
  const rows = (name, pos, width) => weights[name].subarray(pos * width, (pos + 1) * width);
  const cache = {};
  const keep = (name, values) => (cache[name] = values);
  let x = keep("hook_embed", tokens.map((token) => Float64Array.from(rows("W_E", token, cfg.d_model))));
  if (weights.W_pos) x = x.map((row, pos) => add(row, rows("W_pos", pos, cfg.d_model)));
  keep("blocks.0.hook_resid_pre", x);
  for (let layer = 0; layer < cfg.n_layers; layer++) {
    const block = `blocks.${layer}.`;
    const w = (name) => weights[block + "mlp." + name];
    const normalised = (name) => keep(block + name + ".hook_normalized", x.map((row) => rmsNorm(row, cfg.rms_eps)));
    const attnOut = keep(block + "hook_attn_out", attention(cfg, weights, block + "attn.", normalised("ln1"), cache));
    x = x.map((row, pos) => add(row, attnOut[pos]));
    const neurons = keep(block + "mlp.hook_post", normalised("ln2").map((row) =>
      affine(row, w("W_in"), w("b_in"), cfg.d_mlp).map(ACTIVATIONS[cfg.act_fn])));
    const mlpOut = keep(block + "hook_mlp_out", neurons.map((row) => affine(row, w("W_out"), w("b_out"), cfg.d_model)));
    x = x.map((row, pos) => add(row, mlpOut[pos]));
  }
  const last = keep("ln_final.hook_normalized", x.map((row) => rmsNorm(row, cfg.rms_eps)));
  const logits = last.map((row, pos) => {
    const out = affine(row, weights.W_U, weights.b_U, cfg.d_vocab);
    return weights.W_bigram ? add(out, rows("W_bigram", tokens[pos], cfg.d_vocab)) : out;
  });
  return { logits, cache };
}

# DRAFT of chapter 15 as a percent script (see `jupytext --to notebook`), made before the three models were trained.
# What stands between ‹ and › waits for measured numbers; cells that end with a comment "claims ..." still need their
# `sc.claim` calls, tables and figures. Card, set-up cell and ids come from `python -m book_tools.notebooks --sync 15`.
#
# Pilot, gated-0 after 3000 of 4000 steps, 16 held-out windows (2,048 predictions), so not for print:
#   dense loss 3.278; increase for activations by magnitude 0.350, 0.259, 0.196, 0.178, 0.139 (2:4 ... unstructured);
#   by lot 2.26 to 2.29; weights by magnitude 0.372, 0.259, 0.199, 0.192, 0.155; Wanda 0.411 ... 0.183; SparseGPT 0.342,
#   0.261, 0.201, 0.186, 0.171. Gap ratio 0.18.
#   2:4 by magnitude: none 0.350, median 0.342, mean 0.357, static 0.435, variance 0.327. CLACT 0.339, Amber 0.341,
#   weight-aware 0.339. Learned for 30 steps of 8 windows at rate 0.002: shift 0.358, scale 0.322, low rank 0.344; at rate
#   0.01 (fewer windows) 0.358, 0.470, 0.378. So the rate matters more than the kind: sweep it before "simple beats
#   learned" is judged.
# Energy: the inputs of q, k, v, gate and up agree with the likeliest law within 2 %. Those of o do not, because the
# heads differ in size: within a head (all four patterns) the Gaussian law holds to 10 % (0.120 against 0.132 for 2:4),
# across heads (unstructured) 0.043 is lost against 0.073. Student's t fits the pooled entries best and predicts worst:
# the heavy tail lies between heads and not within a group. For down no law of independent entries comes near (0.019 and
# 0.013 at 2:4; kurtosis 30 and 94). So most of the gap from 16:32 to unstructured is that of o (0.026 against 0.007).

# %% [markdown] tags=["card"]
# # 15 · N:M activation sparsity

# %% [markdown] tags=["hook"]
# ## Half of eight numbers
#
# A layer of a model is about to read these eight numbers:
#
# ```
# 2.9   −3.1   3.0   −2.8  |  0.1   −0.2   0.3   0.1
# ```
#
# Four of them may stay. Whoever may choose freely keeps the first four and loses 0.4 % of the sum of squares. Hardware with the
# rule "two of every four" has to drop two of the large ones, and keep two of the small: it loses 46 %.
#
# Half is gone in both cases. This chapter asks what the fineness of the rule costs a real model, how much of that can be
# known before any model is run, and which repairs are worth their price.

# %% [markdown] tags=["objectives"]
# ## By the end you can
#
# - prune the input of a layer to N of every M, ties included (Exercise 15.1)
# - shift an input before pruning at the price of one number per token (Exercise 15.2)
# - find the mistakes in a correction of the variance (Exercise 15.3)
# - write an input on which a coarse pattern fails and a free choice does not (Exercise 15.4)
# - show that a criterion looks into the future (Exercise 15.5).

# %% tags=["setup"]

# %% [markdown] tags=["build"]
# ## Build it
#
# ### N of every M
#
# A linear layer computes $y = x W$, with an input $x$ of $d$ channels for each token. Cut $x$ into groups of $M$ consecutive channels and
# keep, in each group, the $N$ entries of largest magnitude. The rest becomes zero. This is the **pattern** N:M. Among weights, 2:4 is what graphics processors
# have been able to skip since 2020. Among *activations*, the numbers that flow through the model, nothing you can buy runs it. The question, put by Alanova and others (arXiv 2509.22166), is whether it would be worth building.
#
# All four patterns of the paper, 2:4, 4:8, 8:16 and 16:32, keep one half. They differ in how local the rule is. A group of $M$ has $\binom{M}{N}$ masks, so a machine
# needs at least $\log_2 \binom{M}{N} / M$ bits per entry to know which it was. **Unstructured** means one group as wide as the token.

# %%
import pandas as pd
import torch
from sparse_circuits import sparsity as sp

eight = torch.tensor([2.9, -3.1, 3.0, -2.8, 0.1, -0.2, 0.3, 0.1])
for name in ("2:4", "4:8"):
    pattern = sp.Pattern.parse(name)
    kept = eight * sp.pattern_mask(eight, pattern)
    print(name, [f"{value:.1f}" for value in kept], f"loses {sp.energy_lost_by(eight, kept):.1%}")

# %% [markdown]
# ### What must be lost
#
# Call the sum of squares the **energy**. How much of it goes can be worked out without any model, if the entries are independent draws from one law. Take an entry of magnitude $t$.
# It goes if at least $N$ of its $M - 1$ neighbours are larger. Each of them is with the probability $p(t)$, so the number of larger ones is binomial, and the expected share of energy that goes is
#
# $$\frac{1}{\mathrm{E}\,t^2} \int_0^\infty t^2 f(t) \; P\big(\mathrm{Binomial}(M-1, p(t)) \ge N\big)\, dt,$$
#
# with the density $f$ of the magnitude. For a narrow group the probability is a gentle slope: large entries with larger neighbours go, small ones with smaller neighbours stay. For a wide group it becomes a step at the median.

# %% [markdown]
# ### Predict
#
# For Gaussian entries a free choice of one half loses 7 % of the energy. What does 2:4 lose, in percent?

# %% tags=["predict"]
sc.predict("15.a", ...)

# %%
WIDTH = 128
laws = [sp.Law("Gaussian"), sp.Law("Laplace"), sp.Law("Student t", 3.0)]
theory = pd.DataFrame(
    [
        {"pattern": str(pattern)}
        | {str(law): sp.energy_lost(law, pattern, WIDTH) for law in laws}
        | {"index bits per entry": pattern.index_bits(WIDTH)}
        for pattern in sp.PATTERNS
    ]
)
sc.plots.table(theory, "Share of the energy that pruning to one half loses, by the law of the entries", digits=3)

# %% [markdown]
# A simulation is the control: a million draws from each law, pruned and counted.

# %%
torch.manual_seed(sc.chapter_seed("15"))
off = []
for law in laws[:2]:
    draws = law.distribution().sample((8000, WIDTH))
    for pattern in sp.PATTERNS:
        counted = sp.energy_lost_by(draws, draws * sp.pattern_mask(draws, pattern))
        off.append(abs(counted / sp.energy_lost(law, pattern, WIDTH) - 1))
# claims: nm.theory.gaussian_2_4, nm.theory.gaussian_free, nm.theory.simulation (largest relative difference)

# %% [markdown]
# ### A model of the kind that is pruned
#
# `gated-0`, `gated-1` and `gated-2` are three seeds of one recipe: two layers of width 128 with a **gated MLP** (SwiGLU), as in most models in use. A gated neuron reads two directions, bends one and multiplies:
#
# $$h = \mathrm{SiLU}(x W_\text{gate}) \odot (x W_\text{in}), \qquad y = h W_\text{out}.$$
#
# Why not the GELU models of earlier chapters? Their neurons are near zero half of the time by themselves. Pruning them to one half would look free, and flatter the method. All widths are multiples of 32. Each layer has seven matrices whose input can be pruned: q, k, v, o, gate, up and down.

# %%
from sparse_circuits.input_study import LEARNED, MITIGATIONS, SIMPLE, Learning, energies, grid, measured
from sparse_circuits.sources import SOURCES

models = [sc.load_model(f"gated-{seed}") for seed in range(3)]
code = SOURCES["stdlib"]
windows = code.held_out(129, 32)
calibration = code.batches(129, 16, seed=1000)(0)[:, :-1]
energy = pd.concat(
    [pd.DataFrame(energies(model, calibration, sp.PATTERNS)).assign(seed=seed) for seed, model in enumerate(models)]
)
# table: by projection: kurtosis, best law, measured and predicted at 2:4 and 16:32; claim nm.energy_error

# %% [markdown]
# ### Four criteria, one shape
#
# Which entries stay? The plain rule is magnitude. Three others have been proposed, and written side by side they differ in one thing only. Each is $|x_j|$ times a factor of the channel:
#
# | criterion | factor of channel $j$ | reads |
# | --- | --- | --- |
# | magnitude | 1 | nothing |
# | CLACT | length of the channel over all tokens of the run, $\lVert X_{:j} \rVert$ | other tokens |
# | Amber-Pruner | length of its standardised weights, relative to the shortest | the weights |
# | weight-aware (WINA) | length of its weights, $\lVert W_j \rVert$ | the weights |
#
# (CLACT also divides by the length of the token. That is the same for all channels of a token, so it cannot change what is kept.)
#
# ### Repairs
#
# Pruning leaves the token smaller and off its place. The simple repairs need no training:
#
# - **Dynamic shift.** Take the median (or mean) $s$ of each token off, prune, and put $s$ back. The result is dense again, yet it costs little: $s$ is the same for all channels, so what it adds to the output is $s$ times the column sums of $W$, known beforehand.
# - **Static shift.** The same with a vector from calibration data, here the mean of each channel.
# - **Variance.** Scale what is left of each token so that its variance over the channels is the old one.
#
# Three are learned, with the next-token loss of the pruned model, while its weights stay fixed: a **shift** for each channel, a **scale** (gain and offset) for each output, and a **low-rank** layer of rank 8 through which what was pruned goes around.
#
# All of it is done with hooks. `sp.pruned_inputs(model, pruning)` is a context: inside it, every layer reads its pruned input; after it, the model is as it was.

# %%
from sparse_circuits.sparsity import InputPruning, pruned_inputs

half = InputPruning(sp.Pattern.parse("8:16"))
before = measured(models[0], windows)["loss"]
with pruned_inputs(models[0], half):
    during = measured(models[0], windows)["loss"]
after = measured(models[0], windows)["loss"]
print(f"{before:.3f} before, {during:.3f} inside, {after:.3f} after")

# %% [markdown] tags=["predict"]
# ## Predict
#
# Order the five patterns by what they cost in loss. Then the number: what share of the gap between 2:4 and unstructured is left at 16:32, in percent?

# %%
sc.predict("15.b", ...)

# %% [markdown] tags=["result"]
# ## The result
#
# ### Patterns
#
# Magnitude, no repair, all seven kinds of layers, three seeds. The control keeps entries by lot.

# %%
def costs(model, criteria=("magnitude", "random"), mitigations=("none",), patterns=sp.PATTERNS, learning=None):
    return pd.DataFrame(grid(model, windows, patterns, criteria, mitigations, learning))


by_seed = pd.concat([costs(model).assign(seed=seed) for seed, model in enumerate(models)])
increase = by_seed[by_seed.criterion == "magnitude"].pivot(index="seed", columns="pattern", values="increase")
increase = increase[[str(pattern) for pattern in sp.PATTERNS]]
ordered = (increase.diff(axis=1).iloc[:, 1:-1] < 0).all(axis=1) & (increase["16:32"] >= increase["unstructured"])
gap = (increase["16:32"] - increase["unstructured"]) / (increase["2:4"] - increase["unstructured"])
# claims nm.order_holds_seeds = int(ordered.sum()); nm.gap_ratio = gap.max(); nm.dense, nm.increase.2_4 ... control nm.random

# %% [markdown]
# ### Criteria and repairs

# %%
everything = costs(models[0], list(sp.CRITERIA), ["none", *SIMPLE])

# %% [markdown]
# ### Simple against learned

# %%
ends = [sp.Pattern.parse("2:4"), sp.Pattern.parse("8:16")]
repairs = []
for seed, model in enumerate(models):
    learning = Learning(calibration, code.batches(129, 8, seed=2000 + seed))
    repairs.append(costs(model, ["magnitude"], ["none", *SIMPLE, *LEARNED], ends, learning).assign(seed=seed))

# %% [markdown]
# ### Activations against weights

# %%
weights = []
for seed, model in enumerate(models):
    for pattern in sp.PATTERNS:
        for method in ("magnitude", "Wanda", "SparseGPT"):
            pruned = sp.prune_weights(model, pattern, method, calibration)
            weights.append({"seed": seed, "pattern": str(pattern), "method": method} | measured(pruned, windows))

# %% [markdown]
# ### Kind by kind

# %%
kinds = []
for seed, model in enumerate(models):
    for kind in sp.PROJECTIONS:
        for pattern in sp.PATTERNS:
            with pruned_inputs(model, InputPruning(pattern), [kind]):
                kinds.append({"seed": seed, "kind": kind, "pattern": str(pattern)} | measured(model, windows))

# %% [markdown]
# ### What the press said
#
# A magazine article about this line of work made a number of statements. Here is each in our words, and what we measured.
#
# | said | measured here | verdict |
# | --- | --- | --- |
# | a pruned weight is gone for every input; an activation filter chooses anew for each | overlap of masks between tokens: ‹claim› | right |
# | hardware knows one pattern, two of four | index bits of 2:4: 0.646; for weights only | right, for weights |
# | patterns are boxes, 2 by 2 or 4 by 4 | N of M consecutive channels of one token; no grid | wrong |
# | four ways were tested | five losses above | right |
# | 2:4 is a sieve with huge holes | the same half goes; energy lost ‹claim› against ‹claim› | half right: fewer masks, not larger holes |
# | 16:32 is almost as good as no filter at all | over unstructured ‹claim›, over dense ‹claim› nats | wrong: almost as good as a free choice of half |
# | 8:16 is the balance of speed and quality | ‹claim› nats over dense; speed not measurable | unsupported |
# | the shift repaired many errors | of the loss of 2:4 it takes off ‹claim› % | ‹verdict› |
# | turning up the volume helps | variance takes off ‹claim› % | ‹verdict› |
# | the simplest tricks beat the complex ones | best simple ‹claim›, best learned ‹claim› nats | ‹verdict› |
# | filter activations rather than throw weights away | 2:4: activations ‹claim›, Wanda ‹claim›, SparseGPT ‹claim› nats | ‹verdict› |
# | faster, cheaper, smarter | a mask costs up to ‹claim› of the matmul that it does not replace | not here: nothing in this chapter runs faster |

# %% [markdown] tags=["lies"]
# ## Where this lies to you
#
# Which should be pruned, activations or weights? The obvious test is the error of one layer, $\lVert x W - x' W' \rVert$. Take Gaussian inputs and weights, and plant four channels that are twenty times larger, as large language models have them.

# %%
def layer_errors(outliers, size=20.0, channels=128, outputs=128, tokens=2000):
    generator = torch.Generator().manual_seed(sc.chapter_seed("15"))
    x = torch.randn(tokens, channels, generator=generator)
    place = torch.randperm(channels, generator=generator)[:outliers]
    x[:, place] *= size
    w = torch.randn(channels, outputs, generator=generator) / channels**0.5
    y, pattern = x @ w, sp.Pattern.parse("2:4")
    from sparse_circuits.sparsity.pruned_weights import prune_matrix

    def error(found):
        return ((found - y).square().sum() / y.square().sum()).item()

    return {
        "outlier channels": outliers,
        "activations": error(sp.prune_input(x, w, InputPruning(pattern)) @ w),
        "weights, magnitude": error(x @ prune_matrix(w, pattern, "magnitude")),
        "weights, Wanda": error(x @ prune_matrix(w, pattern, "Wanda", x)),
    }


planted = pd.DataFrame([layer_errors(n) for n in (0, 1, 4, 16)])
sc.plots.table(planted, "Share of the output's energy that is wrong after 2:4, one layer", digits=3)

# %% [markdown] tags=["exercises"]
# ## Check yourself
#
# Each exercise has a grader that runs your answer. It does not look at how you wrote it.

# %% [markdown] tags=["exercise-card"]
# ### Exercise 15.1 · N of every M
#
# Difficulty ●●○○○ · Importance ●●●●● · 10 minutes
#
# Write a function that takes `x` of shape (token, channel) and returns a copy in which exactly `n` of every `m` consecutive channels of a token stay: those of largest magnitude, and of equal ones the first. The rest is zero. Do not use `pattern_mask`.

# %% tags=["exercise"]
def keep_n_of_m(x, n, m):
    raise NotImplementedError


sc.grade("15.1", keep_n_of_m)

# %% [markdown] tags=["hints"]
# <details><summary>Hint 1</summary>
#
# Make the groups the rows of a matrix with `m` columns. Then it is the same problem for every row.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A threshold keeps too many when magnitudes are equal. Positions settle it: which are the first `n` in an order by magnitude?
#
# </details>
# <details><summary>Hint 3</summary>
#
# `sort` with `descending=True, stable=True` gives indices in which equal ones keep their order. Put ones there with `scatter`.
#
# </details>

# %% tags=["solution"]
# @title Solution 15.1
def kept_by_sorting(x, n, m):
    rows = x.reshape(-1, m)
    first = rows.abs().sort(dim=1, descending=True, stable=True).indices[:, :n]
    return (rows * torch.zeros_like(rows).scatter(1, first, 1.0)).view_as(x)


sc.grade("15.1", kept_by_sorting)

# %% [markdown] tags=["exercise-card"]
# ### Exercise 15.2 · A shift for nearly nothing
#
# Difficulty ●●●○○ · Importance ●●●●○ · 15 minutes
#
# With the mean $s$ of each token as a dynamic shift, $x' = \mathrm{prune}(x - s) + s$ is dense. Write a function that takes `x` (token, channel) and `W` (channel, output) and returns two tensors: what is multiplied with `W`, which must be 2:4 sparse, and the output $y = x' W$.

# %% tags=["exercise"]
def shifted_layer(x, W):
    raise NotImplementedError


sc.grade("15.2", shifted_layer)

# %% [markdown] tags=["hints"]
# <details><summary>Hint 1</summary>
#
# The product is linear: multiply the two parts of $x'$ with $W$ one after the other.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The second part is the same number in every channel. What is such a row times $W$?
#
# </details>
# <details><summary>Hint 3</summary>
#
# It is the number times the sum of $W$ over its channels, a row of length (output) that does not depend on the token.
#
# </details>

# %% tags=["solution"]
# @title Solution 15.2
def sparse_and_shift(x, W):
    s = x.mean(dim=1, keepdim=True)
    sparse = (x - s) * sp.pattern_mask(x - s, sp.Pattern(2, 4))
    return sparse, sparse @ W + s * W.sum(dim=0)


sc.grade("15.2", sparse_and_shift)

# %% [markdown] tags=["exercise-card"]
# ### Exercise 15.3 · Debug: the volume
#
# Difficulty ●●○○○ · Importance ●●●○○ · 10 minutes
#
# A colleague wants each token to have, after pruning, the variance over its channels that it had before. `x` is the input, `kept` the pruned input, both (token, channel). Quiet tokens come out too loud, loud ones too quiet, and a token of zeros becomes NaN. Debug the function; there are three mistakes.

# %% tags=["exercise"]
def colleagues_volume(x, kept):
    factor = x.var() / kept.var()
    return kept * factor


sc.grade("15.3", colleagues_volume)

# %% [markdown] tags=["hints"]
# <details><summary>Hint 1</summary>
#
# Over what does `x.var()` go? Each token needs a number of its own.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Multiply numbers by 3: by what does their variance grow?
#
# </details>
# <details><summary>Hint 3</summary>
#
# Take variances along dimension 1 and keep the dimension, take the root of the ratio, and do not let the denominator fall below a small positive number.
#
# </details>

# %% tags=["solution"]
# @title Solution 15.3
def mended_volume(x, kept):
    old, new = (part.var(dim=1, keepdim=True) for part in (x, kept))
    return kept * (old / new.clamp_min(1e-9)).sqrt()


sc.grade("15.3", mended_volume)

# %% [markdown] tags=["exercise-card"]
# ### Exercise 15.4 · Break it: a cruel token
#
# Difficulty ●●○○○ · Importance ●●●●○ · 10 minutes
#
# Break 2:4. Give a list of sixteen numbers of which a free choice of eight loses at most 1 % of the energy, and 2:4 at least 45 %.

# %% tags=["exercise"]
cruel_token = ...

sc.grade("15.4", cruel_token)

# %% [markdown] tags=["hints"]
# <details><summary>Hint 1</summary>
#
# A free choice loses little if eight entries are much larger than the others.
#
# </details>
# <details><summary>Hint 2</summary>
#
# How many of four large neighbours may stay?
#
# </details>
# <details><summary>Hint 3</summary>
#
# Fill two groups of four with large entries of the same size, and two with small ones.
#
# </details>

# %% tags=["solution"]
# @title Solution 15.4
sc.grade("15.4", [5.0] * 8 + [0.1] * 8)

# %% [markdown] tags=["exercise-card"]
# ### Exercise 15.5 · Break it: a look into the future
#
# Difficulty ●●●○○ · Importance ●●●●○ · 10 minutes
#
# A language model may not use later tokens. CLACT does. Give two inputs of shape (2, 8) whose first tokens are equal, such that CLACT with 2:4 keeps other channels of the first token in one than in the other.

# %% tags=["exercise"]
two_futures = ...

sc.grade("15.5", two_futures)

# %% [markdown] tags=["hints"]
# <details><summary>Hint 1</summary>
#
# What does the factor of a channel depend on?
#
# </details>
# <details><summary>Hint 2</summary>
#
# Give the first token entries of nearly the same size, so that a small push changes their order.
#
# </details>
# <details><summary>Hint 3</summary>
#
# Make one entry of the second token very large, in the first input in a channel that would go, in the second input in another.
#
# </details>

# %% tags=["solution"]
# @title Solution 15.5
calm = torch.tensor([[1.0, 1.1, 1.2, 1.3] * 2, [1.0] * 8])
loud = calm.clone()
loud[1, 0] = 100.0
sc.grade("15.5", (calm, loud))

# %% [markdown] tags=["compare"]
# ## Try your own
#
# `compare` prunes the inputs of any model with the book's names and puts it into the table of this chapter. Try a model with GELU neurons, and see how it is flattered.

# %%
def compare(model, name="yours"):
    """Show what the five patterns cost a model, beside the three of this chapter."""
    rows = costs(model)
    mine = rows[rows.criterion == "magnitude"].set_index("pattern")["increase"]
    ours = increase.mean().rename("gated, mean of three seeds")
    sc.plots.table(pd.DataFrame([ours, mine.rename(name)]).rename_axis("model"), "Increase in loss, nats per token", measured=True, digits=3)


compare(sc.load_model("code-dense"), "code-dense (GELU)")

# %% [markdown] tags=["recap"]
# ## Recap
#
# N:M pruning keeps N of every M consecutive channels of a token, and all four patterns of the paper keep one half. How much energy each must lose follows from order statistics, before any model is run. ‹Third: what the order and the gap were on three seeds.› ‹Fourth: what repairs and criteria did, and whether activations beat weights.› Nothing here runs faster, and a criterion that looks at other tokens looks into the future.

# %% [markdown] tags=["quiz"]
# ## Quiz
#
# ### Question 1
#
# 2:4 and 16:32 both keep one half. Why does 2:4 lose more energy?
#
# <details><summary>Because its groups are smaller, so large entries more often have larger neighbours than they can afford.</summary>
#
# Right: the choice is local. With 32 candidates the kept half is nearly that of a free choice.
#
# </details>
# <details><summary>Because it removes more entries.</summary>
#
# No: both remove exactly half.
#
# </details>
# <details><summary>Because it needs more index bits.</summary>
#
# No: it needs fewer, since it has fewer masks to tell apart. That is the other side of the same coin.
#
# </details>

# %% [markdown]
# ### Question 2
#
# "16:32 performs almost as well as no filter at all." What should the sentence say?
#
# <details><summary>Almost as well as dropping half without any structure.</summary>
#
# Right: it is near unstructured pruning. Both are well above the dense model in loss.
#
# </details>
# <details><summary>Nothing else, it is what the paper shows.</summary>
#
# No: the paper compares with unstructured pruning at the same sparsity.
#
# </details>
# <details><summary>Almost as well as 8:16.</summary>
#
# No: it is better than 8:16.
#
# </details>

# %% [markdown]
# ### Question 3
#
# A dynamic shift puts its number back in every channel. Why does the layer not have to multiply a dense input?
#
# <details><summary>Because the shift of a token is the same for all channels, and its part of the output is known but for that number.</summary>
#
# Right: it is the number times the sums of the weights over the channels.
#
# </details>
# <details><summary>Because the shift is small.</summary>
#
# No: its size does not matter.
#
# </details>
# <details><summary>Because the shift is added after the activation function.</summary>
#
# No: it belongs to the input of the linear layer.
#
# </details>

# %% [markdown]
# ### Question 4
#
# Why are gated neurons used in this chapter, and not ReLU neurons?
#
# <details><summary>Inputs that are zero half of the time would make pruning to one half look free.</summary>
#
# Right: it would measure the ReLU, not the pattern.
#
# </details>
# <details><summary>ReLU neurons cannot be pruned.</summary>
#
# No: they can, and almost for nothing.
#
# </details>
# <details><summary>Gated neurons are always Gaussian.</summary>
#
# No: a product of two sums has heavier tails than either.
#
# </details>

# %% [markdown]
# ### Question 5
#
# You prune activations to 8:16 on the processor that you have. What happens to the running time?
#
# <details><summary>It halves.</summary>
#
# No: the product is computed in full, zeros included.
#
# </details>
# <details><summary>It rises by the time of the mask.</summary>
#
# Right: the mask comes on top, and no matmul here skips its zeros.
#
# </details>
# <details><summary>It stays the same, because zeros cost nothing.</summary>
#
# No: zeros cost as much as any other number, and the mask has to be found.
#
# </details>

# %% [markdown] tags=["reading"]
# ## Further reading
#
# - Alanova and others, arXiv 2509.22166 (2025): patterns, criteria and repairs of this chapter, on models of four to eight billion parameters; read it with its code, whose logs show that some repairs were not applied.
# - Frantar and Alistarh, *SparseGPT*, arXiv 2301.00774 (2023): weights pruned one channel after another, with the others making up for it; section 3 derives the update that we use.
# - Sun and others, *A Simple and Effective Pruning Approach for Large Language Models* (Wanda), arXiv 2306.11695 (2024): weights weighed by the size of their inputs, the mirror image of the weight-aware criterion.
# - Mishra and others, *Accelerating Sparse Deep Neural Networks*, arXiv 2104.08378 (2021): the one pattern that hardware runs, 2:4 of weights, and how its indices are stored.

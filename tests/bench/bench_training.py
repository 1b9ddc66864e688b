"""Tokens per second of the book's training loop, as a ratio to a minimal PyTorch loop on the same shape.

    python tests/bench/bench_training.py [--preset code] [--rounds 5]

The rival is a model and a loop written here with what PyTorch has fastest: fused projections, `nn.RMSNorm` and
`scaled_dot_product_attention`; no hooks, no log, no schedule. The two take turns, so that other work on the machine
slows both; the unit is CPU time of one thread. The target is a ratio of at least 0.7.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.training import TrainingConfig, train
from torch import nn

BATCH_SIZE, STEPS, TARGET = 32, 16, 0.7


class MinimalBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width = cfg.n_heads * cfg.d_head
        self.n_heads = cfg.n_heads
        self.norms = nn.ModuleList(nn.RMSNorm(cfg.d_model, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(cfg.d_model, 3 * width), nn.Linear(width, cfg.d_model)
        self.mlp = nn.Sequential(nn.Linear(cfg.d_model, cfg.d_mlp), nn.GELU(), nn.Linear(cfg.d_mlp, cfg.d_model))

    def forward(self, x):
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class MinimalModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.embed, self.positions = nn.Embedding(cfg.d_vocab, cfg.d_model), nn.Embedding(cfg.n_ctx, cfg.d_model)
        self.blocks = nn.Sequential(*(MinimalBlock(cfg) for _ in range(cfg.n_layers)))
        self.norm = nn.RMSNorm(cfg.d_model, elementwise_affine=False)
        self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab)

    def forward(self, tokens):
        x = self.embed(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.unembed(self.norm(self.blocks(x)))


def minimal_loop(model, batches, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        tokens = batches(step)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def cpu_seconds(function, *arguments):
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="code")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cfg = TransformerConfig.preset(options.preset, d_vocab=2048)
    tokens = torch.randint(cfg.d_vocab, (BATCH_SIZE, cfg.n_ctx + 1), generator=torch.Generator().manual_seed(0))
    ours, rival = Transformer(cfg), MinimalModel(cfg)
    config = TrainingConfig(
        steps=STEPS, batch_size=BATCH_SIZE, learning_rate=1e-3, log_every=STEPS, checkpoint_every=STEPS
    )
    contenders = {
        "sparse_circuits.training.train": lambda: train(ours, lambda step: tokens, config, progress=False),
        "minimal loop": lambda: minimal_loop(rival, lambda step: tokens, STEPS),
    }
    for contender in contenders.values():
        contender()
    seconds = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            seconds[name].append(cpu_seconds(contender))
    rates = {name: STEPS * BATCH_SIZE * cfg.n_ctx / statistics.median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:32} {rate:8.0f} tokens per CPU second (median of {options.rounds})")
    ratio = rates["sparse_circuits.training.train"] / rates["minimal loop"]
    print(f"ratio {ratio:.2f}; target {TARGET}")
    raise SystemExit(ratio < TARGET)


if __name__ == "__main__":
    main()

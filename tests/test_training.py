"""The loop resumes exactly, shares its batch over processes, and does what a loop written by hand does."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sparse_circuits.checkpoints import CheckpointError
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.recipes import Recipe, run_recipe
from sparse_circuits.training import TrainingConfig, random_windows, train

CONFIG = TransformerConfig(d_vocab=30, n_ctx=16, n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=32)
TRAINING = TrainingConfig(steps=40, batch_size=8, learning_rate=1e-2, warmup_steps=5, log_every=5, checkpoint_every=10)


def counting_stream(n_tokens=600):
    """Return a stream whose next token is nearly certain: count up, with a jump now and then."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.where(torch.rand(n_tokens, generator=generator) < 0.1, 7, 1)
    return steps.cumsum(0) % CONFIG.d_vocab


def batches(seed=0):
    return random_windows(counting_stream(), CONFIG.n_ctx + 1, TRAINING.batch_size, seed)


def test_the_loss_falls_and_the_log_has_a_row_per_interval(tmp_path):
    run = train(Transformer(CONFIG), batches(), TRAINING, directory=tmp_path, progress=False)
    assert [row["step"] for row in run.log] == list(range(5, 41, 5))
    assert run.log[-1]["loss"] < run.log[0]["loss"] - 1
    assert run.log[-1]["tokens"] == 40 * 8 * CONFIG.n_ctx
    with (tmp_path / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [row["step"] for row in run.log]


def test_the_steps_are_those_of_a_loop_written_by_hand():
    source = batches()
    trained = train(Transformer(CONFIG), source, TRAINING, progress=False).model
    model = Transformer(CONFIG)
    matrices = [w for n, w in model.named_parameters() if ".b_" not in n and n != "b_U"]
    vectors = [w for n, w in model.named_parameters() if ".b_" in n or n == "b_U"]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}], betas=(0.9, 0.95)
    )
    for step in range(40):
        rate = 1e-2 * (step + 1) / 5 if step < 5 else 1e-2 * (40 - step) / 35
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens = source(step)
        loss = F.cross_entropy(model(tokens[:, :-1]).reshape(-1, 30), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], weight, atol=1e-6, rtol=0)


RECIPE = """
[model]
preset = "minute"
n_layers = 1
d_model = 16
n_ctx = 16

[data]
stream = "stdlib"
held_out_windows = 2

[training]
seed = 0
steps = {steps}
batch_size = 4
learning_rate = 1e-2
log_every = 5
checkpoint_every = 10
"""


def stdlib_of_two_files(folder: Path) -> Path:
    """Make a folder that passes for a standard library, so that its tokens take no time."""
    folder.mkdir()
    (folder / "ast.py").write_text("def f(x):\n    return [x, (x, 'a')]\n" * 50)
    (folder / "token.py").write_text("for x in range(3):\n    print(x)\n" * 20)
    return folder


def train_command(recipe: Path, output: Path, *launcher: str) -> list[str]:
    return [
        sys.executable,
        *(launcher or ("-m",)),
        "sparse_circuits.train",
        str(recipe),
        "--output",
        str(output),
        "--quiet",
    ]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSE_CIRCUITS_STDLIB", str(stdlib_of_two_files(tmp_path / "stdlib")))
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(steps=200))
    return path


def final_weights(output: Path) -> bytes:
    return (output / "model" / "model.safetensors").read_bytes()


def test_a_killed_run_resumes_to_the_same_weights(recipe, tmp_path):
    run_recipe(Recipe.read(recipe), tmp_path / "whole", progress=False)
    process = subprocess.Popen(train_command(recipe, tmp_path / "killed"))
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoint-*/manifest.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists()
    run_recipe(Recipe.read(recipe), tmp_path / "killed", progress=False)
    assert final_weights(tmp_path / "killed") == final_weights(tmp_path / "whole")
    headers = {(tmp_path / name / "log.csv").read_text().splitlines()[0] for name in ("whole", "killed")}
    assert len(headers) == 1


def test_two_processes_have_the_losses_of_one(recipe, tmp_path):
    recipe.write_text(RECIPE.format(steps=20))
    run_recipe(Recipe.read(recipe), tmp_path / "one", progress=False)
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "-m")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run(train_command(recipe, tmp_path / "two", *launcher), check=True, env=environment)

    def losses(output):
        with (output / "log.csv").open() as file:
            return torch.tensor([[float(row["loss"]), float(row["held_out_loss"])] for row in csv.DictReader(file)])

    assert len(losses(tmp_path / "one")) == 4
    torch.testing.assert_close(losses(tmp_path / "one"), losses(tmp_path / "two"), atol=1e-4, rtol=0)


def test_a_recipe_can_train_on_mini_python(tmp_path, monkeypatch):
    monkeypatch.setattr("sparse_circuits.sources.MINI_PYTHON_TOKENS", {"train": 3000, "held_out": 500})
    path = tmp_path / "mini.toml"
    path.write_text(RECIPE.format(steps=20).replace("stdlib", "mini_python"))
    log = run_recipe(Recipe.read(path), tmp_path / "mini", progress=False).log
    assert log[-1]["held_out_loss"] < log[0]["held_out_loss"]


def test_a_directory_of_another_run_is_refused(tmp_path):
    train(Transformer(CONFIG), batches(), TRAINING, directory=tmp_path, progress=False)
    other = TrainingConfig(**{**TRAINING.__dict__, "learning_rate": 3e-3})
    with pytest.raises(CheckpointError, match=r"training\.learning_rate.*0\.01, 0\.003"):
        train(Transformer(CONFIG), batches(), other, directory=tmp_path, progress=False)


def test_a_batch_is_a_function_of_seed_and_step():
    assert torch.equal(batches(seed=1)(7), batches(seed=1)(7))
    assert not torch.equal(batches(seed=1)(7), batches(seed=1)(8))
    assert not torch.equal(batches(seed=1)(7), batches(seed=2)(7))
    stream, windows = counting_stream(), batches()(0)
    starts = [
        start for start in range(len(stream) - 16) if any(torch.equal(stream[start : start + 17], w) for w in windows)
    ]
    assert len(starts) >= len(windows.unique(dim=0))


def test_a_loss_that_is_not_finite_stops_the_run():
    model = Transformer(CONFIG)
    with torch.no_grad():
        model.W_U[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="The loss is nan at step 5"):
        train(model, batches(), TRAINING, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"warmup_steps": 41}, "warmup_steps is 41; give 0 to 40"),
        ({"checkpoint_every": 7}, "checkpoint_every is 7; give a multiple of log_every"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{**TRAINING.__dict__, **change})


def test_bad_data_is_named():
    with pytest.raises(ValueError, match="5 tokens, a window needs 17"):
        random_windows(torch.arange(5), 17, 8, 0)
    with pytest.raises(ValueError, match="gave 4 sequences, batch_size is 8"):
        train(Transformer(CONFIG), lambda step: batches()(step)[:4], TRAINING, progress=False)


def test_a_frozen_model_is_named():
    with pytest.raises(ValueError, match="All weights of the model are frozen"):
        train(Transformer(CONFIG).requires_grad_(False), batches(), TRAINING, progress=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("stdlib", "everything"), "stream is 'everything'"),
        (("steps", "stops"), "stops"),
        (('preset = "minute"', ""), r"missing: \['\[model\] preset'\]"),
        (("[data]", "[date]"), "data"),
        (("seed = 0", "seed = "), "Invalid value"),
    ],
)
def test_bad_recipes_are_named(tmp_path, damage, message):
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.format(steps=10).replace(*damage))
    with pytest.raises(ValueError, match=message):
        Recipe.read(path)

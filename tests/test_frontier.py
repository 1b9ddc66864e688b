"""The table of training runs says what the models that were trained hold."""

import pytest
import sparse_circuits as sc
from sparse_circuits.recipes import Recipe, run_recipe

DENSE = """
[model]
preset = "minute"
n_layers = 1
d_model = 16
n_ctx = 16

[data]
stream = "mini_python"
held_out_windows = 2

[training]
seed = 3
steps = 4
batch_size = 4
learning_rate = 0.05
log_every = 2
checkpoint_every = 4
"""
SPARSE = DENSE.replace("n_ctx = 16", "n_ctx = 16\nactivation_density = 0.25") + (
    "\n[sparsity]\ndensity = 0.0625\nexpansion = 4\n"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("sparse_circuits.sources.MINI_PYTHON_TOKENS", {"train": 2000, "held_out": 200})
        for name, text in (("dense", DENSE), ("sparse", SPARSE)):
            (folder / name).mkdir()
            (folder / name / "recipe.toml").write_text(text)
            run_recipe(Recipe.read(folder / name / "recipe.toml"), folder / name, progress=False)
    (folder / "planned").mkdir()
    (folder / "planned" / "recipe.toml").write_text(DENSE)
    return folder


def test_non_zeros_and_parameters_are_those_of_the_trained_models(runs):
    table = sc.read_runs(runs).set_index("name")
    assert list(table.index) == ["dense", "sparse"]
    for name, row in table.iterrows():
        weights = list(sc.load_model(runs / name / "model").parameters())
        assert row["parameters"] == sum(weight.numel() for weight in weights)
    model = sc.load_model(runs / "sparse" / "model")
    zeros = sum(int((weight == 0).sum()) for _, weight in sc.sparsity.sparse_weights(model))
    assert table.loc["sparse", "nonzeros"] == table.loc["sparse", "parameters"] - zeros
    assert table.loc["dense", "nonzeros"] == table.loc["dense", "parameters"]


def test_a_row_says_how_the_model_was_trained(runs):
    table = sc.read_runs(runs).set_index("name")
    densities = table[["density", "embedding_density", "activation_density"]]
    assert densities.loc["dense"].tolist() == [1, 1, 1]
    assert densities.loc["sparse"].tolist() == [1 / 16, 1 / 4, 1 / 4]
    for _, row in table.iterrows():
        assert (row["seed"], row["width"], row["learning_rate"], row["steps"]) == (3, 16, 0.05, 4)
        assert row["tokens"] == 4 * 4 * 16
        assert row["flops"] == 6 * row["parameters"] * row["tokens"]
        assert row["finished"]


def test_the_loss_is_that_of_the_saved_model(runs, monkeypatch):
    monkeypatch.setattr("sparse_circuits.sources.MINI_PYTHON_TOKENS", {"train": 2000, "held_out": 200})
    held_out = sc.mini_python_tokens(200, seed=1)[: 2 * 16 + 1]
    for _, row in sc.read_runs(runs).iterrows():
        loss = sc.stream_loss(sc.load_model(runs / row["name"] / "model"), held_out, 16)
        assert row["held_out_loss"] == pytest.approx(loss, abs=1e-4)


def test_a_run_that_was_stopped_is_not_finished(runs, tmp_path):
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "recipe.toml").write_text(DENSE)
    rows = (runs / "dense" / "log.csv").read_text().splitlines()
    (stopped / "log.csv").write_text("\n".join(rows[:2]) + "\n")
    row = sc.read_runs(tmp_path).iloc[0]
    assert (row["steps"], row["tokens"], row["finished"]) == (2, 128, False)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no training run; give a folder of folders"):
        sc.read_runs(tmp_path)
    with pytest.raises(ValueError, match="nowhere' holds no training run"):
        sc.read_runs(tmp_path / "nowhere")


@pytest.mark.parametrize("log", ["", "step,tokens\n", "step,tokens,seconds\n1,2,3\n"])
def test_a_damaged_log_is_refused(tmp_path, log):
    run = tmp_path / "broken"
    run.mkdir()
    (run / "recipe.toml").write_text(DENSE)
    (run / "log.csv").write_text(log)
    with pytest.raises(ValueError, match=r"broken.log\.csv is no log of a training run"):
        sc.read_runs(tmp_path)


def test_reading_runs_leaves_the_function_train_where_it_is(runs):
    sc.read_runs(runs)
    assert callable(sc.train)


POST_TRAINED = DENSE.replace('preset = "minute"', 'start = "mini-dense-0"') + "\n[attention]\nlimit = 1.0\n"
TUNED = POST_TRAINED.partition("\n[attention]")[0]


def written(folder, **recipes):
    for name, text in recipes.items():
        (folder / name).mkdir()
        (folder / name / "recipe.toml").write_text(text)
    return folder


def test_the_control_is_the_dense_run_with_the_same_batches(tmp_path):
    others = {
        "longer": TUNED.replace("steps = 4", "steps = 5"),
        "reseeded": TUNED.replace("seed = 3", "seed = 4"),
        "wider": TUNED.replace("batch_size = 4", "batch_size = 8"),
        "elsewhere": TUNED.replace("mini-dense-0", "mini-dense-1"),
        "sparse": TUNED + "\n[sparsity]\ndensity = 0.5\n",
    }
    folder = written(tmp_path, run=POST_TRAINED, control=TUNED.replace("0.05", "0.01"), **others)
    assert sc.control_of(folder / "run") == folder / "control"


def test_a_run_without_a_control_or_with_two_is_refused(tmp_path):
    folder = written(tmp_path, run=POST_TRAINED)
    with pytest.raises(ValueError, match="run' has 0 controls"):
        sc.control_of(folder / "run")
    written(tmp_path, first=TUNED, second=TUNED)
    with pytest.raises(ValueError, match=r"run' has 2 controls \(\['first', 'second'\]\)"):
        sc.control_of(folder / "run")

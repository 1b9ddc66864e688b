"""Files of found circuits: what a search leaves is read again, killed searches go on, wrong files are refused."""

import json
from dataclasses import replace

import pytest
import sparse_circuits as sc
import torch
from sparse_circuits.found_circuits import FoundCircuits, main, search
from sparse_circuits.graph import weight_graph

TASKS = ["single_double_quote", "for_while"]
# An untrained model is some way above chance, ln 2, on both tasks; this target it meets with few nodes or none.
TARGET = 1.5


@pytest.fixture(scope="module")
def model():
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 4, "d_mlp": 16}
    return sc.Transformer(sc.TransformerConfig(d_vocab=2048, n_ctx=64, **shape), seed=0).eval()


@pytest.fixture(scope="module")
def config():
    return sc.PruningConfig(steps=20, prompts_per_step=8)


@pytest.fixture(scope="module")
def found(model, config):
    found = FoundCircuits.of(model)
    list(search(model, found, TASKS, [TARGET], config))
    return found


def test_a_search_records_a_circuit_for_each_task_that_meets_its_target(model, found):
    assert found.tasks == TASKS
    values = sc.reference_values(model)
    for task in TASKS:
        circuit = found.circuit(task, TARGET)
        selection = sc.task_prompts(task, 64, seed=1)
        assert sc.circuit_loss(model, circuit, selection, values) <= TARGET
        (record,) = (record for record in found.records if record["task"] == task)
        assert record["tried"] == [[circuit.count_nodes(), circuit.count_edges()]]
        assert sum(map(len, record["nodes"].values())) == circuit.count_nodes()


def test_circuits_with_and_without_calibration_stand_side_by_side(model, config, found):
    both = FoundCircuits(found.graph, found.weights, list(found.records))
    (record,) = search(model, both, TASKS[:1], [TARGET], replace(config, calibrate=True))
    assert record["calibrated"] and not found.records[0]["calibrated"]
    assert both.targets(TASKS[0]) == both.targets(TASKS[0], calibrated=True) == [TARGET]
    circuit, calibration = both.circuit(TASKS[0], TARGET, calibrated=True), both.calibration(TASKS[0], TARGET)
    loss = sc.circuit_loss(model, circuit, sc.task_prompts(TASKS[0], 64, 1), sc.reference_values(model), calibration)
    assert loss == pytest.approx(record["selection_loss"], abs=1e-4) and loss <= TARGET
    assert both.circuit(TASKS[0], TARGET) == found.circuit(TASKS[0], TARGET)
    with pytest.raises(
        ValueError, match=rf"'{TASKS[1]}' at a loss of {TARGET} with calibration; there are \[\('{TASKS[0]}'"
    ):
        both.circuit(TASKS[1], TARGET, calibrated=True)


def test_what_was_saved_is_read_again(model, found, tmp_path):
    found.save(tmp_path / "circuits.json")
    read = FoundCircuits.load(tmp_path / "circuits.json", model)
    assert read.records == found.records
    assert all(read.circuit(task, TARGET) == found.circuit(task, TARGET) for task in TASKS)


def test_a_killed_search_goes_on_where_it_stopped_and_ends_the_same(model, config, found):
    resumed = FoundCircuits.of(model)
    for _ in search(model, resumed, TASKS, [TARGET], config):
        break
    assert resumed.tasks == TASKS[:1]
    new = list(search(model, resumed, TASKS, [TARGET], config))
    assert [record["task"] for record in new] == TASKS[1:]
    assert all(resumed.circuit(task, TARGET) == found.circuit(task, TARGET) for task in TASKS)


def test_a_task_that_the_model_does_not_solve_is_passed_over(model, config):
    assert list(search(model, FoundCircuits.of(model), TASKS, [0.15], config)) == []


def test_circuits_of_other_weights_are_refused(model, found, tmp_path):
    found.save(tmp_path / "circuits.json")
    other = sc.Transformer(model.cfg, seed=1).eval()
    with pytest.raises(ValueError, match=r"other weights .* load the model that it was made from"):
        FoundCircuits.load(tmp_path / "circuits.json", other)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "something else"}', '{"format": 3, "weights": ""}'])
def test_a_file_of_another_kind_is_refused_with_its_name(model, tmp_path, content):
    path = tmp_path / "circuits.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"circuits\.json holds no found circuits .* make it again"):
        FoundCircuits.load(path, model)


def test_a_circuit_that_was_not_searched_is_named_with_those_there_are(found):
    message = r"no circuit for 'var_swap' at a loss of 0\.15 without calibration; there are .*for_while"
    with pytest.raises(ValueError, match=message):
        found.circuit("var_swap")


def test_the_command_keeps_what_the_file_holds(model, found, tmp_path, capsys):
    sc.save_model(model, tmp_path / "model")
    output = tmp_path / "circuits.json"
    FoundCircuits(weight_graph(model), found.weights, found.records[:1]).save(output)
    main(
        [str(tmp_path / "model"), "--output", str(output), "--tasks", *TASKS, "--targets", str(TARGET), "--steps", "20"]
    )
    assert [record["task"] for record in json.loads(output.read_text())["records"]] == TASKS
    assert "for_while" in capsys.readouterr().out


def test_reference_values_are_means_of_the_training_split(model):
    values = sc.reference_values(model)
    windows = sc.random_windows(sc.code_tokens("train"), 64, 512, seed=3)(0)
    _, cache = model.run_with_cache(windows)
    expected = cache["blocks.0.mlp.hook_post"].double().mean((0, 1))
    assert torch.allclose(values.activations["blocks.0.mlp.hook_post"].double(), expected, atol=1e-6)

"""Control searches: what they change and leave, that a killed command goes on, and that wrong files are refused."""

import json
from dataclasses import replace

import pytest
import sparse_circuits as sc
import torch
from pruning_cases import case
from sparse_circuits import found_circuits, pruning_controls
from sparse_circuits.pruning_controls import (
    CONTROLS,
    half_losses,
    main,
    nonsense_prompts,
    random_twin,
    read_controls,
    relabelled,
    search_controls,
    search_regardless,
)
from sparse_circuits.sparsity import sparse_weights, sparsify
from sparse_circuits.sparsity.weights import WeightSparsity


@pytest.fixture(scope="module")
def model():
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 4, "d_mlp": 16}
    model = sc.Transformer(sc.TransformerConfig(d_vocab=2048, n_ctx=64, **shape), seed=5).eval()
    sparsify(model, WeightSparsity(density=1 / 4))
    return model


@pytest.fixture(scope="module")
def config():
    return sc.PruningConfig(steps=5, prompts_per_step=4, check_every=5)


@pytest.fixture(scope="module", autouse=True)
def few_prompts():
    """Fewer prompts and windows than a real search takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found_circuits, "REFERENCE_WINDOWS", 8)
        for name, pairs in (("LEARNING", 16), ("SELECTION", 8), ("FRESH", 8)):
            patch.setattr(pruning_controls, name, (pairs, getattr(pruning_controls, name)[1]))
        yield


@pytest.fixture(scope="module")
def records(model, config):
    records = []
    list(search_controls(model, records, config=config))
    return records


def test_nonsense_asks_the_same_prompts_for_other_words():
    quotes, nonsense = sc.task_prompts("single_double_quote", 8, seed=3), nonsense_prompts(8, seed=3)
    tokenizer = sc.load_tokenizer()
    assert torch.equal(quotes.tokens, nonsense.tokens)
    assert torch.equal(quotes.position, nonsense.position)
    words = {tokenizer.id('"'): tokenizer.id("import"), tokenizer.id("'"): tokenizer.id("return")}
    assert nonsense.right.tolist() == [words[token] for token in quotes.right.tolist()]
    assert nonsense.wrong.tolist() == [words[token] for token in quotes.wrong.tolist()]


@pytest.mark.parametrize(("answers", "message"), [({2: 5}, "has nothing for"), ({2: 5, 7: 5}, "both candidates")])
def test_labels_that_do_not_fit_are_refused(answers, message):
    with pytest.raises(ValueError, match=message):
        relabelled(sc.task_prompts("single_double_quote", 4, seed=0), answers)


def test_a_random_twin_has_other_weights_and_as_many_in_each_matrix(model):
    twin = random_twin(model, seed=1)
    assert twin.cfg == model.cfg
    for (name, weight), (_, other) in zip(sparse_weights(twin), sparse_weights(model), strict=True):
        assert weight.count_nonzero() == other.count_nonzero(), name
        assert not torch.equal(weight, other)
    again = random_twin(model, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", ["quotes", "hidden brackets"])
def test_where_the_model_solves_the_task_it_finds_what_prune_finds(name):
    one = case(name)
    regardless, pruned = (
        search(one.model, one.learning, one.selection, one.means, one.config())
        for search in (search_regardless, sc.prune)
    )
    assert regardless.circuit == pruned.circuit
    assert regardless.nodes_by_stage == pruned.nodes_by_stage
    assert regardless.tried == pruned.tried
    assert regardless.loss == pytest.approx(pruned.loss)


def test_where_no_mask_meets_the_target_the_last_mask_and_its_loss_are_returned():
    one = case("brackets")
    swapped = sc.TwoWayPrompts(one.selection.tokens, one.selection.position, one.selection.wrong, one.selection.right)
    config = one.config(target_loss=1e-6)
    with pytest.raises(ValueError, match="choose a task that the model solves"):
        sc.prune(one.model, swapped, swapped, one.means, config)
    found = search_regardless(one.model, swapped, swapped, one.means, config)
    assert found.loss > config.target_loss
    assert list(found.nodes_by_stage) == ["mask"]
    assert found.loss == pytest.approx(sc.circuit_loss(one.model, found.circuit, swapped, one.means), abs=1e-6)


def test_a_calibrated_search_hands_back_its_scale_and_offset():
    one = case("brackets")
    found = search_regardless(one.model, one.learning, one.selection, one.means, one.config(calibrate=True))
    scaled = (one.model, found.circuit, one.selection, one.means, found.calibration)
    assert found.calibration.scale != 1
    assert sc.circuit_loss(*scaled) == pytest.approx(found.loss, abs=1e-6)
    everything = sc.Circuit.full(one.planted.graph)
    assert half_losses(one.model, everything, one.selection, one.means, found.calibration, n=1) == [
        pytest.approx(sc.circuit_loss(one.model, everything, *scaled[2:]), abs=1e-6)
    ]


def test_halves_lie_between_the_circuit_alone_and_the_whole_model():
    one = case("hidden brackets")
    losses = half_losses(one.model, one.planted.circuit, one.selection, one.means, n=3)
    assert len(losses) == 3
    assert max(losses) < one.config().target_loss


def test_a_search_says_how_it_did_on_fresh_prompts(model, config, records):
    assert [record["control"] for record in records] == list(CONTROLS)
    for record in records:
        assert record["nodes"] == sum(map(len, record["kept"].values()))
        assert record["target_loss"] == config.target_loss
        assert len(record["half_losses"]) == 10
    real = sc.two_way_loss(model, sc.task_prompts("single_double_quote", *pruning_controls.FRESH))
    assert records[2]["whole_loss"] == pytest.approx(real, abs=1e-5)
    assert records[1]["whole_loss"] != pytest.approx(real, abs=1e-5)


def test_what_is_there_is_not_searched_again(model, config, records):
    assert list(search_controls(model, list(records), config=config)) == []
    (longer,) = search_controls(model, list(records), ["zeros for means"], replace(config, steps=config.steps + 1))
    assert longer["steps"] == config.steps + 1
    with pytest.raises(ValueError, match="There is no control 'magic'"):
        list(search_controls(model, [], ["magic"], config))


def test_the_command_writes_a_file_and_goes_on_with_it(model, tmp_path, capsys):
    sc.save_model(model, tmp_path / "model")
    path = tmp_path / "controls.json"
    arguments = [str(tmp_path / "model"), "--output", str(path), "--steps", "2", "--controls"]
    main([*arguments, "zeros for means"])
    first = read_controls(path, model)
    main([*arguments, "zeros for means", "nonsense labels"])
    assert [record["control"] for record in read_controls(path, model)] == ["zeros for means", "nonsense labels"]
    assert read_controls(path, model)[0] == first[0]
    assert capsys.readouterr().out.count("fresh_loss") == 2
    with pytest.raises(ValueError, match="other weights"):
        read_controls(path, random_twin(model, 0))
    path.write_text(json.dumps({"format": "something", "weights": "", "records": []}))
    with pytest.raises(ValueError, match=r"holds no control searches \(its format is 'something'"):
        read_controls(path, model)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no control searches"):
        read_controls(path, model)


def test_models_that_differ_only_in_their_seed_do_not_share_a_random_twin(model, config, records):
    (other,) = search_controls(sc.Transformer(model.cfg, seed=7).eval(), [], ["random weights"], config)
    assert other["whole_loss"] != records[1]["whole_loss"]

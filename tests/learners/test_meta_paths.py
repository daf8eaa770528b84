"""The compiled kernel and the torch path adapt to the same meta embeddings, and a learner takes either."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sample_meta import BLOCKS, embeddings_of, events, log, ranker
from test_meta_ranker import FIRST, FITTED

import acclimate as ac
from acclimate.config import MetaRankerParameters
from acclimate.learners.meta import fused, network
from acclimate.learners.meta.network import Refresher, shapes_of
from acclimate.learners.meta.tasks import Tasks

STATE: Any = FITTED["all"].state
HIDDEN = st.lists(st.integers(1, 6), max_size=3)


def refresher(parameters: MetaRankerParameters, seed: int = 0) -> Refresher:
    """Of weights of chance, so that no layer is at nothing."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(-0.5 if "log_rates" in name else 0.0, 0.5, shape).astype(np.float32)
        for name, shape in shapes_of(parameters, STATE.layout).items()
    }
    return Refresher(parameters, STATE.layout, STATE.scale, weights)


def refused(*_: Any) -> None:
    pytest.fail("the kernel was called")


def embeddings(made: Refresher, block: int, *, by_torch: bool) -> Any:
    tasks = STATE.supports.tasks(block, np.arange(len(STATE.ids[block])))
    return made.embeddings(block, tasks, STATE.supports.rows_at, by_torch=by_torch)


@pytest.mark.parametrize("kind", ["mlp", "wide-and-deep"])
@pytest.mark.parametrize("rates", ["fixed", "learned", "per-parameter"])
@settings(max_examples=12)
@given(data=st.data())
def test_the_kernel_does_what_torch_does(kind: str, rates: Any, data: st.DataObject) -> None:
    user, item, both = BLOCKS.values()
    steps = st.integers(0, 3)
    blocks = {
        "user": replace(user, hidden=tuple(data.draw(HIDDEN)), steps=data.draw(steps)),
        "item": replace(
            item, hidden=tuple(data.draw(HIDDEN)), steps=data.draw(steps), size=data.draw(st.integers(1, 4))
        ),
        "both": replace(both, adaptation="gradient", features=data.draw(st.sampled_from([(), ("age",)]))),
    }
    hidden = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=2))
    declared = ranker(ranker=kind, rates=rates, hidden=hidden, blocks=blocks, dropout=0.2)
    made = refresher(declared.parameters, data.draw(st.integers(0, 99)))
    for number, block in enumerate(blocks.values()):
        by_torch = embeddings(made, number, by_torch=True)
        assert_allclose(embeddings(made, number, by_torch=False), by_torch, rtol=1e-5, atol=1e-5)
        if not block.steps:
            features = STATE.supports.tasks(number, np.arange(len(STATE.ids[number]))).features
            assert_allclose(by_torch, made.plain(STATE.supports.rows_at(features), number), rtol=1e-5, atol=1e-5)


def test_each_step_moves_meta_embeddings() -> None:
    found = list[Any]()
    for steps in range(4):
        blocks = {name: replace(b, steps=steps, adaptation="gradient") for name, b in BLOCKS.items()}
        found.append(embeddings(refresher(ranker(blocks=blocks).parameters), 0, by_torch=False))
    assert min(np.abs(after - before).max() for before, after in pairwise(found)) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"ranker": "deepfm"},
        {"ranker": "dcn-v2"},
        {"ranker": "logistic"},
        {"ranker": "own_ranker:Own"},
        {"hidden": []},
        {"hidden": [4, 3]},
        {"blocks": {name: replace(block, adaptation="none") for name, block in BLOCKS.items()}},
        {"blocks": {name: replace(block, adaptation="amortised") for name, block in BLOCKS.items()}},
        {"blocks": {name: replace(block, adaptation="attention") for name, block in BLOCKS.items()}},
    ],
    ids=lambda changes: "-".join(map(str, changes.values()))[:20],
)
def test_others_take_the_torch_path(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "sum_errors", refused)
    made = refresher(ranker(**changes).parameters)
    for number in range(3):
        by_torch = embeddings(made, number, by_torch=True)
        assert_array_equal(embeddings(made, number, by_torch=False), by_torch)


@pytest.mark.parametrize("kind", ["deepfm", "dcn-v2", "own_ranker:Own"])
def test_other_rankers_learn(kind: str) -> None:
    model = ranker(ranker=kind).fit(events(FIRST)).update(events(log(30, seed=7, users=8)))
    p = model.predict(events(log(40, seed=8, users=9)))
    assert ((p > 0) & (p < 1)).all()
    assert p.std() > 0.01


@pytest.mark.parametrize("by_torch", [True, False])
def test_tasks_some_at_a_time_are_those_at_once(by_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = refresher(ranker().parameters)
    at_once = [embeddings(made, number, by_torch=by_torch) for number in range(3)]
    for few in (1, 2, 30):
        monkeypatch.setattr(network, "_AT_A_TIME", {"cpu": few})
        for number, expected in enumerate(at_once):
            assert_allclose(embeddings(made, number, by_torch=by_torch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prior_rows", [0.0, 1.0])
@pytest.mark.parametrize("adaptation", ["gradient", "amortised", "attention", "none"])
def test_a_task_without_rows_is_unadapted_whoever_is_beside_it(adaptation: Any, prior_rows: float) -> None:
    blocks = {name: replace(block, adaptation=adaptation) for name, block in BLOCKS.items()}
    made = refresher(ranker(blocks=blocks, prior_rows=prior_rows).parameters)
    rows = STATE.supports.rows_at
    tasks = STATE.supports.tasks(0, np.arange(len(STATE.ids[0])))
    with_nothing = Tasks(tasks.rows[tasks.task != 2], tasks.task[tasks.task != 2], tasks.features)
    plain = made.plain(rows(tasks.features), 0)
    for by_torch in (True, False):
        adapted = made.embeddings(0, with_nothing, rows, by_torch=by_torch)
        assert_allclose(adapted[2], plain[2], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", ["mlp", "wide-and-deep", "dcn-v2"])
def test_entities_adapt_on_cuda_as_on_the_cpu(kind: str) -> None:
    training = {device: ac.Training(device=device) for device in ("cpu", "cuda")}
    made = {device: refresher(ranker(ranker=kind, training=one).parameters) for device, one in training.items()}
    assert {device: one.device.type for device, one in made.items()} == {"cpu": "cpu", "cuda": "cuda"}
    for number in range(3):
        on_cpu, on_cuda = (embeddings(made[device], number, by_torch=False) for device in ("cpu", "cuda"))
        assert_allclose(on_cuda, on_cpu, rtol=1e-5, atol=1e-5)


def test_weights_of_a_training_on_cuda_adapt_where_there_is_no_such_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = [refresher(ranker(training=ac.Training(device=device)).parameters) for device in ("cpu", "cuda")]
    assert_array_equal(*(embeddings(one, 0, by_torch=False) for one in made))


# --- combinations of entities -----------------------------------------------------------------------------------


def test_a_combination_is_asked_for_by_its_ids() -> None:
    model = FITTED["capped"]
    known = [(user, country) for user, country in zip(FIRST["user_id"], FIRST["country"], strict=True)][:3]
    vectors = model.vectors_of("both", [*known, (99, "de")])
    assert np.isfinite(vectors[:3]).all()
    assert np.isnan(vectors[3]).all()
    stored = embeddings_of(model)["both"]
    for (user, country), vector in zip(known, vectors, strict=False):
        assert_array_equal(vector, stored[f"{user}\x1f{country}"])
    with pytest.raises(ac.errors.MismatchError, match="an id of 'both' is of 2 parts: user, place"):
        model.vectors_of("both", [(1, "de", 3)])


def test_a_block_that_there_is_not_is_told() -> None:
    with pytest.raises(ac.errors.ConfigError, match=r"no meta block 'usr' .*user"):
        FITTED["capped"].vectors_of("usr", [1])

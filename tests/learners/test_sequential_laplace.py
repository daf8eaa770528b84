"""A network updated from new rows alone: equal to the linear model where it is one, and it does not forget."""

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import START, events_of
from sample_networks import SCHEMA, day, net

import acclimate as ac
from acclimate import learners, pipeline, progress
from acclimate.errors import ConfigError, ModelError, NotConvergedError, RowError
from acclimate.learners.network import learning
from acclimate.models.scoring import sigmoid
from acclimate.project import load_project

# --- known answers -------------------------------------------------------------------------------------------


def numbers(rows: int, seed: int, shift: float = 0.0) -> ac.Events:
    rng = np.random.default_rng(seed)
    a = rng.normal(2.0, 3.0, rows)
    b = 0.5 * a + rng.normal(2.0, 3.0, rows)
    click = rng.random(rows) < sigmoid(-0.5 + 0.4 * a - 0.3 * b + shift)
    data = {
        "time": START + seed * 10**9 + np.arange(rows),
        "user_id": np.zeros(rows, int),
        "item_id": 0 * a.astype(int),
    }
    weight = rng.integers(1, 4, rows).astype(float)
    return events_of(SCHEMA, data | {"a": a, "b": b, "click": click.astype(int), "weight": weight})


@pytest.mark.parametrize("forgetting", [1.0, 0.7])
def test_a_linear_network_is_the_fixed_effect_of_a_glmix(forgetting: float) -> None:
    first, second = numbers(400, 1), numbers(150, 2, 0.5)
    glmix = ac.GLMix(fixed=ac.FixedEffect(["a", "b"], forgetting=forgetting), tolerance=1e-9).fit(first)
    network = ac.SequentialLaplace(
        features=["a", "b"],
        ranker="logistic",
        last_layer="full",
        forgetting=forgetting,
        temperature=False,
        training=ac.Training(holdout=0, epochs=1000, update_epochs=1000, rate=0.05, update_rate=0.05, batch=1000),
    ).fit(first)
    for _ in range(3):
        state = network.state
        assert state is not None
        slopes = state.belief.mean["head.weight"].numpy()[0, ::2] / state.spread[::2]
        assert_allclose(slopes, [mean for _, mean, _ in glmix.weights()[1:]], atol=1e-4)
        for mode in ("point", "integrated"):
            assert_allclose(network.predict(second, mode=mode), glmix.predict(second, mode=mode), atol=1e-4)
        glmix.update(second)
        network.update(second)


def loss(model: ac.SequentialLaplace, events: ac.Events) -> float:
    p, y = model.predict(events), events.table(["click"])["click"].to_numpy()
    return -float(np.mean(np.log(np.clip(np.where(y == 1, p, 1.0 - p), 1e-12, None))))


def auc(model: ac.SequentialLaplace, events: ac.Events) -> float:
    p, y = model.predict(events), events.table(["click"])["click"].to_numpy()
    return float(np.mean(p[y == 1][:, None] > p[y == 0]))


SLOPES = np.array([[2.0, 0, 0], [-2, 1, 0], [0, 2, 1], [0, -2, 1], [1, 1, -2]])
"""Of three numbers, on each of five tabs."""


def on_tabs(seed: int, tabs: tuple[int, ...], rows: int) -> ac.Events:
    rng = np.random.default_rng([seed, rows])
    x, tab = rng.normal(0.0, 1.0, (rows, 3)), rng.choice(tabs, rows)
    later = START + (10**9 if 4 in tabs else 0)
    data = {"time": later + np.arange(rows), "user_id": np.zeros(rows, int), "item_id": np.zeros(rows, int)}
    data |= {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "tab": [f"tab {t}" for t in tab], "weight": np.ones(rows)}
    click = rng.random(rows) < sigmoid((x * SLOPES[tab]).sum(axis=1))
    return events_of(SCHEMA, data | {"click": click.astype(int)})


@pytest.mark.parametrize("seed", [0, 1])
def test_it_does_not_forget_what_fine_tuning_forgets(seed: int) -> None:
    """Four tabs, then a fifth one alone, through the same crosses."""
    settings = ac.Training(
        epochs=12, update_epochs=40, batch=256, rate=0.01, update_rate=0.05, patience=40, seed=seed
    )
    features: dict[str, Any] = {
        "features": ["tab", "a", "b", "c"],
        "ranker": "dcn-v2",
        "hidden": [],
        "embedding": 6,
    }
    model = ac.SequentialLaplace(**features, refuse_above=None, training=settings)
    model.fit(on_tabs(seed, (0, 1, 2, 3), 12_000))
    anchored, tuned, new = copy.deepcopy(model), copy.deepcopy(model), on_tabs(seed, (4,), 2000)
    anchored.update(new)
    tuned.fine_tune(new)
    old_check, new_check = on_tabs(seed + 100, (0, 1, 2, 3), 4000), on_tabs(seed + 100, (4,), 4001)
    assert auc(model, old_check) - auc(tuned, old_check) > 0.05
    assert auc(model, old_check) - auc(anchored, old_check) < 0.01
    assert auc(anchored, new_check) > auc(tuned, new_check) - 0.01
    assert auc(anchored, new_check) > auc(model, new_check) + 0.1


# --- guards ---------------------------------------------------------------------------------------------------


def saved(model: ac.SequentialLaplace, folder: Path) -> dict[str, bytes]:
    model.save(folder)
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def turning(number: int) -> ac.Events:
    """A day whose first part says the opposite of its end: what is learned from it makes the end less likely."""
    early = day(number, turn=-3.0, rows=900).table()
    late = day(number, turn=1.0, rows=300).table()
    times = pa.array(START + (number + 1) * 10**6 * 86_400 - 300 + np.arange(300), pa.timestamp("us", "UTC"))
    late = late.set_column(late.column_names.index("time"), "time", times)
    return ac.read_events(pa.concat_tables([early, late]), SCHEMA)


def test_an_update_that_would_do_harm_is_refused_and_told(tmp_path: Path) -> None:
    strict, lenient = (
        net(refuse_above=b, training={"update_epochs": 5}).fit(day(0, rows=3000)) for b in (0.02, None)
    )
    before = saved(strict, tmp_path / "before")
    strict.update(turning(1))
    assert strict.info is not None
    assert strict.info.refused.startswith("the update was refused: the log-loss of its newest ")
    assert strict.info.losses[1] > strict.info.losses[0] + 0.02
    assert saved(strict, tmp_path / "after") == before
    with pytest.raises(NotConvergedError, match="the update was refused"):
        strict.check_converged()
    lenient.update(turning(1)).check_converged()
    strict.update(day(2)).check_converged()
    assert saved(strict, tmp_path / "next") != before


def test_that_nothing_guards_an_update_is_told() -> None:
    said = "nothing was held out to judge this by"
    guarded, whole = net(), net(training={"holdout": 0.0})
    rows = day(1).table()
    at_once = pa.array([START + 10**12] * rows.num_rows, rows["time"].type)
    rows = rows.set_column(rows.column_names.index("time"), "time", at_once)
    for model, events, told in (
        (guarded, day(0), False),
        (guarded, ac.read_events(rows, SCHEMA), True),
        (guarded, day(30), False),
        (whole, day(0), True),
        (whole, day(1), True),
    ):
        model.update(events) if model.state else model.fit(events)
        assert [line.startswith(said) for line in model.summary()] == [False, *([True] if told else [])]
    assert len(guarded.fine_tune(day(31)).summary()) == 1


def test_training_that_runs_away_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = net(training={"update_rate": 10.0, "update_epochs": 300, "patience": 300}, refuse_above=None).fit(
        day(0)
    )
    before = saved(model, tmp_path / "before")
    model.update(day(1))
    assert model.info is not None
    assert model.info.refused.startswith("the update was refused: training stopped at step ")
    assert saved(model, tmp_path / "after") == before
    with pytest.raises(NotConvergedError, match="training stopped") as caught:
        model.check_converged()
    assert "update_rate" in caught.value.hint
    wild = net(training={"rate": 10.0, "epochs": 300, "patience": 300})
    with pytest.raises(ModelError, match=r"training stopped at step \d+"):
        wild.fit(day(0))
    assert wild.state is None


def test_a_step_that_makes_its_own_rows_less_likely_is_none() -> None:
    """The newest rows are learned last, and nothing judges them but themselves."""
    calm, wild = (net(training={"update_rate": rate}, refuse_above=None).fit(day(0)) for rate in (1e-9, 3.0))
    assert_allclose(loss(wild, day(2)), loss(calm, day(2)), rtol=0.2)


@pytest.mark.parametrize("features", [["x"], ["user", "item"]])
def test_numbers_alone_and_names_alone(features: list[str], tmp_path: Path) -> None:
    for ranker, last_layer in (("wide-and-deep", "diagonal"), ("logistic", "full"), ("dcn-v2", "full")):
        model = net(features=features, ranker=ranker, last_layer=last_layer)
        model.fit(replace(day(0), memory_limit=1000)).update(day(1))
        assert loss(model, day(2)) < np.log(2.0)
        modes = [model.predict(day(2), mode=mode) for mode in ("integrated", "thompson")]
        assert all(np.abs(p - model.predict(day(2))).max() > 1e-6 for p in modes)
        model.save(tmp_path / ranker)
        assert_array_equal(ac.SequentialLaplace.load(tmp_path / ranker).predict(day(2)), model.predict(day(2)))


def test_an_offset_is_known_and_has_no_temperature() -> None:
    """All labels are as the offset says: the network's own part has nothing to add, however warm it is."""
    schema = replace(SCHEMA, offset="known")
    rows = day(0).table()
    known = pa.array(np.where(np.array(rows["click"]) == 1, 300.0, -300.0))
    events = ac.read_events(rows.append_column("known", known), schema)
    model = net().fit(events).update(events)
    assert model.state is not None
    assert 0.9 < model.state.temperature < 1.1
    assert loss(model, events) < 1e-6


def test_a_large_seed_is_a_seed() -> None:
    assert loss(net(training={"seed": 2**62}).fit(day(0)).update(day(1)), day(2)) < np.log(2.0)


def test_a_number_beyond_single_precision_is_named() -> None:
    with pytest.raises(RowError, match=r"feature 'x' is beyond 3e38 in 1 rows, first at 2022-"):
        net().fit(day(0, data={**day(0).table().to_pydict(), "x": [1e39] + [0.0] * 399}))


# --- uncertainty ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["last-layer", "linearised"])
@pytest.mark.parametrize("last_layer", ["diagonal", "full"])
def test_draws_have_the_variance_that_is_integrated_over(variance: str, last_layer: str) -> None:
    model = net(variance=variance, last_layer=last_layer, temperature=False, embedding_ridge=1.0).fit(
        day(0, rows=60)
    )
    asked = day(1, rows=40, users=(*range(20), 77))  # one of them is new

    def logits(p: np.ndarray) -> np.ndarray:
        return np.log(p) - np.log1p(-p)

    mean = logits(model.predict(asked))
    drawn = np.array([logits(model.predict(asked, mode="thompson", seed=seed)) for seed in range(400)])
    spread = drawn.std(axis=0)
    assert_allclose(drawn.mean(axis=0), mean, atol=0.25 * spread.max())
    integrated = model.predict(asked, mode="integrated")
    # E[sigmoid] over these draws, which are Gaussian to first order.
    sampled = sigmoid(mean + spread * np.random.default_rng(0).normal(size=(4000, 1))).mean(axis=0)
    assert_allclose(integrated, sampled, atol=0.02)
    assert np.abs(integrated - model.predict(asked)).max() > 1e-3
    if variance == "linearised":
        known, new = (
            spread[np.array(asked.table()["user_id"]) != 77],
            spread[np.array(asked.table()["user_id"]) == 77],
        )
        assert np.median(new) > np.median(known)


def test_a_draw_is_the_same_for_a_row_whoever_else_is_asked_about() -> None:
    for variance in ("last-layer", "linearised"):
        model, asked = net(variance=variance).fit(day(0)), day(1)
        whole = model.predict(asked, mode="thompson", seed=4)
        middle = asked.table(["time"])["time"][200].as_py()
        parts = [
            model.predict(part, mode="thompson", seed=4) for part in (asked.before(middle), asked.after(middle))
        ]
        assert_allclose(np.concatenate(parts), whole, atol=1e-5)
        assert np.abs(model.predict(asked, mode="thompson", seed=5) - whole).max() > 1e-4


def test_the_temperature_is_what_the_next_rows_say() -> None:
    warm = net(
        training={"epochs": 200, "patience": 200, "holdout": 0.0, "rate": 0.05}, embedding_ridge=0.01, ridge=0.01
    )
    cold = net(**{f: getattr(warm.parameters, f) for f in ("embedding_ridge", "ridge")}, temperature=False)
    warm.fit(day(0, rows=150))
    assert warm.state is not None
    assert warm.state.temperature == 1.0  # nothing was held out
    before = loss(warm, day(2))
    warm.update(day(1, rows=1500))
    assert warm.state.temperature > 1.2  # it had learned its few rows by heart
    assert loss(warm, day(2)) < before
    cold.fit(day(0)).update(day(1))
    assert cold.state is not None
    assert cold.state.temperature == 1.0


# --- other parts ----------------------------------------------------------------------------------------------


def test_the_vectors_are_what_the_last_layer_reads() -> None:
    model = net(temperature=False).fit(day(0))
    vectors, state = model.vectors(day(1)), model.state
    assert state is not None
    assert vectors.shape == (400, model.size) == (400, 6)
    logits = vectors @ state.belief.mean["head.weight"].double().numpy()[0] + float(state.belief.mean["head.bias"])
    p = model.predict(day(1))
    rest = np.log(p) - np.log1p(-p) - logits
    # What is left is the wide part: the same for rows alike in all.
    assert rest.std() > 0
    assert model.vectors(day(1).before(START)).shape == (0, 6)


def test_a_module_of_the_users_own_learns_too() -> None:
    model = net(ranker="own_ranker:Own", variance="linearised").fit(day(0))
    before = loss(model, day(2))
    model.update(day(1))
    assert loss(model, day(2)) < before < np.log(2.0)
    assert np.isfinite(model.predict(day(2), mode="integrated")).all()
    assert np.isfinite(model.predict(day(2), mode="thompson")).all()
    for wrong in (
        lambda: model.vectors(day(1)),
        lambda: net(ranker="own_ranker:Own", last_layer="full").fit(day(0)),
    ):
        with pytest.raises(ConfigError, match=r"last.layer"):
            wrong()


def test_a_module_in_a_file_is_found_beside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(day(0).table(), tmp_path / "log.parquet")
    shutil.copy(Path(__file__).parents[1] / "own_ranker.py", tmp_path / "mine.py")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "acclimate.yaml").write_text(
        "name: own\n"
        "events: {path: log.parquet, time: time, entities: {user: user_id, item: item_id}, labels: [click]}\n"
        "learners:\n"
        "  net: {kind: sequential-laplace, features: [user_id, x], ranker: 'mine.py:Own', embedding: 3}\n"
        "  ranker: {kind: glmix, fixed: [x, net]}\n"
    )
    project = load_project(tmp_path / "acclimate.yaml")
    for name in ("net", "ranker"):
        pipeline.fit(project, tmp_path / name, learner=name)
    monkeypatch.chdir(tmp_path.parent)
    loaded = learners.load(tmp_path / "net")
    assert loaded.parameters.ranker == f"{tmp_path / 'mine.py'}:Own"
    assert loaded.predict(pipeline.open_events(project)).shape == (400,)
    for wrong in ("broken.py:Own", "none.py:Own"):
        other = load_project(tmp_path / "acclimate.yaml", [f"learners.net.ranker={wrong}"])
        with pytest.raises(ConfigError, match="cannot be imported"):
            pipeline.fit(other, tmp_path / "other", learner="net")


def test_rows_that_do_not_fit_into_memory_are_learned_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    events = day(0)
    small = replace(events, memory_limit=1000)
    in_memory, in_files = net().fit(events), net().fit(small)
    assert_array_equal(in_files.predict(day(1)), in_memory.predict(day(1)))
    kinds: list[type] = []
    original = learning.Batch.touching
    monkeypatch.setattr(
        learning.Batch, "touching", lambda rows, size: kinds.append(type(rows.label)) or original(rows, size)
    )
    net().fit(small)
    assert kinds == [np.memmap]


def test_names_and_numbers_are_counted() -> None:
    assert net().columns(day(0)) == {"numbers": 2, "names": 2 + 20 + 10}


def test_a_fit_that_was_killed_goes_on_to_the_same_model(tmp_path: Path) -> None:
    """Nine hundred steps, kept every two hundred and killed at the 450th."""
    place, here = tmp_path / "kept", Path(__file__).parent
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(here)!r}]
from acclimate import progress
from sample_networks import day, net

def kill(done, most):
    if done == 450:
        os.kill(os.getpid(), signal.SIGKILL)

with progress.watched(kill):
    net(dropout=0.2, training={{"batch": 2}}).fit(day(0), checkpoint={str(place)!r})
"""
    ran = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == -signal.SIGKILL
    assert place.is_file()
    steps: list[int] = []
    with progress.watched(lambda done, _: steps.append(done)):
        resumed = net(dropout=0.2, training={"batch": 2}).fit(day(0), checkpoint=place)
    assert steps[0] == 401
    assert not place.exists()
    uninterrupted = net(dropout=0.2, training={"batch": 2}).fit(day(0))
    assert saved(resumed, tmp_path / "resumed") == saved(uninterrupted, tmp_path / "uninterrupted")


def test_processes_together_learn_what_one_learns(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from sample_networks import day, net
net().fit(day(0)).update(day(1)).save({str(tmp_path / "model")!r})
"""
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env={**shared, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    together = ac.SequentialLaplace.load(tmp_path / "model")
    assert_allclose(together.predict(day(2)), net().fit(day(0)).update(day(1)).predict(day(2)), atol=1e-4)


def test_without_torch_one_line_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import acclimate as ac
from acclimate.config import LEARNERS, SequentialLaplaceParameters, class_of
for attempt in (lambda: ac.SequentialLaplace, lambda: class_of(SequentialLaplaceParameters)):
    try:
        attempt()
    except ac.AcclimateError as error:
        print(type(error).__name__, error, sep=": ")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = (
        "MissingExtraError: torch is not installed, and sequential-laplace needs it "
        "(pip install 'acclimate[torch]')\n"
    )
    assert ran.stdout == line * 2

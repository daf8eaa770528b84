"""What an encoder is made of, each part against plain arithmetic."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, START, encoder, events, log, rows_of

import acclimate as ac
from acclimate.errors import ConfigError, DataError, MismatchError, RowError
from acclimate.learners.encoder.histories import Histories, Log
from acclimate.learners.encoder.items import together
from acclimate.learners.user_encoder import UserEncoder
from acclimate.models.autoencoder import Autoencoder, Columns, Corruption
from acclimate.models.encoding import EncoderWeights, encode
from acclimate.storage import read_artifact

FIRST = log(150, seed=1, days=4)
FITTED = encoder().fit(events(FIRST))

# --- histories ----------------------------------------------------------------------------------------------


def random_log(rng: np.random.Generator, entities: int, rows: int) -> tuple[Log, list[tuple[int, int, int, int]]]:
    entity, time = rng.integers(0, entities, rows), rng.integers(0, 20, rows)
    item, flags = rng.integers(0, 5, rows), rng.integers(0, 4, rows)
    plain = list(zip(entity.tolist(), time.tolist(), item.tolist(), flags.tolist(), strict=True))
    return Log.ordered(entities, entity, time, item, flags), plain


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_histories_are_lists_of_the_newest_events(seed: int, most: int) -> None:
    rng, plain = np.random.default_rng(seed), dict[int, list[tuple[int, int, int]]]()
    histories = Histories(most)
    for _ in range(8):
        entities = histories.entities + int(rng.integers(0, 3))
        histories.grow(entities)
        if not entities:
            continue
        if rng.random() < 0.4:
            one, time, item, flags = (int(rng.integers(0, n)) for n in (entities, 20, 5, 4))
            histories.append(one, time, item, flags)
            plain[one] = sorted([*plain.get(one, []), (time, item, flags)])[-most:]
            continue
        who = rng.permutation(entities)[: rng.integers(1, entities + 1)]
        new, rows = random_log(rng, len(who), int(rng.integers(0, 30)))
        before = copy.deepcopy(plain)
        changed = histories.learn(who, new)
        for place, time, item, flags in rows:
            entity = int(who[place])
            plain[entity] = sorted([*plain.get(entity, []), (time, item, flags)])
        plain = {entity: kept[-most:] for entity, kept in plain.items()}
        assert changed.tolist() == [plain.get(e, []) != before.get(e, []) for e in who.tolist()]
    everyone = np.arange(histories.entities)
    known = histories.log(everyone)
    for entity in everyone.tolist():
        part = slice(known.starts[entity], known.starts[entity + 1])
        events_ = zip(
            known.time[part].tolist(), known.item[part].tolist(), known.flags[part].tolist(), strict=True
        )
        assert list(events_) == plain.get(entity, [])
    assert histories.nbytes == 13 * len(known) + 9 * histories.entities


# --- items --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 1.3])
def test_company_is_the_shifted_positive_mutual_information_of_neighbours(shift: float) -> None:
    rng = np.random.default_rng(4)
    entity, item = np.sort(rng.integers(0, 6, 90)), rng.integers(0, 7, 90)
    touched = Log.ordered(6, entity, np.arange(90), item, np.ones(90, int))
    counts = np.zeros((7, 7))
    for i in range(90):
        for j in range(max(0, i - 10), i):
            if entity[i] == entity[j] and item[i] != item[j]:
                counts[item[i], item[j]] += 1
                counts[item[j], item[i]] += 1
    beside = counts.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore"):
        information = np.log(counts * beside.sum() / np.outer(counts.sum(axis=1), beside))
    U, s, _ = np.linalg.svd(np.maximum(information - np.log(shift), 0.0))
    expected = U[:, :3] * np.sqrt(s[:3])
    vectors = together(touched, 7, 3, shift)
    signs = np.sign((vectors * expected).sum(axis=0))
    assert_allclose(vectors, expected * signs, atol=1e-5)


def test_a_new_item_has_the_vector_of_its_twin() -> None:
    model = encoder().fit(events(FIRST))
    ids, vectors, space = model.item_vectors("content")
    twin = int(np.flatnonzero(ids == FIRST["video_id"][0])[0])
    new = {name: [values[0]] for name, values in FIRST.items()} | {"video_id": [500], "time": [START + 9 * DAY]}
    model.update(events(new))
    grown, after, _ = model.item_vectors("content")
    assert grown[-1] == 500
    assert_allclose(after[-1], vectors[twin], atol=1e-6)
    assert len(space) == 16
    assert (model.item_vectors("together")[1][-1] == 0.0).all()  # nobody has been seen beside it
    odd = new | {"video_id": [501], "tags": [["unheard of"]], "time": [START + 10 * DAY]}
    assert np.isfinite(model.update(events(odd)).item_vectors("content")[1]).all()
    with pytest.raises(ConfigError, match="no item vectors 'contnt'"):
        model.item_vectors("contnt")


# --- the network --------------------------------------------------------------------------------------------

EDGES = [(0, 4), (4, 7), (7, 12)]
BLOCKS = [Columns(0, 3, 3, False), Columns(4, 6, 6, False), Columns(7, 8, 11, False), Columns(8, 11, 11, True)]


def autoencoder(*, normalised: bool = False) -> Autoencoder:
    torch.manual_seed(3)
    return Autoencoder(EDGES, BLOCKS, 5, 6, 4, normalised=normalised)


def inputs(rows: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    z = torch.randn(rows, 12, generator=chance)
    for column in (3, 6, 11):
        z[:, column] = (torch.rand(rows, generator=chance) < 0.7).float()
    z[:, 8:11] = torch.nn.functional.one_hot(torch.randint(0, 3, (rows,), generator=chance), 3).float()
    return z


@pytest.mark.parametrize("normalised", [False, True])
def test_the_forward_pass_is_that_of_the_network(normalised: bool) -> None:
    module, z = autoencoder(normalised=normalised), inputs(2500)
    weights = {name: weight.detach().numpy().T.copy() for name, weight in module.named_parameters()}
    parts = (
        [weights[f"codes.{g}.weight"] for g in range(3)],
        np.concatenate([weights[f"codes.{g}.bias"] for g in range(3)]),
    )
    others = (weights[name] for name in ("fusion.weight", "fusion.bias", "vector.weight", "vector.bias"))
    vectors = encode(EncoderWeights(tuple(EDGES), *parts, *others, normalised=normalised), z.numpy())
    assert_allclose(vectors, module.encode(z).detach().numpy(), rtol=0, atol=1e-5)


def test_losses_are_of_what_is_there() -> None:
    module, z = autoencoder(), inputs(50)
    said = module.decode(module.encode(z)).detach().numpy().astype(float)
    truth, expected = z.numpy().astype(float), np.zeros(50)
    for begin, end, presence, names in BLOCKS:
        if names:
            logits = said[:, begin:end]
            part = np.log(np.exp(logits).sum(axis=1)) - (truth[:, begin:end] * logits).sum(axis=1)
        else:
            part = ((said - truth)[:, begin:end] ** 2).mean(axis=1)
        expected += part * truth[:, presence]
    assert_allclose(module.loss(z, z).detach().numpy(), expected, rtol=1e-5)


def test_corruption_hides_what_it_says() -> None:
    module, z = autoencoder(), inputs(4000)
    torch.manual_seed(0)
    assert (module.corrupted(z, Corruption(0.0, 0.0, 0.0)) == z).all()
    dropped = module.corrupted(z, Corruption(0.0, 0.0, 0.3))
    gone = torch.stack([(dropped[:, a:b] == 0).all(1) & ~(z[:, a:b] == 0).all(1) for a, b in EDGES], 1)
    assert abs(float(gone.float().mean()) - 0.3) < 0.02
    masked = module.corrupted(z, Corruption(0.0, 0.25, 0.0))
    assert (masked[:, [3, 6, 11]] == z[:, [3, 6, 11]]).all()
    assert abs(float((masked[:, :3] == 0).float().mean()) - 0.25) < 0.02
    noisy = module.corrupted(z, Corruption(0.5, 0.0, 0.0)) - z
    assert (noisy[:, 8:12] == 0).all()
    assert (noisy[:, :3][z[:, 3] == 0] == 0).all()
    assert abs(float(noisy[:, :3][z[:, 3] == 1].std()) - 0.5) < 0.02


def test_a_trained_encoder_tells_more_than_one_that_is_not() -> None:
    model = encoder(training=ac.Training(epochs=15, batch=16, patience=15)).fit(events(FIRST))
    assert model.info.losses[-1] < 0.9 * model.info.losses[0]


def test_two_trainings_are_two_spaces_and_a_rotation_takes_one_to_the_other() -> None:
    one = encoder(size=6).fit(events(FIRST))
    other = encoder(size=6, training=ac.Training(epochs=2, batch=16, seed=5)).fit(events(FIRST))
    ids = one.ids
    before, after = one.vectors_of(ids), other.vectors_of(ids)
    with pytest.raises(MismatchError, match="aligned with none"):
        other.in_space(after, one.space)
    other.aligned_with(one)
    mapped = other.in_space(after, one.space)
    assert ((mapped - before) ** 2).sum() < ((after - before) ** 2).sum()
    assert_allclose(np.linalg.norm(mapped, axis=1), np.linalg.norm(after, axis=1), rtol=1e-4)
    assert (other.in_space(after, other.space) == after).all()
    with pytest.raises(MismatchError, match="no map"):
        other.aligned_with(encoder(size=3).fit(events(FIRST)))


def test_the_map_is_saved(tmp_path: Path) -> None:
    one, other = encoder().fit(events(FIRST)), encoder(noise=0.3).fit(events(FIRST))
    other.aligned_with(one).save(tmp_path / "model")
    loaded, vectors = UserEncoder.load(tmp_path / "model"), other.vectors_of([1, 2])
    assert (loaded.in_space(vectors, one.space) == other.in_space(vectors, one.space)).all()


# --- in a stack ---------------------------------------------------------------------------------------------


def test_on_top_of_an_encoder_no_row_is_lost_and_none_knows_its_own_window() -> None:
    """What the learner on top is given is what histories filled window by window say."""
    stack = ac.Stack(ac.GLMix(fixed=["country", "taste"]), {"taste": encoder()}, every="1d").fit(events(FIRST))
    assert stack.info.rows == stack.top.info.rows == sum(y is not None for y in FIRST["click"])
    inside: Any = stack.members["taste"]
    alone = encoder().fit(events(FIRST))
    assert inside.space == alone.space
    assert_allclose(inside.vectors_of(alone.ids), alone.vectors_of(alone.ids), atol=1e-5)
    assert_allclose(inside.reconciled(events(FIRST)), 0.0, atol=1e-5)


def test_a_prediction_of_a_stack_does_not_look_at_later_events() -> None:
    stack = ac.Stack(ac.GLMix(fixed=["taste"]), {"taste": encoder()}).fit(events(FIRST))
    new = log(30, seed=8)
    new["time"] = [t + 5 * DAY for t in new["time"]]
    p = stack.predict(events(new))
    blind = events({**new, "click": [None] * 30, "like": [1] * 30})
    assert (stack.predict(blind) == p).all()
    first = np.argsort(new["time"], kind="stable")[:10]
    assert_allclose(stack.predict(events(rows_of(new, first))), p[:10], rtol=0, atol=1e-5)


def test_a_stack_does_not_copy_its_encoder_to_learn(tmp_path: Path) -> None:
    """Yet the encoder learns with the others or not at all, whichever of them refuses the rows."""
    taste = encoder(items={"content": ac.ItemVectors(["tags"], size=3)}, columns={"place": ["country"]})
    members = {"taste": taste, "net": ac.GLMix(fixed=["length"])}
    stack = ac.Stack(ac.GLMix(fixed=["taste", "net", "age"]), members, every="1d").fit(events(FIRST))
    inside: Any = stack.members["taste"]
    inside.save(tmp_path / "before")
    new = log(40, seed=8, users=14)
    for refused in ("length", "age"):  # by a member after the encoder, and by the learner on top
        with pytest.raises(RowError, match=f"'{refused}' of effect 'fixed'"):
            stack.update(events({**new, refused: [1e200] * 40}))
        inside.save(tmp_path / refused)
        before, after = (read_artifact(tmp_path / place, kind=inside.kind) for place in ("before", refused))
        assert all((after.arrays[name] == array).all() for name, array in before.arrays.items())
        assert after.tables == before.tables
        assert all(
            (there.columns[name] == column).all()
            for rows, written in before.segments.items()
            for one, there in zip(written, after.segments[rows], strict=True)
            for name, column in one.columns.items()
        )
    alone = UserEncoder.load(tmp_path / "before").update(events(new))
    stack.update(events(new))
    assert stack.members["taste"] is inside
    assert stack.cut == inside.cut == alone.cut
    assert (inside.ids == alone.ids).all()
    assert (inside.vectors_of(alone.ids) == alone.vectors_of(alone.ids)).all()


# --- what is asked in vain ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": {"a": ac.ItemVectors(behaviour="buy")}}, "items 'a': no behaviour 'buy'"),
        ({"behaviours": ["buy"]}, "no label 'buy' in the schema"),
        ({"entity": "nobody"}, "no entity 'nobody'"),
        ({"columns": {"bad": ["click"]}}, "made of column 'click', a label"),
        ({"windows": ["9d", "1d"]}, "windows grow"),
        ({"behaviours": {}}, "behaviours: .*at least 1"),
    ],
)
def test_what_is_not_there_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**changes).fit(events(FIRST))


def test_a_group_of_too_many_names_is_refused() -> None:
    many = log(4200, seed=2)
    many["user_id"], many["country"] = list(range(4200)), [f"place {i}" for i in range(4200)]
    with pytest.raises(ConfigError, match="the columns 'profile' have 4,201 names, more than 4,096"):
        encoder(columns={"profile": ["country"]}).fit(events(many))


def test_columns_are_counted_by_group() -> None:
    model, asked = encoder(), events(FIRST)
    counted = model.columns(asked)
    assert counted["content click"] == 3 * (3 + 1)
    assert counted["together event"] == 3 * (2 + 1)
    assert sum(counted.values()) == len(model.fit(asked).input_names)
    with pytest.raises(ConfigError, match="no label 'buy'"):
        encoder(behaviours=["buy"]).columns(asked)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"columns": {"activity": ["age"]}}, "activity"),
        (
            {
                "items": {"a": ac.ItemVectors(size=2), "a b": ac.ItemVectors(size=2)},
                "behaviours": {"b c": None, "c": "click"},
            },
            "a b c",
        ),
    ],
)
def test_two_groups_of_one_name_are_refused(changes: dict[str, Any], name: str) -> None:
    for step in (encoder(**changes).fit, encoder(**changes).columns):
        with pytest.raises(ConfigError, match=f"two groups of inputs are called '{name}'"):
            step(events(FIRST))


@pytest.mark.parametrize("time", [10**30, 2**63 - 1, -(2**63), 1.5, "2022-05-01", None])
def test_what_is_no_time_is_refused_and_not_learned(time: Any) -> None:
    model = copy.deepcopy(FITTED)
    with pytest.raises(ConfigError, match="no time"):
        model.observe(777, 888, time)
    assert (777 in model.ids, len(model.ids), model.cut) == (False, len(FITTED.ids), FITTED.cut)
    if time is not None:
        with pytest.raises(ConfigError, match="no time"):
            model.vectors_of([1], time)
        with pytest.raises(ConfigError, match="no time"):
            next(model.batches(time))


def test_one_behaviour_may_be_named_alone() -> None:
    one, other = copy.deepcopy(FITTED), copy.deepcopy(FITTED)
    assert (one.observe(1, 2, one.cut + 1, "click") == other.observe(1, 2, other.cut + 1, ["click"])).all()


def test_nothing_is_learned_of_no_events() -> None:
    with pytest.raises(DataError, match="no events to fit on"):
        encoder().fit(events(FIRST).before(START - DAY))
    model = encoder().fit(events(FIRST))
    with pytest.raises(ConfigError, match="no behaviour 'clack'"):
        model.observe(777, 888, START, ["clack"])
    for ids in (("text", 2), (777, "text")):
        with pytest.raises(MismatchError, match=r"the id 'text' of '(user|video)' is string"):
            model.observe(*ids, START)
    assert 777 not in model.ids
    assert 888 not in model.item_vectors("content")[0]


# --- killed, and without torch ------------------------------------------------------------------------------

HERE = Path(__file__).parent
KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from sample_encoders import encoder, events, log
import acclimate as ac
from acclimate.learners.network import checkpoints, training
checkpoints.Checkpoint.__dataclass_fields__["every"].default = 3
checkpoints.Checkpoint.every = 3
keep = training._Loop.keep
def kill(self, checkpoint):
    keep(self, checkpoint)
    if self.done.steps >= 30:
        os.kill(os.getpid(), signal.SIGKILL)
training._Loop.keep = kill
model = encoder(training=ac.Training(epochs=8, batch=8, patience=8))
model.fit(events(log(150, seed=1, days=4)), checkpoint={file!r})
"""


def test_killed_and_gone_on_with_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    settings_ = ac.Training(epochs=8, batch=8, patience=8)
    code = KILLED.format(here=str(HERE), file=str(file))
    ended = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert file.exists()
    model = encoder(training=settings_).fit(events(FIRST), checkpoint=file)
    assert not file.exists()
    uninterrupted = encoder(training=settings_).fit(events(FIRST))
    assert model.space == uninterrupted.space
    assert (model.vectors_of(model.ids) == uninterrupted.vectors_of(model.ids)).all()


BLOCKED = """
import sys
sys.modules["torch"] = None
sys.path.insert(0, {here!r})
from sample_encoders import encoder, events, log
from acclimate.learners.user_encoder import UserEncoder
model = UserEncoder.load({path!r})
model.update(events(log(20, seed=2, days=9)))
print(model.observe(1, 2, model.cut + 1, ["click"]).shape, model.vectors_of([1]).shape)
try:
    encoder().fit(events(log(20)))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_torch_is_needed_to_fit_alone(tmp_path: Path) -> None:
    encoder().fit(events(FIRST)).save(tmp_path / "model")
    code = BLOCKED.format(here=str(HERE), path=str(tmp_path / "model"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shapes, error = ended.stdout.strip().splitlines()
    assert shapes == "(4,) (1, 4)"
    assert error.startswith("MissingExtraError torch is not installed")
    assert "pip install 'acclimate[torch]'" in error

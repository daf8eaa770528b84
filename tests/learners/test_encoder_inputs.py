"""From events to what the network reads: item vectors, windows, columns and moments, against plain arithmetic."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sample_encoders import DAY, HOUR, SCHEMA, START, encoder, events, log
from sample_events import events_of, in_pieces

import acclimate as ac
from acclimate.config import UserEncoderParameters
from acclimate.errors import ConfigError, MismatchError, RowError
from acclimate.learners import batch
from acclimate.learners.encoder.histories import Log
from acclimate.learners.encoder.inputs import Plan
from acclimate.learners.encoder.items import Content
from acclimate.learners.encoder.learning import _Snapshots
from acclimate.learners.encoder.network import Scale, _folded
from acclimate.learners.encoder.state import LastSeen
from acclimate.learners.user_encoder import UserEncoder
from acclimate.models.autoencoder import Autoencoder, Columns
from acclimate.models.encoding import encode

FIRST = log(150, seed=1, days=4)
WINDOWS = (DAY, 3 * DAY, 9 * DAY)
MODELS = {decay: encoder(decay=decay, columns={}).fit(events(FIRST)) for decay in ("exact", "exponential")}


# --- the inputs of everyone ----------------------------------------------------------------------------------


def expected_inputs(model: UserEncoder, user: int, at: int) -> np.ndarray:
    """What the model should read of a user: item vectors by behaviour and window, then activity."""
    fading = model.parameters.decay == "exponential"
    rows = zip(*(FIRST[name] for name in ("time", "user_id", "video_id", "click", "like")), strict=True)
    seen = [row for row in rows if row[1] == user and row[0] < at]
    shown = [seen, [row for row in seen if row[3] == 1], [row for row in seen if row[4] == 1]]
    weight = [
        [[2.0 ** ((t - at) / w) if fading else float(at - t <= w) for t, *_ in rows] for w in WINDOWS]
        for rows in shown
    ]
    columns = list[np.ndarray]()
    blank = model.state.blank
    for kind in ("content", "together"):
        ids, vectors, _ = model.item_vectors(kind)
        of_item = dict(zip(ids.tolist(), vectors.astype(float), strict=True))
        size = vectors.shape[1]
        for rows, of_window in zip(shown, weight, strict=True):
            flags = np.zeros(len(WINDOWS))
            begin = sum(map(len, columns))
            for w, weights in enumerate(of_window):
                there = [
                    (u, of_item[row[2]])
                    for u, row in zip(weights, rows, strict=True)
                    if u and any(of_item[row[2]])
                ]
                flags[w] = bool(there)
                if there:
                    columns.append(sum(u * v for u, v in there) / sum(u for u, _ in there))
                else:
                    columns.append(blank[begin + w * size : begin + (w + 1) * size])
            columns.append(flags)
    begin = sum(map(len, columns))
    if not seen:
        return np.concatenate([*columns, blank[begin:]])
    counts = np.array([[sum(weights) for weights in of_window] for of_window in weight])
    rates = counts[1:] / (counts[0] + 5.0)
    hours = (at - max(row[0] for row in seen)) / HOUR
    return np.concatenate([*columns, np.log1p(counts).ravel(), rates.ravel(), [np.log1p(hours), 1.0]])


@pytest.mark.parametrize("decay", list(MODELS))
@pytest.mark.parametrize("at", [START, START + DAY + HOUR, START + 3 * DAY, START + 5 * DAY, START + 40 * DAY])
def test_inputs_are_those_of_loops(decay: str, at: int) -> None:
    model = MODELS[decay]
    ids = [*range(9), 77]
    expected = np.array([expected_inputs(model, user, at) for user in ids])
    assert_allclose(model.inputs_of(ids, at), expected, rtol=0, atol=2e-5)
    assert len(model.input_names) == expected.shape[1]


def test_a_window_holds_what_is_as_old_as_it_is() -> None:
    model = encoder(columns={}, windows=["1d"]).fit(events(FIRST))
    model.observe(500, 3, START + 20 * DAY, ["click"])
    place = model.input_names.index("activity 0")
    for age, count in ((0, 0), (1, 1), (DAY, 1), (DAY + 1, 0)):
        assert model.inputs_of([500], START + 20 * DAY + age)[0, place] == pytest.approx(
            np.log1p(count) if age else model.state.blank[place]
        )


@pytest.mark.parametrize("decay", list(MODELS))
@settings(max_examples=15)
@given(seed=st.integers(0, 999))
def test_rows_along_a_log_have_the_vectors_of_a_service_that_observes_it(decay: str, seed: int) -> None:
    """Users may be new, and events may be at one instant; items that a service has not met have no features."""
    new = log(30, seed=seed, users=12)
    new["time"] = [t + 3 * DAY for t in new["time"]]
    new["video_id"] = [int(np.resize(MODELS[decay].item_vectors("content")[0], 12)[v]) for v in new["video_id"]]
    asked, service = events(new), copy.deepcopy(MODELS[decay])
    along = MODELS[decay].vectors_along(asked)
    table = asked.table()
    times = table["time"].cast("int64").to_numpy()
    rows = table.drop_columns("time").to_pylist()
    for moment in np.unique(times).tolist():
        here = np.flatnonzero(times == moment)
        ids = [rows[i]["user_id"] for i in here]
        assert_allclose(along[here], service.vectors_of(ids, moment), rtol=0, atol=1e-5)
        for i in here:
            row = rows[i]
            shown = [name for name in ("click", "like") if row[name] == 1]
            vector = service.observe(row["user_id"], row["video_id"], moment, shown)
            assert_allclose(vector, service.vectors_of([row["user_id"]], moment + 1)[0], rtol=0, atol=1e-6)
    at_once = copy.deepcopy(MODELS[decay]).update(asked)
    assert_allclose(service.vectors_of(at_once.ids), at_once.vectors_of(at_once.ids), rtol=0, atol=1e-5)


def test_pieces_of_a_log_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of columns may come in another order, and with them the first weights; what they say may not."""
    new = log(60, seed=4, users=14, videos=20)
    whole = encoder().fit(events(FIRST))
    asked = whole.vectors(events(new)), whole.vectors_along(events(new))
    monkeypatch.setattr(batch, "_PIECE_ROWS", 7)
    few = in_pieces(events(new), 3)
    assert_allclose(whole.vectors(few), asked[0], rtol=0, atol=1e-6)
    assert_allclose(whole.vectors_along(few), asked[1], rtol=0, atol=1e-6)
    in_parts = encoder().fit(in_pieces(events(FIRST), 3))
    assert in_parts.ids.tolist() == whole.ids.tolist()
    for kind in ("content", "together"):
        one, other = (dict(zip(*m.item_vectors(kind)[:2], strict=True)) for m in (whole, in_parts))
        assert one.keys() == other.keys()
        lengths = [[np.linalg.norm(vectors[i]) for i in one] for vectors in (one, other)]
        assert_allclose(lengths[1], lengths[0], atol=1e-4)
    end = whole.state.plan.activity
    for model in (whole, in_parts):
        model.update(few)
    x, other = (m.inputs_of(whole.ids)[:, end:] for m in (whole, in_parts))
    assert_allclose(np.sort(other, axis=1), np.sort(x, axis=1), rtol=1e-6)
    assert in_parts.reconciled(in_pieces(events({n: [*FIRST[n], *new[n]] for n in FIRST}), 3)).max() <= 1e-5


# --- where columns lie ---------------------------------------------------------------------------------------


def test_groups_lie_side_by_side_and_blocks_in_them() -> None:
    model = encoder().fit(events(FIRST))
    plan: Any = model.state.plan
    assert [group.name for group in plan.groups] == [
        *(f"{kind} {behaviour}" for kind in ("content", "together") for behaviour in ("event", "click", "like")),
        "activity",
        "profile",
    ]
    assert plan.groups[0].begin == 0
    assert [one.end for one in plan.groups[:-1]] == [two.begin for two in plan.groups[1:]]
    assert [group.end - group.begin for group in plan.groups] == [12, 12, 12, 9, 9, 9, 3 * 5 + 2, 2 + 4 + 1]
    for group in plan.groups:
        covered = [c for block in group.blocks for c in range(block.begin, block.end)]
        flags = sorted({block.presence for block in group.blocks})
        assert sorted(covered + flags) == list(range(group.begin, group.end))
        assert flags == list(range(group.end - len(flags), group.end))
    assert plan.places.tolist() == [[0, 12, 24], [36, 45, 54]]
    assert (plan.activity, plan.from_rows, plan.width) == (63, 80, 87)
    assert [block.names for block in plan.groups[-1].blocks] == [False, True]
    names = model.input_names
    assert (names[0], names[12], names[63], names[-1]) == (
        "content event 0",
        "content click 0",
        "activity 0",
        "profile 6",
    )


def test_without_an_event_of_any_kind_there_are_no_rates() -> None:
    parameters = encoder(behaviours={"clicked": "click", "liked": "like"}, columns={}).parameters
    plan = Plan.of_parameters(parameters, parameters.behaviours_of([]), {"content": 2}, {})
    assert plan.base is None
    assert plan.groups[-1].end - plan.activity == 3 * 2 + 2
    assert plan.from_rows == plan.width


# --- items ---------------------------------------------------------------------------------------------------


def content_of(columns: dict[str, Any], features: list[str], size: int) -> tuple[UserEncoder, Content]:
    model = encoder(items={"made": ac.ItemVectors(features, size=size)}, training=ac.Training(epochs=1))
    model.fit(events(columns))
    return model, model.state.contents["made"]


def with_one(columns: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One more event, of a video that nobody knows."""
    return {name: [values[0]] for name, values in columns.items()} | {
        "video_id": [900],
        "time": [START + 20 * DAY],
        **{name: [value] for name, value in changes.items()},
    }


@pytest.mark.parametrize("size", [2, 12])
def test_content_is_the_leading_part_of_the_standardised_features(size: int) -> None:
    """Fewer directions than a vector has places, or more: all that there are."""
    model, content = content_of(FIRST, ["tags", "length"], size)
    ids, vectors, _ = model.item_vectors("made")
    tags = [{f"tag {t}" for t in range(4) if (v >> t) & 1} for v in ids.tolist()]
    held = np.array([[f"tag {t}" in one for t in range(4)] for one in tags], float)
    rarity = np.log1p(len(ids)) - np.log(held.sum(axis=0))
    length = 10.0 + ids % 5
    X = np.column_stack(
        [(length - length.mean()) / length.std(), held / np.maximum(held.sum(axis=1), 1)[:, None] * rarity]
    )
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    most = min(size, 5)
    scores = U[:, :most] * np.sqrt(s[:most])
    sign = np.sign((vectors[:, :most] * scores).sum(axis=0))
    assert_allclose(vectors[:, :most], scores * sign, atol=1e-5)
    assert not vectors[:, most:].any()
    assert content.projection.shape[1] == size


def test_what_did_not_vary_in_the_fit_does_not_blow_up_later() -> None:
    """Two features in step, and one that is constant: a new item breaks both, and is as large as the others."""
    columns = {**FIRST, "twice": [2.0 * x for x in FIRST["length"]], "still": [0.1] * 150}
    model, _ = content_of(columns, ["length", "twice", "still", "tags"], 8)
    largest = np.abs(model.item_vectors("made")[1]).max()
    for changes in ({"twice": 0.0}, {"still": 5.0}):
        grown = copy.deepcopy(model).update(events(with_one(columns, **changes)))
        assert np.abs(grown.item_vectors("made")[1][-1]).max() < 10.0 * largest


# --- moments of the past -------------------------------------------------------------------------------------


def moments(snapshots: int, lengths: list[int], seed: int = 0) -> tuple[_Snapshots, Log]:
    entity = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([100 * np.arange(n) + e for e, n in enumerate(lengths)])
    ordered = Log.ordered(len(lengths), entity, time, np.zeros(len(time), int), np.ones(len(time), int))
    parameters = UserEncoderParameters(
        entity="u",
        item="i",
        items={"a": ac.ItemVectors(size=1)},
        snapshots=snapshots,
        training=ac.Training(seed=seed),
    )
    plan: Any = MODELS["exact"].state.plan
    return _Snapshots(parameters, plan, MODELS["exact"].state.table, ordered, LastSeen(0)), ordered


def test_each_entity_is_there_now_and_at_moments_of_its_past() -> None:
    drawn, ordered = moments(4, [1, 2, 50, 7])
    assert len(drawn) == 16
    assert (np.diff(drawn.at) >= 0).all()
    assert np.bincount(drawn.entity).tolist() == [4, 4, 4, 4]
    for entity in range(4):
        times = ordered.time[ordered.starts[entity] : ordered.starts[entity + 1]]
        at = np.sort(drawn.at[drawn.entity == entity])
        assert at[-1] == times[-1] + 1
        assert set(at[:-1].tolist()) <= set(times.tolist())
    again, _ = moments(4, [1, 2, 50, 7])
    other, _ = moments(4, [1, 2, 50, 7], seed=1)
    assert (again.at == drawn.at).all()
    assert (other.at != drawn.at).any()
    only, _ = moments(1, [3, 3])
    assert only.at.tolist() == [201, 202]


def test_how_much_an_earlier_moment_has_seen_is_uniform_in_its_logarithm() -> None:
    drawn, _ = moments(2, [1023] * 4000)
    seen = np.sort((drawn.at - drawn.entity) // 100)[:4000]  # the others are of now
    assert seen.min() == 0
    counts = np.bincount(np.floor(np.log2(seen + 1)).astype(int), minlength=10)
    assert_allclose(counts / 4000, 0.1, atol=0.025)


# --- standardisation -----------------------------------------------------------------------------------------


def test_scales_are_of_what_is_there() -> None:
    model = encoder().fit(events(FIRST))
    plan: Any = model.state.plan
    x = np.random.default_rng(2).normal(5.0, 3.0, (40, plan.width)).astype(np.float32)
    for group in plan.groups:
        for block in group.blocks:
            x[:, block.presence] = np.arange(40) % 3 == 0
    x[:, plan.activity] = 7.0
    scale = Scale.fitted(plan, x)
    there = x[::3].astype(float)
    first, names = plan.groups[0].blocks[0], plan.groups[-1].blocks[1]
    numbers = slice(first.begin, first.end)
    assert_allclose(scale.centre[numbers], there[:, numbers].mean(axis=0), rtol=1e-5)
    assert_allclose(scale.spread[numbers], there[:, numbers].std(axis=0), rtol=1e-5)
    assert (scale.centre[plan.activity], scale.spread[plan.activity]) == (7.0, 1.0)
    for column in (first.presence, *range(names.begin, names.end)):
        assert (scale.centre[column], scale.spread[column]) == (0.0, 1.0)
    assert_allclose(model.state.blank[first.presence], 0.0)


@pytest.mark.parametrize("normalised", [False, True])
def test_folded_weights_read_raw_inputs(normalised: bool) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(2)
    blocks = [Columns(0, 3, 3, names=False), Columns(4, 8, 8, names=True)]
    module = Autoencoder([(0, 4), (4, 9)], blocks, 5, 6, 3, normalised=normalised)
    scale = Scale(rng.normal(2.0, 1.0, 9).astype(np.float32), rng.uniform(0.5, 4.0, 9).astype(np.float32))
    x = rng.normal(2.0, 3.0, (1500, 9)).astype(np.float32)
    z = torch.from_numpy((x - scale.centre) / scale.spread)
    vectors = encode(_folded(module, scale), x)
    assert_allclose(vectors, module.encode(z).detach().numpy(), rtol=0, atol=1e-5)
    assert (np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)) == normalised


# --- what is refused -----------------------------------------------------------------------------------------


def test_more_behaviours_than_an_event_has_room_for() -> None:
    names = [f"shown {i}" for i in range(8)]
    schema = ac.Schema(time="time", entities=SCHEMA.entities, labels=names, features=SCHEMA.features)
    columns = {name: FIRST[name] for name in ("time", "user_id", "video_id", "tags")}
    asked = events_of(schema, columns | dict.fromkeys(names, FIRST["like"]))
    many = encoder(items={"alike": ac.ItemVectors(size=2)}, columns={})
    with pytest.raises(ConfigError, match="9 behaviours, more than 8"):
        many.fit(asked)
    with pytest.raises(ConfigError, match="9 behaviours, more than 8"):
        many.columns(asked)
    with pytest.raises(ConfigError, match="at most 8"):
        encoder(behaviours=names)
    seven = encoder(items={"alike": ac.ItemVectors(size=2)}, columns={}, behaviours=names[:7]).fit(asked)
    click = 1 << 7  # the last behaviour is the last bit
    assert set(seven.state.histories.log(np.arange(len(seven.ids))).flags.tolist()) <= {1, 2 * click - 1}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("odd", [None, 1.0, True, b"1", 2**63, ("a",)])
def test_what_is_no_id_is_refused_and_not_learned(text: bool, odd: Any) -> None:
    columns = {**FIRST, "user_id": [str(i) for i in FIRST["user_id"]]} if text else FIRST
    model = encoder(training=ac.Training(epochs=1)).fit(events(columns))
    before = model.ids.tolist()
    for ids in ((odd, 3), (before[0], odd)):
        with pytest.raises(MismatchError, match="is no id of"):
            model.observe(*ids, START)
    assert model.ids.tolist() == before
    assert 3 in model.item_vectors("content")[0]


@pytest.mark.parametrize("ids", [["1"], [None], [1, None], [1.0], ["a", 1], [2**64]])
def test_vectors_of_what_cannot_be_ids(ids: list[Any]) -> None:
    with pytest.raises(MismatchError, match=r"ids of 'user'"):
        MODELS["exact"].vectors_of(ids)


def test_ids_may_come_in_any_array() -> None:
    expected = MODELS["exact"].vectors_of([1, 2])
    for ids in (
        np.array([1, 2]),
        np.array([1, 2], np.int8),
        np.array([1, 2], np.uint64),
        np.array([1, 2], object),
    ):
        assert (MODELS["exact"].vectors_of(ids) == expected).all()
    assert MODELS["exact"].vectors_of([]).shape == (0, 4)
    assert MODELS["exact"].vectors_of(np.array([])).shape == (0, 4)


@pytest.mark.parametrize("feature", ["age", "length"])
def test_numbers_beyond_what_is_computed_with_are_named(feature: str) -> None:
    model = encoder(training=ac.Training(epochs=1)).fit(events(FIRST))
    odd = events(with_one(FIRST, **{feature: 1e39}))
    before = model.ids.tolist(), model.cut
    with pytest.raises(RowError, match=f"feature '{feature}' is beyond 3e38 in 1 rows, first at 2022-05-15T"):
        model.update(odd)
    with pytest.raises(RowError, match=f"feature '{feature}' is beyond"):
        encoder().fit(odd)
    assert (model.ids.tolist(), model.cut) == before
    if feature == "age":
        with pytest.raises(RowError, match="feature 'age' is beyond"):
            model.vectors(odd)


# --- against the log -----------------------------------------------------------------------------------------


def test_what_a_store_has_lost_shows() -> None:
    model = encoder(columns={}).fit(events(FIRST))
    more = {name: [*values, values[0]] for name, values in FIRST.items()}
    assert model.reconciled(events(FIRST)).max() <= 1e-5
    for column in ("user_id", "video_id"):
        lost = events({**more, column: [*FIRST[column], 555]})
        differences = model.reconciled(lost)
        assert (differences > 1e-4).sum() == 1
        assert len(differences) == len(model.ids) + (column == "user_id")
    nothing = model.reconciled(events(FIRST).before(START - DAY))
    assert len(nothing) == len(model.ids)
    assert (nothing > 1e-4).all()

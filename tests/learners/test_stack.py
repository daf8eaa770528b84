"""A learner on top of others: what it is given is what they knew before, and no more."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conformance import FIRST, SCHEMA, SECOND, THIRD, both, content, events, known, log, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic.dataclasses import dataclass
from sample_events import DAY, HOUR, START, events_of, in_pieces
from typer.testing import CliRunner

import acclimate as ac
from acclimate import learners, pipeline
from acclimate.cli.commands import app
from acclimate.config import LEARNERS, GLMixParameters, RateParameters, StackParameters
from acclimate.errors import ConfigError, DataError, MismatchError, NotConvergedError, RowError
from acclimate.learners.base import declared_by
from acclimate.learners.rates import GlobalRate, Rate
from acclimate.project import load_project

# --- learners that tests are made of ------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryParameters:
    label: str | None = None
    vectors: bool = False
    kind: Literal["memory"] = "memory"


class Memory(GlobalRate):
    """Knows by heart the labels of rows that it has learned; of all others nothing. A row goes by its ``row``."""

    kind: ClassVar[str] = "memory"

    @declared_by(MemoryParameters)
    def __init__(self, parameters: MemoryParameters) -> None:
        GlobalRate.__init__(self)
        self.parameters, self.labels = parameters, {}
        if parameters.vectors:
            self.vectors, self.size = self.as_vectors, 2

    def fit(self, events: ac.Events) -> Self:
        self.labels = {}
        return self.remember(events, super().fit)

    def update(self, events: ac.Events) -> Self:
        return self.remember(events, super().update)

    def remember(self, events: ac.Events, learn: Any) -> Self:
        rows = events.table(["row", "click"]).to_pydict()
        self.labels |= dict(zip(rows["row"], rows["click"], strict=True))
        return learn(events)

    def predict(self, events: ac.Events) -> np.ndarray:
        labels = [self.labels.get(row) for row in events.table(["row"])["row"].to_pylist()]
        return np.array([0.5 if label is None else label for label in labels], np.float32)  # as networks do

    def as_vectors(self, events: ac.Events) -> np.ndarray:
        return np.column_stack([self.predict(events), 1.0 - self.predict(events)]) - 0.5


@dataclass(frozen=True)
class WitnessParameters:
    features: tuple[str, ...]
    offset: str | None = None
    label: str | None = None
    kind: Literal["witness"] = "witness"

    def feature_names(self) -> tuple[str, ...]:
        return self.features


class Witness(GlobalRate):
    """Notes all that it is given: the verb, the times, the features and the offset."""

    kind: ClassVar[str] = "witness"
    given: ClassVar[list[tuple[str, dict[str, list[Any]]]]] = []

    @declared_by(WitnessParameters)
    def __init__(self, parameters: WitnessParameters) -> None:
        GlobalRate.__init__(self)
        self.parameters = parameters

    def note(self, verb: str, events: ac.Events) -> None:
        offset = events.schema.offset
        columns = ["time", *self.parameters.features, *([offset] if offset else [])]
        self.given.append((verb, events.table(columns).to_pydict()))

    def fit(self, events: ac.Events) -> Self:
        self.note("fit", events)
        return super().fit(events)

    def update(self, events: ac.Events) -> Self:
        self.note("update", events)
        return super().update(events)

    def predict(self, events: ac.Events) -> np.ndarray:
        self.note("predict", events)
        return super().predict(events)


@dataclass(frozen=True)
class FameParameters:
    entity: str
    label: str | None = None
    kind: Literal["fame"] = "fame"


class Fame(Rate):
    """A rate whose vectors are the rate and how much of it is known."""

    kind: ClassVar[str] = "fame"
    size = 2

    @declared_by(FameParameters)
    def __init__(self, parameters: FameParameters) -> None:
        Rate.__init__(self, parameters.entity)
        self.parameters = parameters  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, events: ac.Events) -> np.ndarray:
        return self.as_rate().predict(events)

    def vectors(self, events: ac.Events) -> np.ndarray:
        rate, column = self.as_rate().predict(events), events.schema.entity_column(self.parameters.entity)
        return np.column_stack([rate, self.counts.take(events.table([column])[column].to_numpy())[0]])

    def as_rate(self) -> Rate:
        rate = Rate(self.parameters.entity)
        rate.state, rate.counts = self.state, self.counts
        return rate


@pytest.fixture(autouse=True)
def known_learners(monkeypatch: pytest.MonkeyPatch) -> None:
    for record, name in ((MemoryParameters, "Memory"), (WitnessParameters, "Witness"), (FameParameters, "Fame")):
        monkeypatch.setitem(LEARNERS, record, f"{__name__}:{name}")
    monkeypatch.setattr(Witness, "given", [])


def week(days: int = 6, rows: int = 60) -> dict[str, list[Any]]:
    """A log of several days; each row has a number."""
    columns = log(day=0, rows=rows)
    for day in range(1, days):
        columns = both(columns, log(day=day, rows=rows))
    return columns | {"row": list(range(days * rows))}


WEEK = events_of(SCHEMA, week())


def day_of(number: int) -> int:
    return START + DAY * number


# --- nothing from its own time ------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [False, True])
def test_a_member_that_knows_learned_labels_by_heart_betrays_none(vectors):
    """Every row that the one on top learns from, or is asked about, gets what is said of a row never seen."""
    stack = ac.Stack(
        WitnessParameters(("memory",), offset="memory"), {"memory": MemoryParameters(vectors=vectors)}
    )
    pipeline.replay(
        [ac.Arm("incremental", stack), ac.Arm("retrain", stack, "retrain")],
        WEEK, start="2022-04-28", every="12h", label_delay="6h",
    )  # fmt: skip
    verbs = [verb for verb, _ in Witness.given]
    assert {verb: verbs.count(verb) for verb in set(verbs)} == {"fit": 7, "update": 6, "predict": 12}
    for _, columns in Witness.given:
        nothing = [0.0, 0.0] if vectors else 0.0
        assert columns["memory"] == [nothing] * len(columns["time"])
        assert columns["memory as offset"] == [0.0] * len(columns["time"])


def test_that_member_would_betray_labels_once_it_has_learned_them():
    stack = ac.Stack(WitnessParameters(("memory",)), {"memory": MemoryParameters()}).fit(WEEK)
    stack.predict(WEEK)
    logits = np.array(Witness.given[-1][1]["memory"])
    clicks = WEEK.table(["click"])["click"].to_pylist()
    assert_allclose(logits, [0.0 if y is None else (2 * y - 1) * 53 * np.log(2.0) for y in clicks])


def test_the_one_on_top_gains_nothing_from_it():
    """It is the GLMix that learns the same rows without."""
    stack = ac.Stack(
        ac.GLMix(fixed=["price", "memory"], random=["user"]), {"memory": MemoryParameters()}, every="5h"
    )
    first, second, last = (WEEK.between(day_of(a), day_of(b)) for a, b in ((0, 4), (4, 5), (5, 6)))
    stack.fit(first)
    learned_from = first.after(first.table()["time"][0].value + middle(first))
    alone = ac.GLMix(fixed=["price"], random=["user"]).fit(learned_from)
    for step in (lambda learner: learner, lambda learner: learner.update(second)):
        assert_allclose(step(stack).predict(last), step(alone).predict(last), rtol=0, atol=1e-9)


def middle(log_events: ac.Events) -> int:
    times = log_events.table()["time"].cast(pa.int64()).to_numpy()
    return int(0.5 * (times[-1] - times[0]))


@given(
    warm_up=st.floats(0.05, 0.95),
    hours=st.integers(1, 40),
    pieces=st.sampled_from([1, 7, 1000]),
)
@settings(max_examples=25, deadline=None)
def test_each_row_gets_the_counts_before_its_window(warm_up, hours, pieces):
    """Whatever the windows, and in whatever pieces the rows come."""
    source = replace(in_pieces(WEEK, pieces), source=Counted(in_pieces(WEEK, pieces).source))
    times = WEEK.table()["time"].cast(pa.int64()).to_numpy()
    begin = int(times[0]) + int(warm_up * int(times[-1] - times[0]))
    ac.Stack(WitnessParameters(("rate",)), {"rate": ac.Rate("user")}, warm_up=warm_up, every=f"{hours}h").fit(
        source
    )
    verb, columns = Witness.given[-1]
    rest = times[times >= begin]
    assert verb == "fit"
    assert [int(time.timestamp() * 1e6) for time in columns["time"]] == rest.tolist()
    windows = begin + (rest - begin) // (hours * HOUR) * (hours * HOUR)
    expected = {window: rate_by_hand(window) for window in set(windows.tolist())}
    users = WEEK.table()["user_id"].to_numpy()[times >= begin]
    logits = [expected[window][user] for window, user in zip(windows.tolist(), users.tolist(), strict=True)]
    assert_allclose(columns["rate"], logits, rtol=0, atol=1e-12)


class Counted:
    """A source in pieces that counts its rows too."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def count(self, start: int | None, end: int | None, known: str | None) -> int:
        return WEEK.source.count(start, end, known)


def rate_by_hand(end: int) -> dict[int, float]:
    """The logit of each user's rate, from the rows before ``end``."""
    rows = WEEK.before(end).table().to_pydict()
    pairs = [(u, y) for u, y in zip(rows["user_id"], rows["click"], strict=True) if y is not None]
    overall = (sum(y for _, y in pairs) + 0.5) / (len(pairs) + 1.0)
    rates = {}
    for user in range(12):
        labels = [y for u, y in pairs if u == user]
        rates[user] = (sum(labels) + 20.0 * overall) / (len(labels) + 20.0)
    return {user: float(np.log(p / (1.0 - p))) for user, p in rates.items()}


# --- a stack by hand ----------------------------------------------------------------------------------------

OFFSETS = events_of(
    replace(SCHEMA, offset="before"), week() | {"before": np.random.default_rng(3).normal(size=360).tolist()}
)


def test_it_is_what_a_loop_over_windows_and_joined_columns_make():
    fixed, random = ["price", "popular", "fame"], {"user": ["fame"]}
    members = {"popular": ac.Rate("video"), "fame": FameParameters("video"), "net": ac.GLMix(fixed=["genre"])}
    stack = ac.Stack(ac.GLMix(fixed=fixed, random=random, offset="net"), members, warm_up=0.4, every="9h")
    first, second, last = (OFFSETS.between(day_of(a), day_of(b)) for a, b in ((0, 4), (4, 5), (5, 6)))
    stack.fit(first).update(second)

    rate, fame, net = ac.Rate("video"), Fame("video"), ac.GLMix(fixed=["genre"])
    embedding = {"fame": ac.Feature(kind="embedding")}
    schema = replace(SCHEMA, offset="net", features=embedding)

    def said(rows: ac.Events) -> pa.Table:
        table = rows.table()
        for name, p in (("popular", rate.predict(rows)), ("net", net.predict(rows))):
            table = table.append_column(name, pa.array(np.log(p) - np.log1p(-p)))
        vectors = pa.array(fame.vectors(rows).tolist())
        return table.append_column("fame", vectors)

    times = first.table()["time"].cast(pa.int64()).to_numpy()
    edge = int(times[0]) + int(0.4 * int(times[-1] - times[0]))
    for member in (rate, fame, net):
        member.fit(first.before(edge))
    frames = []
    while edge <= times[-1]:
        window = first.between(edge, edge + 9 * HOUR)
        frames.append(said(window))
        for member in (rate, fame, net):
            member.update(window)
        edge += 9 * HOUR
    joined = pa.concat_tables(frames)
    top = ac.GLMix(fixed=fixed, random=random).fit(ac.read_events(joined, schema))
    update = ac.read_events(said(second), schema)
    for member in (rate, fame, net):
        member.update(second)
    top.update(update)
    asked = ac.read_events(said(last), schema)
    for how in ({}, {"mode": "integrated"}, {"mode": "thompson", "seed": 7}):
        assert_allclose(stack.predict(last, **how), top.predict(asked, **how), rtol=0, atol=1e-12)
    assert [name for name, *_ in stack.weights()] == [name for name, *_ in top.weights()]
    assert_allclose([w[1:] for w in stack.weights()], [w[1:] for w in top.weights()], rtol=0, atol=1e-12)
    names, posterior, rows = stack.entity_posterior("user", 3)
    assert names[1:] == ("fame[0]", "fame[1]")
    assert_allclose(posterior.mean, top.entity_posterior("user", 3)[1].mean, rtol=0, atol=1e-12)
    assert rows == top.entity_posterior("user", 3)[2]


# --- what it is and knows -----------------------------------------------------------------------------------


def stack_of(**declared: Any) -> ac.Stack:
    return ac.Stack(
        ac.GLMix(fixed=["price", "popular"]), {"popular": ac.Rate("video")}, **{"every": "6h"} | declared
    )


def test_records_learners_and_sections_declare_it_alike():
    declared = StackParameters(GLMixParameters(fixed="popular"), {"popular": RateParameters("video")})
    section = {"kind": "glmix", "fixed": ["popular"]}
    for top, member in (
        (ac.GLMix(fixed="popular"), ac.Rate("video")),
        (section, {"kind": "rate", "entity": "video"}),
    ):
        assert ac.Stack(top, {"popular": member}).parameters == declared
    assert learners.make(declared).parameters == declared
    assert (declared.label, declared.warm_up, declared.every, declared.count) == (None, 0.5, "1d", 2)
    assert ac.Stack(ac.GLMix(fixed="a", label="click"), {"a": ac.GlobalRate()}).parameters.label == "click"


def test_members_learn_by_labels_and_until_times_of_their_own():
    """A label that comes later than that of the one on top has been learned all the same."""
    two = replace(SCHEMA, labels=("click", "like"))
    columns = {**log(), "like": [1, 0] * 120, "click": [1, 0] * 100 + [None] * 40, "weight": [1.0] * 240}
    columns["time"] = [START + HOUR * i for i in range(240)]
    stack = ac.Stack(ac.GLMix(fixed="likes"), {"likes": ac.GlobalRate("like")}).fit(events_of(two, columns))
    assert stack.state.label == "click"
    assert stack.top.cut == START + 199 * HOUR
    assert stack.cut == stack.members["likes"].cut == START + 239 * HOUR
    with pytest.raises(
        DataError, match="no event has a known label 'like' in the warm-up of 'likes', before 2022-"
    ):
        stack.fit(events_of(two, columns | {"like": [None] * 200 + [1] * 40}))


def test_a_stack_of_stacks_and_names_of_all_kinds_are_saved_loaded_and_continued(tmp_path):
    """Vectors of a stack are those of the learner on top of it."""
    below = ac.Stack(Topped(("rate",)).parameters, {"rate": ac.Rate("user")}, every="6h")
    names = ("../popular", "0.names", "p: é/\\")
    model = ac.Stack(
        ac.GLMix(fixed=["price", *names[:2]], offset=names[2]),
        {names[0]: below, names[1]: ac.GlobalRate(), names[2]: ac.GLMix(fixed=["genre"])},
        every="8h",
    )
    uninterrupted = copy.deepcopy(model).fit(events(FIRST)).update(events(SECOND)).update(events(THIRD))
    model.fit(events(FIRST)).save(tmp_path / "model")
    loaded = learners.load(tmp_path / "model").update(events(SECOND))
    loaded.save(tmp_path / "model", overwrite=True)
    loaded = ac.Stack.load(tmp_path / "model").update(events(THIRD))
    for learner, place in ((loaded, "loaded"), (uninterrupted, "uninterrupted")):
        learner.save(tmp_path / place)
    assert content(tmp_path / "loaded") == content(tmp_path / "uninterrupted")
    assert "../popular[1]" in [name for name, *_ in loaded.weights()]
    assert all("popular" not in name for name in content(tmp_path / "loaded"))


@dataclass(frozen=True)
class ToppedParameters:
    features: tuple[str, ...]
    label: str | None = None
    kind: Literal["topped"] = "topped"

    def feature_names(self) -> tuple[str, ...]:
        return self.features


class Topped(GlobalRate):
    """Has vectors, of which one number is a feature and the other what it has learned itself."""

    kind: ClassVar[str] = "topped"
    size = 2

    @declared_by(ToppedParameters)
    def __init__(self, parameters: ToppedParameters) -> None:
        GlobalRate.__init__(self)
        self.parameters = parameters

    def vectors(self, events: ac.Events) -> np.ndarray:
        feature = events.table([self.parameters.features[0]])[0].to_numpy()
        return np.column_stack([feature, self.predict(events)])


@pytest.fixture(autouse=True)
def topped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, ToppedParameters, f"{__name__}:Topped")


def test_columns_are_counted_before_any_fit():
    stack = ac.Stack(
        ac.GLMix(fixed=["price", "fame", "net"], random={"user": "popular"}, offset="net"),
        {"fame": FameParameters("video"), "net": ac.GLMix(fixed=["genre"]), "popular": ac.Rate("video")},
        every="6h",
    )
    assert stack.columns(events(FIRST)) == {"fixed": 6, "user": 2, "net.fixed": 5}
    fitted = stack.fit(events(FIRST))
    assert len(fitted.weights()) == 6
    with pytest.raises(ConfigError, match="no entity 'usr'"):
        ac.Stack(ac.GLMix(fixed="a"), {"a": ac.Rate("usr")}).columns(events(FIRST))
    nothing = ac.Stack(WitnessParameters(("a",)), {"a": ac.GlobalRate()})
    assert nothing.columns(events(FIRST)) == {}


def test_what_the_one_on_top_cannot_tell_is_not_told():
    stack = ac.Stack(WitnessParameters(("a",)), {"a": ac.GlobalRate()}).fit(WEEK)
    assert stack.weights() == []
    with pytest.raises(ConfigError, match="a Witness keeps no posterior of 'user'"):
        stack.entity_posterior("user", 3)


def test_lines_of_all_by_name():
    stack = stack_of().fit(events(FIRST))
    assert [line.split(" rows")[0] for line in stack.summary()] == [
        f"learned {len(known(FIRST)['time'])}",
        f"  on top: learned {stack.top.info.rows}",
        f"  popular: learned {stack.members['popular'].info.rows}",
    ]
    rows = len(known(SECOND)["time"])
    lines = stack.update(events(SECOND)).summary()
    assert [f"learned {rows} rows up to" in line for line in lines] == [True] * 3
    assert stack.nbytes == stack.top.nbytes + stack.members["popular"].nbytes


def test_a_member_that_did_not_converge_is_told_until_the_next_step():
    net = ac.GLMix(fixed=["genre"], max_steps=0)
    stack = ac.Stack(ac.GLMix(fixed=["net"], max_steps=1), {"net": net}, every="6h").fit(events(FIRST))
    assert "member 'net': " in stack.shortfall()
    assert "after 0 Newton steps" in stack.shortfall()
    with pytest.raises(NotConvergedError, match="of this Stack did not converge: member 'net'"):
        stack.check_converged()
    stack.update(events({**SECOND, "click": [None] * 150}))
    assert stack.shortfall() == ""


def test_the_shared_part_has_the_members_that_it_uses():
    members = {"popular": RateParameters("video"), "fan": RateParameters("user")}
    both_used = StackParameters(GLMixParameters(fixed="popular", random={"user": "fan"}), members, every="6h")
    assert both_used.shared_part() == StackParameters(
        GLMixParameters(fixed="popular"), {"popular": members["popular"]}, every="6h"
    )
    one_used = StackParameters(GLMixParameters(random={"user": "fan"}), {"fan": members["fan"]})
    assert one_used.shared_part() == GLMixParameters()


# --- what is refused ----------------------------------------------------------------------------------------


SIXTEEN = "abcdefghijklmnop"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: ac.Stack(ac.GLMix(fixed="a"), {}), "a Stack without members"),
        (lambda: ac.Stack(ac.GLMix(fixed="a")), "a Stack without members"),
        (
            lambda: ac.Stack(ac.GLMix(fixed="a"), {"a": ac.GlobalRate(), "b": ac.GlobalRate()}),
            "Stack: the learner on top does not use 'b': name it in its features, or as offset",
        ),
        (
            lambda: ac.Stack(ac.GLMix(fixed="net", offset="nett"), {"net": ac.GlobalRate()}),
            r"the offset 'nett' is no member \(did you mean 'net'\?\)",
        ),
        (lambda: ac.Stack(ac.GLMix(fixed="a"), {"a": "rate"}), "Stack: members.a: should be a section of keys"),
        (lambda: ac.Stack({"kind": "glmx"}, {}), r"Stack: learner.kind: no kind 'glmx' of learner \(did you mean"),
        (lambda: stack_of(warm_up=0.0), "Stack: warm_up: should be greater than 0"),
        (lambda: stack_of(every="1x"), "Stack: every: '1x' is no duration"),
        (
            lambda: ac.Stack(ac.GLMix(fixed=list(SIXTEEN)), dict.fromkeys(SIXTEEN, ac.GlobalRate())),
            "Stack: there are 17 learners on top of each other, more than 16",
        ),
    ],
)  # fmt: skip
def test_what_is_no_stack(declare, message):
    with pytest.raises(ConfigError, match=message):
        declare()


@pytest.mark.parametrize("name", ["price", "click", "time", "hours"])
def test_a_member_that_is_called_as_a_column_or_a_feature(name):
    schema = replace(SCHEMA, features={"hours": ac.Feature(kind="hour")})
    stack = ac.Stack(ac.GLMix(fixed=["genre", name]), {name: ac.Rate("video")})
    for verb in (stack.fit, stack.columns):
        with pytest.raises(
            ConfigError, match=f"the member '{name}' is called as a column or a feature .*another name"
        ):
            verb(events_of(schema, FIRST))


def test_a_glmix_alone_has_no_learner_for_its_offset():
    for verb in (ac.GLMix(offset="net").fit, ac.GLMix(offset="net").columns):
        with pytest.raises(ConfigError, match="the offset 'net' is to come from another learner"):
            verb(events(FIRST))


def test_a_warm_up_or_a_rest_without_labels():
    late, early = ({**FIRST, "click": [y if late is (t > START + DAY // 3) else None for t, y in zip(
        FIRST["time"], FIRST["click"], strict=True)]} for late in (True, False))  # fmt: skip
    with pytest.raises(DataError, match="known label 'click' in the warm-up of 'popular', before 2022-04-25T0"):
        stack_of(warm_up=0.2).fit(events(late))
    with pytest.raises(DataError, match="known label 'click' after the warm-up, from 2022-04-25T"):
        stack_of(warm_up=0.9).fit(events(early))
    with pytest.raises(DataError, match="no event has a known label 'click' in the warm-up"):
        stack_of().fit(events(rows_of(FIRST, [0])))
    with pytest.raises(DataError, match="there are no events to fit on"):
        stack_of().fit(events(FIRST).before(START))


def test_where_the_one_on_top_or_a_later_member_refuses_events_all_are_as_they_were(tmp_path):
    members = {"popular": ac.Rate("video"), "net": ac.GLMix(fixed=["price"])}
    for top in (["popular", "net"], ["popular", "net", "genre"]):
        stack = ac.Stack(ac.GLMix(fixed=top, random={"user": "price"}), members, every="6h").fit(events(FIRST))
        stack.save(tmp_path / str(len(top)))
        before = content(tmp_path / str(len(top)))
        with pytest.raises(RowError, match="'price' of effect 'fixed' is beyond"):
            stack.update(events({**SECOND, "price": [1e200] * 150}))
        stack.save(tmp_path / f"{len(top)} again")
        assert content(tmp_path / f"{len(top)} again") == before
    stack = ac.Stack(ac.GLMix(fixed=["price", "popular"]), {"popular": ac.Rate("video")}, every="6h")
    stack.fit(events(FIRST))
    rate = copy.deepcopy(stack.members["popular"])
    with pytest.raises(RowError):
        stack.update(events({**SECOND, "price": [1e200] * 150}))
    assert stack.members["popular"].state == rate.state
    assert stack.members["popular"].counts.rows.tolist() == rate.counts.rows.tolist()


# --- in a project -------------------------------------------------------------------------------------------

LEARNERS_OF_PROJECT = """
  popular: {kind: rate, entity: video}
  taste: {kind: glmix, fixed: [genre]}
  ranker:
    kind: glmix
    fixed: [price, popular]
    offset: taste
    random: {user: {features: [popular]}}
  hourly: {kind: stack, learner: {kind: glmix, fixed: [popular]}, warm_up: 0.3, every: 1h}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for number in range(6):
        pq.write_table(events(log(day=number, rows=200)).table(), tmp_path / f"{number}.parquet")
    (tmp_path / "acclimate.yaml").write_text(
        "name: stacked\n"
        "events:\n"
        f"  {{path: '*.parquet', time: time, entities: {SCHEMA.entities}, labels: [click], weight: weight}}\n"
        f"learners:{LEARNERS_OF_PROJECT}"
        "replay:\n"
        "  start: 2022-04-28\n"
        "  learner: ranker\n"
        "  follow: 3\n"
        "  arms: [incremental, stale, retrain, fixed, user-rate, {name: hourly, learner: hourly},"
        " {name: popular, learner: popular}]\n"
    )
    return tmp_path / "acclimate.yaml"


def test_a_stack_of_a_project_is_replayed_like_any_learner(project, tmp_path):
    described = load_project(project)
    report = pipeline.replay_project(described, tmp_path / "report")
    assert list(report.arms)[-2:] == ["hourly", "popular"]
    assert len({arm.log_loss for arm in report.arms.values()}) == len(report.arms)
    assert "popular" in {weight.name for weight in report.weights if weight.arm == "incremental"}
    assert "popular" in {point.name for point in report.trace if point.arm == "incremental"}
    assert report.arms["incremental"].state_bytes > report.arms["popular"].state_bytes
    again = pipeline.replay(
        {"incremental": learners.make(described.learner("ranker"))},
        pipeline.open_events(described), start="2022-04-28",
    )  # fmt: skip
    assert again.arms["incremental"].log_loss == report.arms["incremental"].log_loss


def test_a_stack_of_a_project_goes_through_the_command(project, tmp_path):
    model, printed = str(tmp_path / "model"), ""
    for arguments in (
        ["check", str(project)],
        ["fit", str(project), "--learner", "ranker", "--out", model, "--until", "2022-04-27"],
        ["update", str(project), "--learner", "ranker", "--model", model],
        ["fit", str(project), "--learner", "popular", "--out", str(tmp_path / "member")],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        printed += done.stdout
    assert "  popular: learned" in printed
    assert type(learners.load(tmp_path / "member")) is Rate
    loaded = learners.load(model)
    assert isinstance(loaded, ac.Stack)
    assert loaded.cut == max(known(log(day=5, rows=200))["time"])


def test_settings_of_a_member_that_differ_are_told(project, tmp_path):
    pipeline.fit(load_project(project), tmp_path / "model", learner="ranker", until="2022-04-27")
    changed = load_project(project, ["learners.popular.prior_rows=5"])
    with pytest.raises(MismatchError, match=r"has: members\.popular\.prior_rows was 20\.0 and is 5\.0"):
        pipeline.update(changed, tmp_path / "model", learner="ranker")
    other = load_project(project, ["learners.ranker.offset="])
    with pytest.raises(MismatchError, match=r"members was \['popular', 'taste'\] and is \['popular'\]"):
        pipeline.update(other, tmp_path / "model", learner="ranker")

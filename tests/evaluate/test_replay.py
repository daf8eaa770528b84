import dataclasses
import json
import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from acclimate.arrays import Posterior
from acclimate.artifacts import Events, TableSource
from acclimate.config import Schema, TimeColumn
from acclimate.errors import ConfigError, DataError, ModelError, RowError
from acclimate.evaluate import Arm, Losses, Progress, metrics, replay
from acclimate.learners.rates import GlobalRate, Rate

DAY = 86_400_000_000
FIRST = 19_723 * DAY  # 2024-01-01
SCHEMA = Schema(time="time", entities={"user": "user_id", "video": "video_id"}, labels=("y",), truth="truth")


def as_events(columns: dict, schema: Schema = SCHEMA) -> Events:
    table = pa.table(columns)
    times = table["time"].cast(pa.timestamp("us", "UTC"))
    table = table.set_column(table.column_names.index("time"), "time", times)
    for label in schema.labels:
        table = table.set_column(table.column_names.index(label), label, table[label].cast(pa.int8()))
    return Events(schema, TableSource(schema, table))


def draw(seed: int = 0, rows: int = 600, days: int = 6) -> dict:
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 4, rows)
    return {
        "time": FIRST + np.sort(rng.integers(0, days * DAY, rows)),
        "user_id": rng.zipf(1.5, rows) % 40,
        "video_id": rng.integers(0, 12, rows),
        "tab": pa.array(rng.choice(["home", "search", None], rows)),
        "score": np.clip(np.round(truth + 0.2 * rng.standard_normal(rows), 1), 0.0, 1.0),
        "truth": truth,
        "y": (rng.random(rows) < truth).astype(np.int8),
    }


class Log(list):
    """Shared by all copies of a learner."""

    def __deepcopy__(self, memo):
        return self


class Recorder:
    """Writes down which events it was given; predicts one half."""

    def __init__(self):
        self.log = Log()
        self.fits = 0

    def _note(self, verb, events):
        times = (events.table(["time"])["time"].cast(pa.int64()).to_numpy() - FIRST) / DAY
        self.log.append((verb, float(np.floor(times.min())), float(np.ceil(times.max())), len(times)))

    def fit(self, events):
        assert not self.fits, "retraining goes on from a fitted learner"
        self.fits += 1
        self._note("fit", events)

    def update(self, events):
        self._note("update", events)

    def predict(self, events):
        self._note("predict", events)
        return np.full(events.table(["time"]).num_rows, 0.5)


class Score:
    """Predicts a column of the events."""

    nbytes = 123

    def __init__(self, column="score"):
        self.column = column

    def fit(self, events):
        pass

    def update(self, events):
        pass

    def predict(self, events):
        return events.table([self.column])[self.column].to_numpy()


def test_each_window_tells_its_losses_and_may_end_the_replay():
    columns = draw()
    columns["y"] = pa.array([None if i % 7 == 0 else int(y) for i, y in enumerate(columns["y"])])
    weighted = dataclasses.replace(SCHEMA, weight="w")
    events = as_events(columns | {"w": np.linspace(0.5, 2.0, 600)}, weighted)
    arms = [Arm("good", Score()), Arm("other", GlobalRate())]
    told: list[Losses] = []
    report = replay(arms, events, start="2024-01-03", on_window=told.append)
    assert [losses.window for losses in told] == [1, 2, 3, 4]
    for arm in ("good", "other"):
        windows = [window for window in report.windows if window.arm == arm]
        levels = [losses.sums[arm] / losses.weight for losses in told]
        assert levels == pytest.approx([window.log_loss for window in windows], rel=1e-12)
        total = sum(losses.sums[arm] for losses in told) / sum(losses.weight for losses in told)
        assert report.arms[arm].log_loss == pytest.approx(total, rel=1e-12)

    def ends(losses):
        told.append(losses)
        raise KeyboardInterrupt

    told.clear()
    with pytest.raises(KeyboardInterrupt):
        replay(arms, events, start="2024-01-03", on_window=ends)
    assert [losses.window for losses in told] == [1]


def played(regime, *, days=5, **options):
    recorder = Recorder()
    window = options.pop("window", None)
    events = as_events(draw(rows=2000, days=days))
    report = replay([Arm("a", recorder, regime, window)], events, start="2024-01-03", **options)
    return [entry[:3] for entry in recorder.log], report


def test_each_regime_learns_after_predicting():
    days = [(2.0, 3.0), (3.0, 4.0), (4.0, 5.0)]
    first = ("fit", 0.0, 2.0)
    assert played("stale")[0] == [first, *(("predict", *day) for day in days)]
    assert played("incremental")[0] == [first, *((verb, *day) for day in days for verb in ("predict", "update"))]
    retrained = [step for start, end in days for step in (("predict", start, end), ("fit", 0.0, end))]
    assert played("retrain")[0] == [first, *retrained]


def test_a_sliding_window_bounds_every_fit():
    log, _ = played("retrain", window="1d")
    fits = [entry for entry in log if entry[0] == "fit"]
    assert fits == [("fit", 1.0, 2.0), ("fit", 2.0, 3.0), ("fit", 3.0, 4.0), ("fit", 4.0, 5.0)]


def test_a_label_delay_holds_learning_back():
    predicts = [("predict", 2.0, 3.0), ("predict", 3.0, 4.0), ("predict", 4.0, 5.0)]
    log, _ = played("incremental", label_delay="1d")
    assert [entry for entry in log if entry[0] == "predict"] == predicts
    assert [entry for entry in log if entry[0] != "predict"] == [
        ("fit", 0.0, 1.0),
        ("update", 1.0, 2.0),
        ("update", 2.0, 3.0),
        ("update", 3.0, 4.0),
    ]
    log, _ = played("retrain", window="1d", label_delay="1d")
    assert [entry[1:] for entry in log if entry[0] == "fit"] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]


def test_rows_read_are_those_that_learning_read():
    counts = np.bincount((draw(rows=2000, days=5)["time"] - FIRST) // DAY)
    rows = {
        regime: [w.rows_read for w in played(regime)[1].windows] for regime in ("stale", "incremental", "retrain")
    }
    assert rows["stale"] == [0, 0, 0]
    assert rows["incremental"] == counts[2:].tolist()
    assert rows["retrain"] == np.cumsum(counts)[2:].tolist()
    assert played("retrain")[1].arms["a"].rows_read == sum(rows["retrain"])


def test_arms_of_one_learner_share_its_first_fit_and_leave_it_alone():
    shared = Recorder()
    arms = [
        Arm("one", shared),
        Arm("two", shared, "stale"),
        Arm("new", Recorder()),
        Arm("short", shared, "retrain", "1d"),
    ]
    report = replay(arms, as_events(draw()), start="2024-01-05")
    assert [verb for verb, *_ in shared.log[:3]] == ["fit", "fit", "predict"]
    assert shared.log[0][1:3] == (0.0, 4.0)
    assert shared.log[1][1:3] == (3.0, 4.0)
    assert report.arms["one"].fit_seconds == report.arms["two"].fit_seconds != report.arms["new"].fit_seconds
    assert shared.fits == 0


def test_nobody_can_look_a_label_or_the_truth_up():
    """Not that of another task either; learning sees them all, and so does the measuring of regret."""
    seen = Log()

    class Peeking(Score):
        def update(self, events):
            seen.append(("update", hidden(events)))

        def predict(self, events):
            seen.append(("predict", hidden(events)))
            return super().predict(events)

    def hidden(events):
        table = events.table(["y", "z", "truth"])
        assert table.schema.types == [pa.int8(), pa.int8(), pa.float64()]
        return [column.null_count / table.num_rows for column in table.columns]

    columns = draw()
    columns |= {"z": 1 - columns["y"], "score": columns["truth"]}
    events = as_events(columns, dataclasses.replace(SCHEMA, labels=("y", "z")))
    report = replay([Arm("a", Peeking())], events, start="2024-01-03")
    assert seen == 4 * [("predict", [1.0, 1.0, 1.0]), ("update", [0.0, 0.0, 0.0])]
    assert report.arms["a"].regret == pytest.approx(0.0, abs=1e-12)


def test_metrics_are_those_of_the_rows():
    columns = draw(1, rows=900)
    report = replay(
        [Arm("score", Score()), Arm("rate", GlobalRate())],
        as_events(columns),
        start="2024-01-03",
        within=["tab", "video_id"],
        ndcg_at=2,
    )
    day = (columns["time"] - FIRST) // DAY
    kept = day >= 2
    y, p, truth = columns["y"][kept].astype(float), columns["score"][kept], columns["truth"][kept]
    user, tab = columns["user_id"][kept], np.array(columns["tab"].to_pylist(), str)[kept]
    group = user * 10 + day[kept]

    expected = metrics.quality(y, p, group, truth=truth, k=2)
    assert quality_of(report.arms["score"]) == pytest.approx(vars(expected), abs=1e-12)
    assert report.arms["score"].within == {
        "tab": pytest.approx(metrics.gauc(y, p, np.unique(tab, return_inverse=True)[1])),
        "video_id": pytest.approx(metrics.gauc(y, p, columns["video_id"][kept])),
    }
    for w, window in enumerate([w for w in report.windows if w.arm == "score"]):
        rows = day[kept] == w + 2
        part = metrics.quality(y[rows], p[rows], user[rows], truth=truth[rows], k=2)
        assert quality_of(window) == pytest.approx(vars(part), abs=1e-12)
    bins = [b for b in report.calibration if b.arm == "score"]
    assert sum(b.rows for b in bins) == len(y)
    assert sum(b.rows * b.observed for b in bins) == pytest.approx(y.sum())
    assert report.settings["baseline_rate"] == pytest.approx(y.mean())
    compared = [c for c in report.comparisons if c.metric == "auc"]
    assert [(c.arm, c.against) for c in compared] == [("score", "rate")]
    assert compared[0].difference == pytest.approx(report.arms["score"].auc - report.arms["rate"].auc)


def quality_of(record):
    return {name: getattr(record, name) for name in metrics.Quality.__dataclass_fields__}


def test_cohorts_go_by_events_before_the_window():
    columns = draw(2, rows=900)
    columns["y"] = pa.array(columns["y"], mask=np.random.default_rng(2).random(900) < 0.3)
    report = replay([Arm("a", Score())], as_events(columns), start="2024-01-03", label_delay="1d")
    y = np.array(columns["y"].to_pylist(), float)
    day = (columns["time"] - FIRST) // DAY
    past = np.array(
        [((columns["user_id"] == u) & (day < d)).sum() for u, d in zip(columns["user_id"], day, strict=True)]
    )
    known = (day >= 2) & np.isfinite(y)
    bounds = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, 900)}
    assert [c.cohort for c in report.cohorts] == list(bounds)
    for cohort in report.cohorts:
        low, high = bounds[cohort.cohort]
        rows = known & (low <= past) & (past <= high)
        assert cohort.rows == rows.sum() > 0
        assert cohort.log_loss == pytest.approx(metrics.log_loss(y[rows], columns["score"][rows]))
    assert report.arms["a"].rows == known.sum() < (day >= 2).sum()


@pytest.mark.parametrize(
    ("past", "cohort"),
    [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-19"), (19, "5-19"), (20, "20+"), (21, "20+"), (40, "20+")],
)
def test_the_bounds_of_cohorts(past, cohort):
    """User 1 has exactly so many events before the only window, some of them without a label; user 2 others."""
    user = np.r_[np.ones(past, np.int64), 2, 1, 1]
    rows = len(user)
    columns = {
        "time": FIRST + np.r_[np.arange(past + 1), DAY, DAY + 1],
        "user_id": user,
        "video_id": np.zeros(rows, np.int64),
        "score": np.full(rows, 0.4),
        "truth": np.full(rows, 0.5),
        "y": pa.array(np.arange(rows) % 2, mask=(np.arange(rows) % 3 == 0) & (np.arange(rows) < past)),
    }
    report = replay([Arm("a", Score())], as_events(columns), start="2024-01-02")
    assert {c.cohort: c.rows for c in report.cohorts} == {"0": 0, "1-4": 0, "5-19": 0, "20+": 0} | {cohort: 2}


def test_a_past_grows_from_window_to_window():
    """Nineteen events before the first window, one within it, so that the second finds twenty."""
    rows = 21
    columns = {
        "time": FIRST + np.r_[np.arange(19), DAY, 2 * DAY],
        "user_id": np.ones(rows, np.int64),
        "video_id": np.zeros(rows, np.int64),
        "score": np.full(rows, 0.4),
        "truth": np.full(rows, 0.5),
        "y": np.arange(rows) % 2,
    }
    report = replay([Arm("a", Score())], as_events(columns), start="2024-01-02")
    assert {c.cohort: c.rows for c in report.cohorts} == {"0": 0, "1-4": 0, "5-19": 1, "20+": 1}


def test_unlabelled_rows_are_passed_on_but_not_measured():
    columns = draw(3, rows=400)
    columns["y"] = pa.array(columns["y"], mask=np.arange(400) % 4 == 0)
    recorder = Recorder()
    report = replay([Arm("a", recorder)], as_events(columns), start="2024-01-04")
    later = ((columns["time"] - FIRST) // DAY >= 3).sum()
    assert sum(entry[3] for entry in recorder.log if entry[0] == "update") == later
    assert report.arms["a"].rows < later


def test_row_weights_count_in_the_metrics():
    columns = draw(4, rows=500)
    weight = np.random.default_rng(4).integers(1, 4, 500)
    schema = dataclasses.replace(SCHEMA, weight="w")
    weighted = replay(
        [Arm("a", Score())],
        as_events({**columns, "w": weight.astype(float)}, schema),
        start="2024-01-03",
    )
    repeated = {
        name: pa.array(values).take(pa.array(np.repeat(np.arange(500), weight)))
        for name, values in columns.items()
    }
    unweighted = replay([Arm("a", Score())], as_events(repeated), start="2024-01-03")
    for name in ("auc", "gauc", "log_loss", "normalized_entropy", "calibration_error", "regret"):
        expected = getattr(unweighted.arms["a"], name)
        assert getattr(weighted.arms["a"], name) == pytest.approx(expected, abs=1e-12)
    assert weighted.settings["baseline_rate"] == pytest.approx(unweighted.settings["baseline_rate"])


def test_windows_without_events_are_fine():
    columns = draw(5, rows=600)
    gap = ~np.isin((columns["time"] - FIRST) // DAY, [3, 4])
    columns = {name: pa.array(values).filter(pa.array(gap)) for name, values in columns.items()}
    recorder = Recorder()
    report = replay(
        [Arm("a", recorder), Arm("b", GlobalRate(), "retrain")], as_events(columns), start="2024-01-03"
    )
    assert [(w.arm, w.rows > 0, w.auc is None) for w in report.windows] == [
        (arm, w in (0, 3), w in (1, 2)) for w in range(4) for arm in ("a", "b")
    ]
    assert [entry[0] for entry in recorder.log] == ["fit", "predict", "update", "predict", "update"]


@pytest.mark.parametrize("regime", ["incremental", "retrain"])
def test_counting_on_equals_counting_anew(regime):
    shared = Rate("user")
    arms = [Arm("a", Rate("user"), regime), Arm("b", shared), Arm("c", shared, "stale")]
    report = replay(arms, as_events(draw(6)), start="2024-01-02")
    assert quality_of(report.arms["a"]) == quality_of(report.arms["b"]) != quality_of(report.arms["c"])
    of_pair = {(c.difference, c.low, c.high) for c in report.comparisons if (c.arm, c.against) == ("a", "b")}
    assert of_pair == {(0.0, 0.0, 0.0)}


def test_an_arm_does_not_depend_on_its_neighbours():
    events, shared = as_events(draw(7)), Rate("user")
    arms = [Arm("a", shared), Arm("b", shared, "stale"), Arm("c", shared, "retrain"), Arm("d", Score())]
    together = replay(arms, events, start="2024-01-03")
    for arm in arms:
        alone = replay([arm], events, start="2024-01-03")
        assert quality_of(alone.arms[arm.name]) == quality_of(together.arms[arm.name])


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (lambda n: np.full(n + 1, 0.5), r"shape \(\d+,\), not \(\d+,\)"),
        (lambda n: np.full((n, 2), 0.5), r"shape \(\d+, 2\)"),
        (lambda n: np.full(n, np.nan), r"(\d+) of \1 predictions .* nan in row 0"),
        (lambda n: np.r_[1.5, np.full(n - 1, 0.5)], r"1 of \d+ predictions .* 1.5 in row 0"),
        (lambda n: ["high"] * n, "no array of numbers"),
    ],
)
def test_bad_predictions_name_arm_and_window(predictions, message):
    class Bad(Recorder):
        def predict(self, events):
            return predictions(events.table().num_rows)

    with pytest.raises(ModelError, match=message) as caught:
        replay([Arm("good", GlobalRate()), Arm("bad", Bad())], as_events(draw()), start="2024-01-03")
    assert "arm 'bad', window 1 (2024-01-03T00:00:00+00:00)" in caught.value.message


class Believer(GlobalRate):
    """Shows made-up coefficients that tell how many updates there were."""

    def __init__(self, entity="user"):
        super().__init__()
        self.entity = entity
        self.updates = 0

    def update(self, events):
        self.updates += 1
        return super().update(events)

    def weights(self):
        return [("(intercept)", float(self.updates), 0.5)]

    def entity_posterior(self, entity, id):
        if entity != self.entity:
            raise ConfigError("nothing is kept of such entities")
        return ["(intercept)", "tab"], Posterior(np.array([self.updates, id]), np.array([4.0, 1.0])), self.updates


def test_weights_and_trace_come_from_learners_that_have_them():
    arms = [
        Arm("new", Believer()),
        Arm("old", Believer("user_id"), "stale"),
        Arm("item", Believer("video_id"), "retrain"),
        Arm("rate", GlobalRate()),
    ]
    report = replay(arms, as_events(draw()), start="2024-01-04", follow="7")
    assert [dataclasses.astuple(w) for w in report.weights] == [("new", "(intercept)", 3.0, 0.5)]
    days = [f"2024-01-0{day}T00:00:00+00:00" for day in (4, 5, 6, 7)]
    trace = [dataclasses.astuple(point) for point in report.trace]
    assert trace == [
        (arm, "user", "7", day, name, mean, deviation, updates)
        for arm, updating in (("new", True), ("old", False))
        for updates, day in [(n * updating, day) for n, day in enumerate(days)]
        for name, mean, deviation in (("(intercept)", float(updates), 0.5), ("tab", 7.0, 1.0))
    ]


def test_the_entity_followed_by_itself_is_the_one_most_present():
    days = [3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]
    user = [9, 9, 9, 9, 9, 5, 4, 2, 5, 5, 4, 4, 2, 1]
    columns = {name: values[: len(days) + 1] for name, values in draw().items()}
    columns |= {"time": FIRST + np.array([1, *days]) * DAY + np.arange(15), "user_id": np.array([9, *user])}
    report = replay([Arm("a", Believer())], as_events(columns), start="2024-01-04")
    # 9 is there most often but on one day; 2, 4 and 5 on both, 4 and 5 with three rows.
    assert {point.id for point in report.trace} == {"4"}


def test_an_id_of_the_wrong_type_cannot_be_followed():
    with pytest.raises(ConfigError, match="no 'ann' to follow: 'user_id' holds int64"):
        replay([Arm("a", Believer())], as_events(draw()), start="2024-01-04", follow="ann")


def test_progress_tells_each_step_as_it_begins():
    seen: list[Progress] = []
    shared = GlobalRate()
    arms = [Arm("a", shared), Arm("b", shared, "stale")]
    replay(arms, as_events(draw(days=4)), start="2024-01-03", on_progress=seen.append)
    steps = [(arm, window, phase) for window in (1, 2) for arm in "ab" for phase in ("predict", "learn")]
    assert seen == [
        Progress("a", 0, 2, "fit"),
        *(Progress(a, w, 2, p) for a, w, p in steps),
        Progress("", 2, 2, "compare"),
    ]


def test_the_report_says_how_it_was_made_and_fits_into_json():
    schema = dataclasses.replace(SCHEMA, time=TimeColumn("time", zone="Asia/Shanghai"))
    report = replay(
        [Arm("a", Score()), Arm("b", Believer())],
        as_events(draw(days=4), schema),
        start="2024-01-03",
        every="12h",
        end="2024-01-04T06:00",
        label_delay="6h",
        name="try",
    )
    assert report.name == "try"
    assert report.settings == {
        "label": "y",
        "start": "2024-01-03T00:00:00+08:00",
        "every": "12h",
        "end": "2024-01-04T06:00:00+08:00",
        "zone": "Asia/Shanghai",
        "label_delay": "6h",
        "ndcg_at": 10,
        "entity": "user",
        "baseline_rate": report.settings["baseline_rate"],
    }
    assert [w.start[8:13] for w in report.windows if w.arm == "a"] == ["03T00", "03T12", "04T00"]
    json.dumps(dataclasses.asdict(report), allow_nan=False)


class Fussy(GlobalRate):
    """Undoes the update of every other window."""

    updates = 0

    def update(self, events):
        self.updates += bool(events)
        return self

    def refusal(self):
        return "odd rows" if self.updates % 2 else ""


def test_an_update_that_was_undone_is_noted_in_its_window():
    arms = [Arm("fussy", Fussy()), Arm("anew", Fussy(), "retrain"), Arm("plain", Recorder())]
    report = replay(arms, as_events(draw()), start="2024-01-03")
    told = [[w.refused for w in report.windows if w.arm == arm.name] for arm in arms]
    assert told == [["odd rows", "", "odd rows", ""], [""] * 4, [""] * 4]


def test_costs_are_by_verb_and_add_up():
    report = replay(
        [Arm("a", Score()), Arm("b", GlobalRate(), "retrain"), Arm("c", Recorder(), "stale")],
        as_events(draw()),
        start="2024-01-03",
    )
    for arm, result in report.arms.items():
        windows = [w for w in report.windows if w.arm == arm]
        assert result.seconds == pytest.approx(sum(w.seconds for w in windows))
        assert all(w.seconds == w.fit_seconds + w.update_seconds + w.predict_seconds for w in windows)
        assert all(w.predict_seconds > 0 for w in windows)
        assert result.peak_bytes > 10_000_000
    verbs = {w.arm: (w.fit_seconds > 0, w.update_seconds > 0) for w in report.windows}
    assert verbs == {"a": (False, True), "b": (True, False), "c": (False, False)}
    assert Counter((w.arm, w.state_bytes) for w in report.windows) == {("a", 123): 4, ("b", 16): 4, ("c", None): 4}


@pytest.mark.parametrize("delay", [None, "12h"])
def test_reading_the_new_events_counts_for_incremental_arms(delay, monkeypatch):
    """A clock that only reading whole rows moves, by one second a row."""
    now = [0]

    @dataclasses.dataclass
    class Slow:
        source: TableSource

        def columns(self):
            return self.source.columns()

        def describe(self, start, end):
            return self.source.describe(start, end)

        def scan(self, columns, start, end):
            reader = self.source.scan(columns, start, end)
            rows = reader.read_all()
            now[0] += rows.num_rows if len(columns) == len(self.columns()) else 0
            return rows.to_reader()

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    events = as_events(draw())
    events = dataclasses.replace(events, source=Slow(events.source))
    arms = [Arm("a", Score()), Arm("b", Score()), Arm("c", Score(), "retrain"), Arm("d", Score(), "stale")]
    report = replay(arms, events, start="2024-01-03", label_delay=delay)
    late = DAY // 2 if delay else 0
    counts = np.bincount((draw()["time"] + late - FIRST) // DAY)[2:6].tolist()
    for arm in ("a", "b"):
        assert [w.update_seconds for w in report.windows if w.arm == arm] == counts
    assert report.arms["a"].seconds == sum(counts)
    assert report.arms["c"].seconds == report.arms["d"].seconds == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": "yy"}, ConfigError, "no label 'yy' .*did you mean 'y'"),
        ({"within": ["tabb"]}, ConfigError, "no column 'tabb' .*did you mean 'tab'"),
        ({"ndcg_at": 0}, ConfigError, "ndcg_at 0"),
        ({"ndcg_at": 1e30}, ConfigError, "ndcg_at 1e.30 is too large a number"),
        ({"end": "2024-01-02"}, ConfigError, "the span from 2024-01-03 to 2024-01-02 is empty"),
        ({"every": "1us"}, ConfigError, "a replay every 1us has .* windows, more than 20,000 .*every .* would do"),
        ({"every": "1e9d"}, ConfigError, "'1e9d' is longer than ten thousand years"),
        ({"end": "9999-12-31"}, ConfigError, "windows, more than 20,000 .let it start later"),
        ({"every": "soon"}, ConfigError, "'soon' is no duration"),
        ({"start": "2024-02-01"}, DataError, "no events to replay"),
        ({"start": "2024-02-01", "end": "2024-02-03"}, DataError, "no events to replay"),
        (
            {"start": "2024-01-01"},
            DataError,
            r"no events before 2024-01-01T00:00:00\+00:00 to fit on \(start later\)",
        ),
        ({"label_delay": "3d"}, DataError, "no events before 2023-12-31.* wait less"),
    ],
)
def test_arguments_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        replay([Arm("a", GlobalRate())], as_events(draw()), **{"start": "2024-01-03", **options})


def test_columns_of_lists_have_no_auc_within():
    columns = {**draw(), "tags": pa.array([["a", "b"]] * 600)}
    with pytest.raises(ConfigError, match="column 'tags' has several values"):
        replay([Arm("a", GlobalRate())], as_events(columns), start="2024-01-03", within=["tags"])


def test_arms_that_do_not_fit():
    with pytest.raises(ConfigError, match="there is no arm"):
        replay([], as_events(draw()), start="2024-01-03")
    with pytest.raises(ConfigError, match="several arms are called 'a'"):
        replay([Arm("a", GlobalRate()), Arm("a", Score())], as_events(draw()), start="2024-01-03")
    with pytest.raises(ConfigError, match="a window is for 'retrain'"):
        Arm("a", GlobalRate(), window="3d")
    with pytest.raises(ConfigError, match="'long' is no duration"):
        Arm("a", GlobalRate(), "retrain", "long")


def test_errors_of_a_source_come_through_as_they_are():
    class Broken(TableSource):
        def scan(self, columns, start, end):
            reader = super().scan(columns, start, end)

            def batches():
                yield from reader
                if end == FIRST + 2 * DAY:
                    raise RowError("a bad row")

            return pa.RecordBatchReader.from_batches(reader.schema, batches())

    events = as_events(draw())
    broken = Events(SCHEMA, Broken(SCHEMA, events.source.rows))
    with pytest.raises(RowError, match="a bad row"):
        replay([Arm("a", GlobalRate())], broken, start="2024-01-03")


class Moody(Score):
    """Says how it was asked."""

    def predict(self, events, *, mode="point"):
        return np.full(len(events.table(["score"])), {"point": 0.25, "integrated": 0.5}[mode])


def test_an_arm_is_asked_in_its_mode():
    arms = [Arm("plain", Moody()), *(Arm(mode, Moody(), mode=mode) for mode in ("point", "integrated"))]
    report = replay(arms, as_events(draw(days=4)), start="2024-01-03")
    said = {bin.arm: bin.predicted for bin in report.calibration}
    assert said == {"plain": 0.25, "point": 0.25, "integrated": 0.5}


def test_a_mode_that_a_learner_does_not_have():
    with pytest.raises(ConfigError, match="arm 'a': predictions of a GlobalRate have no mode 'integrated'"):
        Arm("a", GlobalRate(), mode="integrated")
    with pytest.raises(ConfigError, match="mode 'draw' should be 'point' or 'integrated'"):
        Arm("a", Moody(), mode="draw")


def test_intervals_are_over_the_first_two_entities():
    """All that differs is of two of twelve videos, which users alone would never show to be so few."""
    columns = draw(rows=3000)
    odd = {**columns, "score": np.where(columns["video_id"] < 2, 0.9, 0.5)}
    arms = [Arm("score", Score()), Arm("rate", GlobalRate())]
    users = dataclasses.replace(SCHEMA, entities={"user": "user_id"})
    widths = []
    for schema in (SCHEMA, users):
        report = replay(arms, as_events(odd, schema), start="2024-01-03")
        (found,) = [c for c in report.comparisons if c.metric == "log_loss"]
        widths.append(found.high - found.low)
    assert widths[0] > 1.5 * widths[1]

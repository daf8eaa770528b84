"""Updates of a saved model: each event is learned once, whoever asks, and what is left out is told."""

import contextlib
import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acclimate import learners, ledger, pipeline
from acclimate.artifacts import Events, Fingerprint, Learned
from acclimate.errors import AlreadyLearnedError, ConfigError, NotConvergedError, OutputExistsError
from acclimate.learners.rates import Rate
from acclimate.project import Project, load_project
from acclimate.storage import only_writer

RATE = "learners={all: {kind: rate, entity: user}}"
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of eight days, 60 events each."""
    out = tmp_path_factory.mktemp("worlds") / "world"
    pipeline.make_world(out, users=30, days=8, seed=1)
    return out


@pytest.fixture
def project(folder: Path) -> Project:
    return load_project(folder / "acclimate.yaml", [RATE])


@pytest.fixture
def model(project: Project, tmp_path: Path) -> Path:
    """A model of the first three days."""
    pipeline.fit(project, tmp_path / "model", until="2024-01-04")
    return tmp_path / "model"


def of_file(folder: Path, file: Path) -> Project:
    return load_project(folder / "acclimate.yaml", [RATE, f"events.path={file}"])


def state(model: Path) -> dict[str, bytes]:
    return {str(file.relative_to(model)): file.read_bytes() for file in model.rglob("*") if file.is_file()}


def counted(learner: Rate, log: Events) -> list[tuple[str, float]]:
    """What a learner of rates predicts of each row, by which all of its counts are known."""
    return sorted(zip(map(str, log.table(["user_id"])["user_id"].to_pylist()), learner.predict(log), strict=True))


# --- what a model keeps of what it has read ------------------------------------------------------------------


def test_each_fit_and_update_leaves_a_line(project: Project, model: Path) -> None:
    log = pipeline.open_events(project)
    pipeline.update(project, model, until="2024-01-06")
    pipeline.update(project, model)
    first, second, third = learners.load(model).history
    assert (first.start, first.rows, second.rows, third.rows) == (None, 180, 120, 180)
    assert (first.end, second.end) == (second.start, third.start)
    for line in (first, second, third):
        read = log.between(line.start or 0, line.end).fingerprint(known="click")
        assert (read.rows, read.total, read.sample) == (line.rows, line.fingerprint, line.sample)
        assert not line.late


def test_an_update_that_was_undone_leaves_a_line_and_may_be_tried_again(
    project: Project, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, told = learners.load(model), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(Rate, "update", lambda self, _: self)
        patch.setattr(Rate, "refusal", lambda _: "the rows look odd")
        with pytest.raises(NotConvergedError, match="the rows look odd"):
            pipeline.update(project, model, until="2024-01-06")
        pipeline.update(project, model, until="2024-01-06", allow_unconverged=True, tell=told.append)
    assert told == ["nothing was learned: the rows look odd"]
    after = learners.load(model)
    assert after.state == before.state
    assert after.history[0] == before.history[0]
    assert after.history[1] == after.history[2]
    assert (after.history[1].rows, after.history[1].refused) == (120, "the rows look odd")
    pipeline.update(project, model, tell=told.append)
    assert told[1:] == []
    assert [line.rows for line in learners.load(model).history] == [180, 120, 120, 300]


def test_of_a_long_history_lines_of_nothing_go_first() -> None:
    lines = tuple(Learned(i, i + 1, 1, "0" * 16, "", refused="odd" if i in (0, 2) else "") for i in range(1001))
    assert ledger._shortened(lines) == lines[1:]
    assert ledger._shortened(lines[1:] + lines[:1]) == (lines[1], *lines[3:], lines[0])


def test_a_long_history_is_shortened_from_its_beginning(project: Project) -> None:
    log = pipeline.open_events(project).before("2024-01-02")
    model = Rate("user").fit(log)
    one, other = log.before("2024-01-01T09").fingerprint(), log.after("2024-01-01T09").fingerprint()
    both = log.fingerprint()
    read = [one, other, *(Fingerprint(i, f"{i:016x}", "") for i in range(998))]
    lines = tuple(Learned(i * DAY, (i + 1) * DAY, r.rows, r.total, r.sample) for i, r in enumerate(read))
    first, *rest = ledger.with_line(lines, model, log)
    assert first == Learned(0, 2 * DAY, both.rows, both.total, both.sample)
    assert tuple(rest[:-1]) == lines[2:]
    assert (rest[-1].rows, rest[-1].end, len(rest)) == (60, model.cut + 1, 999)


# --- nothing twice -------------------------------------------------------------------------------------------

AGAIN = {
    "the same window": {"since": "2024-01-04", "until": "2024-01-05"},
    "an earlier end": {"until": "2024-01-02"},
    "an overlap": {"since": "2024-01-03T12:00", "until": "2024-01-08"},
    "all of it": {"since": "2024-01-01"},
}


@pytest.mark.parametrize("asked", AGAIN.values(), ids=AGAIN)
def test_what_was_learned_is_refused_with_the_way_out(
    project: Project, model: Path, asked: dict[str, str]
) -> None:
    pipeline.update(project, model, until="2024-01-05")
    before = state(model)
    with pytest.raises(AlreadyLearnedError, match=r"events up to 2024-01-04T.* were learned already") as caught:
        pipeline.update(project, model, **asked)
    assert "--since" in caught.value.hint or "--until" in caught.value.hint
    assert state(model) == before


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("until", ["2024-01-06", "2024-01-05", "2020-01-01"])
def test_a_span_that_ends_before_it_starts_is_an_error(
    project: Project, model: Path, until: str, late: bool
) -> None:
    with pytest.raises(ConfigError, match="is empty: its end is not after its start"):
        pipeline.update(project, model, since="2024-01-06", until=until, late=late)


def test_nothing_new_is_told_and_saves_nothing(project: Project, model: Path) -> None:
    pipeline.update(project, model, until="2024-01-05")
    before, told = state(model), list[str]()
    pipeline.update(project, model, until="2024-01-05", tell=told.append)
    (said,) = told
    assert said.startswith("nothing was learned: there is no event with a known label from 2024-01-04T")
    assert said.endswith(" before 2024-01-05T00:00:00+00:00")
    assert state(model) == before


def test_a_span_without_events_is_told_as_what_it_is(project: Project, model: Path) -> None:
    told = list[str]()
    pipeline.update(project, model, since="2030-01-01", tell=told.append)
    assert told[0].startswith("300 new events before 2030-01-01T00:00:00+00:00 are skipped")
    assert told[1] == (
        "nothing was learned: there is no event with a known label from 2030-01-01T00:00:00+00:00 on"
    )


def test_a_gap_may_be_left(project: Project, model: Path) -> None:
    updated = pipeline.update(project, model, since="2024-01-06", until="2024-01-07")
    assert updated.history[-1].rows == 60


# --- what came late ------------------------------------------------------------------------------------------


def divided(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The log without every tenth row, and these rows."""
    rows = pq.read_table(folder / "events")
    is_late = np.arange(rows.num_rows) % 10 == 0
    return rows.filter(pa.array(~is_late)), rows.filter(pa.array(is_late))


def test_late_rows_are_counted_and_named_and_can_be_learned_once(folder: Path, tmp_path: Path) -> None:
    in_time, late = divided(folder)
    (tmp_path / "log").mkdir()
    pq.write_table(in_time, tmp_path / "log" / "a.parquet")
    pq.write_table(late, tmp_path / "late.parquet")
    project, late_project = of_file(folder, tmp_path / "log"), of_file(folder, tmp_path / "late.parquet")
    pipeline.fit(project, tmp_path / "model", until="2024-01-04")
    told = list[str]()
    pipeline.update(project, tmp_path / "model", until="2024-01-06", tell=told.append)
    assert told == []

    pq.write_table(late, tmp_path / "log" / "b.parquet")
    pipeline.update(project, tmp_path / "model", until="2024-01-07", tell=told.append)
    (warning,) = told
    assert warning.startswith(
        "30 events or their labels came after others of their time were learned, and are left out: 18 from "
    )
    assert ", 12 from 2024-01-03T" in warning
    assert warning.endswith("use --late")

    with pytest.raises(AlreadyLearnedError, match=r"this log holds events from 2024-01-05T.* learned already"):
        pipeline.update(late_project, tmp_path / "model", late=True)  # those of the last day came in time
    learned = pipeline.update(late_project, tmp_path / "model", late=True, until="2024-01-06")
    line, times = learned.history[-1], late["time"].cast(pa.int64()).to_numpy()
    assert (line.rows, line.late) == (30, True)
    assert (line.start, line.end) == (times[0], times[29] + 1)
    before = state(tmp_path / "model")
    with pytest.raises(AlreadyLearnedError, match=r"this log holds events .* that were learned already"):
        pipeline.update(late_project, tmp_path / "model", late=True, until="2024-01-06")
    with pytest.raises(AlreadyLearnedError, match=r"this log holds events .* that were learned already"):
        pipeline.update(of_file(folder, folder / "events"), tmp_path / "model", late=True, until="2024-01-02")
    assert state(tmp_path / "model") == before


def test_events_after_the_cut_are_not_late_and_are_told(folder: Path, tmp_path: Path) -> None:
    in_time, late = divided(folder)
    pq.write_table(in_time, tmp_path / "log.parquet")
    pq.write_table(late, tmp_path / "late.parquet")
    pipeline.fit(of_file(folder, tmp_path / "log.parquet"), tmp_path / "model", until="2024-01-04")
    told, late_project = list[str](), of_file(folder, tmp_path / "late.parquet")
    learned = pipeline.update(late_project, tmp_path / "model", late=True, tell=told.append)
    assert learned.history[-1].rows == 18
    (said,) = told
    assert said.startswith("30 events after 2024-01-03T")
    assert said.endswith("are not late: update without --late learns them")


def test_labels_that_come_late_are_counted_and_can_be_learned_once(folder: Path, tmp_path: Path) -> None:
    """A click that is known a day later only: the row was there, its label was not."""
    rows = pq.read_table(folder / "events")
    labels, waits = rows["click"].to_pylist(), np.arange(rows.num_rows) % 10 == 0
    place = rows.column_names.index("click")
    unknown = pa.array([None if late else y for y, late in zip(labels, waits, strict=True)], rows["click"].type)
    pq.write_table(rows.set_column(place, "click", unknown), tmp_path / "log.parquet")
    project, told = of_file(folder, tmp_path / "log.parquet"), list[str]()
    pipeline.fit(project, tmp_path / "model", until="2024-01-04")
    pipeline.update(project, tmp_path / "model", until="2024-01-06", tell=told.append)
    assert told == []
    assert [line.rows for line in learners.load(tmp_path / "model").history] == [162, 108]

    pq.write_table(rows, tmp_path / "log.parquet")
    pipeline.update(
        of_file(folder, tmp_path / "log.parquet"), tmp_path / "model", until="2024-01-07", tell=told.append
    )
    (said,) = told
    assert said.startswith("30 events or their labels came after others of their time were learned")
    pq.write_table(rows.filter(pa.array(waits)), tmp_path / "late.parquet")
    late_project = of_file(folder, tmp_path / "late.parquet")
    learned = pipeline.update(late_project, tmp_path / "model", late=True, until="2024-01-06")
    assert learned.history[-1].rows == 30
    with pytest.raises(AlreadyLearnedError, match="learned already"):
        pipeline.update(late_project, tmp_path / "model", late=True, until="2024-01-06")


def test_what_was_skipped_or_learned_by_other_means_did_not_come_late(project: Project, model: Path) -> None:
    told, log = list[str](), pipeline.open_events(project)
    pipeline.update(project, model, since="2024-01-05", until="2024-01-06", tell=told.append)
    assert told == ["60 new events before 2024-01-05T00:00:00+00:00 are skipped, and are not learned later"]
    told.clear()
    learners.load(model).update(log.between("2024-01-06", "2024-01-07")).save(model, overwrite=True)
    pipeline.update(project, model, tell=told.append)
    assert told == []


def test_a_log_that_forgets_its_beginning_has_no_late_rows(folder: Path, project: Project, model: Path) -> None:
    told = list[str]()
    recent = pipeline.open_events(project).after("2024-01-03T12:00").table()
    pq.write_table(recent, model.parent / "recent.parquet")
    pipeline.update(of_file(folder, model.parent / "recent.parquet"), model, tell=told.append)
    assert told == []


# --- one at a time -------------------------------------------------------------------------------------------


def together(*work: Callable[[], object]) -> None:
    """Run these at once, each in a thread of its own; one may come too late."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        barrier.wait()
        with contextlib.suppress(AlreadyLearnedError):
            one()

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_updates_that_race_equal_some_order_of_them(project: Project, model: Path) -> None:
    log = pipeline.open_events(project)
    shutil.copytree(model, model.parent / "start")
    rng = np.random.default_rng(0)
    for _ in range(12):
        shutil.rmtree(model)
        shutil.copytree(model.parent / "start", model)
        ends = [f"2024-01-{day:02d}" for day in rng.integers(4, 10, 3)]
        together(*(lambda end=end: pipeline.update(project, model, until=end) for end in ends))
        learned = learners.load(model)
        edges = [line.end for line in learned.history]
        assert [line.start for line in learned.history] == [None, *edges[:-1]]
        assert sum(line.rows for line in learned.history) == log.before(learned.cut + 1).count()
        assert len(learned.history) <= 1 + len(set(ends))
        one = Rate("user").fit(log.before(edges[0]))
        for start, end in itertools.pairwise(edges):
            one.update(log.between(start, end))
        assert counted(learned, log) == counted(one, log)


def test_an_update_says_that_it_waits(project: Project, model: Path) -> None:
    told, waits = list[str](), threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        waits.set()

    update = threading.Thread(target=lambda: pipeline.update(project, model, tell=tell))
    with only_writer(model):
        update.start()
        waits.wait()
        assert len(learners.load(model).history) == 1
    update.join()
    assert told == [f"waiting for another update of {model}"]
    assert len(learners.load(model).history) == 2


def test_a_save_over_what_another_saved_is_refused(project: Project, model: Path) -> None:
    log = pipeline.open_events(project)
    mine = learners.load(model)
    pipeline.update(project, model)
    with pytest.raises(OutputExistsError, match="saved by another since"):
        mine.update(log.after("2024-01-04")).save(model, overwrite=True)
    mine.save(model.parent / "elsewhere")
    theirs = learners.load(model)
    theirs.save(model, overwrite=True)
    theirs.save(model, overwrite=True)


# --- only what arrived is saved ------------------------------------------------------------------------------


def test_what_did_not_converge_is_not_saved_unless_allowed(folder: Path, tmp_path: Path) -> None:
    ranker = "learners={ranker: {kind: glmix, label: click, fixed: [hour], random: {user: {}}, max_steps: 0}}"
    project = load_project(folder / "acclimate.yaml", [ranker])
    with pytest.raises(NotConvergedError, match="did not converge") as caught:
        pipeline.fit(project, tmp_path / "model", until="2024-01-04")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "model").exists()
    pipeline.fit(project, tmp_path / "model", until="2024-01-04", allow_unconverged=True)
    before = state(tmp_path / "model")
    with pytest.raises(NotConvergedError):
        pipeline.update(project, tmp_path / "model", until="2024-01-05")
    assert state(tmp_path / "model") == before
    pipeline.update(project, tmp_path / "model", until="2024-01-05", allow_unconverged=True)
    assert state(tmp_path / "model") != before


# --- fingerprints --------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_rows_and_not_of_their_files(folder: Path, tmp_path: Path) -> None:
    rows = pq.read_table(folder / "events")
    whole = pipeline.open_events(load_project(folder / "acclimate.yaml", [RATE]))
    rng = np.random.default_rng(0)
    pq.write_table(rows.take(pa.array(rng.permutation(rows.num_rows))), tmp_path / "shuffled.parquet")
    shuffled = pipeline.open_events(of_file(folder, tmp_path / "shuffled.parquet"))
    read = whole.fingerprint()
    assert (read.rows, len(read.total), len(read.sample.split())) == (480, 16, 32)
    assert shuffled.fingerprint() == whole.cached().fingerprint() == read
    one, other = whole.before("2024-01-05").fingerprint(), whole.after("2024-01-05").fingerprint()
    assert one.rows + other.rows == read.rows
    assert f"{(int(one.total, 16) + int(other.total, 16)) % 2**64:016x}" == read.total
    assert read.overlaps(one.sample)
    assert read.overlaps(other.sample)
    assert not one.overlaps(other.sample)
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), tmp_path / "doubled.parquet")
    doubled = pipeline.open_events(of_file(folder, tmp_path / "doubled.parquet")).fingerprint()
    assert doubled.rows == 481
    assert doubled.total != read.total
    assert whole.before("2000-01-01").fingerprint() == Fingerprint(0, "0" * 16, "")

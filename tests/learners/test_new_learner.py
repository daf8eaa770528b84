"""A learner of forty lines, unknown until one entry names its record: all that is there works for it."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conformance import CHECKS, ENCODING, SCHEMA, Example, events, log, run
from pydantic.dataclasses import dataclass
from typer.testing import CliRunner

import acclimate as ac
from acclimate import learners, pipeline
from acclimate.cli.commands import app
from acclimate.config import LEARNERS
from acclimate.features import codes_of, id_type, ids_as, ids_as_arrow
from acclimate.learners.base import Fitted, Packed, declared_by
from acclimate.learners.rates import Counts, RateInfo, RateState, count
from acclimate.project import load_project

# --- the learner: a constant, plus the mean of an entity, which starts at that of all -----------------------


@dataclass(frozen=True)
class MeanParameters:
    entity: str
    constant: float = 0.0
    label: str | None = None
    kind: Literal["mean"] = "mean"


class Mean(Fitted[RateState]):
    kind: ClassVar[str] = "mean"

    @declared_by(MeanParameters)
    def __init__(self, parameters: MeanParameters) -> None:
        self.parameters, self.state, self.info, self.counts = parameters, None, None, Counts()

    def fit(self, events: ac.Events) -> Self:
        empty = RateState(events.schema.label(self.parameters.label), events.schema.content(), 0)
        self.state, self.counts, self.info = count(
            events, empty, events.schema.entity_column(self.parameters.entity)
        )
        return self

    def update(self, events: ac.Events) -> Self:
        column = events.schema.entity_column(self.parameters.entity)
        self.state, new, self.info = count(events, self._fitted(events.schema), column)
        self.counts.add(new.index.ids(), new.rows, new.positives)
        return self

    def predict(self, events: ac.Events) -> np.ndarray:
        state, column = self._fitted(events.schema), events.schema.entity_column(self.parameters.entity)
        codes, distinct = codes_of(events.table([column])[column])
        rows, positives = self.counts.take(ids_as(distinct, state.ids or id_type(distinct.type), column))
        return np.clip(self.parameters.constant + (positives + state.rate) / (rows + 1.0), 0.001, 0.999)[codes]

    @property
    def nbytes(self) -> int:
        return 16 + 24 * len(self._fitted() and self.counts.index)

    def _packed(self, state: RateState) -> Packed:
        shared = {"rows": state.rows, "positives": state.positives, "ids": state.ids}
        ids = pa.table({"id": ids_as_arrow(self.counts.index.ids(), state.ids or "int64")})
        return Packed(shared, {"rows": self.counts.rows, "positives": self.counts.positives}, {"ids": ids})

    def _unpack(self, stored: Any, known: dict[str, Any]) -> None:
        self.state = RateState(**known, **{name: stored.manifest[name] for name in ("rows", "positives", "ids")})
        ids, (rows, positives) = stored.tables["ids"]["id"], (stored.arrays[n] for n in ("rows", "positives"))
        if not rows.shape == positives.shape == (len(ids),):
            raise ValueError("ids and counts do not belong together")
        self.counts = Counts(ids_as(ids.combine_chunks(), self.state.ids or "int64", "ids"), rows, positives)


# --- what makes it known, and what it can do then -----------------------------------------------------------


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, MeanParameters, f"{__name__}:Mean")


EXAMPLE = Example("mean", lambda: Mean("user"))


@pytest.mark.parametrize("function", [f for f in CHECKS if f.__name__ not in ENCODING], ids=lambda f: f.__name__)
def test_conformance(function: Any, request: pytest.FixtureRequest) -> None:
    run(EXAMPLE, function, request)


def test_it_is_as_short_as_it_claims() -> None:
    code = Path(__file__).read_text().split("\n# --- ")[1]
    assert sum(1 for line in code.splitlines()[1:] if line.strip()) <= 45


def test_an_excepted_check_is_run_and_has_to_fail(request: pytest.FixtureRequest) -> None:
    def never_holds(make: Any) -> None:
        assert make() is None

    why = {"never_holds": "a learner is never nothing", "update_learns": "this one holds, so it is no exception"}
    example = Example("mean", lambda: Mean("user"), exceptions=why)
    run(example, never_holds, request)
    learns = next(function for function in CHECKS if function.__name__ == "update_learns")
    with pytest.raises(pytest.fail.Exception):
        run(example, learns, request)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    days = [log(day=day, rows=200) for day in range(6)]
    for number, day in enumerate(days):
        pq.write_table(events(day).table(), tmp_path / f"{number}.parquet")
    (tmp_path / "acclimate.yaml").write_text(
        "name: means\n"
        "events:\n"
        f"  {{path: '*.parquet', time: time, entities: {SCHEMA.entities}, labels: [click], weight: weight}}\n"
        "learners:\n"
        "  mean: {kind: mean, entity: user, constant: 0.0}\n"
        "replay: {start: 2022-04-28, arms: [stale, incremental, retrain, user-rate]}\n"
    )
    return tmp_path / "acclimate.yaml"


def test_it_goes_through_the_verbs(project: Path, tmp_path: Path) -> None:
    described = load_project(project)
    assert described.learner() == MeanParameters("user")
    model = tmp_path / "model"
    fitted = pipeline.fit(described, model, until="2022-04-27")
    updated = pipeline.update(described, model)
    assert updated.cut > fitted.cut
    assert type(learners.load(model)) is Mean
    summary, widths, _ = pipeline.check(described)
    assert (summary.rows, widths) == (1200, {})
    report = pipeline.replay_project(described, tmp_path / "report")
    assert list(report.arms) == ["stale", "incremental", "retrain", "user-rate"]
    assert report.arms["incremental"].auc == report.arms["retrain"].auc != report.arms["stale"].auc
    assert report.arms["incremental"].state_bytes > 0


def test_it_goes_through_the_command(project: Path, tmp_path: Path) -> None:
    printed = ""
    for arguments in (
        ["check", str(project)],
        ["fit", str(project), "--out", str(tmp_path / "model"), "--until", "2022-04-27"],
        ["update", str(project), "--model", str(tmp_path / "model")],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        printed += done.stdout
    assert "means: 1,200 events" in printed
    assert printed.count("rows up to 2022-04-") == 2
    assert "MB of state" in printed


def test_settings_that_differ_are_told(project: Path, tmp_path: Path) -> None:
    pipeline.fit(load_project(project), tmp_path / "model", until="2022-04-27")
    with pytest.raises(ac.AcclimateError, match=r"constant was 0\.0 and is 0\.5"):
        pipeline.update(load_project(project, ["learners.mean.constant=0.5"]), tmp_path / "model")


def test_info_is_that_of_the_last_step() -> None:
    learner = Mean("user").fit(events(log()))
    assert learner.info == RateInfo(learner.info.rows)

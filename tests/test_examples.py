"""Every example runs on its data, and the outsider of KuaiRand knows nothing of the future."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from acclimate import pipeline
from acclimate.models.rankers import Inputs, Sizes
from acclimate.project import Project, load_project

ROOT = Path(__file__).parents[1]
EXAMPLES = {path.parent.name: path for path in sorted(ROOT.glob("examples/*/acclimate.yaml"))}
SHORT = [
    "events.path=${KUAIRAND_DIR}/log_standard_*.parquet",  # the history is most of the rows
    "replay.start=2022-05-06",
    "replay.end=2022-05-08",
]


def test_there_is_a_test_for_every_example() -> None:
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == set(EXAMPLES) == {"kuairand", "kuairand_deep", "kuairand_encoder", "kuairand_meta"}


@pytest.fixture
def kuairand(kuairand_dir: Path) -> Project:  # noqa: ARG001
    return load_project(EXAMPLES["kuairand"], SHORT)


@pytest.fixture
def kuairand_dir(monkeypatch: pytest.MonkeyPatch) -> Path:
    data = Path(os.environ.get("KUAIRAND_DIR") or ROOT.parent / "shared" / "data" / "kuairand_pure")
    if not data.is_dir():
        assert os.environ.get("CI") != "true", f"no KuaiRand-Pure at {data}"
        pytest.skip(f"no KuaiRand-Pure at {data}: set KUAIRAND_DIR to its folder")
    monkeypatch.setenv("KUAIRAND_DIR", str(data))
    return data


def test_kuairand(kuairand: Project, tmp_path: Path) -> None:
    report = pipeline.replay_project(kuairand, tmp_path / "out")
    assert list(report.arms) == [
        *(
            "stale",
            "incremental",
            "calibrated",
            "whole",
            "retrain",
            "fixed",
            "global-rate",
            "item-rate",
            "user-rate",
            "lightgbm",
        )
    ]
    assert [window.start[:10] for window in report.windows if window.arm == "incremental"] == [
        "2022-05-06",
        "2022-05-07",
    ]
    auc = {name: arm.auc or 0.0 for name, arm in report.arms.items()}
    assert auc["incremental"] > max(auc["fixed"], auc["item-rate"])
    assert auc["lightgbm"] > auc["item-rate"]
    read = {(w.arm, w.start): w.rows_read for w in report.windows}
    rows = {(w.arm, w.start): w.rows for w in report.windows}
    assert all(rows[key] == read[key] > 10_000 for key in rows if key[0] == "incremental")
    assert all(read[key] > 150_000 for key in read if key[0] == "retrain")
    assert {arm.within.keys() == {"tab"} for arm in report.arms.values()} == {True}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "metrics.json", "report.html"}


def test_kuairand_deep(kuairand_dir: Path, tmp_path: Path) -> None:  # noqa: ARG001
    """On the last days: what is known of the networks by then is little, but they learn, and a stack does."""
    project = load_project(EXAMPLES["kuairand_deep"], [*SHORT, "learners.stacked.warm_up=0.3"])
    report = pipeline.replay_project(project, tmp_path / "out")
    regimes = ["stale", "fine-tune", "incremental", "retrain"]
    assert list(report.arms) == [*regimes, "stacked", *(f"cross-{regime}" for regime in regimes), "glmix"]
    auc = {name: arm.auc or 0.0 for name, arm in report.arms.items()}
    assert min(auc.values()) > 0.65
    rows = {w.arm: w.rows_read for w in report.windows}
    assert rows["incremental"] == rows["fine-tune"] < rows["retrain"] / 10


def test_kuairand_encoder(kuairand_dir: Path, tmp_path: Path) -> None:  # noqa: ARG001
    """An encoder that is hardly trained, on the last days: a GLMix has the vectors as they are by each day."""
    project = load_project(EXAMPLES["kuairand_encoder"], [*SHORT, "learners.taste.training.epochs=1"])
    report = pipeline.replay_project(project, tmp_path / "out")
    assert list(report.arms) == ["stale", "incremental", "glmix"]
    auc = {name: arm.auc or 0.0 for name, arm in report.arms.items()}
    assert min(auc.values()) > 0.7
    assert {w.rows_read for w in report.windows if w.arm == "incremental"} <= set(range(60_000))


def test_kuairand_meta(kuairand_dir: Path, tmp_path: Path) -> None:  # noqa: ARG001
    """On the last days: users who have had events by then differ, and those who refresh them do better."""
    project = load_project(EXAMPLES["kuairand_meta"], [*SHORT, "learners.meta.training.epochs=1"])
    report = pipeline.replay_project(project, tmp_path / "out")
    assert list(report.arms) == ["stale", "incremental", "stacked", "wide", "glmix"]
    auc = {name: arm.auc or 0.0 for name, arm in report.arms.items()}
    assert auc["incremental"] > auc["stale"]
    assert min(auc.values()) > 0.65


def test_a_decision_layer_is_an_embedding_of_its_width() -> None:
    """``h'(w + e)``: the embedding moves the weights of the last layer, and is nothing else's input."""
    decision = _module("kuairand_meta", "decision")
    ranker = decision.DecisionLayer(Sizes(2 + 3, 1, 4, (5, 3)))
    chance = torch.Generator().manual_seed(0)
    dense, wide, embedded = (torch.randn(6, *shape, generator=chance) for shape in ((5,), (1,), (1, 4)))
    hidden = ranker.hidden(Inputs(dense[:, :2], wide, embedded))
    expected = hidden @ ranker.head.weight[0] + ranker.head.bias + (hidden * dense[:, 2:]).sum(1) + wide.sum(1)
    assert_allclose(ranker(Inputs(dense, wide, embedded)).detach(), expected.detach(), rtol=1e-5, atol=1e-6)


# --- the outsider --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outsider() -> ModuleType:
    return _module("kuairand", "outsider")


def _module(example: str, name: str) -> ModuleType:
    """A file beside an example's project."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / example / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ROW = st.tuples(
    st.integers(-1, 3),  # user
    st.integers(0, 3),  # video
    st.lists(st.integers(0, 2), min_size=1, max_size=3),  # tags, the same one twice now and then
    st.integers(0, 2),  # time since the row above: often none
    st.integers(0, 1),  # label
)
LOGS = st.lists(ROW, min_size=1, max_size=25)


def columns(log: list[Any]) -> dict[str, Any]:
    user, video, tags, step, label = zip(*log, strict=True)
    return {
        "user": np.array(user),
        "video": np.array(video),
        "tagged": np.repeat(np.arange(len(log)), [len(t) for t in tags]),
        "tag": np.concatenate([np.array(t) for t in tags]),
        "time": np.cumsum(step),
        "label": np.array(label, np.float64),
    }


def design(outsider: ModuleType, of: dict[str, Any]) -> Any:
    keys = {"user_id": of["user"], "video_id": of["video"], "video.author_id": of["video"] // 2}
    frame = outsider.Frame(np.zeros((len(of["time"]), 1)), keys, of["tagged"], of["tag"])
    return outsider.training_design(frame, of["label"], of["time"])


@given(log=LOGS)
def test_before_is_a_plain_loop(outsider: ModuleType, log: list[Any]) -> None:
    of = columns(log)
    rows, positives = outsider.before(of["user"], of["label"], of["time"])
    for i in range(len(log)):
        earlier = [j for j in range(len(log)) if of["user"][j] == of["user"][i] and of["time"][j] < of["time"][i]]
        assert rows[i] == len(earlier)
        assert positives[i] == sum(of["label"][j] for j in earlier)


@given(log=LOGS, where=st.data())
def test_no_row_knows_its_own_label_or_later_ones(outsider: ModuleType, log: list[Any], where: Any) -> None:
    of = columns(log)
    cut = of["time"][where.draw(st.integers(0, len(log) - 1))]
    late = of["time"] >= cut
    other = of | {"label": np.where(late, 1 - of["label"], of["label"])}
    until = of["time"] <= cut
    np.testing.assert_array_equal(design(outsider, of)[until], design(outsider, other)[until])


def test_a_row_knows_the_labels_before_it(outsider: ModuleType) -> None:
    of = columns([(1, 1, [0], 0, 1), (1, 1, [0], 1, 0)])
    other = of | {"label": np.array([0.0, 0.0])}
    assert (design(outsider, of)[1] > design(outsider, other)[1]).sum() == 5  # each of the five rates


@given(log=LOGS)
def test_totals_are_all_that_was_before_a_later_row(outsider: ModuleType, log: list[Any]) -> None:
    of = columns(log)
    total = outsider.Totals.of(of["user"], of["label"])
    for user in range(-1, 5):
        mine = of["user"] == user
        rows, positives = total.at(np.array([user]))
        assert (rows[0], positives[0]) == (mine.sum(), of["label"][mine].sum())

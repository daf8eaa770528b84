"""A meta ranker below another learner: its meta embeddings are features, or its logit is a part of the other's."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from sample_meta import SCHEMA, events, log, ranker
from test_meta_ranker import FIRST

import acclimate as ac
from acclimate import learners, pipeline
from acclimate.errors import MismatchError
from acclimate.project import load_project


def test_side_by_side_its_meta_embeddings_are_features_of_another() -> None:
    stack = ac.Stack(ac.GLMix(fixed=["price", "meta"]), {"meta": ranker()}, warm_up=0.5, every="1d")
    stack.fit(events(FIRST))
    names = [name for name, *_ in stack.weights()]
    assert len([name for name in names if name.startswith("meta")]) == 3 + 2 + 2
    new = events(log(40, seed=3, users=9))
    member = stack.members["meta"]
    assert member.vectors(new).shape == (40, member.size)
    noted = stack._below.noted(new).table(["meta"])["meta"].to_pylist()
    assert_allclose(np.array(noted), member.vectors(new), rtol=0, atol=1e-6)
    space, before = member.space, stack.predict(new)
    stack.update(new)
    assert stack.members["meta"].space == space
    assert np.abs(stack.predict(new) - before).max() > 0


def test_as_an_offset_it_is_a_known_part_of_the_logit() -> None:
    stack = ac.Stack(ac.GLMix(fixed=["price"], offset="meta"), {"meta": ranker()}, warm_up=0.5, every="1d")
    p = stack.fit(events(FIRST)).predict(events(log(40, seed=3)))
    assert ((p > 0) & (p < 1)).all()


# --- in a project -----------------------------------------------------------------------------------------------

LEARNERS = """
  meta:
    kind: meta-ranker
    features: [price, tags]
    blocks:
      user: {entity: user, features: [age], hidden: [3], size: 2, steps: 2, support: 5}
      both: {entity: [user, place], size: 1, support: 4}
    embedding: 2
    hidden: [4]
    training: {epochs: 2, batch: 32}
  ranker: {kind: glmix, fixed: [price, meta], random: [item]}
  residual: {kind: glmix, fixed: [price], offset: meta}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    pq.write_table(events(log(300, seed=1, days=6)).table(), tmp_path / "events.parquet")
    (tmp_path / "acclimate.yaml").write_text(
        "name: meta\n"
        "events:\n"
        f"  {{path: events.parquet, time: time, entities: {SCHEMA.entities}, labels: [click], weight: weight}}\n"
        "features: {tags: {kind: multi}}\n"
        f"learners:{LEARNERS}"
        "replay:\n"
        "  start: 2022-04-29\n"
        "  learner: ranker\n"
        "  arms: [incremental, stale, {name: residual, learner: residual}, {name: alone, learner: meta}]\n"
    )
    return tmp_path / "acclimate.yaml"


def test_a_project_replays_it_alone_as_features_and_as_an_offset(project: Path, tmp_path: Path) -> None:
    report = pipeline.replay_project(load_project(project), tmp_path / "report")
    assert list(report.arms) == ["incremental", "stale", "residual", "alone"]
    assert len({arm.log_loss for arm in report.arms.values()}) == 4
    assert {"meta[0]", "meta[2]"} <= {weight.name for weight in report.weights if weight.arm == "incremental"}


def test_a_project_fits_and_updates_it_below_another(project: Path, tmp_path: Path) -> None:
    described, model = load_project(project), tmp_path / "model"
    pipeline.fit(described, model, learner="ranker", until="2022-04-29")
    before = learners.load(model)
    pipeline.update(described, model, learner="ranker")
    after = learners.load(model)
    assert after.members["meta"].space == before.members["meta"].space
    assert after.cut > before.cut
    changed = load_project(project, ["learners.meta.blocks.user.steps=3"])
    with pytest.raises(MismatchError, match=r"members\.meta\.blocks\.user\.steps was 2 and is 3"):
        pipeline.update(changed, model, learner="ranker")

"""Several processes of one command, as torchrun starts them: they learn together, and one of them writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from acclimate import learners, pipeline
from acclimate.project import load_project

LEARNERS = """
learners:
  net:
    kind: sequential-laplace
    features: [surface, position, item_id]
    embedding: 3
    hidden: [6]
    refuse_above: null
    training: {epochs: 1, update_epochs: 1, batch: 64}
  on_top: {kind: glmix, fixed: [surface, net]}
  rate: {kind: rate, entity: item}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "world"
    pipeline.make_world(folder, users=60, days=6, seed=1)
    text, after = (folder / "acclimate.yaml").read_text().split("learners:")[0], "\n"
    (folder / "acclimate.yaml").write_text(text + after + LEARNERS)
    return folder / "acclimate.yaml"


def run_by_two(*arguments: str) -> list[str]:
    """What they print."""
    two = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *two, "-m", "acclimate", *arguments],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "destroy_process_group" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["on_top", "rate"])
def test_two_processes_fit_and_update_what_one_would(project: Path, tmp_path: Path, name: str) -> None:
    chosen = ["--learner", name, "--allow-unconverged"]
    printed = run_by_two("fit", str(project), *chosen, "--out", str(tmp_path / "two"), "--until", "2024-01-05")
    printed += run_by_two("update", str(project), *chosen, "--model", str(tmp_path / "two"))
    assert sum(line.startswith("model: ") for line in printed) == 2
    described = load_project(project)
    pipeline.fit(described, tmp_path / "one", learner=name, until="2024-01-05", allow_unconverged=True)
    alone = pipeline.update(described, tmp_path / "one", learner=name, allow_unconverged=True)
    together = learners.load(tmp_path / "two")
    events = pipeline.open_events(described)
    assert_allclose(together.predict(events), alone.predict(events), atol=2e-3)
    assert together.history == alone.history

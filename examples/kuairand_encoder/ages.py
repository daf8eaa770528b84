"""What user vectors are worth to a ranker, by their age: GLMix and LightGBM on KuaiRand, with and without them.

KUAIRAND_DIR=... python examples/kuairand_encoder/ages.py OUT [SEED]

The encoder is trained on what is before 28 April. Then its vectors are refreshed after each event, every day, or
never; rankers learn day by day, as in ../kuairand. OUT gets the report of the replay.
"""

import copy
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import acclimate as ac
from acclimate import pipeline
from acclimate.learners import make
from acclimate.learners.joined import JoinedSource, as_column, times_of
from acclimate.learners.user_encoder import UserEncoder
from acclimate.project import load_project

FOLDER = Path(__file__).parent
CUT = "2022-04-28"
PLAIN = ["tab", "tags", "duration", "user.user_active_degree"]

location = importlib.util.spec_from_file_location("outsider", FOLDER.parent / "kuairand" / "outsider.py")
outsider: Any = importlib.util.module_from_spec(location)
sys.modules["outsider"] = outsider
location.loader.exec_module(outsider)


def vectors_by_age(log: ac.Events, parameters: Any, seed: int) -> dict[str, np.ndarray]:
    """The vector of each row, by how old it is: each ``(n, s)``, of the same space."""
    training = replace(parameters.training, seed=seed)
    encoder = UserEncoder(**{**vars(parameters), "training": training}).fit(log.before(CUT))
    start = encoder.emptied()
    by_event = start.vectors_along(log)
    by_day, moving = [], copy.deepcopy(start)
    for window in log.windows("1d"):
        by_day.append(moving.vectors(window))
        moving.update(window)
    stale = [*by_day[: len(list(log.before(CUT).windows("1d")))], encoder.vectors(log.after(CUT))]
    return {"never": np.concatenate(stale), "daily": np.concatenate(by_day), "by_event": by_event}


def with_columns(log: ac.Events, vectors: dict[str, np.ndarray]) -> ac.Events:
    """The events with vectors as columns."""
    columns = {name: as_column(values.astype(np.float32)) for name, values in vectors.items()}
    kinds = {name: ac.Feature(kind="embedding") for name in vectors}
    schema = replace(log.schema, features={**log.schema.features, **kinds})
    return replace(log, schema=schema, source=JoinedSource(log.source, schema.time.column, times_of(log), columns))


def arms(parameters: Any) -> list[ac.Arm]:
    """A GLMix and trees, without vectors and with those of each age."""

    def glmix(*vectors: str) -> Any:
        return make(replace(parameters, fixed=replace(parameters.fixed, features=(*PLAIN, *vectors))))

    def trees(vectors: str | None = None) -> Any:
        return outsider.LightGBMOnRates(vectors)

    ages = ("never", "daily", "by_event")
    return [
        ac.Arm("glmix", glmix()),
        *(ac.Arm(f"glmix, {age}", glmix(age)) for age in ages),
        ac.Arm("lightgbm", trees(), "retrain"),
        ac.Arm("lightgbm, by_event", trees("by_event"), "retrain"),
    ]


def main() -> None:
    """Write the report of the replay."""
    out, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    project = load_project(FOLDER / "acclimate.yaml")
    log = pipeline.open_events(project).cached()
    vectors = vectors_by_age(log, project.learners["taste"], seed)
    report = ac.replay(
        arms(project.learners["glmix"]),
        with_columns(log, vectors),
        start=CUT,
        within=["tab"],
        name="KuaiRand-Pure: user vectors by age",
        on_progress=lambda step: print(step, file=sys.stderr),
        out=out,
    )
    print(report)


if __name__ == "__main__":
    main()

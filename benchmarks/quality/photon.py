"""What a detour over the files of Photon-ML costs: regret of a GLMix that goes on, and of one that was read.

``python -m benchmarks.quality.photon [--seeds 10]``. Seven days of a drifting world are fitted and written; what
is read and what was fitted go on by seven daily updates. It says the regret (expected log-loss above the oracle's,
1e-4 nats a row) of each day before it is learned, and how much more that of what was read is, with intervals of
95 % over seeds.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import acclimate as ac
from acclimate.interop import read_photon, write_photon
from benchmarks.quality.effects_world import interval, regret

FIT, DAYS = "2024-01-08", 14
FITTED = "fitted"
READ: dict[str, dict[str, Any]] = {
    "read": {},
    "read, `precision: full`": {"precision": "full"},
    "read, `learn_population: false`": {"learn_population": False},
}
PARTS = {"first day": slice(0, 1), "second day": slice(1, 2), "third to seventh": slice(2, None)}


def declared(precision: str = "auto", **keys: Any) -> ac.GLMix:
    """Not fitted yet."""
    kept: Any = {"precision": precision}
    random = [ac.RandomEffect("user", ["topics"], **kept), ac.RandomEffect("item", **kept)]
    return ac.GLMix(fixed=["surface", "hour"], random=random, **keys)


def regrets(seed: int) -> dict[str, list[float]]:
    """Of each model, by day."""
    log = ac.simulate(users=300, items=60, days=DAYS, events_per_day=2000, seed=seed)
    models = {FITTED: declared().fit(log.before(FIT))}
    with tempfile.TemporaryDirectory() as folder:
        game = Path(folder) / "game"
        write_photon(models[FITTED], game)
        models |= {name: read_photon(game, declared(**keys), log.schema, until=FIT) for name, keys in READ.items()}
    lost: dict[str, list[float]] = {name: [] for name in models}
    for day in log.windows("1d", start=FIT):
        truth = day.table(["click_probability"])["click_probability"].to_numpy()
        for name, model in models.items():
            lost[name].append(regret(model.predict(day), truth))
            model.update(day)
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    runs = [regrets(seed) for seed in range(parser.parse_args().seeds)]
    lost = {name: np.array([run[name] for run in runs]) for name in runs[0]}  # (seeds, days)
    print(f"| | {' | '.join(PARTS)} |\n{'| --- ' * (1 + len(PARTS))}|")
    for name, regret_by_day in lost.items():
        more = regret_by_day if name == FITTED else regret_by_day - lost[FITTED]
        cells = [interval(more[:, days].mean(axis=1), 1) for days in PARTS.values()]
        print(f"| {name if name == FITTED else f'{name}: more by'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Numbers and counts in worlds whose truth is known, and ridges of the fixed effect that are learned.

``python -m benchmarks.quality.losses [--seeds 20] [ratings] [counts] [ridges]``: a fit on five days, then ten days
that are predicted before they are learned.

- ratings: users, items and a slope, noise of standard deviation .8. The noise and the variances as they are
  learned, over those that were drawn; regret, the mean squared distance to the true expectation in 1e-4, and how
  often a 95 % interval around the margin holds it.
- counts: the same on the scale of logarithms, with the variance of a Poisson law and four times that. Regret in
  1e-4 nats a row, and the sum of predictions over labels.
- ridges: labels of 0 and 1, two categorical features of 50 levels and a number. Regret in 1e-4 nats a row with a
  ridge of 1, with the best of nine by the truth itself, and with ridges that are learned.

``kuairand`` instead, and the folder of the data in ``KUAIRAND_DIR``: seconds that videos are watched, as counts
and as numbers, and ridges for long views. Of the days before 28 April; ``kuairand-test`` of those from then on.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import expit

import acclimate as ac
from acclimate import pipeline, project
from acclimate.config import GLMixParameters
from acclimate.models.scoring import Term, margins, variances
from benchmarks.quality.effects_world import DAY, START, interval

EXAMPLE = Path(__file__).parents[2] / "examples" / "kuairand" / "acclimate.yaml"
FIRST, DAYS, USERS, ITEMS, LEVELS = 5, 15, 300, 100, 50
RIDGES = (0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
Loss = Literal["squared", "poisson"]
KINDS: dict[Loss, Any] = {"squared": "number", "poisson": "count"}
NOISE, LEVEL, QUALITY = 0.8, 0.5, 0.3
"""Standard deviation of the noise; variances of users' and of items' levels."""


def events_of(columns: Mapping[str, Any], kind: str | None) -> ac.Events:
    """Rows in the order of their ``day``."""
    day = np.asarray(columns["day"])
    time = pa.array(START + day * DAY + np.arange(len(day)), pa.timestamp("us", "UTC"))
    schema = ac.Schema(
        time="time",
        entities={"user": "user_id", "item": "item_id"},
        labels="y",
        label_kinds={} if kind is None else {"y": kind},
        features={name: ac.Feature(kind="categorical") for name in ("g", "h")},
    )
    rest = {name: column for name, column in columns.items() if name != "day"}
    return ac.read_events(
        pa.table({"time": time, "g": ["none"] * len(day), "h": ["none"] * len(day)} | rest), schema
    )


class World:
    """Days of rows, and the true expectations of each day."""

    def __init__(self, loss: Loss, rows: int, seed: int, scatter: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.loss: Loss = loss
        self.level = LEVEL**0.5 * rng.standard_normal(USERS)
        self.quality = QUALITY**0.5 * rng.standard_normal(ITEMS)
        self.days, self.truth = list[dict[str, Any]](), list[np.ndarray]()
        for day in range(DAYS):
            user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
            x = rng.standard_normal(rows)
            z = 0.5 + 0.3 * x + self.level[user] + self.quality[item]
            if loss == "squared":
                y = z + NOISE * rng.standard_normal(rows)
            else:  # whole multiples have a variance of so many means
                y = scatter * rng.poisson(np.exp(z) / scatter)
            columns = {"day": np.full(rows, day), "user_id": user, "item_id": item, "x": x, "y": y}
            self.days.append(columns)
            self.truth.append(z if loss == "squared" else np.exp(z))

    def events(self, first: int, last: int) -> ac.Events:
        """The rows of these days."""
        days = self.days[first:last]
        return events_of({name: np.concatenate([day[name] for day in days]) for name in days[0]}, KINDS[self.loss])

    def regret(self, day: int, p: np.ndarray) -> float:
        """Mean squared distance to the truth, or expected nats lost, in 1e-4 a row."""
        t = self.truth[day]
        lost = (p - t) ** 2 if self.loss == "squared" else t * np.log(t / p) - t + p
        return 1e4 * float(np.mean(lost))

    def covered(self, day: int, model: ac.GLMix) -> float:
        """How often the 95 % interval of a row's margin holds the true one."""
        rows, assumed = self.days[day], model.state
        assert assumed is not None
        z = self.truth[day] if self.loss == "squared" else np.log(self.truth[day])
        posterior, n = assumed.fixed_posterior, len(z)
        X = np.column_stack([np.ones(n), rows["x"]])
        terms = [term(X, np.zeros(n, np.int64), posterior)]
        for name in ("user", "item"):
            ids = np.arange(USERS if name == "user" else ITEMS)
            effect = next(effect for effect in assumed.random if effect.name == name)
            states = effect.now(model.entities.take(name, ids, effect.base))
            terms.append(term(np.ones((n, 1)), rows[f"{name}_id"], states.posterior))
        middle = margins(terms, np.zeros(n))
        return float(np.mean(np.abs(z - middle) <= 1.96 * np.sqrt(variances(terms))))


def term(X: np.ndarray, entity: np.ndarray, posterior: ac.Posterior) -> Term:
    from scipy import sparse

    ids = np.arange(len(posterior.mean)).astype(np.int64)
    return Term(sparse.csr_array(X), entity, ids, posterior.mean, posterior.precision)


def fitted(world: World, last: int, **options: Any) -> ac.GLMix:
    loss = options.pop("loss", world.loss)
    return ac.GLMix(fixed=["x"], random=["user", "item"], loss=loss, **options).fit(world.events(0, last))


def played(world: World, mode: Literal["point", "integrated"] = "point", **options: Any) -> dict[str, list[float]]:
    """By regime, over the days: regret, how often intervals hold, predictions over labels."""
    incremental = stale = fitted(world, FIRST, **options)
    figures: dict[str, list[tuple[float, float, float]]] = {"incremental": [], "refit": [], "stale": []}
    stale = fitted(world, FIRST, **options)
    for day in range(FIRST, DAYS):
        asked = world.events(day, day + 1)
        for name, model in (
            ("incremental", incremental),
            ("refit", fitted(world, day, **options)),
            ("stale", stale),
        ):
            p = np.maximum(model.predict(asked, mode=mode), 1e-9 if world.loss == "poisson" else -np.inf)
            ratio = float(p.sum() / np.sum(world.days[day]["y"]))
            figures[name].append((world.regret(day, p), world.covered(day, model), ratio))
        incremental.update(asked)
    return {name: list(np.mean(one, axis=0)) for name, one in figures.items()}


def learned(world: World, model: ac.GLMix) -> list[float]:
    """Noise and variances over those that were drawn."""
    assert model.state is not None
    levels = [float(effect.population.covariance()[0, 0]) for effect in model.state.random]
    return [
        model.noise / NOISE**2,
        levels[0] / float(np.var(world.level)),
        levels[1] / float(np.var(world.quality)),
    ]


def cells(values: Sequence[Sequence[float]], digits: Sequence[int]) -> str:
    columns = np.array(values).T
    return " | ".join(interval(column, d) for column, d in zip(columns, digits, strict=True))


def ratings(seeds: range) -> None:
    print(
        "ratings: noise, variances of users and items, learned over drawn, after the first fit and after updates\n"
    )
    print("| rows a day | | noise | users | items |\n| --- | --- | --- | --- | --- |")
    for rows in (150, 600, 3000):
        first, after = list[list[float]](), list[list[float]]()
        for seed in seeds:
            world = World("squared", rows, seed)
            model = fitted(world, FIRST)
            first.append(learned(world, model))
            for day in range(FIRST, DAYS):
                model.update(world.events(day, day + 1))
            after.append(learned(world, model))
        for name, values in (("fit", first), ("after ten updates", after)):
            print(f"| {rows} | {name} | {cells(values, (3, 2, 2))} |", flush=True)
    print("\nratings: regret (1e-4) and coverage of 95 % intervals\n")
    print("| rows a day | noise | regime | regret | coverage |\n| --- | --- | --- | --- | --- |")
    for rows in (150, 600):
        for name, options in (("1", {"noise": 1.0}), ("learned", {}), ("known", {"noise": NOISE**2})):
            regimes(
                f"| {rows} | {name}", seeds, lambda s, r=rows, o=options: played(World("squared", r, s), **o), 2
            )


def regimes(start: str, seeds: range, play: Callable[[int], dict[str, list[float]]], figures: int) -> None:
    runs = [play(seed) for seed in seeds]
    for regime in runs[0]:
        values = [run[regime][:figures] for run in runs]
        print(f"{start} | {regime} | {cells(values, (0, 3, 3)[:figures])} |", flush=True)


def counts(seeds: range) -> None:
    print("counts: regret (1e-4 nats), coverage of 95 % intervals of the margin, predicted over observed\n")
    print("| variance | model | regime | regret | coverage | ratio |\n| --- | --- | --- | --- | --- | --- |")
    models: dict[str, dict[str, Any]] = {
        "noise 1, integrated": {"mode": "integrated", "noise": 1.0},
        "point": {},
        "integrated": {"mode": "integrated"},
        "variational, integrated": {"mode": "integrated", "approximation": "variational"},
    }
    for scatter in (1, 4):
        for name, options in models.items():
            play = lambda s, k=scatter, o=options: played(World("poisson", 300, s, k), **o)  # noqa: E731
            regimes(f"| {scatter} x mean | {name}", seeds, play, 3)


def wide(seed: int, n: int, spreads: tuple[float, float]) -> tuple[ac.Events, np.ndarray]:
    """Rows of two categorical features and a number; the seed's thousands say which world."""
    world, rng = np.random.default_rng(seed % 1000), np.random.default_rng([seed, 1])
    a, b = (spread * world.standard_normal(LEVELS) for spread in spreads)
    g, h, x, user = (*rng.integers(0, LEVELS, (2, n)), rng.standard_normal(n), rng.integers(0, 50, n))
    p = expit(-0.5 + a[g] + b[h] + 0.3 * x)
    y = (rng.random(n) < p).astype(int)
    columns = {"day": np.zeros(n, np.int64), "user_id": user, "item_id": user, "g": g, "h": h, "x": x, "y": y}
    return events_of(columns, None), p


def ridged(seed: int, n: int, spreads: tuple[float, float]) -> list[float]:
    """Regret with a ridge of 1, with the best one and with learned ones."""
    (train, _), (test, p) = wide(seed, n, spreads), wide(seed + 1000, 20_000, spreads)

    def lost(ridge: Any) -> float:
        model = ac.GLMix(fixed=ac.FixedEffect(["g", "h", "x"], ridge=ridge), random=["user"]).fit(train)
        q = model.predict(test)
        return 1e4 * float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))

    one = {ridge: lost(ridge) for ridge in RIDGES}
    return [one[1.0], min(one.values()), lost("learned")]


def ridges(seeds: range) -> None:
    print("ridges: regret in 1e-4 nats a row with a ridge of 1, the best of nine, learned\n")
    print("| sd of the levels | rows | 1 | best | learned |\n| --- | --- | --- | --- | --- |")
    for spreads in ((0.05, 0.05), (0.8, 0.05), (0.8, 0.8), (2.0, 0.2)):
        for rows in (500, 3000):
            values = [ridged(seed, rows, spreads) for seed in seeds]
            print(f"| {spreads[0]}, {spreads[1]} | {rows} | {cells(values, (0, 0, 0))} |", flush=True)


def watched(given: project.Project, label: str, kind: Any) -> ac.Events:
    """The log, with whole seconds that videos are watched and the part of their length, 2 at most."""
    folder = Path(os.environ["KUAIRAND_DIR"])
    (log,) = (pq.read_table(path) for path in folder.glob("log_standard_*.parquet"))
    seconds = pc.cast(pc.floor(pc.divide(pc.cast(log["play_time_ms"], pa.float64()), 1000.0)), pa.int64())
    part = pc.divide(pc.cast(log["play_time_ms"], pa.float64()), pc.cast(log["duration_ms"], pa.float64()))
    part = pc.if_else(pc.is_finite(part), pc.min_element_wise(part, 2.0), None)
    log = log.append_column("seconds", seconds).append_column("part", part)
    log = log.drop_columns(["long_view", "is_like"])
    schema = replace(given.events.schema, labels=(label,), label_kinds={label: kind})
    return ac.read_events(log, schema)


def kuairand(start: str, end: str) -> None:
    """Print what there is on real data; intervals are of the paired bootstrap over users and videos."""
    given = project.load_project(EXAMPLE)
    ranker = given.learner("ranker")
    assert isinstance(ranker, GLMixParameters)
    watched_as: list[tuple[str, Any, tuple[Loss, ...]]] = [
        ("seconds", "count", ("poisson",)),
        ("seconds", "number", ("squared",)),
        ("part", "number", ("squared",)),
    ]
    for label, kind, losses in watched_as:
        print(f"\n{label} watched as a {kind}, {start} to {end}")
        arms: list[Any] = [
            ac.Arm("mean", ac.GlobalRate()),
            ac.Arm("mean of the user", ac.Rate("user")),
            ac.Arm("mean of the video", ac.Rate("video")),
        ]
        for loss in losses:
            plain = replace(ranker, label=None, loss=loss)
            models = {"": plain, " fixed": plain.shared_part()}
            models[" learned ridge"] = replace(plain, fixed=replace(ranker.fixed, ridge="learned"))
            if loss == "poisson":
                models[" noise 1"] = replace(plain, noise=1.0)
            arms += [ac.Arm(f"{loss}{name}", ac.GLMix(**vars(one))) for name, one in models.items()]
        integrated = [
            ac.Arm(f"{arm.name} integrated", arm.learner, mode="integrated")
            for arm in arms
            if arm.name == "poisson"
        ]
        show(ac.replay([*arms, *integrated], watched(given, label, kind), start=start, end=end))
    if start < "2022-04-28":
        print("\nlong views, 2022-04-20 to 2022-04-28")
        learn = replace(ranker, fixed=replace(ranker.fixed, ridge="learned"))
        models = {"ridge 1": ac.GLMix(**vars(ranker)), "learned": ac.GLMix(**vars(learn))}
        show(ac.replay(models, pipeline.open_events(given), start="2022-04-20", end=end))
        print(models["learned"].fit(pipeline.open_events(given).before("2022-04-20")).summary())


def show(report: ac.Report) -> None:
    """The arms, and each against the first one of the best kind."""
    keys = ("auc", "gauc", "log_loss", "deviance", "rmse", "mae", "r2", "ratio", "calibration_error")
    keys = [key for key in keys if any(getattr(arm, key) is not None for arm in report.arms.values())]
    print(f"| arm | {' | '.join(keys)} |\n| --- |{' --- |' * len(keys)}")
    for name, arm in report.arms.items():
        print(f"| {name} | {' | '.join(f'{getattr(arm, key):.5f}' for key in keys)} |")
    for one in report.comparisons:
        if one.metric in ("deviance", "r2", "rmse", "auc", "log_loss"):
            bounds = f"({one.low:.5f} to {one.high:.5f})"
            print(f"{one.arm} less {one.against}, {one.metric}: {one.difference:.5f} {bounds}")


def main() -> None:
    """Print a line a world and model: means over seeds with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ["ratings", "counts", "ridges", "kuairand", "kuairand-test"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(choices))
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    parts: dict[str, Callable[[], None]] = {
        "ratings": lambda: ratings(range(asked.seeds)),
        "counts": lambda: counts(range(asked.seeds)),
        "ridges": lambda: ridges(range(asked.seeds)),
        "kuairand": lambda: kuairand("2022-04-27", "2022-04-28"),
        "kuairand-test": lambda: kuairand("2022-04-28", "2022-05-09"),
    }
    for part in asked.parts or choices[:3]:
        parts[part]()


if __name__ == "__main__":
    main()

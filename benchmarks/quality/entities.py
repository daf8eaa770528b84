"""What the author of a video adds: a column of the table of videos as an entity, in a world whose truth is known.

``python -m benchmarks.quality.entities [--seeds 10]``: videos are new every day, their authors are not. A fit on
ten days, then ten days that are predicted before they are learned. Regret is the expected log-loss above the
oracle's in 1e-4 nats a row: of videos on their first day, and of those that came before. A fifth of the videos is
in no table. What two effects of one entity cost, where one would do: populations, and regret on new rows. And the
same of videos and authors, nearly as many of these: against ridges at the variances that are true.

With ``--kuairand`` instead, and the folder of the data in ``KUAIRAND_DIR``: KuaiRand-Pure from 20 to 27 April,
where 6,510 authors have 7,583 videos; with populations that are learned and with ridges in their place.
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.special import expit

import acclimate as ac
from acclimate import pipeline, project
from acclimate.config import GLMixParameters
from benchmarks.quality.effects_world import DAY, SCHEMA, START, events_of, interval, regret

EXAMPLE = Path(__file__).parents[2] / "examples" / "kuairand" / "acclimate.yaml"
REPLAY_FROM = "2022-04-20"
FIRST, DAYS, USERS, NEW, ROWS = 10, 20, 300, 40, 1500
"""Days of the fit and in all; users; new videos a day, which are shown for five days; rows a day."""

ARMS = {
    "user, video": ["user", "item"],
    "user, video, author": ["user", "item", "item.author_id"],
}


def of_authors(spread: float, seed: int) -> dict[str, list[float]]:
    """Regret by arm of new videos and of others, where authors' levels have that standard deviation."""
    rng = np.random.default_rng(seed)
    count, authors = NEW * (DAYS + 4), 100
    author, born = rng.integers(0, authors, count), np.repeat(np.arange(-4, DAYS), NEW)
    level = spread * rng.standard_normal(authors)
    video, user_level = 0.5 * rng.standard_normal(count), 0.5 * rng.standard_normal(USERS)
    known = rng.random(count) < 0.8
    table = pa.table({"item_id": np.flatnonzero(known), "author_id": author[known]})
    schema = replace(SCHEMA, tables={"item": ac.EntityTable(table, key="item_id")})
    day = np.repeat(np.arange(DAYS), ROWS)
    item = (day + 4 - rng.integers(0, 5, len(day))) * NEW + rng.integers(0, NEW, len(day))
    user = rng.integers(0, USERS, len(day))
    truth = expit(-0.5 + user_level[user] + video[item] + level[author[item]])
    rows = {
        "time": pa.array(START + day * DAY + np.arange(len(day)), pa.timestamp("us", "UTC")),
        "user_id": user,
        "item_id": item,
        "genre": ["none"] * len(day),
        "click": (rng.random(len(day)) < truth).astype(int),
    }
    days = [ac.read_events(pa.table(rows).filter(pa.array(day == d)), schema) for d in range(DAYS)]
    history = ac.read_events(pa.table(rows).filter(pa.array(day < FIRST)), schema)
    found = dict[str, list[float]]()
    for arm, effects in ARMS.items():
        model, parts = ac.GLMix(random=effects).fit(history), list[np.ndarray]()
        for today in days[FIRST:]:
            parts.append(model.predict(today))
            model.update(today)
        later = day >= FIRST
        p, new = np.concatenate(parts), (born[item] == day)[later]
        found[arm] = [regret(p[new], truth[later][new]), regret(p[~new], truth[later][~new])]
    return found


def in_two(rows: int, seed: int, users: int = 500) -> dict[str, list[float]]:
    """Variances of level and slope over the truth, and regret, of one effect and of two with a level each."""
    rng = np.random.default_rng(seed)
    level, slope = rng.standard_normal(users), np.sqrt(0.5) * rng.standard_normal(users)

    def world(each: int) -> tuple[ac.Events, np.ndarray]:
        user = np.repeat(np.arange(users), each)
        x = rng.standard_normal(len(user))
        p = expit(-0.5 + level[user] + slope[user] * x)
        click = (rng.random(len(p)) < p).astype(int)
        return events_of({"day": np.zeros(len(user), np.int64), "user": user, "x": x, "click": click}), p

    history, (asked, truth) = world(rows)[0], world(50)
    found = dict[str, list[float]]()
    for name, effects in {
        "one": [ac.RandomEffect("user", ["x"])],
        "two": [ac.RandomEffect("user"), ac.RandomEffect("user", ["x"], name="tastes")],
    }.items():
        model = ac.GLMix(fixed=["x"], random=effects).fit(history)
        assert model.state is not None
        variances = [np.diag(effect.population.covariance()) for effect in model.state.random]
        levels = sum(float(v[0]) for v in variances)
        found[name] = [
            levels / np.var(level),
            float(variances[-1][1]) / np.var(slope),
            regret(model.predict(asked), truth),
        ]
    return found


def nearly_one(rows: int, seed: int) -> dict[str, list[float]]:
    """Variances of 600 authors, 720 videos of theirs and both together over the truth of .5 each, and regret."""
    rng = np.random.default_rng(seed)
    authors, videos = 600, 720
    author = np.concatenate([np.arange(authors), rng.integers(0, authors, videos - authors)])
    levels = [np.sqrt(0.5) * rng.standard_normal(count) for count in (authors, videos)]
    table = pa.table({"item_id": np.arange(videos), "author_id": author})
    schema = replace(SCHEMA, tables={"item": ac.EntityTable(table, key="item_id")})

    def world(each: int) -> tuple[ac.Events, np.ndarray]:
        item = np.repeat(np.arange(videos), each)
        p = expit(-0.5 + levels[0][author[item]] + levels[1][item])
        columns = {"day": np.zeros(len(item), np.int64), "user": item, "item": item}
        return events_of(columns | {"click": (rng.random(len(item)) < p).astype(int)}, schema), p

    history, (asked, truth) = world(rows)[0], world(20)
    found = dict[str, list[float]]()
    names = ["item.author_id", "item"]
    for arm, learn in (("learned", True), ("ridges at the truth", False)):
        effects = [ac.RandomEffect(name, ridge=2.0) for name in names]
        model = ac.GLMix(random=effects, learn_population=learn).fit(history)
        assert model.state is not None
        variances = [float(effect.population.covariance()[0, 0]) for effect in model.state.random]
        found[arm] = [*(v / 0.5 for v in variances), sum(variances), regret(model.predict(asked), truth)]
    return found


def print_variances(model: ac.GLMix) -> None:
    """Of the levels of each effect, as they were learned."""
    assert model.state is not None
    for effect in model.state.random:
        print(f"variance of '{effect.name}': {effect.population.covariance()[0, 0]:.2g}")
    print(flush=True)


def kuairand() -> None:
    """Print what an author effect changes on real data, with intervals over users and videos."""
    given = project.load_project(EXAMPLE)
    ranker = given.learner("ranker")
    assert isinstance(ranker, GLMixParameters)
    ridge = {name: ac.RandomEffect(name, ridge=ridge) for name, ridge in (("user", 1.4), ("video", 2.0))}
    split = [ac.RandomEffect(name, ridge=4.0) for name in ("video", "video.author_id")]

    def model(random: Sequence[ac.RandomEffect | str], *, learn: bool) -> ac.GLMix:
        return ac.GLMix(fixed=ranker.fixed, random=random, label=ranker.label, learn_population=learn)

    arms = {
        "learned": model(["user", "video"], learn=True),
        "learned, author": model(["user", "video", "video.author_id"], learn=True),
        "ridges": model(list(ridge.values()), learn=False),
        "ridges, author": model([ridge["user"], *split], learn=False),
    }
    events = pipeline.open_events(given)
    print_variances(arms["learned, author"].fit(events.before(REPLAY_FROM)))
    report = ac.replay(arms, events, start=REPLAY_FROM, end="2022-04-28")
    print("| effects | AUC | GAUC | log-loss | calibration error |\n| --- | --- | --- | --- | --- |")
    for name, arm in report.arms.items():
        measures = (arm.auc, arm.gauc, arm.log_loss, arm.calibration_error)
        print(f"| {name} | {' | '.join(f'{measure:.5f}' for measure in measures)} |")
    print("\nwith the author less without, 95 % interval\n")
    for one in report.comparisons:
        if one.against == f"{one.arm}, author" and one.metric in ("auc", "gauc", "log_loss"):
            print(f"{one.arm} {one.metric}: {-one.difference:.5f} ({-one.high:.5f} to {-one.low:.5f})")


def main() -> None:
    """Print a line a world and model: means over seeds with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kuairand", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    warnings.simplefilter("ignore")
    if asked.kuairand:
        kuairand()
        return
    print("| sd of authors | effects | new videos | others | gain of new | gain of others |")
    print("| --- | --- | --- | --- | --- | --- |")
    for spread in (0.0, 0.4, 0.8):
        runs = [of_authors(spread, seed) for seed in seeds]
        plain = np.array([run["user, video"] for run in runs])
        for arm in ARMS:
            values = np.array([run[arm] for run in runs])
            cells = [interval(column, 0) for column in np.hstack([values, plain - values]).T]
            print(f"| {spread} | {arm} | {' | '.join(cells)} |", flush=True)
    print(
        "\n| rows of a user | effects | variance of levels | of slopes | regret |\n| --- | --- | --- | --- | --- |"
    )
    for rows in (3, 5, 10, 50):
        runs = [in_two(rows, seed) for seed in seeds]
        for name in ("one", "two"):
            ratios = np.array([run[name] for run in runs]).T
            cells = [*(interval(column) for column in ratios[:2]), interval(ratios[2], 0)]
            print(f"| {rows} | {name} | {' | '.join(cells)} |", flush=True)
    print(
        "\n| rows of a video | populations | variance of authors | of videos | of both | regret |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for rows in (3, 10, 50):
        runs = [nearly_one(rows, seed) for seed in seeds]
        for name in runs[0]:
            ratios = np.array([run[name] for run in runs]).T
            cells = [*(interval(column) for column in ratios[:3]), interval(ratios[3], 0)]
            print(f"| {rows} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What options of a GLMix cost: the same worlds with and without them.

python -m benchmarks.options
"""

import numpy as np
import pyarrow as pa
from scipy.special import expit

import acclimate as ac

SCHEMA = ac.Schema(time="time", entities={"user": "user_id", "item": "item_id"}, labels="click")
START, DAY = 1_704_067_200_000_000, 86_400_000_000


def events_of(day: np.ndarray, user: np.ndarray, item: np.ndarray, click: np.ndarray) -> ac.Events:
    """These clicks, which come in order of time."""
    time = pa.array(START + day * DAY + np.arange(len(day)), pa.timestamp("us", "UTC"))
    return ac.read_events(pa.table({"time": time, "user_id": user, "item_id": item, "click": click}), SCHEMA)


def capped(cap: int | None, seed: int = 0) -> list[str]:
    """Users by Zipf's law see items of different quality."""
    rng = np.random.default_rng(seed)
    users, items, rows = 400, 40, 40_000
    share = 1.0 / np.arange(1, users + 1)
    user, item = rng.choice(users, rows, p=share / share.sum()), rng.integers(0, items, rows)
    level, quality = rng.normal(0.0, 1.0, users), rng.normal(0.0, 0.7, items)
    click = (rng.random(rows) < expit(level[user] + quality[item])).astype(int)
    events = events_of(np.sort(rng.integers(0, 20, rows)), user, item, click)
    model = ac.GLMix(random=[ac.RandomEffect("user", max_rows=cap), ac.RandomEffect("item")]).fit(events)
    states = model.states("item")
    mean, sd = states.posterior.mean[:, 0], states.posterior.precision[:, 0, 0] ** -0.5
    truth = quality[states.ids]
    away = (mean - mean.mean()) - (truth - truth.mean())
    best = np.argsort(-mean)[:5]
    regret = np.sort(expit(truth))[-5:].mean() - expit(truth)[best].mean()
    return [f"{np.sqrt(np.mean(away**2)):.3f}", f"{np.mean(np.abs(away) < 1.96 * sd):.3f}", f"{1e4 * regret:.0f}"]


def waited(min_rows: int, seed: int = 0) -> list[str]:
    """Users of two rows a day: how many have a state in the end, and the error of the chances they are given."""
    rng = np.random.default_rng(seed)
    users, days = 200, 12
    level, user = rng.normal(0.0, 1.5, users), np.tile(np.repeat(np.arange(users), 2), days)
    day, p = np.repeat(np.arange(days), 2 * users), expit(level[user])
    model = ac.GLMix(random=[ac.RandomEffect("user", min_rows=min_rows)])
    click = (rng.random(len(p)) < p).astype(int)
    parts = [events_of(*(column[day == t] for column in (day, user, user * 0, click))) for t in range(days)]
    model.fit(parts[0])
    for part in parts[1:]:
        model.update(part)
    error = np.sqrt(np.mean((model.predict(parts[0]) - p[day == 0]) ** 2))
    return [f"{len(model.states('user'))}", f"{error:.3f}"]


def drifted(half_life: str | None, seed: int = 0) -> list[str]:
    """Users whose level moves: the last day's error of a fit of all days, and of updates day by day."""
    rng = np.random.default_rng(seed)
    users, days, each = 100, 40, 5
    level = np.cumsum(rng.normal(0.0, 0.35, (days, users)), axis=0)
    user, day = np.tile(np.repeat(np.arange(users), each), days), np.repeat(np.arange(days), users * each)
    p = expit(level[day, user])
    model = ac.GLMix(random=[ac.RandomEffect("user", half_life=half_life)])
    click = (rng.random(len(p)) < p).astype(int)
    columns = (day, user, user * 0, click)
    model.fit(events_of(*(column[day < days // 2] for column in columns)))
    for today in range(days // 2, days):
        last = events_of(*(column[day == today] for column in columns))
        model.update(last)
    anew = ac.GLMix(random=[ac.RandomEffect("user", half_life=half_life)]).fit(events_of(*columns))
    truth = p[day == days - 1]
    return [f"{np.sqrt(np.mean((m.predict(last) - truth) ** 2)):.3f}" for m in (model, anew)]


def main() -> None:
    """Print one line a setting."""
    for cap in (None, 50):
        error, inside, regret = capped(cap)
        print(f"max_rows {cap!s:5} error of items {error}, coverage {inside}, regret {regret}e-4")
    for least in (1, 3):
        known, error = waited(least)
        print(f"min_rows {least}     users known {known}, error {error}")
    for half_life in (None, "5d"):
        updates, anew = drifted(half_life)
        print(f"half_life {half_life!s:4} error after updates {updates}, after one fit {anew}")


if __name__ == "__main__":
    main()

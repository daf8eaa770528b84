"""What `max_rows` costs the other effects: `python -m benchmarks.options`."""

import sys

import numpy as np
import pyarrow as pa

import acclimate as ac

SCHEMA = ac.Schema(time="time", entities={"user": "user", "item": "item"}, labels="click")


def capped(seed: int, most: int | None) -> tuple[float, float, float]:
    """Users of Zipf's law: error and coverage of the items' levels, and regret in nats."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, 201) ** 1.1
    user, item = rng.choice(200, 30_000, p=share / share.sum()), rng.integers(0, 300, 30_000)
    level, taste = rng.normal(0.0, 1.0, 300), rng.normal(0.0, 0.8, 200)
    p = 1.0 / (1.0 + np.exp(0.5 - level[item] - taste[user]))
    time = pa.array(1_700_000_000_000_000 + np.arange(30_000), pa.timestamp("us", "UTC"))
    click = (rng.random(30_000) < p).astype(int)
    events = ac.read_events(pa.table({"time": time, "user": user, "item": item, "click": click}), SCHEMA)
    model = ac.GLMix(random=[ac.RandomEffect("user", max_rows=most), ac.RandomEffect("item")]).fit(events)
    states, q = model.states("item"), model.predict(events)
    order = np.argsort(states.ids)
    mean, sd = states.posterior.mean[order, 0], states.posterior.standard_deviation()[order, 0]
    away = mean - mean.mean() - level + level.mean()
    regret = np.mean(p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))
    return float(np.sqrt(np.mean(away**2))), float(np.mean(np.abs(away) < 1.96 * sd)), float(regret)


def main() -> None:
    """Three worlds, without and with a cap."""
    for seed in range(3):
        for most in (None, 50):
            error, coverage, regret = capped(seed, most)
            sys.stdout.write(
                f"world {seed}, max_rows={most}: error {error:.3f}, coverage {coverage:.3f}, "
                f"regret {1e4 * regret:,.0f}e-4\n"
            )


if __name__ == "__main__":
    main()

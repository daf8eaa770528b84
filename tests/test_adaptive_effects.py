"""The promise of adaptive effects: no fixed weight of the past recovers from a jump as they do, at no cost."""

import numpy as np
from benchmarks.quality.drift import ADAPTIVE, FIXED, regrets

GRID = ("all of the past", *(f"forgetting {d}" for d in (0.95, 0.9, 0.8, 0.5)), "half-life 7d", "half-life 30d")
SMALL = {"users": 80, "rows": 800}


def lead(found: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The mean regret of another weight of the past above that of the adaptive one, by world, in 1e-4 nats."""
    return np.array([(one[name] - one["adaptive"]).mean() for one in found])


def test_after_a_jump_adaptive_effects_have_less_regret_than_any_fixed_weight_of_the_past() -> None:
    options = ADAPTIVE | {name: FIXED[name] for name in GRID}
    worlds = [regrets(options, seed=seed, share=1.0, **SMALL) for seed in range(2)]
    leads = {name: lead(worlds, name) for name in GRID}
    assert all((one > 10.0).all() for one in leads.values()), leads


def test_where_nothing_jumps_adaptive_effects_cost_nothing() -> None:
    options = ADAPTIVE | {GRID[0]: {}}
    worlds = [regrets(options, seed=seed, share=0.0, **SMALL) for seed in range(3)]
    # Of a regret of some 300.
    assert abs(lead(worlds, GRID[0]).mean()) < 3.0

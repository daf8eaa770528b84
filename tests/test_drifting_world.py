"""The promise of the whole: in a world that drifts and jumps, the model that learns every day loses less."""

import numpy as np

import acclimate as ac

JUMP = 14


def test_incremental_has_less_regret_than_stale_after_a_jump_in_taste() -> None:
    # Of fewer items one has most rows, which says nothing of other items.
    events = ac.simulate(users=600, items=1_500, days=22, events_per_day=2_500, jump_day=JUMP, seed=3)
    model = ac.GLMix(
        fixed=ac.FixedEffect(["surface", "hour", "position", "topics", "duration"]),
        random=[ac.RandomEffect("user", ["topics"], half_life="20d"), ac.RandomEffect("item")],
    )
    arms = [ac.Arm("stale", model, "stale"), ac.Arm("incremental", model)]
    report = ac.replay(arms, events, start="2024-01-09")
    regret = {
        name: np.array([w.regret for w in report.windows if w.arm == name], float)
        for name in ("stale", "incremental")
    }
    lead = regret["stale"] - regret["incremental"]
    before, after = lead[: JUMP - 8], lead[JUMP - 8 + 1 :]
    assert (after > 0).all(), after
    assert after.mean() > before.mean()
    found = next(c for c in report.comparisons if c.metric == "regret")
    assert (found.arm, found.against) == ("stale", "incremental")
    assert found.low > 0

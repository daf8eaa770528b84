"""Compilations are of few kinds, come from a cache, and can be had before they are needed."""

import os
import subprocess
import sys

from acclimate.kernels.warm import warm_up

KINDS = [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1]
"""Of each loop, how often it is compiled."""

WORK = """
import numpy as np
import acclimate as ac
import pyarrow as pa
from scipy import sparse
from acclimate.kernels import adaptation, entities, gram, newton, rows, states, windows
from acclimate.kernels.warm import warm_up
from acclimate.models.blocks import Block, Design
from acclimate.models.joint import solve_joint

warm_up()
joint = [entities.multiply, entities.gather, entities.add_gram, entities.invert_each, entities.sum_each]
joint += [entities.multiply_each, entities.for_each_form]
joint += [entities.vary, entities.invert_inner, entities.solve_each]
loops = [newton.solve, newton.derive_rows, gram.add_pairs, windows.window_inputs, adaptation.sum_errors, *joint]
passes = [
    rows.fill_margins, rows.add_rows, rows.add_squares, rows.add_products,
    rows.add_moments, rows.add_spreads, rows.fill_standardised,
]
loops += passes
loops += [states.unpack_each, states.pack_each, states.transform_each, states.root_each, states.skew_each]
warm = [len(loop.signatures) for loop in loops]
rng = np.random.default_rng(0)
X, y = rng.normal(size=(90, 3)), (rng.random(90) < 0.5).astype(float)
for shape in ((30, 3, 3), (30, 3)):
    P = np.broadcast_to(np.eye(3), shape) if len(shape) == 3 else np.ones(shape)
    ac.update_posteriors(ac.Posterior(np.zeros((30, 3)), P), X, y, np.arange(0, 91, 3))
for shape in ((30, 3, 3), (1, 3, 3), (1, 3)):
    P = np.broadcast_to(np.eye(3), shape) if len(shape) == 3 else np.ones(shape)
    prior = ac.Posterior(np.zeros(shape[:2]), P)
    design = Design.of(sparse.csr_array(X), np.arange(90) % 30, 30, weight=np.ones(90), centre=True)
    solution = solve_joint([Block(design, prior, "full")], y, np.zeros(90), np.ones(90))
    solution.problem.blocks[0].variances(solution.curvature)
    design.write_forms(np.ones((30, 3, 3)), np.arange(30), y.copy())
number = np.arange(400)
x = {"time": 10**15 + number, "user": number % 150, "x": rng.normal(9, 1, 400), "y": number % 2}
for kept in ("float64", "float32"):
    for population in (True, False):
        effects = dict(fixed=ac.FixedEffect(["x"]), random=[ac.RandomEffect("user", ["x"])], states=kept)
        model, schema = ac.GLMix(**effects, learn_population=population), ac.Schema("time", ["user"], "y")
        events = ac.read_events(pa.table({**x, "time": pa.array(x["time"], pa.timestamp("us", "UTC"))}), schema)
        model.fit(events).update(events).update(events, shared="keep").predict(events, mode="integrated")
for P in (np.eye(3), np.ones(3)):
    for rows_of in (X, np.where(X > 0, X, 0.0), np.column_stack([np.ones(90), X[:, 1:]])):
        ac.update_posterior(ac.Posterior(np.zeros(3), P), rows_of, y)
for loss in ("logistic", "squared", "poisson"):
    newton.derivatives(loss, np.ones(9), np.ones(9, np.float32))
assert [len(loop.signatures) for loop in loops] == warm == KINDS, warm
for counted in ("cache_hits", "cache_misses"):
    print(*(sum(getattr(loop.stats, counted).values()) for loop in loops))
"""


def test_a_warm_cache_leaves_nothing_to_compile():
    warm_up()
    done = subprocess.run(
        [sys.executable, "-c", f"KINDS = {KINDS}\n{WORK}"],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    from_cache, compiled = ([int(count) for count in line.split()] for line in done.stdout.splitlines())
    assert from_cache == KINDS
    assert compiled == [0] * len(KINDS)

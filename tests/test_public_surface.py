"""What others may rely on: the names, that each says what it is, and that importing them costs next to nothing."""

import inspect
import subprocess
import sys

import pytest

import acclimate as ac

NAMES = [
    "TimeColumn",
    "Feature",
    "EntityTable",
    "Schema",
    "read_events",
    "simulate",
    "Events",
    "FixedEffect",
    "RandomEffect",
    "Training",
    "ItemVectors",
    "MetaBlock",
    "GLMix",
    "SequentialLaplace",
    "UserEncoder",
    "MetaRanker",
    "TaskHead",
    "VectorIndex",
    "ItemMap",
    "GlobalRate",
    "Rate",
    "Stack",
    "Calibrated",
    "Posterior",
    "EntityStates",
    "update_posterior",
    "update_posteriors",
    "Arm",
    "replay",
    "Report",
    "AcclimateError",
    "__version__",
]
HEAVY = {
    "duckdb",
    "fastapi",
    "fsspec",
    "lmdb",
    "numba",
    "pandas",
    "plotly",
    "polars",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "torch",
    "usearch",
}


def test_the_public_names_in_the_order_of_the_flow():
    assert ac.__all__ == NAMES
    assert dir(ac) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_says_what_it_is(name):
    thing = getattr(ac, name)
    if name == "__version__":
        assert thing.count(".") == 2
        return
    assert thing.__name__ == name
    assert not any(part.startswith("_") for part in thing.__module__.split("."))
    members = [thing, *(member for key, member in vars(thing).items() if not key.startswith("_"))]
    callables = [member for member in members if inspect.isroutine(member) or inspect.isclass(member)]
    assert callables[0] is thing
    for member in callables:
        assert len(inspect.getdoc(member) or "") > 20, member
        # A dataclass without a docstring shows its signature.
        assert not (inspect.getdoc(member) or "").startswith(f"{name}("), member


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'acclimate' has no attribute 'GLMax'"):
        ac.GLMax  # noqa: B018


def test_a_star_import_brings_all_of_them():
    brought: dict[str, object] = {}
    exec("from acclimate import *", brought)
    assert set(NAMES) <= brought.keys()


def test_import_loads_nothing_heavy():
    """In a fresh interpreter; then a light name, and a heavy one to see that the answer can be yes."""
    tell = "print(*sorted({m.partition('.')[0] for m in sys.modules}))\n"
    code = f"import sys, acclimate\n{tell}acclimate.Posterior\n{tell}acclimate.Events\n{tell}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, light, after = (set(line.split()) for line in ran.stdout.splitlines())
    assert "acclimate" in before
    assert not before & HEAVY
    assert "numpy" in light - before
    assert not light & HEAVY
    assert "pyarrow" in after
    assert not after & {"torch", "numba", "ray", "fastapi", "duckdb", "plotly"}

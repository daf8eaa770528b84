"""What an import may cost: the heavy packages stay out until a verb needs them."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "numba", "ray", "fastapi", "duckdb", "scipy", "plotly", "pandas", "polars", "lightgbm"]
HELP = """
import sys
sys.argv = ["acclimate", "--help"]
from acclimate.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""


def loaded(code: str) -> set[str]:
    """The top-level packages in memory after the code ran."""
    tell = "import json; sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{tell}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import acclimate", [*HEAVY, "numpy", "pyarrow", "pydantic"]),
        (HELP, [*HEAVY, "numpy", "pyarrow", "pydantic", "yaml"]),
        ("from acclimate import GLMix, Schema, read_events, replay, simulate", [*HEAVY[:5], "plotly"]),
        ("import acclimate.arrays", [*HEAVY, "pyarrow", "pydantic", "yaml", "safetensors"]),
        ("import acclimate.models.scoring", [*HEAVY, "pyarrow", "pydantic", "yaml", "safetensors"]),
    ],
    ids=["import", "help", "names", "arrays", "scoring"],
)
def test_heavy_packages_stay_out(code: str, absent: list[str]) -> None:
    found = loaded(code)
    assert "acclimate" in found
    assert found.isdisjoint(absent)


def test_no_verb_waits_for_the_slow_parts_of_scipy() -> None:
    tell = "print(*(name for name in ('scipy.sparse', 'scipy.stats', 'scipy.optimize') if name in sys.modules))"
    code = f"import sys, acclimate.pipeline\n{tell}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["scipy.sparse"]


def test_what_is_loaded_is_seen() -> None:
    assert {"duckdb", "scipy"} <= loaded("import acclimate, duckdb, scipy")


def test_what_scoring_loads_of_the_package() -> None:
    """Neither Arrow's compute, nor the solver, nor a learner: the list in full."""
    tell = "print(*sorted(name for name in sys.modules if name.partition('.')[0] == 'acclimate'))"
    code = f"import sys, acclimate.models.scoring\n{tell}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "acclimate",
        "acclimate.arrays",
        "acclimate.errors",
        "acclimate.models",
        "acclimate.models.hashing",
        "acclimate.models.likelihood",
        "acclimate.models.scoring",
        "acclimate.models.skewness",
    ]


def test_scoring_works_with_numpy_alone() -> None:
    """In an interpreter in which neither Arrow nor SciPy can be imported."""
    code = """
import sys
sys.modules["scipy"] = sys.modules["pyarrow"] = sys.modules["pydantic"] = None
import types
import numpy as np
from acclimate.models.scoring import Term, score
X = types.SimpleNamespace(
    data=np.array([1.0, 2.0, 1.0]), indices=np.array([0, 1, 0]), indptr=np.array([0, 2, 3]), shape=(2, 2)
)
ids = np.array([7, 9])
term = Term(X, np.array([0, 1]), ids, np.array([[0.5, 1.0], [0.0, 0.0]]), np.tile(4.0 * np.eye(2), (2, 1, 1)))
for mode in ("point", "integrated", "thompson"):
    p = score([term], np.zeros(2), mode)
    assert p.shape == (2,) and np.all((p > 0) & (p < 1)), (mode, p)
assert abs(score([term], np.zeros(2))[0] - 1 / (1 + np.exp(-2.5))) < 1e-15
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

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
    ],
    ids=["import", "help", "names"],
)
def test_heavy_packages_stay_out(code: str, absent: list[str]) -> None:
    found = loaded(code)
    assert "acclimate" in found
    assert found.isdisjoint(absent)


def test_what_is_loaded_is_seen() -> None:
    assert {"duckdb", "scipy"} <= loaded("import acclimate, duckdb, scipy")

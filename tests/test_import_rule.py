"""Who may import whom: the steps of the flow know the nouns and the tools beside the flow, but not each other."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import acclimate

SOURCE = Path(acclimate.__file__).parent

STEPS = {"events", "learners", "publish", "serve", "evaluate"}
BESIDE_THE_FLOW = {"artifacts", "errors", "config", "storage", "features", "models", "kernels", "engines"}
ALL_SEEING = {"pipeline", "cli", "__init__"}  # the package itself imports on first use
PURE = {"models", "features", "kernels"}
OUTSIDE = {  # files, processes, networks and clocks
    "asyncio", "duckdb", "glob", "http", "httpx", "io", "lmdb", "os", "pathlib", "redis", "requests", "shutil",
    "socket", "sqlite3", "subprocess", "tempfile", "time", "urllib",
    "pyarrow.csv", "pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet", "safetensors",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
AT_HOME = {
    "torch": ("models", "learners"),
    "lightning": ("learners",),
    "numba": ("kernels",),
    "ray": ("engines.ray",),
}


def imported(source: str, module: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in its text; ``module`` is its own, without acclimate."""
    path = ["acclimate", *module.split(".")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path[: len(path) - node.level] if node.level else []
            home = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def violations(module: str, source: str) -> list[str]:
    """What a module, such as ``learners.glmix``, imports against the rule."""
    home = module.partition(".")[0]
    found = []
    for name in imported(source, module):
        top, _, inside = name.partition(".")
        part = inside.partition(".")[0]
        if top == "acclimate" and home in STEPS and part not in {*BESIDE_THE_FLOW, home}:
            found.append(f"{module}: a step imports {name}")
        elif top == "acclimate" and home not in STEPS | ALL_SEEING and part in STEPS:
            found.append(f"{module}: imports the step {name}")
        if home in PURE and within(name, OUTSIDE):
            found.append(f"{module}: reaches outside by {name}")
        if top in PICKLES:
            found.append(f"{module}: pickles by {name}")
        if top in AT_HOME and not within(module, set(AT_HOME[top])):
            found.append(f"{module}: {name} belongs to {' and '.join(AT_HOME[top])}")
    return found


def module_of(file: Path) -> str:
    """``learners/glmix.py`` is ``learners.glmix``, ``learners/__init__.py`` is ``learners.__init__``."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts)


def test_every_module_keeps_the_rule():
    checked, found = [], []
    for folder, _, names in os.walk(SOURCE):
        for file in (Path(folder) / name for name in names if name.endswith(".py")):
            checked.append(file)
            found += violations(module_of(file), file.read_text())
    assert found == []
    assert sorted(checked) == sorted(SOURCE.rglob("*.py"))
    assert len(checked) > 25
    homes = {module_of(file).partition(".")[0] for file in checked}
    assert {"events", "learners", "evaluate", "models", "features", "pipeline", "cli"} <= homes


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        (
            "learners.new",
            "from acclimate.events import read_events",
            "a step imports acclimate.events.read_events",
        ),
        (
            "learners.new",
            "def late():\n    import acclimate.evaluate.metrics",
            "imports acclimate.evaluate.metrics",
        ),
        ("learners.__init__", "from ..events import files", "a step imports acclimate.events.files"),
        ("events.new", "from acclimate import pipeline", "a step imports acclimate.pipeline"),
        ("events.new", "import acclimate as ac", "a step imports acclimate"),
        ("evaluate.new", "if TYPE_CHECKING:\n    from acclimate.learners import GLMix", "learners.GLMix"),
        (
            "serve.new",
            "import importlib\nimportlib.import_module('acclimate.publish.pins')",
            "acclimate.publish.pins",
        ),
        ("models.new", "from acclimate.learners import GLMix", "imports the step acclimate.learners.GLMix"),
        ("config", "from acclimate.events import files", "imports the step acclimate.events.files"),
        ("models.new", "import duckdb", "reaches outside by duckdb"),
        ("models.new", "from pathlib import Path", "reaches outside by pathlib.Path"),
        ("features.new", "import os.path", "reaches outside by os.path"),
        ("features.new", "from pyarrow import parquet", "reaches outside by pyarrow.parquet"),
        ("features.new", "import time", "reaches outside by time"),
        ("storage", "import pickle", "pickles by pickle"),
        ("cli.new", "from joblib import dump", "pickles by joblib.dump"),
        ("serve.new", "import torch.nn as nn", "torch.nn belongs to models and learners"),
        ("learners.new", "import numba", "numba belongs to kernels"),
        ("engines.local", "import ray", "ray belongs to engines.ray"),
    ],
)
def test_the_rule_catches(module, source, found):
    (only,) = violations(module, source)
    assert only.startswith(f"{module}: ")
    assert found in only


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("learners.glmix", "from acclimate.artifacts import Events\nfrom acclimate.learners.batch import Batch"),
        ("learners.glmix", "from .batch import Batch\nfrom ..features import encode\nimport torch"),
        ("learners.glmix", "import pathlib, time"),
        ("pipeline", "from acclimate.events import read_events\nfrom acclimate.learners import GLMix"),
        ("models.torch_net", "import torch\nimport timeit\nimport pyarrow"),
        ("kernels.newton", "from numba import njit"),
        ("engines.ray", "import ray.data"),
    ],
)
def test_the_rule_allows(module, source):
    assert violations(module, source) == []

"""Who may import whom: the steps of the flow know the nouns and the tools beside the flow, but not each other.

And who may name whom: only the table of learners, and the learners themselves, know which learners there are.
"""

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import acclimate
from acclimate.config import LEARNERS

SOURCE = Path(acclimate.__file__).parent

STEPS = {"events", "learners", "publish", "serve", "evaluate"}
BESIDE_THE_FLOW = {
    "arrays", "artifacts", "config", "errors", "extras", "progress", "storage", "times", "together", "features",
    "models", "kernels", "engines",
}  # fmt: skip
ALL_SEEING = {
    "pipeline",
    "publishing",
    "streaming",
    "tuning",
    "cli",
    "interop",
    "__init__",
    "__main__",
}  # the package itself imports on first use
PURE = {"models", "features", "kernels"}
OUTSIDE = {  # files, processes, networks and clocks
    "asyncio", "confluent_kafka", "duckdb", "glob", "http", "httpx", "io", "lmdb", "os", "pathlib", "redis",
    "requests", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "time", "urllib",
    "pyarrow.csv", "pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet", "safetensors",
}  # fmt: skip
ONLINE = {  # what a service that scores may load, and all that it loads
    "arrays": {"numpy", "acclimate.errors"},
    "models.hashing": {"numpy"},
    "models.likelihood": {"numpy", "acclimate.arrays"},
    "models.skewness": {"numpy", "acclimate.arrays"},
    "models.scoring": {
        *("numpy", "hashlib", "acclimate.arrays", "acclimate.errors"),
        *(f"acclimate.models.{name}" for name in ("hashing", "likelihood", "skewness")),
    },
}
NAME_NO_LEARNER = {"pipeline", "publishing", "streaming", "tuning", "project", "cli"}
OF_LEARNERS = {"learners", "learners.make", "learners.load", "learners.carried.Carried"}
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
STANDARD = {"collections", "dataclasses", "functools", "typing", "difflib"}
AT_HOME = {
    "torch": ("models", "learners", "together"),  # the last one where torch has started several processes
    "lightning": ("learners",),
    "numba": ("kernels",),
    "ray": ("engines.ray",),
    "sklearn": ("interop",),
    "fastavro": ("interop",),
    "optuna": ("evaluate.tune",),
    "confluent_kafka": ("events.streams.kafka",),
    "fsspec": ("publish.remote",),
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


def names_a_learner(name: str) -> bool:
    """Whether an imported name is a class that learns or a record that declares one, wherever it is from."""
    last = name.rpartition(".")[2]
    return any(last in (record.__name__, home.partition(":")[2]) for record, home in LEARNERS.items())


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
        elif top == "acclimate" and home != "interop" and part == "interop":
            found.append(f"{module}: imports {name}, which is for others")
        if home in PURE and within(name, OUTSIDE):
            found.append(f"{module}: reaches outside by {name}")
        inner = part == "learners" and inside not in OF_LEARNERS
        if home in NAME_NO_LEARNER and (inner or names_a_learner(name)):
            found.append(f"{module}: names a learner by {name}")
        if module in ONLINE and top not in STANDARD and not within(name, ONLINE[module]):
            found.append(f"{module}: is for the online path, which does not load {name}")
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
    assert len(checked) > 45
    assert set(ONLINE) <= {module_of(file) for file in checked}
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
        ("pipeline", "from acclimate.interop import GLMixClassifier", "which is for others"),
        ("serve.new", "import torch.nn as nn", "torch.nn belongs to models and learners"),
        ("learners.new", "import numba", "numba belongs to kernels"),
        ("engines.local", "import ray", "ray belongs to engines.ray"),
        ("models.new", "from sklearn.base import clone", "sklearn.base.clone belongs to interop"),
        ("models.scoring", "from scipy.special import expit", "does not load scipy.special.expit"),
        (
            "models.scoring",
            "from acclimate.models.joint import solve_joint",
            "does not load acclimate.models.joint",
        ),
        ("arrays", "import pyarrow as pa", "does not load pyarrow"),
        ("pipeline", "from acclimate.learners.glmix import GLMix", "names a learner by acclimate.learners.glmix"),
        ("pipeline", "from acclimate.learners import glmix", "names a learner by acclimate.learners.glmix"),
        ("project", "from acclimate.config import GLMixParameters as P", "names a learner by acclimate.config"),
        ("cli.new", "from acclimate import GLMix as G", "names a learner by acclimate.GLMix"),
        ("cli.new", "import importlib\nimportlib.import_module('acclimate.learners.rates')", "names a learner by"),
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
        ("pipeline", "from acclimate.events import read_events\nfrom acclimate import learners"),
        ("models.scoring", "import hashlib\nimport numpy as np\nfrom acclimate.arrays import Posterior"),
        ("models.torch_net", "import torch\nimport timeit\nimport pyarrow"),
        ("kernels.newton", "from numba import njit"),
        ("interop.new", "import sklearn\nfrom acclimate.learners.glmix import GLMix"),
        ("engines.ray", "import ray.data"),
    ],
)
def test_the_rule_allows(module, source):
    assert violations(module, source) == []


def kinds_named(source: str) -> set[str]:
    """Kinds of learners that a text holds as strings, and their classes and records that it holds as names."""
    kinds, classes = set(), set()
    for record, home in LEARNERS.items():
        kinds |= set(get_args(record.__annotations__["kind"]))
        classes |= {home.partition(":")[2], record.__name__}
    nodes = list(ast.walk(ast.parse(source)))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return kinds & texts | classes & (names | {node.attr for node in nodes if isinstance(node, ast.Attribute)})


ALIKE = [
    SOURCE / "pipeline.py",
    SOURCE / "publishing.py",
    SOURCE / "tuning.py",
    *SOURCE.glob("project/*.py"),
    *SOURCE.glob("cli/*.py"),
]


@pytest.mark.parametrize("place", [str(path.relative_to(SOURCE)) for path in ALIKE])
def test_no_learner_is_named_where_all_are_alike(place):
    assert kinds_named((SOURCE / place).read_text()) == set()


def test_a_learner_that_is_named_is_seen():
    assert kinds_named("x = GLMix()") == {"GLMix"}
    assert kinds_named("x = ac.GLMix()") == {"GLMix"}
    assert kinds_named("if kind == 'glmix': pass") == {"glmix"}

"""States in layers: whatever is on disk and whatever in memory, each entity's newest is taken."""

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.testing import assert_array_equal
from test_entities import SparseAgainstADictionary, sparse_states

from acclimate.arrays import EntityStates, IdArray, Posterior
from acclimate.errors import FormatError
from acclimate.learners.layers import LayeredEntities
from acclimate.models.gaussian import widened
from acclimate.storage import InSegments, read_artifact, read_segments, write_artifact

WIDEST = 5


def base(width: int, *, full: bool) -> Posterior:
    """What states rest on: the same in the columns that there were, however many have come."""
    mean, precision = np.linspace(1.0, 2.0, WIDEST)[:width], np.linspace(3.0, 4.0, WIDEST)[:width]
    return Posterior(mean, np.diag(precision) if full else precision)


def states(ids: IdArray, width: int, *, full: bool, seed: int) -> EntityStates:
    rng = np.random.default_rng(seed)
    mean, A = rng.normal(size=(len(ids), width)), rng.normal(size=(len(ids), width, width))
    precision = A @ np.swapaxes(A, -1, -2) + np.eye(width)
    if not full:
        precision = np.ascontiguousarray(np.diagonal(precision, axis1=1, axis2=2))
    times, rows = rng.integers(-(2**60), 2**60, len(ids)), rng.integers(1, 99, len(ids))
    return EntityStates(ids, Posterior(mean, precision), times, rows)


def save(entities: LayeredEntities, path: Path, population: Posterior) -> int:
    """Write one effect as a learner does, and how many bytes of rows that took."""
    effect, before = entities.stored("user", ("user",), population), set(path.glob("rows/*"))
    segments = {"user": effect.layers()}
    seal = write_artifact(path, kind="k", manifest={}, arrays={}, tables={}, segments=segments, overwrite=True)
    effect.written((read_segments(path, seal) or {})["user"])
    return sum(file.stat().st_size for file in set(path.glob("rows/*")) - before)


class AgainstADictionary(RuleBasedStateMachine):
    """A dictionary of the last state of each id does the same as layers, wherever they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.width, self.full = 1, True

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @initialize(text=st.booleans())
    def begin(self, text: bool) -> None:
        self.entities, self.known = LayeredEntities(), dict[Any, tuple[Posterior, int, int]]()
        names = [f"user {number}" for number in range(30)]
        self.pool: IdArray = np.array(names, np.dtypes.StringDType()) if text else np.arange(-15, 15)

    @property
    def population(self) -> Posterior:
        return base(self.width, full=self.full)

    @rule(places=st.lists(st.integers(0, 29), unique=True), seed=st.integers(0, 99))
    def commit(self, places: list[int], seed: int) -> None:
        changed = states(self.pool[places], self.width, full=self.full, seed=seed)
        self.entities.commit({"user": [changed]})
        for i, id in enumerate(changed.ids.tolist()):
            self.known[id] = changed.posterior.at(i), int(changed.touched[i]), int(changed.rows[i])

    @precondition(lambda self: self.width < WIDEST)
    @rule()
    def grow(self) -> None:
        self.width += 1

    @precondition(lambda self: self.full and self.width > 2)
    @rule()
    def turn_diagonal(self) -> None:
        self.full = False

    @rule(place=st.sampled_from(["a", "b"]))
    def save(self, place: str) -> None:
        save(self.entities, self.place / place, self.population)

    @rule(place=st.sampled_from(["a", "b"]))
    def save_and_load(self, place: str) -> None:
        save(self.entities, self.place / place, self.population)
        self.entities = LayeredEntities()
        self.entities.rest_on("user", InSegments(read_artifact(self.place / place, kind="k").segments["user"]))

    @rule()
    def go_on_with_a_copy(self) -> None:
        before, self.entities = self.entities, copy.deepcopy(self.entities)
        before.commit({"user": [states(self.pool, self.width, full=self.full, seed=1234)]})

    @invariant()
    def all_is_as_in_the_dictionary(self) -> None:
        ids = np.concatenate([self.pool[::-1], self.pool[:3]])
        taken = self.entities.take("user", ids, self.population)
        for i, id in enumerate(ids.tolist()):
            posterior, touched, rows = self.known.get(id, (self.population, 0, 0))
            expected = widened(posterior, self.population)
            assert_array_equal(taken.posterior.mean[i], expected.mean)
            assert_array_equal(np.tril(taken.posterior.precision[i]), np.tril(expected.precision))
            assert (taken.touched[i], taken.rows[i]) == (touched, rows)
        assert_array_equal(self.entities.means("user", ids, self.population), taken.posterior.mean)
        assert sorted(self.entities.ids("user").tolist()) == sorted(self.known)


AgainstADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestAgainstADictionary = AgainstADictionary.TestCase


class SparseInLayers(SparseAgainstADictionary):
    """The same of entities that hold some coefficients only."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @initialize(kind=st.sampled_from(["int64", "string"]), dtype=st.sampled_from(["float64", "float32"]))
    def begin(self, kind: str, dtype: Any) -> None:
        super().begin(kind, dtype)
        self.entities = LayeredEntities(dtype)

    @rule()
    def save(self) -> None:
        save(self.entities, self.place / "a", base(WIDEST, full=False))

    @rule()
    def save_and_load(self) -> None:
        save(self.entities, self.place / "a", base(WIDEST, full=False))
        self.entities = LayeredEntities(self.dtype)
        self.entities.rest_on("user", InSegments(read_artifact(self.place / "a", kind="k").segments["user"]))

    def check_bytes(self, size: int) -> None:
        assert self.entities.nbytes >= size  # what is hidden stays until layers are written together


SparseInLayers.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestSparseInLayers = SparseInLayers.TestCase


def test_a_save_writes_what_has_changed_and_layers_stay_few(tmp_path):
    rng, entities = np.random.default_rng(0), LayeredEntities()
    entities.commit({"user": [states(np.arange(10_000), 3, full=True, seed=0)]})
    first = save(entities, tmp_path / "model", base(3, full=True))
    written = list[int]()
    for number in range(40):
        some = rng.choice(10_000, 200, replace=False)
        entities.commit({"user": [states(some, 3, full=True, seed=number)]})
        written.append(save(entities, tmp_path / "model", base(3, full=True)))
        assert len(list((tmp_path / "model" / "rows").iterdir())) <= 8
    assert min(written) < 0.04 * first  # a fiftieth of the states, and a header
    assert sum(written) < 40 * 0.02 * first * np.log2(100)
    assert save(entities, tmp_path / "model", base(3, full=True)) == 0


def test_what_is_learned_during_a_save_is_not_lost(tmp_path):
    entities, population = LayeredEntities(), base(3, full=True)
    entities.commit({"user": [states(np.arange(5), 3, full=True, seed=0)]})
    effect = entities.stored("user", ("user",), population)
    segments = {"user": effect.layers()}
    later = states(np.arange(3), 3, full=True, seed=1)
    entities.commit({"user": [later]})
    seal = write_artifact(tmp_path / "m", kind="k", manifest={}, arrays={}, tables={}, segments=segments)
    effect.written((read_segments(tmp_path / "m", seal) or {})["user"])
    taken = entities.take("user", np.arange(5), population)
    assert_array_equal(taken.posterior.mean[:3], later.posterior.mean)
    save(entities, tmp_path / "m", population)
    assert_array_equal(entities.take("user", np.arange(5), population).posterior.mean, taken.posterior.mean)


def test_rows_that_are_hidden_by_wider_ones_go(tmp_path):
    entities, count = LayeredEntities(), 6_000
    for width in (4, 8, 12, 16, 20):
        supports = [list(range(width))] * count
        entities.commit({"user": [sparse_states(np.arange(count), supports, full=True, seed=width)]})
        save(entities, tmp_path / "model", base(WIDEST, full=False))
    assert len(list((tmp_path / "model" / "rows").iterdir())) == 1
    assert entities.nbytes == count * (8 * (20 + 210) + 4 * 20 + 24)


def test_a_state_that_was_changed_on_disk_is_refused_when_it_is_asked_for(tmp_path):
    entities = LayeredEntities()
    entities.commit({"user": [states(np.arange(1_000), 3, full=True, seed=0)]})
    save(entities, tmp_path / "model", base(3, full=True))
    (file,) = (tmp_path / "model" / "rows").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    entities.rest_on("user", InSegments(read_artifact(tmp_path / "model", kind="k").segments["user"]))
    with pytest.raises(FormatError, match=rf"{file.name} is damaged"):
        entities.take("user", np.arange(1_000), base(3, full=True))

"""The states of entities in memory: against a plain dictionary, whatever order widths, forms and ids come in."""

import copy
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.testing import assert_allclose, assert_array_equal
from sample_events import assert_same_states

from acclimate.arrays import EntityStates, IdArray, Posterior
from acclimate.learners.entities import IdIndex, MemoryEntities, with_room
from acclimate.models.support import joined

TEXT = np.dtypes.StringDType()
POOLS: dict[str, IdArray] = {
    "int64": np.array([0, 1, 2, 3, 7, -1, -(2**63), 2**63 - 1, 10**12, 40, 41, 42]),
    "string": np.array(
        ["a", "b", "a ", "A", "1", "01", "ä", "a\u0308", "用户", "🙂", "x" * 60, "fixed"], TEXT
    ),  # an umlaut in both of its spellings is two ids
}


def numbers(count: int) -> IdArray:
    return np.arange(count)


def drawn(width: int, *, full: bool, seed: int, count: int | None = None) -> Posterior:
    """Any numbers will do: nothing is solved here."""
    rng, blocks = np.random.default_rng(seed), () if count is None else (count,)
    mean, precision = rng.normal(size=(*blocks, width)), rng.normal(size=(*blocks, width, *(width,) * full))
    return Posterior(mean, precision + np.swapaxes(precision, -1, -2) if full else precision)


def states(ids: IdArray, width: int, *, full: bool = True, seed: int = 0) -> EntityStates:
    rng, count = np.random.default_rng([seed, 1]), len(ids)
    posterior = drawn(width, full=full, seed=seed, count=count)
    return EntityStates(ids, posterior, rng.integers(0, 10**15, count), rng.integers(1, 1000, count))


def store(*batches: EntityStates, dtype: Any = "float64") -> MemoryEntities:
    """A store of one effect, to which these were committed one after the other."""
    entities = MemoryEntities(dtype)
    for batch in batches:
        entities.commit({"user": [batch]})
    return entities


def arrays(entities: MemoryEntities) -> dict[str, Any]:
    """Copies of all that is known of the users, by width and form."""
    found: dict[str, Any] = {}
    for ids, columns in entities.tables("user"):
        name = next(name for name in columns if "." in name)
        found |= {f"{name} {part}": array.copy() for part, array in {"ids": ids, **columns}.items()}
    return found


def allocated(entities: MemoryEntities) -> int:
    """Numbers that there is room for."""
    return sum(shelf.values.size for shelf in entities._effects["user"].shelves.values())


def used(entities: MemoryEntities) -> int:
    """Numbers that are known."""
    return (entities.nbytes - 24 * len(entities.ids("user"))) // np.dtype(entities.dtype).itemsize


def peak_of(action: Callable[[], Any]) -> int:
    """Bytes that are in use at once at most, beyond those at the start."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- against a dictionary -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What a plain dictionary remembers of an entity."""

    mean: np.ndarray
    precision: np.ndarray
    touched: int
    rows: int

    def widened(self, population: Posterior) -> "Entry":
        """Cell by cell: what is there, and for the rest the population."""
        old, mean, precision = len(self.mean), population.mean.copy(), np.zeros_like(population.precision)
        mean[:old] = self.mean
        for i in range(len(mean)):
            for j in range(len(mean)) if population.is_full else [i]:
                cell = (i, j) if population.is_full else (i,)
                if i < old and j < old:
                    precision[cell] = self.precision[(i, j) if self.precision.ndim == 2 else (i,)]
                elif i >= old and j >= old:
                    precision[cell] = population.precision[cell]
        return Entry(mean, precision, self.touched, self.rows)


class AgainstADictionary(RuleBasedStateMachine):
    """Any sequence of commits, at widths that grow and a form that turns diagonal, of ids in any order."""

    @initialize(kind=st.sampled_from(["int64", "string"]), dtype=st.sampled_from(["float64", "float32"]))
    def begin(self, kind: str, dtype: Any) -> None:
        self.pool, self.dtype = POOLS[kind], dtype
        self.entities, self.known = MemoryEntities(dtype), dict[Any, Entry]()
        self.width, self.full, self.seed = 1, True, 0

    def population(self, seed: int) -> Posterior:
        return drawn(self.width, full=self.full, seed=seed)

    def taken(self, places: list[int], seed: int) -> None:
        ids, population = self.pool[places], self.population(seed)
        actual = self.entities.take("user", ids, population)
        nobody = Entry(population.mean, population.precision, 0, 0)
        expected = [self.known[id].widened(population) if id in self.known else nobody for id in ids.tolist()]
        assert actual.ids.tolist() == ids.tolist()
        assert actual.posterior.is_full == self.full
        assert actual.posterior.mean.shape == (len(ids), self.width)
        for place, entry in enumerate(expected):
            assert_array_equal(actual.posterior.mean[place], entry.mean)
            assert_array_equal(actual.posterior.precision[place], entry.precision)
        assert actual.touched.tolist() == [entry.touched for entry in expected]
        assert actual.rows.tolist() == [entry.rows for entry in expected]
        assert_array_equal(self.entities.means("user", ids, population), actual.posterior.mean)

    @rule(places=st.lists(st.integers(0, 11), unique=True, min_size=1, max_size=8), seed=st.integers(0, 99))
    def commit(self, places: list[int], seed: int) -> None:
        changed = states(self.pool[places], self.width, full=self.full, seed=seed)
        self.entities.commit({"user": [changed]})
        for place, id in enumerate(changed.ids.tolist()):
            one = changed.posterior.at(place)
            mean, precision = (array.astype(self.dtype).astype(float) for array in (one.mean, one.precision))
            self.known[id] = Entry(mean, precision, int(changed.touched[place]), int(changed.rows[place]))

    @rule(places=st.lists(st.integers(0, 11), max_size=14), seed=st.integers(0, 99))
    def take(self, places: list[int], seed: int) -> None:
        self.taken(places, seed)

    @precondition(lambda self: self.width < 5)
    @rule(more=st.integers(1, 2))
    def grow(self, more: int) -> None:
        self.width += more

    @precondition(lambda self: self.full and self.width > 2)
    @rule()
    def turn_diagonal(self) -> None:
        self.full = False

    @rule()
    def go_on_with_a_copy(self) -> None:
        before, self.entities = self.entities, copy.deepcopy(self.entities)
        before.commit({"user": [states(self.pool, self.width, full=self.full, seed=1234)]})

    @invariant()
    def all_is_as_in_the_dictionary(self) -> None:
        self.taken(list(range(12)), seed=5)
        assert self.entities.ids("user").tolist() == list(self.known)
        floats = sum(
            d + (d * (d + 1) // 2 if entry.precision.ndim == 2 else d)
            for entry in self.known.values()
            for d in [len(entry.mean)]
        )
        assert self.entities.nbytes == floats * np.dtype(self.dtype).itemsize + 24 * len(self.known)


AgainstADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=15)
TestAgainstADictionary = AgainstADictionary.TestCase


# --- taking and committing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_an_unknown_id_is_at_the_population_with_no_rows(full):
    population = drawn(3, full=full, seed=1)
    for entities in (MemoryEntities(), store(states(numbers(4), 3, full=full))):
        taken = entities.take("user", np.array([77, -1]), population)
        assert_array_equal(taken.posterior.mean, [population.mean] * 2)
        assert_array_equal(taken.posterior.precision, [population.precision] * 2)
        assert taken.rows.tolist() == taken.touched.tolist() == [0, 0]
        assert_array_equal(entities.means("user", np.array([77]), population), [population.mean])
        assert entities.take("user", numbers(0), population).posterior.precision.shape[0] == 0
        assert len(entities.ids("user")) == (4 if entities.nbytes else 0)  # asking makes nobody known


def test_text_that_looks_like_a_number_is_another_id():
    entities = store(states(np.array(["1", "x"], TEXT), 2))
    assert entities.take("user", np.array(["1", "2"], TEXT), drawn(2, full=True, seed=0)).rows[0] > 0
    assert entities.take("user", np.array([1]), drawn(2, full=True, seed=0)).rows.tolist() == [0]


def test_effects_do_not_know_of_each_other():
    users, videos = states(numbers(5), 2, seed=1), states(numbers(9), 3, full=False, seed=2)
    entities = MemoryEntities()
    entities.commit({"user": [users], "video": [videos]}, position="17")
    assert entities.position == "17"
    assert_same_states(entities.take("user", numbers(5), drawn(2, full=True, seed=0)), users)
    assert_same_states(entities.take("video", numbers(9), drawn(3, full=False, seed=0)), videos)
    assert entities.nbytes == 8 * (5 * (2 + 3) + 9 * (3 + 3)) + 24 * 14


def test_what_is_taken_and_what_was_committed_are_copies():
    population, committed = drawn(2, full=True, seed=3), states(numbers(4), 2)
    entities = store(committed)
    expected = copy.deepcopy(committed)
    for array in (committed.posterior.mean, committed.posterior.precision, committed.touched, committed.rows):
        array[:] = 5
    asked = np.array([3, 1, 99])
    taken = entities.take("user", asked, population)
    means = entities.means("user", asked, population)
    arrays = (taken.posterior.mean, taken.posterior.precision, taken.touched, taken.rows, means)
    for array in arrays:
        array[:] = 7
    assert_same_states(entities.take("user", numbers(4), population), expected)
    assert_array_equal(population.mean, drawn(2, full=True, seed=3).mean)
    assert_array_equal(population.precision, drawn(2, full=True, seed=3).precision)


def test_others_stay_bit_for_bit_while_some_learn_and_features_grow():
    entities = store(states(numbers(60), 3))
    population = drawn(3, full=True, seed=9)
    away = np.arange(40, 60)
    before = entities.take("user", away, population)
    for width in (3, 4, 6):
        for seed in range(6):
            learning = np.random.default_rng([width, seed]).permutation(40)[:15]
            entities.commit(
                {"user": [states(learning, width, seed=seed), states(100 * (seed + width) + learning, 3)]}
            )
            assert_same_states(entities.take("user", away, population), before)
    grown = entities.take("user", away, drawn(6, full=True, seed=9))
    assert_array_equal(grown.posterior.mean[:, :3], before.posterior.mean)
    assert_array_equal(grown.posterior.precision[:, :3, :3], before.posterior.precision)
    assert not grown.posterior.precision[:, 3:, :3].any()


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_a_commit_of_nobody_changes_nothing(full):
    entities = store(states(numbers(3), 2, full=full))
    before = arrays(entities)
    entities.commit({"user": [states(numbers(0), 2, full=full), states(numbers(0), 3, full=full)], "video": []})
    assert_same_arrays(arrays(entities), before)


def test_pieces_fill_a_store_one_by_one_as_they_are_made():
    made: list[int] = []
    entities = MemoryEntities()

    def pieces() -> Iterator[EntityStates]:
        for first in (0, 10, 20):
            made.append(len(entities.ids("user")))
            yield states(np.arange(first, first + 10), 2, seed=first)

    entities.fill("user", pieces())
    assert made == [0, 10, 20]
    assert_array_equal(entities.ids("user"), numbers(30))


def test_a_commit_is_computed_before_any_of_it_is_stored():
    entities = store(states(numbers(5), 2))
    before = entities.take("user", numbers(5), drawn(2, full=True, seed=0))

    def pieces() -> Iterator[EntityStates]:
        yield states(numbers(20), 2, seed=1)
        raise MemoryError("no room for so many")

    with pytest.raises(MemoryError):
        entities.commit({"user": pieces()}, position="9")
    assert entities.position is None
    assert_array_equal(entities.ids("user"), numbers(5))
    after = entities.take("user", numbers(5), drawn(2, full=True, seed=0))
    assert_array_equal(after.posterior.precision, before.posterior.precision)


def test_a_position_stays_until_another_is_committed():
    entities = MemoryEntities()
    entities.commit({}, position="7")
    entities.commit({"user": [states(numbers(2), 1)]})
    assert entities.position == "7"


def test_ids_twice_in_one_commit_are_refused():
    entities = store(states(numbers(3), 2))
    with pytest.raises(ValueError, match="1 ids are committed twice"):
        entities.commit({"user": [states(np.array([1, 1]), 3)]})
    assert_array_equal(entities.ids("user"), numbers(3))


def test_shelves_that_are_left_by_all_go():
    entities = store(states(numbers(5), 2))
    for width in range(3, 40):
        entities.commit({"user": [states(numbers(5), width)]})
    assert [shelf.width for shelf in entities._effects["user"].shelves.values()] == [39]


def test_of_a_full_precision_the_lower_triangle_is_kept():
    width, count = 3, 5000  # more than are written out at a time
    committed = states(numbers(count), width)
    entities = store(committed)
    values = arrays(entities)["3.full 3.full"]
    assert_array_equal(values[:, :width], committed.posterior.mean)
    places = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert_array_equal(values[:, width:], np.stack([committed.posterior.precision[:, *at] for at in places], 1))
    turned = np.random.default_rng(0).permutation(count)
    taken = entities.take("user", turned, drawn(width, full=True, seed=0))
    assert_array_equal(taken.posterior.precision, committed.posterior.precision[turned])


def test_rounding_to_float32_is_to_seven_digits():
    committed = states(numbers(50), 4)
    single = store(committed, dtype="float32")
    taken = single.take("user", numbers(50), drawn(4, full=True, seed=0))
    assert taken.posterior.mean.dtype == taken.posterior.precision.dtype == np.float64
    for actual, exact in (
        (taken.posterior.mean, committed.posterior.mean),
        (taken.posterior.precision, committed.posterior.precision),
    ):
        assert_allclose(actual, exact, rtol=2.0**-24)
        assert np.any(actual != exact)
    assert_array_equal(taken.touched, committed.touched)  # counts and times are whole
    assert arrays(single)["4.full 4.full"].dtype == np.float32
    values = 50 * (4 + 10)
    assert store(committed).nbytes == 8 * values + 24 * 50
    assert single.nbytes == 4 * values + 24 * 50


# --- room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 400], ids=["one by one", "some", "all at once"])
def test_what_entities_leave_behind_is_packed(batch):
    entities, rng = store(states(numbers(400), 2)), np.random.default_rng(0)
    for width in (3, 4, 5, 6, 7):
        order = rng.permutation(400)
        for first in range(0, 400, batch):
            entities.commit({"user": [states(order[first : first + batch], width, seed=width)]})
            assert allocated(entities) <= 4 * used(entities)
        assert used(entities) == 400 * (width + width * (width + 1) // 2)
        assert len(entities._effects["user"].packed().shelves) == 1
    assert allocated(entities) < 4 * used(entities)


def test_a_shelf_that_is_half_empty_is_packed():
    """Where few stay behind, what they lie on is not much larger than they are."""
    entities, order = store(states(numbers(1000), 2)), np.random.default_rng(1).permutation(1000)
    before = entities.take("user", order[900:], drawn(2, full=True, seed=0))
    for first in range(0, 900, 50):
        entities.commit({"user": [states(order[first : first + 50], 3, seed=first)]})
        narrow = next(shelf for shelf in entities._effects["user"].shelves.values() if shelf.width == 2)
        assert len(narrow.values) <= 2 * (950 - first)
    after = entities.take("user", order[900:], drawn(3, full=True, seed=0))
    assert_array_equal(after.posterior.mean[:, :2], before.posterior.mean)
    assert_array_equal(after.posterior.precision[:, :2, :2], before.posterior.precision)


def test_room_is_made_once_for_entities_that_are_expected():
    entities = MemoryEntities()
    entities.fill("user", [states(numbers(100), 3)], room=300)
    values = entities._effects["user"].shelves[0].values
    assert len(values) == 300
    entities.commit({"user": [states(np.arange(100, 300), 3)]})
    assert entities._effects["user"].shelves[0].values is values
    assert allocated(entities) == used(entities)


def test_what_was_expected_once_is_not_expected_of_every_width():
    entities = MemoryEntities()
    entities.fill("user", [states(numbers(1000), 2)], room=1000)
    for width in (3, 4, 5, 6):
        entities.commit({"user": [states(numbers(10), width)]})
    assert allocated(entities) < 2 * used(entities)


STORED = 200_000  # an array of so many numbers takes more than the megabyte that is allowed below


@pytest.fixture(scope="module")
def many() -> MemoryEntities:
    entities = store(states(numbers(STORED), 2, full=False))
    entities.commit({"user": [states(numbers(STORED // 3), 3, full=False)]})
    return entities


def test_taking_a_few_costs_the_few(many):
    asked, population = np.array([5, 199_999, -3, 70_000, 10, 11, 12, 13, 14, 15]), drawn(3, full=False, seed=0)
    assert peak_of(lambda: many.take("user", asked, population)) < 1_000_000
    assert peak_of(lambda: many.means("user", asked, population)) < 1_000_000
    changed = states(asked[:2], 3, full=False)
    many.commit({"user": [states(np.array([-3]), 3, full=False)]})  # may make room for twice as many
    assert peak_of(lambda: many.commit({"user": [changed]})) < 1_000_000
    assert peak_of(lambda: many.take("user", np.arange(30_000), population)) > 1_000_000


def test_new_entities_take_a_constant_share_of_copying_each():
    """Doubling: as one by one they come, less than twice their number is copied in all."""
    array, copies = np.zeros((1, 2), np.float32), 0
    for count in range(1, 2000):
        larger = with_room(array, count)
        copies += 0 if larger is array else len(array)
        array = larger
    assert copies < 2 * 2000
    assert len(array) < 2 * 2000


def test_room_keeps_what_is_there():
    array = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    assert with_room(array, 3) is array
    assert with_room(array, 0) is array
    for rows, length in ((4, 6), (6, 6), (50, 50)):
        larger = with_room(array, rows)
        assert larger.shape == (length, 2)
        assert larger.dtype == np.float32
        assert_array_equal(larger[:3], array)
    assert with_room(np.zeros(0), 1).shape == (1,)


# --- the index of ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POOLS)
def test_ids_are_numbered_in_the_order_in_which_they_come(kind):
    pool, index = POOLS[kind], IdIndex()
    assert index.numbers(pool).tolist() == [-1] * 12
    assert index.admit(pool[[3, 1, 3]]).tolist() == [0, 1, 0]
    assert index.admit(pool[[0, 1]]).tolist() == [2, 1]
    assert index.numbers(pool[[0, 1, 2, 3]]).tolist() == [2, 1, -1, 0]
    assert len(index) == 3  # asking admits nobody
    assert index.ids().tolist() == pool[[3, 1, 0]].tolist()
    assert index.ids().dtype == pool.dtype
    assert index.numbers(pool[:0]).shape == index.admit(pool[:0]).shape == (0,)
    assert index.numbers(pool).dtype == np.int64
    again = IdIndex(pool)
    assert again.numbers(pool).tolist() == list(range(12))
    assert again.ids().tolist() == pool.tolist()


def test_an_index_and_its_copy_go_their_own_ways():
    index = IdIndex(np.array([5, 6]))
    other = copy.deepcopy(index)
    assert index.admit(np.array([7])).tolist() == [2]
    assert other.admit(np.array([8, 7])).tolist() == [2, 3]
    assert index.ids().tolist() == [5, 6, 7]


# --- as arrays and back -------------------------------------------------------------------------------------


def assert_same_arrays(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        assert_array_equal(actual[name], array)


@pytest.mark.parametrize("kind", POOLS)
def test_states_are_one_set_of_arrays_whatever_led_to_them(kind):
    """Half of the entities end at width 3, half at width 2, a few of these as diagonals."""
    pool = POOLS[kind]
    wide, narrow, thin = (
        states(pool[:6], 3, seed=1),
        states(pool[6:10], 2, seed=2),
        states(pool[10:], 2, full=False),
    )
    directly = store(wide, narrow, thin)
    turned = np.array([4, 0, 5, 2, 1, 3])
    detours = store(
        states(pool, 1, seed=9),
        states(pool[2:9], 2, seed=8),
        states(pool[10:], 3, seed=7),
        thin,
        EntityStates(pool[turned], wide.posterior.at(turned), wide.touched[turned], wide.rows[turned]),
        narrow,
    )
    assert_array_equal(detours.ids("user"), directly.ids("user"))
    assert_same_arrays(arrays(detours), arrays(directly))
    # And the one goes on as the other does.
    for entities in (detours, directly):
        entities.commit({"user": [states(pool[1:11:2], 4, seed=3)]})
    assert_same_arrays(arrays(detours), arrays(directly))
    assert detours.nbytes == directly.nbytes


def test_widths_are_ordered_as_numbers():
    entities = store(states(numbers(2), 10, full=False), states(np.array([2]), 9, full=False))
    assert [[name for name in columns if "." in name] for _, columns in entities.tables("user")] == [
        ["9.diagonal"],
        ["10.diagonal"],
    ]


def test_of_nobody_there_is_nothing():
    assert arrays(MemoryEntities()) == {}


# --- copies and parts ---------------------------------------------------------------------------------------


def test_a_copy_has_a_life_of_its_own():
    entities = store(states(numbers(20), 2))
    other = copy.deepcopy(entities)
    before = arrays(entities)
    other.commit({"user": [states(np.arange(5, 30), 2, seed=1), states(numbers(3), 4, seed=2)]}, position="3")
    assert_same_arrays(arrays(entities), before)
    assert entities.position is None
    entities.commit({"user": [states(np.arange(5, 30), 2, seed=1), states(numbers(3), 4, seed=2)]})
    assert_same_arrays(arrays(entities), arrays(other))


def test_some_effects_alone():
    entities = MemoryEntities("float32")
    entities.commit({"user": [states(numbers(5), 2)], "video": [states(numbers(3), 1)]})
    users = entities.only(["user", "nobody"])
    assert users.dtype == "float32"
    assert users.nbytes == entities.nbytes - 3 * (2 * 4 + 24)
    assert len(users.ids("video")) == len(users.ids("nobody")) == 0
    assert_same_arrays(arrays(users), arrays(entities))
    users.commit({"video": [states(numbers(9), 1)]})
    assert len(entities.ids("video")) == 3
    assert entities.only([]).nbytes == 0


def test_states_that_were_taken_can_be_committed_again():
    """The round trip of an update that learns nothing, also from one width to another."""
    entities = store(states(numbers(6), 2))
    population = drawn(4, full=True, seed=1)
    taken = entities.take("user", np.array([4, 99, 0]), population)
    entities.commit({"user": [replace(taken, rows=taken.rows + 1)]})
    again = entities.take("user", np.array([4, 99, 0]), drawn(4, full=True, seed=2))
    assert_same_states(again, replace(taken, rows=taken.rows + 1))
    assert entities.ids("user").tolist() == [0, 1, 2, 3, 4, 5, 99]


# --- entities that hold some coefficients only ----------------------------------------------------------------


def sparse_states(ids: IdArray, supports: list[list[int]], *, full: bool, seed: int = 0) -> EntityStates:
    """Of supports of any lengths, filled up to the longest."""
    width = max(map(len, supports), default=1)
    support = np.array([[*columns, *[-1] * (width - len(columns))] for columns in supports], np.int32)
    committed = states(ids, width, full=full, seed=seed)
    mean, precision = committed.posterior.mean.copy(), committed.posterior.precision.copy()
    for e, columns in enumerate(supports):
        mean[e, len(columns) :] = 0.0
        precision[e, len(columns) :] = 1.0 if not full else np.eye(width)[len(columns) :]
        if full:
            precision[e, :, len(columns) :] = np.eye(width)[:, len(columns) :]
    return replace(committed, posterior=Posterior(mean, precision), support=support)


class SparseAgainstADictionary(RuleBasedStateMachine):
    """Any sequence of commits of supports of any sizes, full or diagonal, of ids in any order."""

    @initialize(kind=st.sampled_from(["int64", "string"]), dtype=st.sampled_from(["float64", "float32"]))
    def begin(self, kind: str, dtype: Any) -> None:
        self.pool, self.dtype = POOLS[kind], dtype
        self.entities, self.known = MemoryEntities(dtype), dict[Any, Any]()

    @rule(
        held=st.dictionaries(
            st.integers(0, 11), st.sets(st.integers(1, 400), max_size=70), min_size=1, max_size=5
        ),
        full=st.booleans(),
        seed=st.integers(0, 99),
    )
    def commit(self, held: dict[int, set[int]], full: bool, seed: int) -> None:
        supports = [[0, *sorted(columns)] for columns in held.values()]
        changed = sparse_states(self.pool[list(held)], supports, full=full, seed=seed)
        self.entities.commit({"user": [changed]})
        for e, id in enumerate(changed.ids.tolist()):
            s = len(supports[e])
            mean = changed.posterior.mean[e, :s].astype(self.dtype)
            precision = changed.posterior.precision[e][(slice(s),) * (2 if full else 1)].astype(self.dtype)
            self.known[id] = (supports[e], mean, precision, int(changed.touched[e]), int(changed.rows[e]))

    @rule()
    def go_on_with_a_copy(self) -> None:
        before, self.entities = self.entities, copy.deepcopy(self.entities)
        before.commit({"user": [sparse_states(self.pool, [[0]] * 12, full=True)]})

    @invariant()
    def all_is_as_in_the_dictionary(self) -> None:
        taken = self.entities.take_sparse("user", self.pool)
        means = {
            place: (s, m)
            for at, ss, ms in self.entities.sparse_means("user", self.pool)
            for place, s, m in zip(at.tolist(), ss, ms, strict=True)
        }
        places = [place for at, _ in taken.pieces for place in at.tolist()]
        assert sorted(self.pool[places].tolist(), key=str) == sorted(self.known, key=str)
        assert taken.ids.tolist() == self.pool.tolist()
        size = 0
        for at, piece in taken.pieces:
            width = piece.posterior.mean.shape[1]
            assert piece.support.dtype == np.int32
            for e, place in enumerate(at.tolist()):
                columns, mean, precision, touched, rows = self.known[self.pool.tolist()[place]]
                s, full = len(columns), precision.ndim == 2
                assert s <= width < s + 4 + s // 8
                assert piece.support[e].tolist() == [*columns, *[-1] * (width - s)]
                assert_array_equal(piece.posterior.mean[e], [*mean, *[0.0] * (width - s)])
                expected = np.eye(width) if full else np.ones(width)
                expected[(slice(s),) * (2 if full else 1)] = precision
                assert_array_equal(piece.posterior.precision[e], expected)
                assert (piece.touched[e], piece.rows[e]) == (touched, rows)
                assert (taken.touched[place], taken.rows[place]) == (touched, rows)
                assert_array_equal(means[place][0], piece.support[e])
                assert_array_equal(means[place][1], piece.posterior.mean[e])
                numbers = width + (width * (width + 1) // 2 if full else width)
                size += numbers * np.dtype(self.dtype).itemsize + 4 * width + 24
        self.check_bytes(size)

    def check_bytes(self, size: int) -> None:
        assert self.entities.nbytes == size


SparseAgainstADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=12)
TestSparseAgainstADictionary = SparseAgainstADictionary.TestCase


def test_supports_are_arrays_beside_the_values_that_they_are_of():
    entities = store(sparse_states(numbers(2), [[0, 5], [0, 1, 2, 3, 4]], full=True))
    (_, four), (_, eight) = entities.tables("user")
    assert list(four) == ["touched", "rows", "support", "4.full"]
    assert four["support"].tolist() == [[0, 5, -1, -1]]
    assert eight["support"].tolist() == [[0, 1, 2, 3, 4, -1, -1, -1]]


def test_states_of_several_widths_and_forms_are_joined():
    pieces = [
        sparse_states(numbers(2), [[0, 3], [0]], full=False, seed=1),
        sparse_states(np.array([7]), [[0, 2, 9]], full=True, seed=2),
    ]
    one = joined(pieces)
    assert one.ids.tolist() == [0, 1, 7]
    assert one.support.tolist() == [[0, 3, -1], [0, -1, -1], [0, 2, 9]]
    assert_array_equal(one.posterior.precision[2], pieces[1].posterior.precision[0])
    assert_array_equal(one.posterior.precision[0], np.diag([*pieces[0].posterior.precision[0], 1.0]))
    assert_array_equal(one.rows, np.concatenate([piece.rows for piece in pieces]))
    assert joined(pieces[:1]).posterior.precision.shape == (2, 2)

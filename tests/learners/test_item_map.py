"""From users to items: against a twin that solves one item at a time, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import acclimate as ac
from acclimate.errors import ConfigError, FormatError, MismatchError, NotFittedError, RowError
from acclimate.learners import item_map
from sealing import sealed_anew


def twin(U, users, items, confidence, ridge):
    """Weighted least squares over every user, written out, one item at a time."""
    vectors = {}
    for item in sorted(set(items)):
        took = {user for user, other in zip(users, items, strict=True) if other == item}
        y = np.array([float(user in took) for user in range(len(U))])
        c = np.where(y == 1.0, 1.0 + confidence, 1.0)
        rows = np.concatenate([np.sqrt(c)[:, None] * U, np.sqrt(ridge) * np.eye(U.shape[1])])
        target = np.concatenate([np.sqrt(c) * y, np.zeros(U.shape[1])])
        vectors[item] = np.linalg.lstsq(rows, target, rcond=None)[0]
    return vectors


def taken(seed=0, users=40, items=15, pairs=200, size=6):
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((users, size))
    return vectors, chance.integers(0, users, pairs), 100 + chance.integers(0, items, pairs)


@pytest.mark.parametrize("cells", [2**23, 72])
def test_it_is_the_twin(monkeypatch, cells):
    monkeypatch.setattr(item_map, "_CELLS", cells)
    U, users, items = taken()
    learned = ac.ItemMap(confidence=4.0, ridge=2.0).fit(U, users, items, space="a")
    expected = twin(U, users.tolist(), items.tolist(), 4.0, 2.0)
    assert learned.ids.tolist() == list(expected)
    np.testing.assert_allclose(learned.item_vectors, list(expected.values()), rtol=1e-4, atol=1e-6)


def test_one_user_and_one_item_by_hand():
    """``q = (1 + a) / (1 + a + ridge)``, of a vector of one number, 1."""
    learned = ac.ItemMap(confidence=3.0, ridge=4.0).fit([[1.0]], [0], ["film"], space="a")
    np.testing.assert_allclose(learned.item_vectors, [[0.5]])
    ids, scores = learned.top([[2.0]], 1, space="a")
    assert ids.tolist() == [["film"]]
    np.testing.assert_allclose(scores, [[1.0]])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_order_nor_repeats_matter(seed):
    U, users, items = taken(seed)
    order = np.random.default_rng(seed).permutation(2 * len(users)) % len(users)
    one = ac.ItemMap().fit(U, users, items, space="a")
    other = ac.ItemMap().fit(U, users[order], items[order], space="a")
    np.testing.assert_array_equal(one.item_vectors, other.item_vectors)


def test_a_rotation_of_the_users_turns_the_items():
    U, users, items = taken()
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    one = ac.ItemMap().fit(U, users, items, space="a")
    other = ac.ItemMap().fit(U @ Q, users, items, space="b")
    np.testing.assert_allclose(one.item_vectors @ Q, other.item_vectors, atol=1e-5)


def test_users_find_the_items_of_their_kind():
    chance = np.random.default_rng(2)
    kind = chance.integers(0, 4, 400)
    U = np.eye(4)[kind] + 0.1 * chance.standard_normal((400, 4))
    users = np.repeat(np.arange(400), 5)
    items = 10 * kind[users] + chance.integers(0, 10, len(users))
    learned = ac.ItemMap().fit(U, users, items, space="a")
    ids, _ = learned.top(np.eye(4), 10, space="a")
    np.testing.assert_array_equal(ids // 10, np.arange(4)[:, None] * np.ones((1, 10)))


def test_what_was_seen_is_left_out():
    U, users, items = taken()
    learned = ac.ItemMap().fit(U, users, items, space="a")
    everything, scores = learned.top(U[:2], 15, space="a")
    assert (np.diff(scores, axis=1) <= 0).all()
    row, seen = [1, 0, 1, 1], [everything[1, 3], everything[0, 0], everything[1, 0], 999]
    ids, _ = learned.top(U[:2], 5, space="a", seen=(row, seen))
    assert ids[0].tolist() == everything[0, 1:6].tolist()
    assert ids[1].tolist() == everything[1, [1, 2, 4, 5, 6]].tolist()
    with pytest.raises(ConfigError, match="1 of 2 have fewer than 14 items left"):
        learned.top(U[:2], 14, space="a", seen=(row, seen))


@pytest.mark.parametrize("text", [False, True])
def test_on_disk_and_back(tmp_path, text):
    U, users, items = taken()
    items = [f"item {item}" for item in items] if text else items
    learned = ac.ItemMap(confidence=2.0, ridge=3.0).fit(U, users, items, space="a")
    learned.save(tmp_path / "map")
    loaded = ac.ItemMap.load(tmp_path / "map")
    assert (loaded.space, loaded.confidence, loaded.ridge) == ("a", 2.0, 3.0)
    for one, other in zip(*(each.top(U, 3, space="a") for each in (learned, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)
    seen = ([0, 0, 1], learned.ids[:3])
    for one, other in zip(*(each.top(U[:2], 3, space="a", seen=seen) for each in (learned, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.isin(one[0], learned.ids[:2]).any()
    sealed_anew(tmp_path / "map", ridge=-1.0)
    with pytest.raises(FormatError):
        ac.ItemMap.load(tmp_path / "map")


def test_another_space_is_an_error():
    learned = ac.ItemMap()
    for act in (lambda: learned.top([[1.0]], 1, space="a"), lambda: learned.save("never")):
        with pytest.raises(NotFittedError, match="fit it"):
            act()
    learned.fit([[1.0]], [0], [5], space="a")
    with pytest.raises(MismatchError, match="space 'b' for this ItemMap of space 'a'"):
        learned.top([[1.0]], 1, space="b")
    with pytest.raises(MismatchError, match="of vectors of 1"):
        learned.top([[1.0, 2.0]], 1, space="a")
    with pytest.raises(MismatchError, match="int64"):
        learned.top([[1.0]], 1, space="a", seen=([0], ["a film"]))


@pytest.mark.parametrize(
    ("vectors", "users", "items", "error", "said"),
    [
        ([[1.0]], [0, 0], [1], ConfigError, "do not go together"),
        ([[1.0]], [1], [1], ConfigError, "do not go together"),
        ([[1.0]], [-1], [1], ConfigError, "do not go together"),
        ([[1.0]], [], [], ConfigError, "nobody took anything"),
        ([[1.0]], [0.5], [1], ConfigError, "rows of float64"),
        ([[1.0]], [0], [1.5], MismatchError, "ids of an ItemMap are double"),
        ([[np.nan]], [0], [1], RowError, "not finite"),
        ([1.0], [0], [1], ConfigError, "shape"),
    ],
)
def test_what_cannot_be_is_told(vectors, users, items, error, said):
    with pytest.raises(error, match=said):
        ac.ItemMap().fit(vectors, users, items, space="a")


def test_options_and_rows_that_cannot_be():
    for options in ({"ridge": 0.0}, {"confidence": -1.0}, {"ridge": np.inf}, {"confidence": np.nan}):
        with pytest.raises(ConfigError, match="confidence"):
            ac.ItemMap(**options)
    learned = ac.ItemMap().fit([[1.0]], [0], [5], space="a")
    for seen in (([1], [5]), ([-1], [5]), ([0, 0], [5])):
        with pytest.raises(ConfigError, match="seen"):
            learned.top([[1.0]], 1, space="a", seen=seen)
    with pytest.raises(ConfigError, match="rows of float64"):
        learned.top([[1.0]], 1, space="a", seen=([0.5], [5]))

"""Tasks on frozen vectors: known solutions, updates, what must not matter, on disk and back."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import acclimate as ac
from acclimate.errors import ConfigError, FormatError, MismatchError, MissingExtraError, NotFittedError, RowError
from acclimate.learners.task_head import _perceived
from sealing import sealed_anew

MLP = {"hidden": (16,), "training": ac.Training(epochs=80, batch=64, rate=0.02, patience=80, holdout=0.0)}


def rows(seed=0, n=300, size=4):
    chance = np.random.default_rng(seed)
    x = chance.standard_normal((n, size)) * [1.0, 10.0, 0.1, 3.0] + [0.0, 5.0, 1.0, -2.0]
    z = (x - [0.0, 5.0, 1.0, -2.0]) / [1.0, 10.0, 0.1, 3.0] @ [1.0, -1.0, 0.5, 0.0] + 0.3
    return x, (chance.random(n) < 1 / (1 + np.exp(-z))).astype(int), z + 0.1 * chance.standard_normal(n)


def logistic_twin(x, y, weight, ridge):
    """The penalised likelihood of standardised columns, by a general minimiser."""
    centre = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - centre) ** 2, axis=0, weights=weight))
    design = np.column_stack([(x - centre) / spread, np.ones(len(x))])
    penalty = np.array([ridge] * x.shape[1] + [1e-6])

    def loss(w):
        return weight @ np.logaddexp(0.0, -(2 * y - 1) * (design @ w)) + 0.5 * penalty @ w**2

    return 1 / (1 + np.exp(-design @ minimize(loss, np.zeros(design.shape[1]), tol=1e-12).x))


def ridge_twin(x, y, weight, ridge):
    centre = np.average(x, axis=0, weights=weight)
    spread = np.sqrt(np.average((x - centre) ** 2, axis=0, weights=weight))
    design = np.column_stack([(x - centre) / spread, np.ones(len(x))])
    root = np.sqrt(weight)[:, None]
    prior = np.diag(np.sqrt([ridge] * x.shape[1] + [1e-6]))
    target = np.concatenate([root[:, 0] * y, np.zeros(len(prior))])
    return design @ np.linalg.lstsq(np.concatenate([root * design, prior]), target, rcond=None)[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_is_the_twin(weighted):
    x, y, _ = rows()
    weight = np.random.default_rng(1).uniform(0.0, 3.0, len(x)) if weighted else np.ones(len(x))
    head = ac.TaskHead("logistic", ridge=2.0).fit(x, y, space="a", weight=weight if weighted else None)
    np.testing.assert_allclose(head.predict(x, space="a"), logistic_twin(x, y, weight, 2.0), atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_the_twin(weighted):
    x, _, z = rows()
    weight = np.random.default_rng(1).uniform(0.0, 3.0, len(x)) if weighted else np.ones(len(x))
    head = ac.TaskHead("ridge", ridge=2.0).fit(x, z, space="a", weight=weight if weighted else None)
    np.testing.assert_allclose(head.predict(x, space="a"), ridge_twin(x, z, weight, 2.0), atol=1e-8)


def test_ridge_is_the_update_of_a_posterior():
    """Of several outputs each is what the package's own step gives, in standardised columns."""
    x, y, z = rows()
    both = ac.TaskHead("ridge").fit(x, np.column_stack([y, z]), space="a")
    state = both.state
    prior = ac.Posterior(np.zeros(5), np.diag([1.0, 1.0, 1.0, 1.0, 1e-6]))
    for output, target in enumerate((y, z)):
        after, _ = ac.update_posterior(prior, state.design(x), target, loss="squared")
        np.testing.assert_allclose(state.weights["mean"][output], after.mean, atol=1e-8)
        np.testing.assert_allclose(state.weights["precision"][0], after.precision, rtol=1e-9, atol=1e-9)
    assert both.predict(x, space="a").shape == (300, 2)


def test_updates_of_a_ridge_are_the_fit_on_all():
    """Exactly, in the columns that the first rows have standardised."""
    x, _, z = rows(n=600)
    head = ac.TaskHead("ridge").fit(x[:200], z[:200], space="a")
    for part in (slice(200, 350), slice(350, 600)):
        head.update(x[part], z[part], space="a")
    design = head.state.design(x)
    P = np.diag([1.0, 1.0, 1.0, 1.0, 1e-6])
    whole = np.linalg.solve(P + design.T @ design, design.T @ z)
    np.testing.assert_allclose(head.state.weights["mean"][0], whole, atol=1e-10)


def test_updates_of_a_logistic_are_steps_of_its_posterior():
    x, y, _ = rows(n=600)
    head = ac.TaskHead("logistic").fit(x[:300], y[:300], space="a")
    before = head.state
    head.update(x[300:], y[300:], space="a")
    prior = ac.Posterior(before.weights["mean"][0], before.weights["precision"][0])
    after, _ = ac.update_posterior(prior, before.design(x[300:]), y[300:])
    np.testing.assert_array_equal(head.state.weights["mean"][0], after.mean)
    pooled = ac.TaskHead("logistic").fit(x, y, space="a")
    away = [np.abs(each.predict(x, space="a") - pooled.predict(x, space="a")).max() for each in (head,)]
    assert max(away) < 0.02
    known = head.predict(x, space="a")
    np.testing.assert_array_equal(head.update(x[:0], y[:0], space="a").predict(x, space="a"), known)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["logistic", "ridge"]))
def test_neither_order_nor_units_matter_and_weights_are_repeats(seed, kind):
    x, y, z = rows(seed)
    target = y if kind == "logistic" else z
    chance = np.random.default_rng(seed)
    order, weight = chance.permutation(len(x)), chance.integers(0, 3, len(x))
    said = ac.TaskHead(kind).fit(x, target, space="a").predict(x, space="a")
    turned = ac.TaskHead(kind).fit(x[order], target[order], space="a").predict(x, space="a")
    units = ac.TaskHead(kind).fit(1e3 * x - 7, target, space="a").predict(1e3 * x - 7, space="a")
    np.testing.assert_allclose(turned, said, atol=1e-6)
    np.testing.assert_allclose(units, said, atol=1e-6)
    one = ac.TaskHead(kind).fit(x, target, space="a", weight=weight)
    other = ac.TaskHead(kind).fit(np.repeat(x, weight, axis=0), np.repeat(target, weight), space="a")
    np.testing.assert_allclose(one.predict(x, space="a"), other.predict(x, space="a"), atol=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_classes_are_told_apart(kind):
    chance = np.random.default_rng(3)
    of_row = chance.integers(0, 3, 500)
    x = np.eye(3)[of_row] * 3.0 + chance.standard_normal((500, 3))
    head = ac.TaskHead(kind, **(MLP if kind == "mlp" else {})).fit(x, np.array([-5, 2, 9])[of_row], space="a")
    p = head.predict(x, space="a")
    assert p.shape == (500, 3)
    assert head.state.classes.tolist() == [-5, 2, 9]
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (p.argmax(axis=1) == of_row).mean() > 0.85
    if kind == "logistic":
        alone = [ac.TaskHead().fit(x, of_row == c, space="a").predict(x, space="a") for c in range(3)]
        np.testing.assert_allclose(p, np.transpose(alone) / np.sum(alone, axis=0)[:, None], atol=1e-8)
        far = head.predict([[-1e6] * 3], space="a")
        assert np.isfinite(far).all()


def test_a_network_tells_what_no_line_can():
    x = np.random.default_rng(4).standard_normal((800, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    right = {
        kind: ((ac.TaskHead(kind, **more).fit(x, y, space="a").predict(x, space="a") > 0.5) == y).mean()
        for kind, more in (("logistic", {}), ("mlp", MLP))
    }
    assert right["logistic"] < 0.65
    assert right["mlp"] > 0.93


def test_a_network_is_the_same_again_and_its_layers_are_the_twins():
    x, y, _ = rows()
    one, other = (ac.TaskHead("mlp", **MLP).fit(x, y, space="a") for _ in range(2))
    np.testing.assert_array_equal(one.predict(x, space="a"), other.predict(x, space="a"))
    w, z = one.state.weights, one.state.standardised(x)
    for row, said in zip(z[:5], _perceived(w, z, 2)[:5], strict=True):
        hidden = [
            max(0.0, sum(row[i] * w["0.weight"][i, j] for i in range(4)) + w["0.bias"][j]) for j in range(16)
        ]
        logits = [sum(hidden[j] * w["1.weight"][j, c] for j in range(16)) + w["1.bias"][c] for c in range(2)]
        np.testing.assert_allclose(said, logits)
    with pytest.raises(ConfigError, match="keeps no posterior"):
        one.update(x, y, space="a")


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_on_disk_and_back(tmp_path, kind):
    x, y, _ = rows()
    more = {"hidden": (8, 4), "training": ac.Training(epochs=2)} if kind == "mlp" else {"ridge": 3.0}
    head = ac.TaskHead(kind, **more).fit(x, y, space="a")
    head.save(tmp_path / "head")
    loaded = ac.TaskHead.load(tmp_path / "head")
    assert loaded.parameters == head.parameters
    assert loaded.space == "a"
    np.testing.assert_array_equal(loaded.predict(x, space="a"), head.predict(x, space="a"))
    if kind != "mlp":
        for each in (head, loaded):
            each.update(x, 1 - y, space="a")
        np.testing.assert_array_equal(loaded.predict(x, space="a"), head.predict(x, space="a"))
    sealed_anew(tmp_path / "head", weights=[])
    with pytest.raises(FormatError):
        ac.TaskHead.load(tmp_path / "head")


def test_several_labels_are_learned_as_each_alone(tmp_path):
    x, y, z = rows()
    both = np.column_stack([y, z > 0.0])
    head = ac.TaskHead().fit(x, both, space="a")
    each = [ac.TaskHead().fit(x, column, space="a") for column in both.T]
    for _ in range(2):
        alone = np.column_stack([one.predict(x, space="a") for one in each])
        np.testing.assert_allclose(head.predict(x, space="a"), alone, rtol=1e-9)
        for one, column in zip(each, both.T, strict=True):
            one.update(x[:50], column[:50], space="a")
        head.update(x[:50], both[:50], space="a")
    head.save(tmp_path / "head")
    loaded = ac.TaskHead.load(tmp_path / "head")
    np.testing.assert_array_equal(loaded.predict(x, space="a"), head.predict(x, space="a"))
    with pytest.raises(ConfigError, match="1 outputs for a head of 2"):
        loaded.update(x, y, space="a")


def test_another_space_or_size_is_an_error():
    x, y, _ = rows()
    head = ac.TaskHead()
    with pytest.raises(NotFittedError, match="fit it"):
        head.predict(x, space="a")
    head.fit(x, y, space="a")
    for act in (lambda: head.predict(x, space="b"), lambda: head.update(x, y, space="b")):
        with pytest.raises(MismatchError, match="space 'b' for this TaskHead of space 'a'"):
            act()
    with pytest.raises(MismatchError, match="of vectors of 4"):
        head.predict(x[:, :2], space="a")
    with pytest.raises(MismatchError, match=r"a class is none of \[0, 1\]"):
        head.update(x, y + 1, space="a")
    numbers = ac.TaskHead("ridge").fit(x, np.column_stack([y, y]), space="a")
    with pytest.raises(ConfigError, match="1 outputs for a head of 2"):
        numbers.update(x, y, space="a")


@pytest.mark.parametrize(
    ("kind", "target", "weight", "error", "said"),
    [
        ("logistic", [0, 1], None, ConfigError, "does not go with 3 vectors"),
        ("logistic", [1, 1, 1], None, ConfigError, "nothing to tell one from"),
        ("logistic", [0, 1, 1], [0, 1, 1], ConfigError, "nothing to tell one from"),
        ("logistic", [0, 0.5, 1], None, ConfigError, "integers"),
        ("logistic", ["a", "b", "a"], None, ConfigError, "text"),
        ("mlp", [[0], [1], [1]], None, ConfigError, "one class a row"),
        ("logistic", [[0, 2], [1, 0], [1, 0]], None, RowError, "outside"),
        ("ridge", [0, np.nan, 1], None, RowError, r"1 of 3 rows, first in rows \[1\]"),
        ("ridge", [0, 1e300, 1], None, RowError, "beyond"),
        ("ridge", [0, 1, 1], [1, -1, 1], RowError, "negative"),
        ("ridge", [0, 1, 1], [1, 1], ConfigError, "weights of shape"),
        ("ridge", [0, 1, 1], ["1", "a", "1"], ConfigError, "weights of text"),
        ("ridge", [0, 1, 1], [0, 0, 0], ConfigError, "no row that weighs anything"),
    ],
)
def test_what_cannot_be_is_told(kind, target, weight, error, said):
    with pytest.raises(error, match=said):
        ac.TaskHead(kind).fit(np.eye(3), target, space="a", weight=weight)


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_rows_that_weigh_nothing_are_not_there(kind):
    x, y = np.random.default_rng(5).normal(size=(40, 3)), np.arange(40) % 2
    weight = (np.arange(40) >= 6) * 1.0
    odd = np.where(weight > 0, y, 7)  # a class of which there is no other row
    head = ac.TaskHead(kind).fit(x, odd, space="a", weight=weight)
    other = ac.TaskHead(kind).fit(x[6:], y[6:], space="a")
    np.testing.assert_array_equal(head.predict(x, space="a"), other.predict(x, space="a"))
    if kind == "logistic":
        head.update(x, odd, space="a", weight=weight)
        other.update(x[6:], y[6:], space="a")
        np.testing.assert_array_equal(head.predict(x, space="a"), other.predict(x, space="a"))


def test_columns_that_say_nothing_and_large_numbers():
    x, y, z = rows()
    wide = np.column_stack([x, np.full(300, 0.1), np.zeros(300), 1e14 * x[:, 0]])
    for kind, target in (("logistic", y), ("ridge", z)):
        p = ac.TaskHead(kind).fit(wide, target, space="a").predict(wide, space="a")
        assert np.isfinite(p).all()
        assert np.corrcoef(p, z)[0, 1] > 0.9
    with pytest.raises(ConfigError, match="kind"):
        ac.TaskHead("logit")


def test_a_network_without_torch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "acclimate.learners.head_network", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[torch\]'"):
        ac.TaskHead("mlp").fit(*rows()[:2], space="a")


def test_no_torch_is_loaded_but_for_a_network():
    code = """
import sys
import numpy as np
import acclimate as ac
x = np.arange(12.0).reshape(6, 2)
for kind in ("logistic", "ridge"):
    head = ac.TaskHead(kind).fit(x, np.arange(6) % 2, space="a")
    head.update(x, np.arange(6) % 2, space="a").predict(x, space="a")
ac.ItemMap().fit(x, [0, 1], [7, 8], space="a").top(x, 1, space="a")
ac.VectorIndex(range(6), x, space="a").nearest(x, 2, space="a")
print("torch" in sys.modules, "usearch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr

"""Gates: each one passes and fails at its bound, and names who is to blame and by how much."""

import numpy as np
import pytest

from acclimate.artifacts import Space
from acclimate.errors import GateError
from acclimate.publish import gates

IDS = ["a", "b", "a", "c"]


def test_coverage_names_the_unknown_with_the_most_rows():
    known, rows = np.array([True, False, True, False]), np.array([9, 2, 1, 7])
    verdict = gates.coverage("user", ["a", "b", "c", "d"], known, rows, least=0.5)
    assert (verdict.passed, verdict.value, verdict.bound) == (True, 0.5, 0.5)
    assert str(verdict) == "coverage: 2 of 4 'user' are known, 0.5 for 0.5 at least"
    verdict = gates.coverage("user", ["a", "b", "c", "d"], known, rows, least=0.51)
    assert not verdict.passed
    assert verdict.worst == (("d", 7.0), ("b", 2.0))
    nobody = np.zeros(0, np.int64)
    assert gates.coverage("user", [], nobody.astype(bool), nobody, least=1.0).passed


def test_finite_names_the_entities_whose_rows_are_not():
    assert gates.finite(np.ones(4), IDS).passed
    verdict = gates.finite(np.array([1.0, np.nan, 0.5, np.inf]), IDS)
    assert not verdict.passed
    assert (verdict.value, dict(verdict.worst)) == (2.0, {"b": 1.0, "c": 1.0})
    vectors = np.ones((4, 3))
    assert gates.finite(vectors, IDS).passed
    vectors[2, 1] = np.nan
    assert gates.finite(vectors, IDS).worst == (("a", 1.0),)


def test_finite_looks_at_all_that_is_kept():
    arrays = {"weights": np.array([1.0, np.nan, np.inf]), "ids": np.array([1, 2]), "one": np.array(2.0)}
    ids = np.array([7, 8, 9])
    mean, covariance = np.ones((3, 2)), np.ones((3, 2, 2))
    fine = {"rows": ids, "mean": mean, "covariance": covariance}
    nothing = {name: column[:0] for name, column in fine.items()}
    assert gates.finite_rows([("user", ids, fine), ("user", ids[:0], nothing)], {"one": arrays["one"]}).passed
    assert gates.finite_rows([], {}).passed
    broken = {**fine, "mean": mean.copy(), "covariance": covariance.copy()}
    broken["mean"][1, 0], broken["covariance"][1], broken["mean"][2, 1] = np.nan, -np.inf, np.inf
    verdict = gates.finite_rows([("user", ids, broken)], arrays)
    assert not verdict.passed
    assert verdict.worst == (("user 8", 5.0), ("weights", 2.0), ("user 9", 1.0))
    assert verdict.value == 8.0


def test_drift_is_a_root_mean_square_and_names_the_farthest():
    live = np.zeros(4)
    new = np.array([0.3, 0.0, 0.1, 0.2])
    size = float(np.sqrt((0.09 + 0.01 + 0.04) / 4))
    verdict = gates.drift(IDS, new, live, most=1.001 * size)
    assert verdict.passed
    assert verdict.value == pytest.approx(size)
    verdict = gates.drift(IDS, new, live, most=0.99 * size)
    assert not verdict.passed
    assert [who for who, _ in verdict.worst] == ["a", "c"]
    assert verdict.worst[0][1] == pytest.approx(np.sqrt((0.09 + 0.01) / 2))
    assert gates.drift(IDS, np.zeros((4, 2)), np.full((4, 2), 3.0), most=5.0).value == pytest.approx(np.sqrt(18))


def test_quality_is_the_weighted_difference_and_names_who_loses():
    new, live = np.array([1.0, 0.5, 1.0, 0.2]), np.array([0.5, 0.5, 0.8, 0.4])
    weight = np.array([1.0, 1.0, 2.0, 4.0])
    expected = (0.5 + 2 * 0.2 - 4 * 0.2) / 8
    verdict = gates.quality(IDS, new, live, weight=weight, most=expected + 1e-12)
    assert verdict.passed
    assert verdict.value == pytest.approx(expected)
    verdict = gates.quality(IDS, new, live, weight=weight, most=0.0, interval=(-0.1, 0.2))
    assert not verdict.passed
    assert "(95 %: -0.1 to +0.2)" in str(verdict)
    ((who, much),) = verdict.worst
    assert (who, much) == ("a", pytest.approx(0.9))
    nothing = gates.quality([], new[:0], live[:0], weight=weight[:0], most=1.0)
    assert not nothing.passed
    assert "fit with --until" in nothing.said


def test_parity_is_the_largest_difference():
    stored = np.array([1.0, np.nan, np.inf, 2.0])
    assert gates.parity(IDS, stored, stored.copy(), 0.0).passed
    verdict = gates.parity(IDS, stored, np.array([1.5, np.nan, np.inf, 2.0]), 0.4)
    assert (verdict.passed, verdict.value, verdict.worst) == (False, 0.5, (("a", 0.5),))
    assert gates.parity(IDS, stored, np.array([1.5, np.nan, np.inf, 2.0]), 0.5).passed
    assert not gates.parity(IDS, stored, np.array([1.0, 0.0, np.inf, 2.0]), 1e9).passed
    assert gates.parity([], stored[:0], stored[:0], 0.0).passed


def test_a_stored_vector_that_is_no_number_is_as_far_as_can_be():
    apart = np.array([0.5, np.nan, 0.0])
    told = gates.stored_parity(["user 1", "user 2", "user 3"], apart, 1e-6, units=2, rows=7)
    assert str(told) == (
        "stored parity: 2 of 3 vectors differ by up to inf from those made anew, for 1e-06 at most; 7 rows in 2 "
        "units are what was written; worst: user 2 (inf), user 1 (0.5)"
    )
    assert gates.stored_parity(["user 1"], apart[:1], 0.5, units=1, rows=0).passed


def test_who_is_refused_learns_why():
    passed = gates.drift(IDS, np.zeros(4), np.zeros(4), most=0.1)
    failed = gates.drift(IDS, np.ones(4), np.zeros(4), most=0.1)
    error = gates.refused(Space("ranker", 2, "w", "c", 0), [passed, failed])
    assert isinstance(error, GateError)
    assert error.message == (
        "ranker/2 does not pass 1 of 2 gates: drift: 1 from the live space as a root mean square over 4 rows, for "
        "0.1 at most; worst: a (1), b (1), c (1)"
    )

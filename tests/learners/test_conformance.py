"""Every check of ``conformance`` on every learner of :data:`acclimate.config.LEARNERS`.

A new learner enters ``EXAMPLES`` with one or several small configurations.
"""

import pytest
from conformance import CHECKS, Example, run

import acclimate as ac
from acclimate.config import LEARNERS, class_of

EXAMPLES = (
    Example(
        "mixed",
        lambda: ac.GLMix(
            fixed=ac.FixedEffect(["genre", "tags", "price"]),
            random=[ac.RandomEffect("user", ["price"]), ac.RandomEffect("video")],
        ),
    ),
    Example(
        "forgetful",
        lambda: ac.GLMix(
            fixed=ac.FixedEffect(["genre", "hour"], precision="diagonal", forgetting=0.9),
            random=[ac.RandomEffect("user", ["genre"], half_life="2d", precision="marginal")],
            learn_population=False,
        ),
    ),
    Example(
        "in-half-the-bytes",
        lambda: ac.GLMix(
            fixed=ac.FixedEffect(["genre"]), random=[ac.RandomEffect("user", ["price"])], states="float32"
        ),
        tolerance=1e-5,
    ),
    Example("global", ac.GlobalRate),
    Example("by-user", lambda: ac.Rate("user", prior_rows=5.0)),
)

RAN: set[tuple[str, str]] = set()


@pytest.mark.parametrize("function", CHECKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
def test_conformance(example, function, request):
    RAN.add((example.name, function.__name__))
    run(example, function, request)


def test_every_learner_has_an_example():
    kinds = [class_of(record) for record in LEARNERS]
    assert {type(example.make()) for example in EXAMPLES} == set(kinds)
    assert len({kind.kind for kind in kinds}) == len(kinds) >= 3


def test_exceptions_are_of_checks_that_there_are_and_have_a_reason():
    names = {function.__name__ for function in CHECKS}
    for example in EXAMPLES:
        assert example.exceptions.keys() <= names
        assert all(len(reason) > 20 for reason in example.exceptions.values())


def test_every_check_ran_on_every_example():
    """Comes last: of a suite that silently shrinks to nothing, this remains."""
    assert len(CHECKS) >= 38
    assert len(RAN) == len(EXAMPLES) * len(CHECKS)

"""Every check of ``conformance`` on every learner of :data:`acclimate.config.LEARNERS`.

A new learner enters ``EXAMPLES`` with one or several small configurations.
"""

import pytest
from conformance import CHECKS, ENCODING, PREDICTING, Example, checks_of, run

import acclimate as ac
from acclimate.config import LEARNERS, class_of

NAMES_MATTER = {
    "the_names_of_entities_do_not_matter": "an id is a name here, and a name's vector starts at noise of its own",
    "ids_may_be_text": "the same entities under other names start at other vectors",
}
SUPPORTS = {
    "the_names_of_entities_do_not_matter": "how much of its support a task sees is drawn in the order of ids",
    "ids_may_be_text": "the order of ids is another one as text",
    "a_row_of_weight_two_is_the_row_twice": "a support is of so many rows, whatever they weigh",
}
ON_BOTH_SIDES = {
    "one_row_is_enough": "members need a row before the end of the warm-up, the one on top one after it"
}

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
    Example(
        "network",
        lambda: ac.SequentialLaplace(
            features=["genre", "tags", "price", "user_id", "video_id"],
            embedding=3,
            hidden=[6],
            training=ac.Training(epochs=20, update_epochs=8, rate=0.03, update_rate=0.03, patience=20),
        ),
        tolerance=1e-4,
        exceptions=NAMES_MATTER,
    ),
    Example(
        "network-of-a-full-last-layer",
        lambda: ac.SequentialLaplace(
            features=["genre", "price", "user_id"],
            ranker="dcn-v2",
            embedding=2,
            hidden=[],
            crosses=1,
            forgetting=0.9,
            cold_weight=0.3,
            last_layer="full",
            ridge=5.0,
            training={"epochs": 12, "update_epochs": 4, "rate": 0.02, "update_rate": 0.02, "patience": 12},
        ),
        tolerance=1e-4,
        exceptions=NAMES_MATTER,
    ),
    Example(
        "meta",
        lambda: ac.MetaRanker(
            features=["genre", "tags", "price"],
            blocks={
                "user": ac.MetaBlock(entity="user", hidden=[4], size=3, steps=2, support=500),
                "video": ac.MetaBlock(entity="video", features=["genre", "tags"], hidden=[], size=2, support=500),
            },
            embedding=3,
            hidden=[6],
            ridge=0.01,
            embedding_ridge=0.1,
            training=ac.Training(epochs=8, batch=32, rate=0.02, update_rate=0.02, patience=8),
        ),
        tolerance=1e-4,
        exceptions={name: SUPPORTS[name] for name in (*list(SUPPORTS)[:1], *list(SUPPORTS)[2:])},
    ),
    Example(
        "meta-of-combinations",
        lambda: ac.MetaRanker(
            features=["genre", "price"],
            blocks={
                "user": ac.MetaBlock(entity="user", adaptation="amortised", size=2, support=500),
                "both": ac.MetaBlock(entity=["user", "video"], size=2, support=500),
            },
            ranker="deepfm",
            embedding=2,
            hidden=[4],
            weighting="entities",
            ridge=0.05,
            embedding_ridge=0.5,
            training=ac.Training(epochs=4, batch=32, rate=0.04, update_rate=0.04, patience=4),
        ),
        tolerance=1e-4,
        exceptions=SUPPORTS
        | {"the_order_of_rows_does_not_matter": "of one instant, rows that come last are newest"},
    ),
    Example("global", ac.GlobalRate),
    Example("by-user", lambda: ac.Rate("user", prior_rows=5.0)),
    Example(
        "encoder",
        lambda: ac.UserEncoder(
            entity="user",
            item="video",
            items={"content": ac.ItemVectors(["tags"], size=2), "together": ac.ItemVectors(size=2)},
            windows=["6h", "2d"],
            columns={"profile": ["genre", "price"]},
            size=5,
            code=4,
            hidden=6,
            training=ac.Training(epochs=2, batch=16),
        ),
        tolerance=1e-5,
    ),
    Example(
        "encoder-that-forgets",
        lambda: ac.UserEncoder(
            entity="user",
            item="video",
            items={"content": ac.ItemVectors(["tags", "genre"], size=3)},
            behaviours=["click"],
            windows=["1d"],
            decay="exponential",
            most_events=7,
            normalised=True,
            size=3,
            code=4,
            hidden=6,
            training=ac.Training(epochs=2, batch=16),
        ),
        tolerance=1e-5,
    ),
    Example(
        "stacked-features",
        lambda: ac.Stack(
            ac.GLMix(
                fixed=ac.FixedEffect(["genre", "popular"]), random=[ac.RandomEffect("user", ["price", "fan"])]
            ),
            {"popular": ac.Rate("video"), "fan": ac.Rate("user", prior_rows=5.0)},
            warm_up=0.3,
            every="6h",
        ),
        exceptions=ON_BOTH_SIDES,
    ),
    Example(
        "stacked-offset",
        lambda: ac.Stack(
            ac.GLMix(fixed=ac.FixedEffect(["price"]), random=["user"], offset="net"),
            {"net": ac.GLMix(fixed=ac.FixedEffect(["genre"]), random=["video"])},
            every="4h",
        ),
        exceptions=ON_BOTH_SIDES,
    ),
    Example(
        "calibrated",
        lambda: ac.Calibrated(
            ac.GLMix(fixed=ac.FixedEffect(["genre"]), random=["user"]), mode="integrated", half_life="2d"
        ),
    ),
    Example(
        "calibrated-stack",
        lambda: ac.Calibrated(
            ac.Stack(
                ac.GLMix(fixed=ac.FixedEffect(["price", "popular"]), random=["user"]),
                {"popular": ac.Calibrated(ac.Rate("video"))},
                every="6h",
            )
        ),
        exceptions=ON_BOTH_SIDES,
    ),
)

RAN: set[tuple[str, str]] = set()


PAIRS = [(example, function) for example in EXAMPLES for function in checks_of(example)]


@pytest.mark.parametrize(("example", "function"), PAIRS, ids=lambda it: getattr(it, "name", "") or it.__name__)
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
    assert len(CHECKS) >= 45
    assert (len(PREDICTING), len(ENCODING)) == (10, 6)
    assert len(RAN) == len(PAIRS) >= len(EXAMPLES) * 30

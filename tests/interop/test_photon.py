"""Photon-ML's models: read as an Avro library wrote them by a schema of its own, and written as it reads them."""

import json

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import acclimate as ac
from acclimate.errors import ConfigError, NotFittedError, OutputExistsError, SourceError
from acclimate.interop import photon, photon_files, read_photon, write_photon
from learners.sample_events import START, events_of

# As the public schemas say it, word for word apart from what they document.
AVRO = json.loads("""{
  "name": "BayesianLinearModelAvro", "namespace": "com.linkedin.photon.avro.generated", "type": "record",
  "fields": [
    {"name": "modelId", "type": "string"},
    {"default": null, "name": "modelClass", "type": ["null", "string"]},
    {"name": "means", "type": {"type": "array", "items": {
      "name": "NameTermValueAvro", "type": "record", "fields": [
        {"name": "name", "type": "string"}, {"name": "term", "type": "string"}, {"name": "value", "type": "double"}
      ]}}},
    {"default": null, "name": "variances", "type": ["null", {"type": "array", "items": "NameTermValueAvro"}]},
    {"default": null, "name": "lossFunction", "type": ["null", "string"]}
  ]}""")
LOGISTIC = "com.linkedin.photon.ml.supervised.classification.LogisticRegressionModel"
SCHEMA = ac.Schema("time", {"user": "userId"}, "click", features={"tag": ac.Feature(kind="categorical")})
UNTIL = "2022-04-25"


def values(**pairs):
    """Names and terms, with two underscores between them, and values."""
    parts = [(key.partition("__"), value) for key, value in pairs.items()]
    return [{"name": name.replace("ONE", "(INTERCEPT)"), "term": term, "value": v} for (name, _, term), v in parts]


def record(id, means, variances=None, kind=LOGISTIC):
    return {"modelId": id, "modelClass": kind, "means": means, "variances": variances, "lossFunction": ""}


def coordinate(folder, info, *parts):
    (folder / "coefficients").mkdir(parents=True)
    (folder / "id-info").write_text("".join(f"{line}\n" for line in info))
    (folder / "coefficients" / "_SUCCESS").touch()
    for number, records in enumerate(parts):
        with open(folder / "coefficients" / f"part-{number:05}.avro", "wb") as file:
            fastavro.writer(file, AVRO, records)


def game(root, task="LOGISTIC_REGRESSION", fixed=None, users=None):
    """A GAME model: a fixed effect, and users in two files."""
    root.mkdir(parents=True)
    (root / "model-metadata.json").write_text(json.dumps({"modelType": task, "optimizationConfigurations": {}}))
    fixed = fixed or record(
        "fixed-effect", values(price=0.5, ONE=-1.0, tag__news=0.25), values(ONE=0.04, price=0.01, tag__news=0.5)
    )
    users = users or [
        [record("7", values(ONE=0.6, price=-0.2), values(ONE=0.1, price=0.2))],
        [record("-3", values(ONE=-0.9), values(ONE=0.05)), record("11", values(ONE=0.1, price=0.3))],
    ]
    coordinate(root / "fixed-effect" / "global", ["shard1"], [fixed])
    coordinate(root / "random-effect" / "per-user", ["userId", "shard2"], *users)
    return root


def declared(**keys):
    return ac.GLMix(fixed=["price", "tag"], random=[ac.RandomEffect("user", ["price"])], **keys)


def asked(users=(7, -3, 11, 99)):
    n = len(users)
    columns = {"userId": list(users), "price": np.linspace(-1.0, 2.0, n), "tag": ["news", "film"] * (n // 2)}
    return events_of(SCHEMA, {**columns, "click": np.arange(n) % 2, "time": START + 10 + np.arange(n)})


# --- reading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 4, 1 << 18])
def test_a_model_predicts_as_its_coefficients_say(tmp_path, monkeypatch, cells):
    monkeypatch.setattr(photon, "_CELLS", cells)
    model = read_photon(game(tmp_path / "game"), declared(learn_population=False), SCHEMA, until=UNTIL)
    price = np.linspace(-1.0, 2.0, 4)
    z = -1.0 + 0.5 * price + 0.25 * np.array([1, 0, 1, 0])
    z += np.array([0.6, -0.9, 0.1, 0.0]) + np.array([-0.2, 0.0, 0.3, 0.0]) * price
    assert_allclose(model.predict(asked()), 1.0 / (1.0 + np.exp(-z)), rtol=1e-12)
    assert model.weights() == [
        ("(intercept)", -1.0, 0.2),
        ("price", 0.5, 0.1),
        ("tag=news", 0.25, pytest.approx(0.5**0.5)),
    ]
    states = model.states("user")
    assert states.ids.tolist() == [7, -3, 11]
    # Of what has no variance, or no mean, the ridge.
    expected = [[10.0, 5.0], [20.0, 1.0], [1.0, 1.0]]
    assert_allclose(states.posterior.precision, expected, rtol=1e-12)
    assert states.touched.tolist() == [START] * 3
    assert model.cut == START


@pytest.mark.parametrize("declared", ["auto", "full", "diagonal", "marginal"])
def test_of_precisions_that_is_kept_which_is_read(tmp_path, declared):
    random = [ac.RandomEffect("user", ["price"], precision=declared)]
    model = ac.GLMix(fixed=["price", "tag"], random=random, learn_population=False)
    read_photon(game(tmp_path / "game"), model, SCHEMA, until=UNTIL)
    assert model.parameters.random[0].precision == {"auto": "marginal"}.get(declared, declared)
    precision = model.states("user").posterior.precision[0]
    assert_allclose(precision, np.diag([10.0, 5.0]) if declared == "full" else [10.0, 5.0])


@pytest.mark.parametrize("precision", ["full", "diagonal"])
def test_an_update_goes_on_from_there(tmp_path, precision):
    game(tmp_path / "game")
    effect = ac.FixedEffect(["price"], precision=precision)
    (tmp_path / "game" / "random-effect").rename(tmp_path / "elsewhere")
    coefficients = tmp_path / "game" / "fixed-effect" / "global" / "coefficients" / "part-00000.avro"
    with open(coefficients, "wb") as file:
        fastavro.writer(
            file, AVRO, [record("fixed-effect", values(ONE=-1, price=0.5), values(ONE=0.04, price=0.01))]
        )
    model = read_photon(tmp_path / "game", ac.GLMix(fixed=effect, tolerance=1e-9), SCHEMA, until=UNTIL)
    rng = np.random.default_rng(0)
    price, click = rng.normal(2.0, 1.0, 300), rng.integers(0, 2, 300)
    columns = {"userId": np.arange(300), "price": price, "tag": ["a"] * 300, "click": click}
    model.update(events_of(SCHEMA, columns))
    H = np.diag([25.0, 100.0]) if precision == "full" else np.array([25.0, 100.0])
    prior, X = ac.Posterior(np.array([-1.0, 0.5]), H), np.column_stack([np.ones(300), price])
    expected, _ = ac.update_posterior(prior, X, click)
    assert_allclose([mean for _, mean, _ in model.weights()], expected.mean, rtol=1e-6)
    assert_allclose(model.state.fixed_posterior.precision[0], expected.precision, rtol=1e-6)


def test_the_population_is_that_of_the_entities(tmp_path):
    """By loops: mean where the fixed effect has none, second moments, and two entities at the ridge."""
    rng = np.random.default_rng(1)
    means, variances = rng.normal([0.0, 0.7], [1.5, 0.4], (50, 2)), rng.uniform(0.05, 0.3, (50, 2))
    users = [
        [record(f"u{i}", values(ONE=m[0], size=m[1]), values(ONE=v[0], size=v[1]))]
        for i, (m, v) in enumerate(zip(means, variances, strict=True))
    ]
    users.append([record("no size", values(ONE=0.2), values(ONE=0.01))])
    game(tmp_path / "game", users=users)
    random = [ac.RandomEffect("user", ["size"], precision="diagonal", ridge=0.5)]
    model = read_photon(tmp_path / "game", ac.GLMix(fixed=["price", "tag"], random=random), SCHEMA, until=UNTIL)
    effect = model.state.random[0]
    assert effect.index.names == ("(intercept)", "size")
    b = np.array([0.0, means[:, 1].sum() / 52.0])
    level = (variances[:, 0].sum() + 0.01 + (means[:, 0] ** 2).sum() + 0.2**2 + 2.0 * 2.0) / 53.0
    slope = (variances[:, 1].sum() + ((means[:, 1] - b[1]) ** 2).sum() + 2.0 * (2.0 + b[1] ** 2)) / 52.0
    assert_allclose(effect.population.mean, b, rtol=1e-12)
    assert_allclose(1.0 / effect.population.precision, [level, slope], rtol=1e-9)
    _, posterior, rows = model.entity_posterior("user", "no size")
    assert_allclose(posterior.mean, [0.2, b[1]])
    assert_allclose(posterior.precision, [100.0, 1.0 / slope])
    assert rows == 1
    # What is remembered: so many entities, whose mean covariance it is.
    S = [(variances[:, 0].sum() + 0.01) / 51.0, (variances[:, 1].sum() + slope) / 51.0]
    assert effect.past.count == 51.0
    assert_allclose(1.0 / (effect.past.information + effect.population.precision), S, rtol=1e-9)


def test_variances_that_photon_leaves_out_are_small_ones(tmp_path):
    fixed = record("fixed-effect", values(price=0.5, tag__news=0.2), values(ONE=0.04, price=0.01))
    users = [[record("7", values(ONE=0.6))]]
    model = read_photon(game(tmp_path / "game", fixed=fixed, users=users), declared(), SCHEMA, until=UNTIL)
    assert {name: (mean, pytest.approx(sd)) for name, mean, sd in model.weights()} == {
        "(intercept)": (0.0, 0.2),
        "price": (0.5, 0.1),
        "tag=news": (0.2, 0.01),
    }


def test_without_a_fixed_effect_it_is_at_the_ridge(tmp_path):
    game(tmp_path / "game")
    for place in sorted((tmp_path / "game" / "fixed-effect").rglob("*"), reverse=True):
        place.rmdir() if place.is_dir() else place.unlink()
    model = read_photon(tmp_path / "game", declared(), SCHEMA, until=UNTIL)
    assert model.weights() == [("(intercept)", 0.0, 1.0)]
    assert model.update(asked()).info.converged


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["7", "-3"], "int64"),
        (["7", "007"], "string"),
        (["7", "a"], "string"),
        (["9" * 20], "string"),
        (["٣"], "string"),
    ],
)
def test_ids_are_numbers_if_all_are_written_so(tmp_path, ids, kind):
    users = [[record(id, values(ONE=0.5)) for id in ids]]
    model = read_photon(game(tmp_path / "game", users=users), declared(), SCHEMA, until=UNTIL)
    assert model.state.random[0].ids == kind
    assert [str(id) for id in model.states("user").ids.tolist()] == ids


def test_it_is_a_model_like_any_other(tmp_path):
    model = read_photon(game(tmp_path / "game"), declared(states="float32"), SCHEMA, until=UNTIL)
    model.save(tmp_path / "model")
    loaded = ac.GLMix.load(tmp_path / "model")
    assert_array_equal(loaded.predict(asked()), model.predict(asked()))
    later = asked([7, 99] * 50)
    assert_array_equal(loaded.update(later).predict(asked()), model.update(later).predict(asked()))
    assert sorted(model.states("user").rows.tolist()) == [1, 1, 50, 51]


# --- writing --------------------------------------------------------------------------------------------------


def fitted(ids=None, **keys):
    rng = np.random.default_rng(5)
    users = rng.integers(0, 40, 3000)
    price, tag = rng.normal(1.0, 0.5, 3000), rng.choice(["news", "film=noir", "a b"], 3000)
    levels = np.random.default_rng(6).normal(size=40)
    click = rng.random(3000) < 1.0 / (1.0 + np.exp(-levels[users] - 0.5 * price))
    columns = {"userId": users if ids is None else [ids[user] for user in users], "price": price, "tag": tag}
    return declared(**keys).fit(events_of(SCHEMA, {**columns, "click": click.astype(int)}))


def read_back(folder):
    with open(folder / "coefficients" / "part-00000.avro", "rb") as file:
        return list(fastavro.reader(file, AVRO))


def test_what_is_written_is_what_photon_reads(tmp_path):
    model = fitted()
    assert write_photon(model, tmp_path / "game") == 41
    assert json.loads((tmp_path / "game/model-metadata.json").read_text())["modelType"] == "LOGISTIC_REGRESSION"
    assert (tmp_path / "game/fixed-effect/global/id-info").read_text() == "global\n"
    assert (tmp_path / "game/random-effect/user/id-info").read_text() == "userId\nuser\n"
    assert sorted(path.name for path in (tmp_path / "game/random-effect").iterdir()) == ["user"]
    (fixed,) = read_back(tmp_path / "game/fixed-effect/global")
    assert (fixed["modelId"], fixed["modelClass"]) == ("fixed-effect", LOGISTIC)
    names = [(one["name"], one["term"]) for one in fixed["means"]]
    assert sorted(names) == [
        ("(INTERCEPT)", ""),
        ("price", ""),
        *(("tag", level) for level in ("a b", "film=noir", "news")),
    ]
    assert [one["value"] for one in fixed["means"]] == [mean for _, mean, _ in model.weights()]
    assert_allclose([one["value"] for one in fixed["variances"]], [sd**2 for *_, sd in model.weights()])
    states, users = model.states("user"), read_back(tmp_path / "game/random-effect/user")
    assert [user["modelId"] for user in users] == [str(id) for id in states.ids.tolist()]
    assert_array_equal([[one["value"] for one in user["means"]] for user in users], states.posterior.mean)
    variances = [[one["value"] for one in user["variances"]] for user in users]
    assert_allclose(variances, np.diagonal(np.linalg.inv(states.posterior.precision), axis1=1, axis2=2))


def test_there_and_back(tmp_path):
    """Means, marginal deviations, and what entities come from; what is lost are correlations."""
    model = fitted()
    write_photon(model, tmp_path / "game")
    read = read_photon(tmp_path / "game", declared(), SCHEMA, until="2023-01-01")
    assert {name: (mean, pytest.approx(sd)) for name, mean, sd in model.weights()} == {
        name: (mean, sd) for name, mean, sd in read.weights()
    }
    assert_array_equal(read.states("user").posterior.mean, model.states("user").posterior.mean)
    population, known = read.state.random[0].population, model.state.random[0].population
    assert_allclose(population.standard_deviation()[0], known.standard_deviation()[0], rtol=0.15)
    write_photon(read, tmp_path / "again")
    again = read_photon(tmp_path / "again", declared(), SCHEMA, until="2023-01-01")
    pairs = [(each.states("user").posterior, each.state.random[0].population) for each in (again, read)]
    for one, other in zip(*pairs, strict=True):
        assert_allclose(one.mean, other.mean, rtol=1e-12)
        assert_allclose(one.precision, other.precision, rtol=1e-12)


def test_combinations_and_names_of_effects(tmp_path):
    schema = ac.Schema("time", ["user", "tab"], "click")
    rng = np.random.default_rng(2)
    columns = {
        "user": rng.integers(0, 5, 200),
        "tab": rng.choice(["a", "b/c"], 200),
        "click": rng.integers(0, 2, 200),
    }
    random = [
        ac.RandomEffect("user"),
        ac.RandomEffect("user", name="mood / now"),
        ac.RandomEffect(["user", "tab"]),
    ]
    model = ac.GLMix(random=random, learn_population=False).fit(events_of(schema, columns))
    write_photon(model, tmp_path / "game")
    back = read_photon(tmp_path / "game", ac.GLMix(random=random, learn_population=False), schema, until=UNTIL)
    for effect in ("user", "mood / now", "user x tab"):
        assert back.states(effect).ids.tolist() == model.states(effect).ids.tolist()
        assert_array_equal(back.states(effect).posterior.mean, model.states(effect).posterior.mean)
    assert back.entity_posterior(("user", "tab"), (3, "b/c"))[2] == 1


def test_what_is_there_is_not_replaced_by_chance(tmp_path):
    model = fitted()
    write_photon(model, tmp_path / "game")
    with pytest.raises(OutputExistsError):
        write_photon(model, tmp_path / "game")
    write_photon(model, tmp_path / "game", overwrite=True)
    with pytest.raises(NotFittedError, match="this GLMix has learned nothing yet"):
        write_photon(ac.GLMix(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@given(st.text(alphabet="ab=[] x(INTERCEPT)", max_size=20) | st.just("(intercept)"))
def test_every_name_comes_back_as_it_was(name):
    assert photon_files._joined(*photon_files._split(name)) == name


# --- what is refused ------------------------------------------------------------------------------------------


def refused(folder, error, match, model=None):
    model = model or declared()
    with pytest.raises(error, match=match):
        read_photon(folder, model, SCHEMA, until=UNTIL)
    assert model.state is None


def test_models_of_another_kind(tmp_path):
    refused(
        game(tmp_path / "a", task="LINEAR_REGRESSION"), SourceError, "a model of LINEAR_REGRESSION, and a GLMix"
    )
    poisson = record("fixed-effect", values(ONE=1.0), kind="com.linkedin.photon.ml.PoissonRegressionModel")
    refused(game(tmp_path / "b", fixed=poisson), SourceError, "is a com.linkedin.photon.ml.PoissonRegressionModel")
    refused(tmp_path / "none", SourceError, "holds neither fixed-effect nor random-effect")
    (game(tmp_path / "c") / "model-metadata.json").write_text("{}")
    refused(tmp_path / "c", SourceError, "does not say the modelType")
    (tmp_path / "c" / "model-metadata.json").unlink()  # as those of old
    read_photon(tmp_path / "c", declared(), SCHEMA, until=UNTIL)


@pytest.mark.parametrize(
    ("users", "match"),
    [
        (
            [record("7", values(ONE=1.0), values(ONE=0.0))],
            r"variance of '\(intercept\)' in model '7' is 0, not",
        ),
        ([record("7", values(ONE=1.0), values(ONE=-1.0))], "is -1, not positive"),
        ([record("7", values(ONE=float("nan")))], "the means of model '7' name a coefficient twice, or are not"),
        ([record("7", values(ONE=1.0) * 2)], "name a coefficient twice"),
        ([record("7", values(ONE=1.0))] * 2, "1 ids have several records"),
    ],
)
def test_numbers_that_are_none(tmp_path, users, match):
    refused(game(tmp_path / "game", users=[users]), SourceError, match)


def test_files_that_are_damaged(tmp_path):
    file = game(tmp_path / "game") / "random-effect" / "per-user" / "coefficients" / "part-00001.avro"
    whole = file.read_bytes()
    with open(file, "wb") as opened:
        fastavro.writer(opened, AVRO, [])
    header = file.stat().st_size  # a file that ends there has no records, and is whole
    for size in (size for size in range(len(whole)) if size != header):
        file.write_bytes(whole[:size])
        refused(tmp_path / "game", SourceError, r"part-00001.avro: is no Avro file, or ends early")
    with open(file, "wb") as opened:
        other = {"type": "record", "name": "LatentFactorAvro", "fields": [{"name": "modelId", "type": "string"}]}
        fastavro.writer(opened, other, [{"modelId": "7"}])
    refused(tmp_path / "game", SourceError, "holds LatentFactorAvro, not BayesianLinearModelAvro")
    for part in file.parent.glob("*.avro"):
        part.unlink()
    refused(tmp_path / "game", SourceError, r"no \.avro file")
    (file.parent.parent / "id-info").unlink()
    refused(tmp_path / "game", SourceError, "does not name the column of the ids")


def test_effects_that_are_not_declared(tmp_path):
    game(tmp_path / "game")
    refused(tmp_path / "game", ConfigError, "random effect 'per-user' of 'userId' is that of 0", ac.GLMix())
    both = [ac.RandomEffect("user", name=name) for name in ("level", "mood")]
    refused(tmp_path / "game", ConfigError, "is that of 2 effects of the model", ac.GLMix(random=both))
    more = [ac.RandomEffect("user", ["price"]), ac.RandomEffect("price", name="by price")]
    schema = ac.Schema("time", {"user": "userId", "price": "price"}, "click")
    with pytest.raises(ConfigError, match=r"has no random effect 'by price' \(there are: per-user\)"):
        read_photon(tmp_path / "game", ac.GLMix(fixed=["price", "tag"], random=more), schema, until=UNTIL)
    model = ac.GLMix(fixed=["price"], random=[ac.RandomEffect("user", ["price"])])
    refused(tmp_path / "game", ConfigError, "'tag=news' of effect 'fixed' is of none of its features", model)
    model = ac.GLMix(fixed=["price", "tag"], random=["user"])
    refused(tmp_path / "game", ConfigError, "'price' of effect 'user' is of none of its features", model)
    coordinate(tmp_path / "game" / "fixed-effect" / "other", ["shard1"], [record("fixed-effect", values(ONE=1.0))])
    refused(tmp_path / "game", ConfigError, r"2 fixed effects \(global, other\)")


def test_a_fixed_effect_of_several_records(tmp_path):
    game(tmp_path / "game")
    with open(tmp_path / "game/fixed-effect/global/coefficients/part-00001.avro", "wb") as file:
        fastavro.writer(file, AVRO, [record("fixed-effect", values(ONE=1.0))])
    refused(tmp_path / "game", SourceError, "2 records of a fixed effect")


def test_columns_of_every_kind_have_a_feature(tmp_path):
    features = {
        "both": ac.Feature(of=["tag", "hour"], kind="cross"),
        "products": ac.Feature(of=["price", "tag"], kind="cross"),
        "tag": ac.Feature(kind="categorical"),
        "hashed": ac.Feature(buckets=8),
    }
    schema = ac.Schema("time", {"user": "userId"}, "click", features=features)
    rng = np.random.default_rng(7)
    columns = {
        "userId": rng.integers(0, 9, 300),
        "price": np.where(rng.random(300) < 0.1, np.nan, rng.normal(size=300)),
        "tag": rng.choice(["a", "b x c=d"], 300),
        "hashed": rng.integers(0, 99, 300),
        "vector": list(rng.normal(size=(300, 3))),
        "click": rng.integers(0, 2, 300),
    }
    names = [*features, "price", "vector", "hour"]
    events = events_of(schema, {**columns, "vector": fixed_lists(columns["vector"])})
    model = ac.GLMix(fixed=ac.FixedEffect(names, ridges={"price": 5.0})).fit(events)
    assert len(model.weights()) > 60
    write_photon(model, tmp_path / "game")
    read = read_photon(tmp_path / "game", ac.GLMix(**vars(model.parameters)), schema, until=UNTIL)
    assert_allclose(read.predict(events), model.predict(events), rtol=1e-9)
    ridge = dict(zip(read.state.fixed.index.names, read.state.fixed.ridge.P.diagonal(), strict=True))
    assert {name for name, strength in ridge.items() if strength == 5.0} == {"price", "price is missing"}


def fixed_lists(rows):
    import pyarrow as pa

    return pa.array([row.tolist() for row in rows], pa.list_(pa.float64(), 3))


def test_models_of_other_losses_have_no_place_there(tmp_path):
    model = ac.GLMix(loss="squared")
    with pytest.raises(ConfigError, match="of logistic loss here, not of 'squared'"):
        write_photon(model, tmp_path / "game")
    assert not (tmp_path / "game").exists()
    refused(tmp_path / "game", ConfigError, "of logistic loss here, not of 'squared'", model)

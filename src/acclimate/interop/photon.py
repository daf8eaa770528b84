"""Models of Photon-ML, LinkedIn's GLMix on Spark: written from a GLMix, and read as one that goes on from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acclimate.arrays import EntityStates, FloatArray, IdArray, IntArray, Posterior
from acclimate.artifacts import Instant
from acclimate.config import GLMixParameters, RandomEffect, Schema
from acclimate.errors import ConfigError, NotFittedError, SourceError, nearest
from acclimate.features import INTERCEPT, FeatureIndex, Settled
from acclimate.interop import photon_files
from acclimate.interop.photon_files import Coordinate, Record, coordinates, read_records
from acclimate.learners.coefficients import shown_states
from acclimate.learners.effects import FIXED, Effect, named, new_effects, start_ridge
from acclimate.learners.gate import check_posterior
from acclimate.learners.glmix import GLMix
from acclimate.learners.layers import LayeredEntities
from acclimate.learners.shared import Shared, unknown
from acclimate.models.population import Past
from acclimate.storage import replacing_folder
from acclimate.times import instant

_GLOBAL = "global"
"""What the fixed effect is called there."""

_CELLS = 1 << 18
"""Coefficients that are read, or entities' means that are made, at a time."""

_EXPECTED = 2.0
"""Entities at the ridge that a population counts beside those that are read, lest few of them make it sure."""


def write_photon(model: GLMix, path: str | Path, *, overwrite: bool = False) -> int:
    """Write a GLMix as the folder of a GAME model, whole or not at all; returns how many records it has.

    Means are those of the posteriors, variances the diagonals of their covariances. Ids are written as texts,
    those of a combination with the character 31 (unit separator) between their parts. The mean of a population, at
    which an entity never seen is predicted here, has no place there, where such an entity counts as 0.

    Raises:
        NotFittedError: there was no fit.
        OutputExistsError: the place is taken.
        OutputError: the place cannot be written.
        ConfigError: its loss is not logistic.
    """
    _check_loss(model)
    state, count = model.state, 0
    if state is None:
        raise NotFittedError("this GLMix has learned nothing yet", hint="fit it, or load a saved one")
    with replacing_folder(path, "photon", overwrite=overwrite) as folder:
        photon_files.write_metadata(folder)
        for effect in state.effects:
            records = _records(effect, shown_states(state, model.entities, effect))
            name = effect.name if effect.columns else _GLOBAL
            count += photon_files.write_coordinate(folder, name, " x ".join(effect.columns), records)
    return count


def read_photon(path: str | Path, model: GLMix, schema: Schema, *, until: Instant) -> GLMix:
    """A GLMix with what the GAME model in a folder knows, as if it had been fitted; updates go on from there.

    Posteriors have the means that are read, and as precisions the reciprocals of the variances. In a record that
    has no variances each coefficient is as uncertain as its population; where it has some, one without counts as
    1e-4, since Photon-ML writes nothing smaller. A random effect of precision ``auto`` becomes ``marginal``: of
    correlations within an entity nothing is known, and a ``full`` one would learn its population as if there were
    none. Where ``model`` learns populations, that of each random effect has the mean ``b`` and the variance of the
    entities that are read, ``mean_e(v_e + (m_e - b)^2)``, and no entity is less sure than it (an empirical Bayes
    step; without, it is the ridge). The ridge, which new coefficients start from and forgetting returns to, is in
    raw units: nothing says how features vary.

    Args:
        path: of the folder.
        model: declares the effects; each random one is the coordinate of its name, or of the column of its ids.
        schema: of the events to come.
        until: when the last event happened that was learned there.

    Returns:
        ``model``, whose state and parameters are replaced.

    Raises:
        SourceError: the folder is none of a logistic GAME model, or files are damaged.
        ConfigError: the effects are not those of ``model``, or one is of ``support: observed``; a coefficient is
            of none of its features, or the loss is not logistic.
        ModelError: means or variances are beyond what can be computed with.
    """
    _check_loss(model)
    random = tuple(_kept(declared) for declared in model.parameters.random)
    parameters = replace(model.parameters, random=random)
    folder, read = Path(path), _Reading(parameters, schema, instant(until, schema.time.zone))
    fixed, *effects = new_effects(parameters, schema)
    if sparse := [effect.name for effect in effects if effect.is_sparse]:
        raise ConfigError(
            f"random effect '{sparse[0]}' is of support 'observed', and files are read into all coefficients",
            hint="declare support='all'",
        )
    there, entities = _matched(folder, effects, schema), LayeredEntities(parameters.states)
    fixed, states = read.fixed(fixed, coordinates(folder, photon_files.FIXED))
    names = set(fixed.index.names)
    effects = tuple(read.random(effect, there[effect.name], names, entities) for effect in effects)
    known = (Settled(), schema.label(parameters.label), schema.content(), read.until)
    model.state = Shared(fixed, effects, states, states.posterior.precision, *known)
    model.parameters, model.entities, model.info, model.history = parameters, entities, None, ()
    return model


def _check_loss(model: GLMix) -> None:
    if model.parameters.loss != "logistic":
        raise ConfigError(
            f"models of Photon-ML are of logistic loss here, not of '{model.parameters.loss}'",
            hint="coefficients of any GLMix come from GLMix.coefficients",
        )


@dataclass(frozen=True)
class _Piece:
    """Some records: their ``ids`` (n,), and of each of their coefficients ``(k,)`` the row, column and numbers."""

    ids: list[str]
    row: IntArray
    column: IntArray
    mean: FloatArray
    variance: FloatArray


@dataclass(frozen=True)
class _Sums:
    """Over the entities of an effect, by column ``(d,)``: how many have it, how many know its variance, sums."""

    ids: list[str]
    index: FeatureIndex
    count: FloatArray
    known: FloatArray
    mean: FloatArray
    square: FloatArray
    variance: FloatArray


@dataclass(frozen=True)
class _Reading:
    """What a model is read into, and up to when it knows events, in microseconds UTC."""

    parameters: GLMixParameters
    schema: Schema
    until: int

    def fixed(self, effect: Effect, there: Sequence[Coordinate]) -> tuple[Effect, EntityStates]:
        """The fixed effect and its state; at the ridge where there is none on disk."""
        ids = np.array([FIXED], np.dtypes.StringDType())
        if len(there) > 1:
            names = ", ".join(coordinate.name for coordinate in there)
            raise ConfigError(f"{len(there)} fixed effects ({names}), and a GLMix has one", hint="join them")
        if not there:
            return effect, unknown(effect, ids)
        pieces = list(_pieces(read_records(there[0]), effect.index))
        if (count := sum(len(piece.ids) for piece, _ in pieces)) != 1:
            raise SourceError(f"{there[0].folder}: {count} records of a fixed effect", hint="it has one")
        piece, index = pieces[0]
        effect = self._at_ridge(effect, index)
        states = self._states(effect, ids, piece)
        check_posterior("the fixed effect", index.names, states.posterior.at(0))
        return effect, states

    def random(self, effect: Effect, there: Coordinate, fixed: set[str], entities: LayeredEntities) -> Effect:
        """A random effect, once the states of its entities are in the store, piece by piece."""
        sums = _summed(there, effect.index)
        effect = replace(self._at_ridge(effect, sums.index), ids=_id_type(sums.ids, effect))
        if self.parameters.learn_population and sums.ids:
            effect = self._with_population(effect, sums, fixed)
        pieces = (piece for piece, _ in _pieces(read_records(there), effect.index))
        entities.fill(effect.name, (self._checked(effect, piece) for piece in pieces), room=len(sums.ids))
        return effect

    def _checked(self, effect: Effect, piece: _Piece) -> EntityStates:
        text = np.array(piece.ids, np.dtypes.StringDType())
        states = self._states(effect, text.astype(np.int64) if effect.ids == "int64" else text, piece)
        kept = self.parameters.states
        check_posterior(effect.name, effect.index.names, states.posterior, ids=states.ids, kept=kept)
        return states

    def _states(self, effect: Effect, ids: IdArray, piece: _Piece) -> EntityStates:
        """At the population where nothing is said of a coefficient, and never less sure than it."""
        n, population = len(ids), effect.population
        mean, precision = np.tile(population.mean, (n, 1)), np.tile(population.P.diagonal(), (n, 1))
        cells = piece.row, piece.column
        mean[cells] = piece.mean
        precision[cells] = np.fmax(precision[cells], 1.0 / piece.variance)  # NaN where no variance is known
        once = np.full(n, effect.least_rows)
        return EntityStates(ids, _diagonal(effect, mean, precision), np.full(n, self.until), once)

    def _at_ridge(self, effect: Effect, index: FeatureIndex) -> Effect:
        """The effect with these columns, at its ridge in raw units.

        Raises:
            ConfigError: a column is of none of its features.
        """
        effect = replace(effect, index=index)
        strength = np.array([self._ridge(effect, name) for name in index.names])
        ridge = _diagonal(effect, np.zeros(len(index)), strength)
        return replace(effect, ridge=ridge).at_population(ridge)

    def _ridge(self, effect: Effect, name: str) -> float:
        declared = effect.declared
        if name == INTERCEPT:
            return start_ridge(declared)
        makers = [feature for feature in declared.features if self._makes(feature, name)]
        if not makers:
            raise ConfigError(
                f"coefficient '{name}' of effect '{effect.name}' is of none of its features",
                hint=nearest(name.partition("=")[0], declared.features) or "declare the feature",
            )
        # Of a product and of one of its parts the name may begin alike.
        maker = max(makers, key=lambda feature: len(self.schema.feature(feature).of))
        return declared.ridges.get(maker, start_ridge(declared))

    def _makes(self, feature: str, name: str) -> bool:
        """Whether a column of a feature may be called so; of a cross the first part and their number decide."""
        if parts := self.schema.feature(feature).of:
            begins = name.startswith(f"{parts[0]} x ") or self._makes(parts[0], name)
            return begins and name.count(" x ") >= len(parts) - 1
        ends = ("=", "[", "#", " is missing")
        return name == feature or name.startswith(tuple(f"{feature}{end}" for end in ends))

    def _with_population(self, effect: Effect, sums: _Sums, fixed: set[str]) -> Effect:
        """At the population of the entities that are read.

        Where the fixed effect has a coefficient too, that has the mean. What is remembered of the entities is that
        their mean covariance is ``(A + B)^-1``, as in :meth:`acclimate.models.population.Past.with_entities`.
        """
        usual, count = 1.0 / effect.ridge.P.diagonal(), sums.count + _EXPECTED
        b = np.where([name in fixed for name in sums.index.names], 0.0, sums.mean / count)
        spread = sums.square - 2.0 * b * sums.mean + sums.count * b**2
        C = (sums.variance + np.maximum(spread, 0.0) + _EXPECTED * (usual + b**2)) / count
        entities = len(sums.ids)
        S = (np.minimum(sums.variance, sums.known * C) + (entities - sums.known) * C) / entities
        population = _diagonal(effect, b, 1.0 / C)
        information = _diagonal(effect, b, np.maximum(1.0 / S - 1.0 / C, 0.0)).precision
        past = Past(float(entities), information, population)
        return replace(effect.at_population(population), past=past, learned=self.until)


def _kept(declared: RandomEffect) -> RandomEffect:
    """An effect with what is kept of its precisions said, where that was left open: what is read of them."""
    return replace(declared, precision="marginal") if declared.precision == "auto" else declared


def _matched(folder: Path, effects: Sequence[Effect], schema: Schema) -> dict[str, Coordinate]:
    """The coordinate of each random effect, by its name.

    Raises:
        ConfigError: an effect has none, or a coordinate is of no effect, or of several.
    """
    matched: dict[str, Coordinate] = {}
    for one in coordinates(folder, photon_files.RANDOM):
        called = [effect for effect in effects if effect.name == one.name]
        of_ids = called or named(effects, one.ids.split(" x "), schema.entities)
        if len(of_ids) != 1 or of_ids[0].name in matched:
            raise ConfigError(
                f"random effect '{one.name}' of '{one.ids}' is that of {len(of_ids)} effects of the model",
                hint=f"declare RandomEffect('{one.ids}', ..., name='{one.name}')",
            )
        matched[of_ids[0].name] = one
    if missing := [effect.name for effect in effects if effect.name not in matched]:
        there = ", ".join(one.name for one in matched.values()) or "none"
        raise ConfigError(f"{folder} has no random effect '{missing[0]}'", hint=f"there are: {there}")
    return matched


def _summed(there: Coordinate, index: FeatureIndex) -> _Sums:
    """All that a population is learned from, and the columns; an id twice is an error."""
    ids, sums = list[str](), np.zeros((5, len(index)))
    for piece, grown in _pieces(read_records(there), index):
        ids, index, width = ids + piece.ids, grown, len(grown)
        known = np.isfinite(piece.variance)
        weights = (None, known, piece.mean, piece.mean**2, np.where(known, piece.variance, 0.0))
        more = np.stack([np.bincount(piece.column, weight, minlength=width) for weight in weights])
        sums = np.pad(sums, ((0, 0), (0, width - sums.shape[1]))) + more
    if twice := len(ids) - len(set(ids)):
        raise SourceError(f"{there.folder}: {twice:,} ids have several records", hint="keep the last of each")
    return _Sums(ids, index, *sums)


def _pieces(records: Iterator[Record], index: FeatureIndex) -> Iterator[tuple[_Piece, FeatureIndex]]:
    """Some records at a time, and the columns that there are by then."""
    held, cells = list[Record](), 0
    for record in records:
        held.append(record)
        cells += max(len(record.names), len(index))
        if cells >= _CELLS:
            index = index.grown(name for one in held for name in one.names)
            yield _piece(held, index), index
            held, cells = [], 0
    if held:
        index = index.grown(name for one in held for name in one.names)
        yield _piece(held, index), index


def _piece(records: Sequence[Record], index: FeatureIndex) -> _Piece:
    row = np.repeat(np.arange(len(records)), [len(record.names) for record in records])
    column = index.numbers(name for record in records for name in record.names)
    mean = np.array([value for record in records for value in record.means], np.float64)
    variance = np.array([value for record in records for value in record.variances], np.float64)
    return _Piece([record.id for record in records], row, column, mean, variance)


def _records(effect: Effect, pieces: Iterator[EntityStates]) -> Iterator[Record]:
    for states in pieces:
        means, variances = states.posterior.mean.tolist(), (states.posterior.standard_deviation() ** 2).tolist()
        ids = states.ids.tolist() if effect.columns else [photon_files.FIXED]
        for place, (id, mean, variance) in enumerate(zip(ids, means, variances, strict=True)):
            if states.support is None:
                yield Record(str(id), effect.index.names, mean, variance)
            else:
                held = [column for column in states.support[place].tolist() if column >= 0]
                names = tuple(effect.index.names[column] for column in held)
                yield Record(str(id), names, mean[: len(held)], variance[: len(held)])


def _diagonal(effect: Effect, mean: FloatArray, precision: FloatArray) -> Posterior:
    """A posterior of independent coefficients, in the form that the effect keeps; both ``(..., d)``."""
    if effect.form != "full":
        return Posterior(mean, precision)
    return Posterior(mean, precision[..., None] * np.eye(len(effect.index)))


def _id_type(ids: Sequence[str], effect: Effect) -> str:
    """Numbers if all are written as 7 is, not as 7.0 or 007; those of a combination are texts."""
    numbers = len(effect.columns) == 1 and all(_is_number(id) for id in ids)
    return "int64" if numbers else "string"


def _is_number(id: str) -> bool:
    digits = id.removeprefix("-")
    plain = digits.isascii() and digits.isdecimal() and str(int(id)) == id
    return plain and abs(int(id)) < 2**63

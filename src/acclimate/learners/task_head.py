"""One task on frozen vectors: who makes the vectors knows nothing of it, and it knows nothing but them."""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acclimate.arrays import FloatArray, IntArray, Posterior
from acclimate.config import TaskHeadParameters
from acclimate.errors import ConfigError, MismatchError, NotFittedError, RowError
from acclimate.extras import import_module
from acclimate.learners.base import Packed, declared_by
from acclimate.learners.on_vectors import OnVectors, vectors_as
from acclimate.models.posterior import update_posterior
from acclimate.models.scoring import sigmoid
from acclimate.storage import Stored

_LARGEST = 1e15
"""Of a weight or a number that is to be told."""

_INTERCEPT = 1e-6
"""Prior precision of the intercept: what all rows have in common is not shrunk."""


@dataclass(frozen=True)
class HeadState:
    """What a head knows: the space that it reads, what standardises vectors ``(s,)``, and its weights by name.

    Of ``logistic`` and ``ridge`` these are ``mean (outputs, s + 1)`` and ``precision (outputs, s + 1, s + 1)``,
    the last column being the intercept; a ridge has one precision for all outputs. ``classes`` are those of a
    classifier, two or more; none of several labels.
    """

    space: str
    centre: FloatArray
    spread: FloatArray
    weights: dict[str, NDArray[Any]]
    classes: IntArray | None

    def standardised(self, vectors: FloatArray) -> FloatArray:
        """Vectors ``(n, s)`` of mean 0 and deviation 1 where it was fitted."""
        return (vectors - self.centre) / self.spread

    def design(self, vectors: FloatArray) -> FloatArray:
        """The same with a column of ones, ``(n, s + 1)``."""
        return np.column_stack([self.standardised(vectors), np.ones(len(vectors))])


class TaskHead(OnVectors):
    """A logistic or linear regression, or a small network, from vectors ``(n, s)`` to one task.

    A target is ``(n,)`` labels of 0 and 1, or integers of more classes (one against the rest each, ``mlp`` all
    together), for a ``logistic`` also several labels of 0 and 1 that do not exclude each other ``(n, outputs)``,
    or for a ``ridge`` numbers ``(n,)`` or ``(n, outputs)``. The head belongs to the space of the vectors that it
    was fitted on: vectors of another one are an error and never a number.

    Its arguments are the fields of :class:`acclimate.config.TaskHeadParameters`.
    """

    kind_on_disk: ClassVar[str] = "task-head"

    @declared_by(TaskHeadParameters)
    def __init__(self, parameters: TaskHeadParameters) -> None:
        self.parameters: TaskHeadParameters = parameters
        self.state: HeadState | None = None

    @property
    def space(self) -> str:
        """The space of the vectors.

        Raises:
            NotFittedError: there was no fit.
        """
        return self._fitted().space

    def fit(self, vectors: ArrayLike, target: ArrayLike, *, space: str, weight: ArrayLike | None = None) -> Self:
        """Learn from these rows alone.

        Args:
            vectors: ``(n, s)``.
            target: what they should tell.
            space: of the vectors.
            weight: of the rows ``(n,)``; a row of weight 2 counts as the row twice, one of 0 not at all.

        Raises:
            ConfigError: shapes do not go together, there is one class alone, or no row that weighs anything.
            RowError: a number is not finite, or too large, or a weight is negative.
            ModelError: the training of ``mlp`` ran away.
            MissingExtraError: ``mlp`` needs torch, which is not installed.
        """
        x, y, w = _rows(vectors_as(vectors), target, weight)
        if not len(w):
            raise ConfigError("there is no row that weighs anything to learn from")
        several = self.parameters.kind == "logistic" and y.ndim == 2
        classes = None if several or self.parameters.kind == "ridge" else _classes(y)
        state = HeadState(space, *_standard(x, w), {}, classes)
        coded = self._coded(y, classes)
        if self.parameters.kind == "mlp":
            network = import_module("acclimate.learners.head_network")
            weights = network.trained(self.parameters, state.standardised(x), coded, w)
        else:
            weights = self._learned(self._prior(x.shape[1], coded.shape[1]), state.design(x), coded, w)
        self.state = replace(state, weights=weights)
        return self

    def update(
        self, vectors: ArrayLike, target: ArrayLike, *, space: str, weight: ArrayLike | None = None
    ) -> Self:
        """Learn new rows; the past enters through the posterior alone (see :func:`acclimate.update_posterior`).

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the vectors are of another space or size, or a class is new.
            ConfigError: shapes do not go together, or the head is an ``mlp``, which is fitted anew.
            RowError: a number is not finite, or too large, or a weight is negative.
        """
        self._check_space(space)
        state = self._fitted()
        if self.parameters.kind == "mlp":
            raise ConfigError("an 'mlp' keeps no posterior to update", hint="fit it anew, or use 'logistic'")
        x, y, w = _rows(self._taken(vectors, len(state.centre)), target, weight)
        coded = self._coded(y, state.classes)
        if coded.shape[1] != len(state.weights["mean"]):
            raise ConfigError(
                f"a target of {coded.shape[1]} outputs for a head of {len(state.weights['mean'])}",
                hint="give the outputs that it was fitted on",
            )
        self.state = replace(state, weights=self._learned(state.weights, state.design(x), coded, w))
        return self

    def predict(self, vectors: ArrayLike, *, space: str) -> FloatArray:
        """Probabilities of the larger of two classes ``(n,)``, or of each of more ``(n, classes)``, ascending.

        Of several labels: that of each, ``(n, outputs)``. Of a ridge: numbers, ``(n,)`` of one output,
        ``(n, outputs)`` of more.

        Raises:
            NotFittedError: there was no fit.
            MismatchError: the vectors are of another space or size.
            RowError: a number is not finite, or too large.
        """
        self._check_space(space)
        state = self._fitted()
        x = self._taken(vectors, len(state.centre)).astype(np.float64)
        if self.parameters.kind == "mlp":
            p = _shares(_perceived(state.weights, state.standardised(x), len(self.parameters.hidden) + 1))
            return p[:, 1] if p.shape[1] == 2 else p
        z = state.design(x) @ state.weights["mean"].T
        if self.parameters.kind == "ridge":
            return z[:, 0] if z.shape[1] == 1 else z
        if state.classes is None:
            return sigmoid(z)
        if z.shape[1] == 1:
            return sigmoid(z[:, 0])
        # Of log-probabilities, for where none of the classes has any probability that can be written.
        return _shares(-np.logaddexp(0.0, -z))

    def _prior(self, size: int, outputs: int) -> dict[str, NDArray[Any]]:
        P = np.diag([*[self.parameters.ridge] * size, _INTERCEPT])
        posteriors = 1 if self.parameters.kind == "ridge" else outputs
        return {"mean": np.zeros((outputs, size + 1)), "precision": np.tile(P, (posteriors, 1, 1))}

    def _learned(
        self, weights: dict[str, NDArray[Any]], X: FloatArray, y: FloatArray, w: FloatArray
    ) -> dict[str, NDArray[Any]]:
        """The posteriors of all outputs after rows ``X (n, d)`` with ``y (n, outputs)``."""
        mean, precision = weights["mean"], weights["precision"]
        if self.parameters.kind == "ridge":
            # Squared loss: one precision serves all outputs, H' = H + X'SX and m' = H'^-1 (H m + X'S y).
            weighted = X * w[:, None]
            after = precision[0] + weighted.T @ X
            solved = np.linalg.solve(after, precision[0] @ mean.T + weighted.T @ y)
            return {"mean": solved.T, "precision": after[None]}
        posteriors = [
            update_posterior(Posterior(m, P), X, column, weight=w)[0]
            for m, P, column in zip(mean, precision, y.T, strict=True)
        ]
        return {part: np.stack([getattr(one, part) for one in posteriors]) for part in ("mean", "precision")}

    def _coded(self, target: FloatArray, classes: IntArray | None) -> FloatArray:
        """The target as ``(n, outputs)``.

        Raises:
            ConfigError: it has a column too many.
            MismatchError: a class is not known.
        """
        if classes is None:
            return target.reshape(len(target), -1)
        if target.ndim != 1:
            raise ConfigError(f"a target of shape {target.shape}", hint="give one class a row, (n,)")
        if not np.isin(target, classes).all():
            raise MismatchError(f"a class is none of {classes.tolist()}", hint="fit the head anew")
        hot = (target[:, None] == classes).astype(np.float64)
        return hot[:, 1:] if len(classes) == 2 and self.parameters.kind == "logistic" else hot

    def _fitted(self) -> HeadState:
        if self.state is None:
            raise NotFittedError("this TaskHead has learned nothing yet", hint="fit it, or load a saved one")
        return self.state

    def _packed(self) -> Packed:
        state = self._fitted()
        arrays = {f"weights.{name}": array for name, array in state.weights.items()}
        arrays |= {"centre": state.centre, "spread": state.spread}
        if state.classes is not None:
            arrays["classes"] = state.classes
        return Packed({"parameters": asdict(self.parameters), "weights": list(state.weights)}, arrays)

    @classmethod
    def _unpacked(cls, stored: Stored) -> Self:
        told, arrays = stored.manifest, stored.arrays
        head = cls(**told["parameters"])
        weights = {name: arrays[f"weights.{name}"] for name in told["weights"]}
        classes = arrays["classes"] if head.parameters.kind == "mlp" else arrays.get("classes")
        head.state = HeadState(told["space"], arrays["centre"], arrays["spread"], weights, classes)
        head.predict(np.zeros((1, len(arrays["centre"]))), space=told["space"])  # parts that belong together can
        return head


def _rows(
    vectors: NDArray[Any], target: ArrayLike, weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Vectors, target and weights of the rows that weigh something; raises as the three do."""
    y, w = _numbers_of(target, len(vectors)), _weights(weight, len(vectors))
    return vectors[w > 0.0].astype(np.float64), y[w > 0.0], w[w > 0.0]


def _numbers_of(target: ArrayLike, rows: int) -> FloatArray:
    """A target ``(n,)`` or ``(n, outputs)`` as numbers; raises where it is none, or has other rows."""
    try:
        y = np.asarray(target).astype(np.float64)
    except ValueError as error:
        raise ConfigError("a target of text", hint="give numbers, classes as integers") from error
    if y.ndim not in (1, 2) or len(y) != rows:
        raise ConfigError(f"a target of shape {y.shape} does not go with {rows:,} vectors")
    _check(np.abs(y) <= _LARGEST, f"the target is not finite, or beyond {_LARGEST:g}")
    return y


def _weights(weight: ArrayLike | None, rows: int) -> FloatArray:
    try:
        w = np.ones(rows) if weight is None else np.asarray(weight).astype(np.float64)
    except ValueError as error:
        raise ConfigError("weights of text", hint="give a number a row, (n,)") from error
    if w.shape != (rows,):
        raise ConfigError(f"weights of shape {w.shape} do not go with {rows:,} vectors")
    _check((w >= 0.0) & (w <= _LARGEST), f"a weight is negative, not finite, or beyond {_LARGEST:g}")
    return w


def _check(allowed: NDArray[np.bool_], what: str) -> None:
    if not allowed.all():
        rows = np.unique(np.argwhere(~allowed)[:, 0])
        raise RowError(f"{what} in {len(rows):,} of {len(allowed):,} rows, first in rows {rows[:5].tolist()}")


def _classes(target: FloatArray) -> IntArray:
    """The classes that there are, ascending.

    Raises:
        ConfigError: they are no integers, or it is one alone.
    """
    classes = np.unique(target)
    if not np.array_equal(classes, np.round(classes)):
        raise ConfigError("a target of classes is integers", hint="use a 'ridge' for numbers")
    if len(classes) < 2:
        raise ConfigError(f"the target is {classes.tolist()} in all rows: there is nothing to tell one from")
    return classes.astype(np.int64)


def _standard(x: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of columns ``(s,)``; 1 where a column is the same in all rows."""
    share = w / w.sum()
    centre = share @ x
    spread = np.sqrt(share @ (x - centre) ** 2)
    return centre, np.where(spread > 1e-9 * np.maximum(np.abs(centre), 1e-6), spread, 1.0)


def _perceived(weights: dict[str, NDArray[Any]], z: FloatArray, layers: int) -> FloatArray:
    """The logits ``(n, classes)`` of a network of so many layers."""
    for number in range(layers):
        z = z @ weights[f"{number}.weight"] + weights[f"{number}.bias"]
        z = np.maximum(z, 0.0) if number < layers - 1 else z
    return z


def _shares(logits: FloatArray) -> FloatArray:
    """Probabilities in proportion to the exponentials ``(n, classes)``."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return p / p.sum(axis=1, keepdims=True)

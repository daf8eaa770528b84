"""A GLMix as a classifier of scikit-learn: rows in, classes out, in a pipeline, a grid search or a vote."""

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y, validate_data

from acclimate.arrays import FloatArray
from acclimate.config import FixedEffect, RandomEffect
from acclimate.config.learners import PrecisionKind
from acclimate.interop.columns import Columns, Entities
from acclimate.learners.glmix import GLMix
from acclimate.models.scoring import logit


class GLMixClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression with coefficients of each entity's own, for two classes.

    Columns of ``X`` are numbers, and ids of entities. Without entities it is a logistic regression: with features
    standardised it has the optimum of scikit-learn's ``LogisticRegression(C=1/ridge)``, but that the intercept is
    held by the ridge too, around the log-odds of the classes. ``partial_fit`` is the sequential Bayesian update
    (:meth:`acclimate.GLMix.update`); what features are scaled by is settled by the first batch.

    Args:
        entities: columns of ``X``, by name or position, that hold ids: whole numbers or texts, missing where a row
            has none. Each id has an intercept. Or a mapping from these columns to those columns that have
            coefficients for each id too.
        ridge: prior precision of a standardised coefficient of all rows.
        entity_ridge: the same of an id's own, where no population is learned.
        learn_population: learn from all ids what they come from, at ``fit`` and in ``partial_fit``.
        forgetting: weight of the past at each ``partial_fit``, in (0, 1].
        precision: what is kept of posteriors: ``auto``, ``full``, ``diagonal`` or ``marginal``.
        mode: probabilities ``point`` at the posterior means, or ``integrated`` over the posterior.
        tol: posterior standard deviations to the optimum at which to stop.
        max_iter: Newton steps at most.

    Attributes:
        model_: the :class:`acclimate.GLMix`; its coefficients have the names of the columns.
        classes_: the two classes ``(2,)``.
        coef_: of all rows, ``(1, columns that are no entities)``, in their order.
        intercept_: ``(1,)``.
        n_iter_: Newton steps of the last fit or update.
        n_features_in_: columns of ``X``, entities counted.
        feature_names_in_: their names, where all are text.
    """

    model_: GLMix
    classes_: NDArray[Any]
    n_features_in_: int

    def __init__(
        self,
        *,
        entities: Entities = (),
        ridge: float = 1.0,
        entity_ridge: float = 1.0,
        learn_population: bool = True,
        forgetting: float = 1.0,
        precision: PrecisionKind = "auto",
        mode: Literal["point", "integrated"] = "point",
        tol: float = 1e-6,
        max_iter: int = 100,
    ) -> None:
        self.entities = entities
        self.ridge = ridge
        self.entity_ridge = entity_ridge
        self.learn_population = learn_population
        self.forgetting = forgetting
        self.precision = precision
        self.mode: Literal["point", "integrated"] = mode
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from these rows alone.

        Args:
            X: ``(n, columns)``: an array, or any frame that speaks Arrow.
            y: classes ``(n,)``.
            sample_weight: ``(n,)``; a row of weight 2 counts as the row twice.

        Raises:
            ValueError: shapes, numbers or classes are not allowed; there are not two classes.
            AcclimateError: an argument of the constructor, or an id, is not allowed.
        """
        columns, numbers, ids, target = self._read(X, y, reset=True)
        classes = np.unique(target)
        _check_classes(target, classes)
        weight = _weights(sample_weight, len(target))
        events = columns.events(numbers, ids, target == classes[1], weight)
        return self._with(self._model(columns).fit(events), classes)

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn new rows; the past enters through the posterior alone. The first call is a fit.

        Args:
            X: as in :meth:`fit`.
            y: as in :meth:`fit`; it may have one of the classes alone.
            classes: both classes; needed in the first call alone.
            sample_weight: as in :meth:`fit`.

        Raises:
            ValueError: as in :meth:`fit`, or the first call names no classes, or a later one others.
        """
        first = not hasattr(self, "model_")
        if first and classes is None:
            raise ValueError("the first call to partial_fit needs all classes")
        both = self.classes_ if classes is None else np.unique(np.asarray(classes))
        if not first and not np.array_equal(both, self.classes_):
            raise ValueError(f"classes {both} are not those of the first call to partial_fit: {self.classes_}")
        columns, numbers, ids, target = self._read(X, y, reset=first)
        _check_classes(target, both)
        weight = _weights(sample_weight, len(target))
        events = columns.events(numbers, ids, target == both[1], weight)
        return self._with(self._model(columns).fit(events) if first else self.model_.update(events), both)

    def predict_proba(self, X: Any) -> FloatArray:
        """The probability of each of the ``classes_``, ``(n, 2)``."""
        p = self._probability(X)
        return np.column_stack([1.0 - p, p])

    def decision_function(self, X: Any) -> FloatArray:
        """The logit of the second class, ``(n,)``, within 36.8 of 0: no double is closer to 1 than there."""
        return logit(self._probability(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each row, ``(n,)``: the more probable one."""
        second = self.decision_function(X) > 0.0
        return self.classes_[second.astype(np.int64)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _probability(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        columns, numbers, ids, _ = self._read(X, None, reset=False)
        return self.model_.predict(columns.events(numbers, ids), mode=self.mode)

    def _model(self, columns: Columns) -> GLMix:
        ways: Any = {"forgetting": self.forgetting, "precision": self.precision}
        return GLMix(
            fixed=FixedEffect(columns.numbers, ridge=self.ridge, **ways),
            random=[
                RandomEffect(entity, features, ridge=self.entity_ridge, **ways)
                for entity, features in columns.random.items()
            ],
            learn_population=self.learn_population,
            tolerance=self.tol,
            max_steps=self.max_iter,
        )

    def _with(self, model: GLMix, classes: NDArray[Any]) -> Self:
        """This one after a fit or an update of its model, with the attributes that others read."""
        self.model_, self.classes_ = model, classes
        _, means, _ = zip(*model.weights(), strict=True)
        self.intercept_, self.coef_ = np.array(means[:1]), np.array([means[1:]])
        self.n_iter_ = model.info.steps if model.info else 0
        if left := model.shortfall():
            warnings.warn(f"not converged: {left}; raise max_iter or tol", ConvergenceWarning, stacklevel=3)
        return self

    def _read(self, X: Any, y: Any, *, reset: bool) -> tuple[Columns, FloatArray, dict[str, Any], Any]:
        """What the columns of ``X`` are, its numbers ``(n, numbers)``, its ids by name, and ``y``; all checked."""
        with_y: Any = {} if y is None else {"y": y}
        checks: Any = {"dtype": np.float64}
        if not len(self.entities):
            checked: Any = validate_data(self, X, reset=reset, **with_y, **checks)
            numbers, y = (checked, None) if y is None else checked
            return Columns.declared(self._names(), ()), numbers, {}, y
        validate_data(self, X, reset=reset, skip_check_array=True)
        columns = Columns.declared(self._names(), self.entities)
        part, ids = columns.split(X)
        checks["ensure_min_features"] = 0  # intercepts alone
        numbers, y = (check_array(part, **checks), None) if y is None else check_X_y(part, y, **checks)
        return columns, numbers, ids, y

    def _names(self) -> list[str]:
        """What the columns of ``X`` are called: ``x0``, ``x1`` and so on where they have no names."""
        return list(getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)]))


def _check_classes(y: NDArray[Any], classes: NDArray[Any]) -> None:
    """That there are two classes, and ``y`` has no other.

    Raises:
        ValueError: there are not, or it has.
    """
    check_classification_targets(y)
    if len(classes) < 2:
        raise ValueError(f"a classifier needs two classes, and there is one class: {classes}")
    if len(classes) > 2:
        kind = type_of_target(y)
        raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
    if unknown := np.setdiff1d(y, classes).tolist():
        raise ValueError(f"y has the classes {unknown[:3]}, which are none of {classes}")


def _weights(sample_weight: ArrayLike | None, rows: int) -> FloatArray:
    """The weights of so many rows.

    Raises:
        ValueError: there are more or fewer, one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(rows)
    checks: Any = {"dtype": np.float64, "ensure_2d": False, "ensure_non_negative": True}
    weight: Any = check_array(sample_weight, input_name="sample_weight", **checks)
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight is of shape {weight.shape}, and y has {rows} rows")
    if not weight.any():
        raise ValueError("sample_weight is zero in all rows: there is nothing to learn from")
    return weight

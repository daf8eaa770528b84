"""A fit, an update and a fine-tuning of a network: rows and a state in, a state and how it went out."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from acclimate.arrays import FloatArray
from acclimate.config import SequentialLaplaceParameters
from acclimate.errors import ModelError
from acclimate.learners.network.checkpoints import Checkpoint
from acclimate.learners.network.laplace import (
    TABLE,
    Batch,
    Belief,
    Curvature,
    Network,
    Objective,
    Tensors,
    combined,
)
from acclimate.learners.network.rows import NetworkRows
from acclimate.learners.network.state import NetworkState, Table, module_of, prior
from acclimate.learners.network.training import Trained, device_of, train
from acclimate.models.scoring import noise

_SPREAD = 0.05
"""Of the numbers of a vector at the start of a fit: small beside what they become, enough to tell names apart."""

_POPULATION_ROWS = 2.0
"""Names at the prior that a field's population starts with."""

_TEMPERATURE_ROWS = 16_384
"""The newest rows of an update, so many, say what the temperature is: to about a hundredth."""

_HELD_BY = 100.0
"""How many rows, each a nat per unit of log-temperature squared, hold the temperature where it was."""


@dataclass(frozen=True)
class NetworkInfo:
    """How the last fit or update went.

    ``rows`` learned from, ``steps`` taken, the mean ``losses`` of the rows held out (after each epoch of a fit;
    before and after an update), and why an update was ``refused``, or nothing. ``judged`` says whether rows were
    held out at all, where that was meant.
    """

    rows: int
    steps: int = 0
    losses: tuple[float, ...] = ()
    refused: str = ""
    judged: bool = True


class Learning:
    """Rows on the way into a state; ``state`` has a row of the table for each name in them."""

    def __init__(self, parameters: SequentialLaplaceParameters, state: NetworkState, rows: NetworkRows) -> None:
        self.parameters, self.state, self.settings = parameters, state, parameters.training
        self.batch = Batch.touching(rows, len(state.layout.index))
        self.device = device_of(self.settings)
        module = module_of(parameters, state.layout).to(self.device)
        self.start = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        centre, spread = (torch.from_numpy(part).to(self.device) for part in (state.centre, state.spread))
        self.network = Network(module, centre, spread, len(state.layout.fields))
        newest = first_held_out(rows, self.settings.holdout)
        self.older, self.newest = range(newest), range(newest, len(rows))

    # --- the three ways to learn ----------------------------------------------------------------------------

    def fit(self, checkpoint: Checkpoint | None) -> tuple[NetworkState, NetworkInfo]:
        """From scratch: train on the older rows, judge by the newest, and then learn these by an update."""
        settings, anchor = self.settings, self._belief(self.state.belief, self.state.table)
        objective, done = self._trained(anchor, self._initial(), settings.epochs, settings.rate, checkpoint)
        belief = anchor.learned(objective.weights, self._curvature(objective, self.older))
        temperature = self._temperature(objective, self.newest, 1.0)
        belief, more = self._newest_too(belief, epochs=1)
        state = self._with(belief, temperature)
        populate(state, self.parameters)
        if self.parameters.cold_weight > 0.0:
            table = Table(state.table.mean.copy(), state.table.precision.copy())
            state = replace(state, first=(state.belief, table))
        judged = bool(self.newest)
        return state, NetworkInfo(len(self.batch.rows), done.steps + more, done.judgements, judged=judged)

    def update(self) -> tuple[NetworkState | None, NetworkInfo]:
        """From new rows: anchored to what was known; no state where it would be worse off with them."""
        settings, known = self.settings, self._belief(self.state.belief, self.state.table)
        anchor, start = self._anchor(known)
        before = self._objective(self.older, self.newest, known.mean, None)
        count = len(self.batch.rows)
        newest = range(max(0, count - _TEMPERATURE_ROWS), count)
        temperature = self._temperature(before, newest, self.state.temperature)
        losses = () if not self.newest else (before.mean_loss(self.newest),)
        try:
            objective, done = self._trained(anchor, start, settings.update_epochs, settings.update_rate)
        except ModelError as error:  # it ran away: no worse than an update that does harm
            return None, NetworkInfo(len(self.batch.rows), 0, losses, f"the update was refused: {error.message}")
        losses += done.judgements[done.best - 1 : done.best]
        if refused := self._refusal(losses):
            return None, NetworkInfo(len(self.batch.rows), done.steps, losses, refused)
        belief = anchor.learned(objective.weights, self._curvature(objective, self.older))
        belief, more = self._newest_too(belief, epochs=done.best)
        state = self._with(belief, temperature)
        judged = bool(self.newest)
        return state, NetworkInfo(len(self.batch.rows), done.steps + more, losses, judged=judged)

    def fine_tune(self) -> tuple[NetworkState, NetworkInfo]:
        """From new rows, from where it stands and with nothing that holds it; precisions stay as they were."""
        settings, known = self.settings, self._belief(self.state.belief, self.state.table)
        self.older, self.newest = range(len(self.batch.rows)), range(0)
        objective, done = self._trained(None, known.mean, settings.update_epochs, settings.update_rate)
        mean = {name: weight.detach() for name, weight in objective.weights.items()}
        state = self._with(replace(known, mean=mean), self.state.temperature)
        return state, NetworkInfo(len(self.batch.rows), done.steps)

    # --- their steps ----------------------------------------------------------------------------------------

    def _trained(
        self,
        anchor: Belief | None,
        start: Tensors,
        epochs: int,
        rate: float,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Objective, Trained]:
        """The older rows learned, judged by the newest."""
        objective = self._objective(self.older, self.newest, start, anchor)
        seed = _seed(self.settings.seed, self.state.updates)
        return objective, train(
            objective, self.settings, epochs=epochs, rate=rate, seed=seed, checkpoint=checkpoint
        )

    def _newest_too(self, belief: Belief, *, epochs: int) -> tuple[Belief, int]:
        """The newest rows learned as well, anchored to what the older ones said, and the steps that it took.

        Nothing else judges them: as many epochs as did the older ones good.
        """
        if not self.newest:
            return belief, 0
        objective = self._objective(self.newest, range(0), belief.mean, belief)
        settings = self.settings
        seed = _seed(settings.seed, self.state.updates + 500_000)
        before = objective.mean_loss(self.newest)
        done = train(objective, settings, epochs=epochs, rate=settings.update_rate, seed=seed)
        if not objective.mean_loss(self.newest) <= before:
            return belief, done.steps  # a step that makes the very rows it learns less likely is none
        return belief.learned(objective.weights, self._curvature(objective, self.newest)), done.steps

    def _objective(self, learn: range, judge: range, start: Tensors, anchor: Belief | None) -> Objective:
        leaves: Tensors = dict(self.network.module.named_parameters())
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(start[name])
        leaves[TABLE] = start[TABLE].clone().requires_grad_()
        return Objective(self.network, self.batch, learn, judge, leaves, anchor)

    def _curvature(self, objective: Objective, rows: range) -> Curvature:
        p = self.parameters
        return objective.curvature(rows, p.curvature, head=p.last_layer == "full")

    def _temperature(self, objective: Objective, unlearned: range, before: float) -> float:
        """What rows that are not learned yet say."""
        if not self.parameters.temperature or not unlearned:
            return before
        rows, part = self.batch.rows, slice(unlearned.start, unlearned.stop)
        margins, offset = objective.margins(unlearned), rows.offset[part]
        return fitted_temperature(margins, rows.label[part], rows.weight[part], before, offset=offset)

    def _refusal(self, losses: tuple[float, ...]) -> str:
        most = self.parameters.refuse_above
        if most is None or len(losses) < 2 or losses[1] <= losses[0] + most:
            return ""
        return (
            f"the update was refused: the log-loss of its newest {len(self.newest):,} rows would rise from "
            f"{losses[0]:.5f} to {losses[1]:.5f}, by more than {most:g}"
        )

    # --- between the state and what this batch touches ---------------------------------------------------------

    def _belief(self, belief: Belief, table: Table) -> Belief:
        """Over the network's weights and the rows of the table that are touched."""
        rows = self.batch.touched
        return self._over(belief, Table(table.mean[rows], table.precision[rows]))

    def _anchor(self, known: Belief) -> tuple[Belief, Tensors]:
        """What anchors an update, and where it starts: equation of :mod:`acclimate.learners.network.laplace`."""
        p, state = self.parameters, self.state
        a = p.cold_weight if state.first is not None else 0.0
        parts = [(p.forgetting * (1.0 - a), known), (1.0 - p.forgetting, self._base())]
        start = known.mean
        if a > 0.0 and state.first is not None:
            belief, table = state.first
            first = self._belief(belief, table.with_names(state.layout.home))
            parts.append((p.forgetting * a, first))
            start = {name: a * first.mean[name] + (1.0 - a) * mean for name, mean in known.mean.items()}
        return combined(parts), start

    def _base(self) -> Belief:
        """Where weights start: the ridge, of a name the population of its field, the table's first rows."""
        layout, table = self.state.layout, self.state.table
        homes = layout.home[self.batch.touched]
        population = Table(table.mean[homes], table.precision[homes])
        return self._over(prior(self.parameters, layout, self.state.log_odds), population)

    def _over(self, belief: Belief, table: Table) -> Belief:
        mean, precision = (torch.from_numpy(part) for part in (table.mean, table.precision))
        whole = Belief({**belief.mean, TABLE: mean}, {**belief.precision, TABLE: precision}, belief.head)
        return whole.to(self.device)

    def _initial(self) -> Tensors:
        """Where a fit starts: layers as torch makes them, vectors at noise that is each name's own."""
        layout, width = self.state.layout, self.parameters.embedding
        names = np.array(layout.index.names, np.dtypes.StringDType())[self.batch.touched]
        vectors = _SPREAD * noise(names, [self.settings.seed], width)
        table = np.hstack([np.zeros((len(names), 1)), vectors])
        start = {**self.start, TABLE: torch.from_numpy(table).float().to(self.device)}
        bias = self.state.belief.mean.get("head.bias")
        return start if bias is None else {**start, "head.bias": bias.to(self.device)}

    def _with(self, belief: Belief, temperature: float) -> NetworkState:
        """The state with what is known now; rows of the table are changed in place."""
        state, belief = self.state, belief.to(torch.device("cpu"))
        table = (belief.mean.pop(TABLE), belief.precision.pop(TABLE))
        state.table.put(self.batch.touched, *table)
        cut = max(state.cut, int(self.batch.rows.time.max()))
        return replace(state, belief=belief, temperature=temperature, updates=state.updates + 1, cut=cut)


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63


def first_held_out(rows: NetworkRows, share: float) -> int:
    """Where the newest rows begin that have a share of the weight; rows of one instant stay together."""
    total = np.cumsum(rows.weight)
    if not len(rows) or total[-1] <= 0.0 or share == 0.0:
        return len(rows)
    last_older = min(int(np.searchsorted(total, (1.0 - share) * total[-1])), len(rows) - 1)
    newest = int(np.searchsorted(rows.time, rows.time[last_older], side="right"))
    return newest if rows.weight[newest:].sum() > 0.0 else len(rows)


def fitted_temperature(
    margins: FloatArray, label: FloatArray, weight: FloatArray, before: float, *, offset: FloatArray | float = 0.0
) -> float:
    """The temperature of the network's margins that makes these rows likeliest, held to what it was by a few.

    What is known as an offset is left as it is.
    """
    signs = 1.0 - 2.0 * label

    def loss(log_temperature: float) -> float:
        losses = weight @ np.logaddexp(0.0, signs * (offset + margins * np.exp(-log_temperature)))
        return float(losses + 0.5 * _HELD_BY * (log_temperature - np.log(before)) ** 2)

    middle = float(np.log(before))
    return float(np.exp(minimize_scalar(loss, bounds=(middle - 1.0, middle + 1.0), method="bounded").x))


def populate(state: NetworkState, parameters: SequentialLaplaceParameters) -> None:
    """Set each field's population, the table's first rows: mean and precision of the names that it has.

    ``b = sum_v w_v / (n + 2)``, ``1/B = (sum_v (w_v - b)^2 + 1/H_v + 2/ridge) / (n + 2)``, for each coordinate.
    """
    home, fields = state.layout.home[len(state.layout.fields) :], len(state.layout.fields)
    mean, precision = (part[fields:].astype(np.float64) for part in (state.table.mean, state.table.precision))
    count = np.bincount(home, minlength=fields)[:, None] + _POPULATION_ROWS
    centre = _summed(mean, home, fields) / count
    ridge = np.full(mean.shape[1], parameters.embedding_ridge)
    ridge[0] = parameters.ridge
    spread = _summed((mean - centre[home]) ** 2 + 1.0 / precision, home, fields) + _POPULATION_ROWS / ridge
    state.table.put(np.arange(fields), torch.from_numpy(centre), torch.from_numpy(count / spread))


def _summed(values: FloatArray, home: np.ndarray, fields: int) -> FloatArray:
    """The sum of the rows of each field, ``(F, 1 + d)``."""
    total = np.zeros((fields, values.shape[1]))
    np.add.at(total, home, values)
    return total

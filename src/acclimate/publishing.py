"""The verbs of spaces: publish a saved model, let it pass the gates and promote it, compare two."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from acclimate import learners
from acclimate.arrays import FloatArray
from acclimate.artifacts import Events, Space, TableSource
from acclimate.config import LABEL_KINDS, Gates, Schema, loss_of, predicts
from acclimate.errors import (
    AcclimateError,
    ConfigError,
    DataError,
    MismatchError,
    ModelError,
    SpaceError,
)
from acclimate.evaluate.comparisons import compare
from acclimate.evaluate.replay import ROW_LOSSES
from acclimate.learners.carried import Carried
from acclimate.models.alignment import procrustes
from acclimate.pipeline import check_settings, open_events
from acclimate.project import Project
from acclimate.publish import Spaces, gates
from acclimate.publish.gates import Verdict
from acclimate.publish.spaces import check_life
from acclimate.publish.stores import open_store
from acclimate.publish.stores.parity import compared
from acclimate.publish.stores.units import tag_in
from acclimate.times import duration_us, instant_us


def spaces_of(project: Project, *, who: str | None = None) -> Spaces:
    """The registry of a project's spaces.

    Raises:
        ConfigError: the project names none.
    """
    if project.publish is None:
        raise ConfigError(
            "the project file has no section 'publish'", hint="say at least where spaces go: publish.spaces"
        )
    return Spaces(project.publish.spaces, who=who)


def publish(
    project: Project,
    model_path: str | Path,
    *,
    learner: str | None = None,
    reason: str = "",
    who: str | None = None,
) -> Space:
    """Make a saved model the next space of its learner: ready to be promoted, and never changed.

    Raises:
        ConfigError: the project names no place for spaces, or no such learner.
        MismatchError: the model was made with other settings than the project's learner has now.
        OutputError: it cannot be written.
    """
    spaces, declared = spaces_of(project, who=who), project.learner(learner)
    name = learner or next(iter(project.learners))
    model = learners.load(model_path)
    check_settings(model.parameters, declared, model_path)
    weights, contract = learners.identity_of(model)
    return spaces.publish(
        lambda number: Space(name, number, weights, contract, model.cut),
        lambda folder: model.save(folder),
        reason=reason,
    )


def publish_on_vectors(
    project: Project, model: Any, name: str, *, reason: str = "", who: str | None = None
) -> Space:
    """Make a model of vectors (a task head, an index, an item map) the next space of a name; see :func:`publish`.

    Its parent is the newest space whose vectors it was made of, which is refreshed and kept while it is live or
    pinned.

    Raises:
        ConfigError: the project names no place for spaces, or has a learner of that name.
        SpaceError: no space that is ready or live has these vectors.
        OutputError: it cannot be written.
    """
    spaces = spaces_of(project, who=who)
    if name in project.learners:
        raise ConfigError(f"'{name}' is a learner of the project", hint="give the model another name")
    weights, contract = learners.identity_on_vectors(model)
    parent = _made_by(spaces, model.space)
    if parent is None:
        raise SpaceError(
            f"no space that is ready or live has the vectors of '{name}', those of space {model.space}",
            hint="publish the encoder first",
        )
    return spaces.publish(
        lambda number: Space(name, number, weights, contract, parent.cut, (str(parent),)),
        lambda folder: model.save(folder),
        reason=reason,
    )


def _made_by(spaces: Spaces, vectors: str) -> Space | None:
    """The newest space that is ready or live and whose learner makes vectors of this identity."""
    kept = [one.space for one in spaces.state().known if one.life in ("ready", "live") and not one.space.parents]
    return next((one for one in reversed(kept) if spaces.manifest(one).content.get("space") == vectors), None)


def promote(
    project: Project, space: str, *, force: bool = False, reason: str = "", who: str | None = None
) -> list[Verdict]:
    """Make a space live, once it has passed the gates of the project; what they said.

    With ``force`` it need not pass, and the journal says so, and why; only its own snapshot has to be whole.

    Raises:
        ConfigError: it is to be forced without a reason.
        GateError: it does not pass: which gates, which entities, and by how much.
        SpaceError: it is not ready, or another has become live meanwhile.
    """
    if force and not reason.strip():
        raise ConfigError("a promotion is forced without a reason", hint="say why: --reason '...'")
    spaces = spaces_of(project, who=who)
    state = spaces.state()
    known = check_life(state, space, ["ready"], "promoted")
    before = state.live(known.space.name)
    live = before.space if before else None
    verdicts = judged(project, spaces, known.space, live, force=force)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed and not force:
        raise gates.refused(known.space, verdicts)
    forced = f"forced past {', '.join(verdict.gate for verdict in failed)}: " if failed else ""
    spaces.promote(known.space, instead_of=live, reason=forced + reason)
    return verdicts


def judged(
    project: Project, spaces: Spaces, space: Space, live: Space | None, *, force: bool = False
) -> list[Verdict]:
    """What the gates of the project say of a space beside the live one, if there is one.

    A live space or a store that cannot be read or compared fails the gates that need it. With ``force`` so does a
    log that cannot be read, or not by this space; its snapshot has to be whole all the same.

    Raises:
        DataError: there are no events to look at.
        MismatchError: the space is of another schema than the project has now.
        FormatError: the snapshot is damaged.
    """
    if space.parents:
        spaces.open(space)
        return [gates.unasked("finite", "a model of vectors keeps finite numbers alone, and reads no events")]
    bounds = project.publish.gates if project.publish else Gates()
    model: Any = learners.load(spaces.open(space))
    beside: dict[str, float | None] = {"drift": bounds.drift, "quality": bounds.quality} if live else {}
    beside = {gate: bound for gate, bound in beside.items() if bound is not None}
    verdicts, stored = list[Verdict](), list(_stored_parity(project, space, bounds))
    try:
        window = _last_window(open_events(project), bounds.window)
        rows = _Rows(window, model)
        finite, said = _finite(model, rows)
        verdicts.append(finite)
        if bounds.coverage is not None:
            verdicts += _coverage(model, window, bounds.coverage)
        if not finite.passed:
            return verdicts + _unanswered(["parity", *beside], "not all numbers are finite") + stored
        verdicts.insert(1, _parity(model, window, bounds))
    except AcclimateError as error:
        if not force:
            raise
        asked = ["finite", "parity", *(["coverage"] if bounds.coverage is not None else []), *beside]
        return _unanswered(asked, error.message) + stored
    if live is not None and beside:
        try:
            verdicts += list(_beside_live(rows, said, (model, learners.load(spaces.open(live))), bounds))
        except AcclimateError as error:
            verdicts += _unanswered(beside, f"the live space cannot be compared: {error.message}")
    return verdicts + stored


@dataclass(frozen=True)
class Pruned:
    """What was removed: ``spaces``, as text, and ``units`` of the project's store."""

    spaces: Sequence[str]
    units: Sequence[str]


def prune(
    project: Project, *, abandoned_after: int = 3_600_000_000, reason: str = "", who: str | None = None
) -> Pruned:
    """Remove the snapshots of retired spaces, what killed publishers left, and the units of spaces that are gone.

    Only units that hold what is of a space of this registry are dropped. A worker that has not seen yet that a
    space is refreshed no more is fenced.

    Args:
        project: says where the spaces are, and the store, if there is one.
        abandoned_after: microseconds after which a space that is being built is given up.
        reason: why, for the journal.
        who: changes it, for the journal.

    Raises:
        OutputError: the store cannot be reached, or is full; the message tells what was removed before.
        FormatError: what a unit tells of its space is not what was written.
        MissingExtraError: the extra of the store is not installed.
    """
    spaces, units = spaces_of(project, who=who), list[str]()
    removed = spaces.prune(abandoned_after=abandoned_after, reason=reason)
    if project.publish is None or project.publish.store is None:
        return Pruned(removed, units)
    try:
        with closing(open_store(project.publish.store)) as store:
            gone = {str(space): space.tag for space in spaces.gone()}
            for unit in store.units():
                tag = gone.get(unit.rpartition("/")[0])
                if tag is not None and tag == tag_in(store, unit):
                    store.drop(unit)
                    units.append(unit)
    except AcclimateError as error:
        told = ", ".join([*removed, *units]) or "nothing"
        raise type(error)(
            f"units of spaces that are gone may be left in the store: {error.message}; removed: {told}",
            hint=f"prune once more{': ' if error.hint else ''}{error.hint}",
        ) from error
    return Pruned(removed, units)


@dataclass(frozen=True)
class Difference:
    """How two spaces differ.

    ``identity``: by part whether it is the same; ``settings`` and ``schema``: in words; ``sizes``: bytes of both;
    ``shared``: by name how far what all entities share is apart, ``|a - b| / |a|``, ``None`` where it cannot be
    said.
    """

    one: str
    other: str
    identity: Mapping[str, bool]
    settings: list[str]
    schema: list[str]
    sizes: tuple[int, int]
    shared: Mapping[str, float | None]


def diff(spaces: Spaces, one: str, other: str) -> Difference:
    """Compare two spaces.

    Raises:
        SpaceError: there is no such space, or it is not ready.
        ConfigError: one is of a model of vectors, which is no learner.
        FormatError: a snapshot is damaged.
    """
    state = spaces.state()
    known = [state.at(space) for space in (one, other)]
    if on_vectors := next((space.space for space in known if space.space.parents), None):
        raise ConfigError(f"{on_vectors} is a model of vectors", hint="compare spaces of learners")
    first, second = (asdict(space.space) for space in known)
    models: list[Any] = [learners.load(spaces.open(space.space)) for space in known]
    parts = [(asdict(model.parameters), model.state.contract) for model in models]
    return Difference(
        one,
        other,
        {name: first[name] == second[name] for name in ("weights", "contract", "cut", "parents")},
        list(_changed(parts[0][0], parts[1][0], "")),
        list(_changed(parts[0][1], parts[1][1], "")),
        (known[0].nbytes, known[1].nbytes),
        learners.distances(*models),
    )


# --- what gates are asked with -------------------------------------------------------------------------------


class _Rows:
    """Rows of the log, and whose they are: of the encoder's entity, or of the schema's first one."""

    def __init__(self, events: Events, model: Any) -> None:
        schema = events.schema
        entities = list(schema.entities.values())
        self.events = events
        self.column = entities[0] if predicts(model.parameters) else schema.entity_column(model.entity)
        self.crossed = entities[1] if len(entities) > 1 else None
        self.ids = _texts(events.table([self.column])[self.column])

    def said(self, model: Any) -> FloatArray:
        """Predictions ``(n,)``, or the vectors of an encoder ``(n, s)``."""
        return _said(model, self.events)


def _unanswered(asked: Iterable[str], why: str) -> list[Verdict]:
    return [gates.incomparable(gate, why, 0.0) for gate in asked]


def _finite(model: Any, rows: _Rows) -> tuple[Verdict, FloatArray]:
    """Whether all is finite that is stored and that is said of rows; and what is said, if it is said at all."""
    carried, nothing = Carried(model), np.zeros(0)
    columns = carried.columns()
    kept = ((" ".join(columns[name]), ids, values) for name, ids, values in carried.everything())
    try:
        stored = gates.finite_rows(kept, model.shared().arrays)
        if not stored.passed:
            return stored, nothing
        said = rows.said(model)
    except MismatchError:
        raise
    except ModelError as error:
        return gates.incomparable("finite", error.message, 0.0), nothing
    return gates.finite(said, rows.ids), said


def _said(model: Any, events: Events) -> FloatArray:
    return model.predict(events) if predicts(model.parameters) else model.vectors(events)


def _last_window(log: Events, length: str) -> Events:
    last = log.describe().last
    if last is None:
        raise DataError("there are no events for the gates to look at")
    return log.after(instant_us(last) + 1 - duration_us(length)).cached()


def _parity(model: Any, window: Events, bounds: Gates) -> Verdict:
    """The same rows, asked of a model and of the one that it is after a save and a load."""
    some = Events(window.schema, TableSource(window.schema, window.head(bounds.sample)))
    with tempfile.TemporaryDirectory(prefix="acclimate-") as room:
        model.save(Path(room) / "model")
        again = _said(learners.load(Path(room) / "model"), some)
    return gates.parity(_Rows(some, model).ids, _said(model, some), again, bounds.parity)


def _stored_parity(project: Project, space: Space, bounds: Gates) -> Iterator[Verdict]:
    """Whether vectors in the project's store are those of the states there.

    Nothing where no unit of the space is filled.
    """
    if project.publish is None or project.publish.store is None:
        return
    try:
        with closing(open_store(project.publish.store)) as store:
            found = compared(store, space, Carried.made, bounds.sample)
    except AcclimateError as error:
        told = ", ".join(filter(None, (error.message, error.hint)))
        yield gates.incomparable("stored parity", f"the store cannot be compared: {told}", bounds.parity)
        return
    if found.units:
        most = max(bounds.parity, found.rounding)
        yield gates.stored_parity(found.whose, found.apart, most, units=found.units, rows=found.rows)


def _coverage(model: Any, window: Events, least: float | Mapping[str, float]) -> Iterator[Verdict]:
    names, schema, found = window.source.columns().names, window.schema, model.known(window)
    asked = least if isinstance(least, Mapping) else dict.fromkeys(found, least)
    if not asked:
        yield gates.unasked("coverage", "this learner keeps nothing of entities")
    for name, share in asked.items():
        if name not in found:
            yield gates.incomparable("coverage", f"no '{name}' is known by such a learner", share)
            continue
        ids, known = found[name]
        column, texts = schema.entities.get(name, name), [str(id) for id in ids.tolist()]
        counts = dict.fromkeys(texts, 1)
        if column in names:
            counted: Any = pc.value_counts(window.table([column])[column].cast(pa.string()))
            counts |= {one["values"].as_py(): one["counts"].as_py() for one in counted}
        yield gates.coverage(name, texts, known, np.array([counts[id] for id in texts], np.int64), share)


def _beside_live(rows: _Rows, said: FloatArray, models: tuple[Any, Any], bounds: Gates) -> Iterator[Verdict]:
    """Drift and quality beside the live space.

    Raises:
        ModelError: that cannot read these events, says nothing finite of them, or something else than the new one.
    """
    model, live = models
    aims = [_aim(one, rows.events.schema) for one in models]
    if aims[0] != aims[1]:
        raise MismatchError(f"it is of {aims[1]}, and the new one of {aims[0]}")
    of_live = rows.said(live)
    if not np.isfinite(of_live).all():
        raise ModelError("not all that it says of these rows is finite")
    if bounds.drift is not None:
        yield _drift(rows, said, of_live, bounds.drift)
    if bounds.quality is not None and predicts(model.parameters):
        yield _quality(rows, np.column_stack([said, of_live]), max(model.cut, live.cut), model, bounds.quality)
    elif bounds.quality is not None:
        yield gates.unasked("quality", "an encoder predicts no label, and has no loss")


def _aim(model: Any, schema: Schema) -> str:
    """What is predicted, and by which loss: only what has the same aim can be compared."""
    record = model.parameters
    if not predicts(record):
        return f"vectors of '{model.entity}'"
    return f"label '{schema.label(record.label, kinds=LABEL_KINDS)}' with loss {loss_of(record)}"


def _drift(rows: _Rows, said: FloatArray, of_live: FloatArray, most: float) -> Verdict:
    if said.shape != of_live.shape:
        return gates.incomparable("drift", f"vectors of {said.shape[1]}, and {of_live.shape[1]} live", most)
    if said.ndim == 2:
        size = float(np.sqrt(np.square(of_live).sum(axis=1).mean())) or 1.0
        said, of_live = said @ procrustes(said, of_live) / size, of_live / size
    return gates.drift(rows.ids, said, of_live, most)


def _quality(rows: _Rows, said: FloatArray, cut: int, model: Any, most: float) -> Verdict:
    """The losses of what the two say, ``(n, 2)``, on rows after the last one that one of them has learned."""
    schema = rows.events.schema
    label = schema.label(model.parameters.label, kinds=LABEL_KINDS)
    columns = [name for name in (schema.time.column, label, schema.weight, rows.crossed) if name]
    table = rows.events.table(list(dict.fromkeys(columns)))
    y = table[label].cast(pa.float64()).to_numpy()
    new = np.flatnonzero((table[schema.time.column].cast(pa.int64()).to_numpy() > cut) & np.isfinite(y))
    y, said, kind = y[new], said[new], schema.label_kind(label)
    weight = table[schema.weight].to_numpy()[new] if schema.weight else np.ones(len(y))
    ids = [rows.ids[i] for i in new.tolist()]
    losses = [ROW_LOSSES[kind](y, column) for column in said.T]
    interval = None
    if kind == "binary" and len(y):
        crossed = _codes(_texts(table[rows.crossed]))[new] if rows.crossed else None
        told = compare(
            ["new", "live"],
            y,
            said,
            _codes(ids),
            window=np.zeros(len(y), np.int64),
            crossed=crossed,
            weight=weight,
        )
        interval = next(((one.low, one.high) for one in told if one.metric == "log_loss"), None)
    return gates.quality(ids, losses[0], losses[1], weight=weight, most=most, interval=interval)


def _texts(column: Any) -> list[str]:
    return ["" if id is None else id for id in column.cast(pa.string()).to_pylist()]


def _codes(texts: list[str]) -> NDArray[np.int64]:
    return np.unique(np.array(texts, np.dtypes.StringDType()), return_inverse=True)[1].astype(np.int64)


def _changed(was: Any, now: Any, place: str) -> Iterator[str]:
    """Where two settings differ, in words."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in (*was, *(key for key in now if key not in was)):
            yield from _changed(was.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        for i, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _changed(one, other, f"{place}.{i}")
    elif was != now:
        yield f"{place} was {was} and is {now}"

"""What meta embeddings are worth on KuaiRand: every table of this folder's README, section by section.

KUAIRAND_DIR=... python examples/kuairand_meta/evidence.py OUT [SECTION ...] [--first N] [--seeds N]

Sections: arms, cold, ablations, simulated. Each arm of each seed is kept in OUT/section-arm-seed.npz: one that is
there already is not made again. The fit is before 28 April; each day after is predicted, then learned.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

import acclimate as ac
from acclimate import pipeline
from acclimate.artifacts import Events, TableSource
from acclimate.evaluate import metrics
from acclimate.project import load_project

FOLDER = Path(__file__).parent
CUT, END = "2022-04-28", "2022-05-09"
COLD = 0.1
FEW = 200
"""Rows: of fewer no figures are told."""

COHORTS = ("0", "1 to 4", "5 to 19", "20 and more")
WORLD_SPAN = ("2024-01-19", "2024-01-25")
SIMULATED: dict[str, Any] = {"users": 4000, "items": 600, "days": 24, "events_per_day": 20_000}


# --- arms -------------------------------------------------------------------------------------------------------


@cache
def declared() -> Mapping[str, Any]:
    """The learners of the project file."""
    return load_project(FOLDER / "acclimate.yaml").learners


def seeded(parameters: Any, seed: int) -> Any:
    """The same with another seed; a learner without a network has none."""
    if hasattr(parameters, "learner"):
        return replace(parameters, learner=seeded(parameters.learner, seed))
    if hasattr(parameters, "training"):
        return replace(parameters, training=replace(parameters.training, seed=seed))
    return parameters


def blocks(parameters: Any, **fields: Any) -> Any:
    """A meta ranker with some fields of its blocks changed; where it is on top of a stack, that one."""
    if hasattr(parameters, "learner"):
        return replace(parameters, learner=blocks(parameters.learner, **fields))
    return replace(parameters, blocks={name: replace(b, **fields) for name, b in parameters.blocks.items()})


def with_videos(parameters: Any) -> Any:
    """A meta ranker with a block of videos beside that of users."""
    block = ac.MetaBlock(entity="video", features=("tags", "duration"), support=50)
    return replace(parameters, blocks={**parameters.blocks, "video": block})


def without_ids(parameters: Any) -> Any:
    """A meta ranker that does not know a video by its id."""
    return replace(parameters, features=tuple(name for name in parameters.features if name != "video_id"))


def decision(parameters: Any) -> Any:
    """Users adapt the weights of the last layer, and nothing else (MeLU)."""
    block = replace(parameters.blocks["user"], features=(), hidden=(), size=parameters.hidden[-1])
    profile = parameters.blocks["user"].features
    return replace(
        parameters,
        features=tuple(dict.fromkeys((*parameters.features, *profile))),
        ranker=f"{FOLDER / 'decision.py'}:DecisionLayer",
        blocks={"user": block},
    )


class FineTuned:
    """A meta ranker trained without adaptation, whose blocks then take a step for each entity all the same."""

    def __init__(self, parameters: Any, rate: float) -> None:
        self.parameters, self.rate = parameters, rate
        self.ranker = ac.MetaRanker(**vars(blocks(parameters, steps=0)))

    def fit(self, events: Events) -> "FineTuned":
        """Train, and adapt every entity."""
        self.ranker.fit(events)
        state = self.ranker._fitted()
        rates = {
            name: np.full_like(w, np.log(self.rate)) for name, w in state.weights.items() if "log_rates" in name
        }
        self.ranker = ac.MetaRanker(**vars(self.parameters))
        self.ranker.state = replace(state, weights={**state.weights, **rates})
        self.ranker._adapt(self.ranker.state, [np.arange(len(ids)) for ids in state.ids])
        return self

    def update(self, events: Events) -> "FineTuned":
        """Adapt the entities of these events anew."""
        self.ranker.update(events)
        return self

    def predict(self, events: Events) -> np.ndarray:
        """Probabilities ``(n,)``."""
        return self.ranker.predict(events)


def made(parameters: Any) -> Any:
    """The learner of a record."""
    kinds = {"meta-ranker": ac.MetaRanker, "sequential-laplace": ac.SequentialLaplace, "glmix": ac.GLMix}
    if parameters.kind == "stack":
        rest = {name: made(member) for name, member in parameters.members.items()}
        return ac.Stack(made(parameters.learner), rest, every=parameters.every, warm_up=parameters.warm_up)
    return kinds[parameters.kind](**vars(parameters))


def meta() -> Any:
    """The meta ranker of the project file."""
    return declared()["meta"]


ARMS: dict[str, Callable[[int], Any]] = {
    "no personalisation": lambda seed: made(seeded(blocks(meta(), adaptation="none"), seed)),
    "MAML": lambda seed: made(seeded(meta(), seed)),
    "MAML, first order": lambda seed: made(seeded(replace(meta(), order="first"), seed)),
    "amortised": lambda seed: made(seeded(blocks(meta(), adaptation="amortised"), seed)),
    "fine-tuned": lambda seed: FineTuned(seeded(meta(), seed), rate=RATE),
    "decision layer": lambda seed: made(seeded(decision(meta()), seed)),
    "wide-and-deep, ids": lambda seed: made(seeded(declared()["wide"], seed)),
    "DCN-v2, ids": lambda seed: made(seeded(declared()["cross"], seed)),
    "GLMix": lambda seed: made(seeded(declared()["glmix"], seed)),
    "GLMix + MAML": lambda seed: made(seeded(blocks(declared()["stacked"], adaptation="gradient"), seed)),
    "GLMix + amortised": lambda seed: made(seeded(declared()["stacked"], seed)),
}
RATE = 10.0
"""Of the steps of fine-tuning: the best of .1, 1, 10 and 30 on 27 April."""

ABLATIONS: dict[str, Callable[[], Any]] = {
    "as in the project": meta,
    "no steps": lambda: blocks(meta(), steps=0),
    "3 steps": lambda: blocks(meta(), steps=3),
    "first order": lambda: replace(meta(), order="first"),
    "fixed rates": lambda: replace(meta(), rates="fixed"),
    "a rate of each weight": lambda: replace(meta(), rates="per-parameter"),
    "support of 5": lambda: blocks(meta(), support=5),
    "support of 20": lambda: blocks(meta(), support=20),
    "supports never thinned": lambda: replace(meta(), thinned=0.0),
    "embeddings of 4": lambda: blocks(meta(), size=4),
    "embeddings of 64": lambda: blocks(meta(), size=64),
    "a block of videos too": lambda: with_videos(meta()),
    "that in place of their ids": lambda: without_ids(with_videos(meta())),
    "neither": lambda: without_ids(meta()),
}


# --- a play ------------------------------------------------------------------------------------------------------

Play = dict[str, np.ndarray]
"""Predictions of all rows ``(n,)`` by how fresh; and ``seconds`` of the fit and of all updates."""


def play(learner: Any, past: Events, later: Events, span: tuple[str, str], *, fresh: bool = False) -> Play:
    """Fit on the past, then predict each day and learn it; if asked at other paces too."""
    began = time.perf_counter()
    learner.fit(past)
    fitted = time.perf_counter()
    result: Play = {}
    if fresh:
        result["never"] = learner.predict(later.between(*span)).astype(np.float32)
        result["hour"] = rolled(copy.deepcopy(learner), later, span, "1h")
        if hasattr(learner, "predict_along"):
            result["event"] = learner.predict_along(later.between(*span)).astype(np.float32)
    daily = time.perf_counter()
    result["day"] = rolled(learner, later, span, "1d")
    result["seconds"] = np.array([fitted - began, time.perf_counter() - daily])
    return result


def rolled(learner: Any, events: Events, span: tuple[str, str], every: str) -> np.ndarray:
    """Predictions of each window, before it is learned."""
    said = list[np.ndarray]()
    for window in events.windows(every, *span):
        rows = window.cached()
        if rows.count():
            said.append(learner.predict(rows))
            learner.update(rows)
    return np.concatenate(said).astype(np.float32)


def arms(name: str, seed: int) -> Play:
    """The main comparison."""
    fresh = name in ("MAML", "amortised", "GLMix")
    return play(ARMS[name](seed), log().before(CUT), log(), (CUT, END), fresh=fresh)


def cold(name: str, seed: int) -> Play:
    """A tenth of the users and of the videos are unknown until 28 April."""
    return play(ARMS[name](seed), without_cold(seed), log(), (CUT, END))


def ablations(name: str, seed: int) -> Play:
    """The meta ranker with something changed."""
    return play(made(seeded(ABLATIONS[name](), seed)), log().before(CUT), log(), (CUT, END))


def simulated(name: str, seed: int) -> Play:
    """A world whose true probabilities are known: six days after eighteen."""
    events = world(seed)
    return play(WORLD_ARMS[name](seed), events.before(WORLD_SPAN[0]), events, WORLD_SPAN)


@cache
def log() -> Events:
    """All events of KuaiRand."""
    return pipeline.open_events(load_project(FOLDER / "acclimate.yaml")).cached()


@cache
def warm(seed: int) -> np.ndarray:
    """Whether each row is learned: of the past those of users and videos that are not held out, and all later."""
    table, draw = log().table(["user_id", "video_id"]), np.random.default_rng([seed, 11])
    keep = np.ones(len(table), bool)
    for column in table.columns:
        ids, code = np.unique(column.to_numpy(), return_inverse=True)
        keep &= (draw.random(len(ids)) >= COLD)[code]
    keep[log().before(CUT).count() :] = True
    return keep


def without_cold(seed: int) -> Events:
    """The past without the users and videos that are held out."""
    schema = log().schema
    return Events(schema, TableSource(schema, log().table().filter(pa.array(warm(seed))))).before(CUT)


@cache
def world(seed: int) -> Events:
    """A drifting world; it has no features of users, so that all of a user's taste is to be learned."""
    return ac.simulate(**SIMULATED, seed=seed, jump_day=None)


def _world_meta() -> Any:
    features = ("surface", "position", "topics", "duration")
    parts = {
        "user": ac.MetaBlock(entity="user", support=50),
        "item": ac.MetaBlock(entity="item", features=("topics", "duration"), support=50),
    }
    return replace(meta(), label="click", features=features, blocks=parts)


def _world_laplace() -> Any:
    features = ("surface", "position", "topics", "duration", "user_id", "item_id")
    return replace(declared()["wide"], label="click", features=features)


WORLD_ARMS: dict[str, Callable[[int], Any]] = {
    "no personalisation": lambda seed: made(seeded(blocks(_world_meta(), adaptation="none"), seed)),
    "MAML": lambda seed: made(seeded(_world_meta(), seed)),
    "amortised": lambda seed: made(seeded(blocks(_world_meta(), adaptation="amortised"), seed)),
    "wide-and-deep, ids": lambda seed: made(seeded(_world_laplace(), seed)),
    "GLMix": lambda seed: ac.GLMix(  # noqa: ARG005 - it draws nothing
        label="click",
        fixed=["surface", "position", "topics", "duration"],
        random={"user": ["topics"], "item": []},
    ),
}

SECTIONS: dict[str, tuple[Callable[[str, int], Play], tuple[str, ...]]] = {
    "arms": (arms, tuple(ARMS)),
    "cold": (cold, ("no personalisation", "MAML", "amortised", "GLMix", "GLMix + amortised")),
    "ablations": (ablations, tuple(ABLATIONS)),
    "simulated": (simulated, tuple(WORLD_ARMS)),
}


# --- tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Rows that are predicted ``(n,)``: of user and item how many were learned before that day; the truth."""

    label: np.ndarray
    user: np.ndarray
    day: np.ndarray
    seen: Mapping[str, np.ndarray]
    truth: np.ndarray | None

    def figures(self, said: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Of some rows."""
        y, p, user_and_day = self.label[rows], said[rows].astype(np.float64), (self.user * 100 + self.day)[rows]
        result = {
            "AUC": metrics.auc(y, p),
            "GAUC": metrics.gauc(y, p, user_and_day),
            "log-loss": metrics.log_loss(y, p),
            "calibration error": metrics.calibration_error(y, p),
        }
        if self.truth is not None:
            result["regret"] = metrics.regret(self.truth[rows], p)
        return {name: np.nan if value is None else value for name, value in result.items()}


def asked(events: Events, span: tuple[str, str], label: str, learned: np.ndarray | None = None) -> Asked:
    """The rows of a span of days; ``learned`` says of all rows to its end whether the learner gets to see them."""
    user, item = events.schema.entities.values()
    truth = [events.schema.truth] if events.schema.truth else []
    past = events.before(span[0]).count()
    table = events.before(span[1]).table([label, user, item, *truth])
    learned = np.ones(len(table), bool) if learned is None else learned[: len(table)]
    days = np.cumsum([past, *(window.count() for window in events.windows("1d", *span))])
    later = slice(past, None)
    return Asked(
        table[label].to_numpy()[later].astype(float),
        table[user].to_numpy()[later].astype(np.int64),
        np.repeat(np.arange(len(days) - 1), np.diff(days)),
        {"user": rows_seen(table[user], days, learned), "item": rows_seen(table[item], days, learned)},
        table[truth[0]].to_numpy()[later] if truth else None,
    )


def rows_seen(ids: Any, days: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """How many rows of the same id were learned before the day of each row ``(n,)``; days begin at ``days``."""
    _, code = np.unique(ids.to_numpy(), return_inverse=True)
    parts = list[np.ndarray]()
    for begin, end in pairwise(days.tolist()):
        parts.append(np.bincount(code[:begin][learned[:begin]], minlength=code.max() + 1)[code[begin:end]])
    return np.concatenate(parts)


DIGITS = {"log-loss": 5, "regret": 5, "fit": 0, "days": 0}


def interval(values: list[float], column: str) -> str:
    """Mean and 95 % interval over seeds, by Student's t."""
    mean, digits = float(np.mean(values)), DIGITS.get(column, 4)
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


Figures = Mapping[str, list[dict[str, float]]]
"""Of arms, by seed."""


def lines(title: str, figures: Figures, against: str | None = None) -> None:
    """A table of arms, each with its figures by seed; and what each is ahead of one of them, seed by seed.

    What has a learner beneath it, as in its name, is set against that one too.
    """
    columns = list(next(iter(figures.values()))[0])
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n{'| --- ' * (len(columns) + 1)}|")
    for name, by_seed in figures.items():
        print(f"| {name} | {' | '.join(interval([one[c] for one in by_seed], c) for c in columns)} |")
    for name, by_seed in figures.items():
        beneath = name.partition(" + ")[0]
        for other in dict.fromkeys([against, beneath]) if against else ():
            if other in figures and other != name:
                pairs = list(zip(by_seed, figures[other], strict=True))
                cells = [interval([one[column] - two[column] for one, two in pairs], column) for column in columns]
                print(f"| {name} minus {other} | {' | '.join(cells)} |")


def tables(section: str, plays: Mapping[str, list[Play]], seeds: range) -> None:
    """Print the tables of a section."""
    rows = {
        "simulated": lambda seed: asked(world(seed), WORLD_SPAN, "click"),
        "cold": lambda seed: asked(log(), (CUT, END), "long_view", warm(seed)),
    }.get(section, lambda _: asked_later())
    of_seeds = [rows(seed) for seed in seeds]
    against = "as in the project" if section == "ablations" else "MAML"

    def figures(pace: str, masks: Sequence[Any], names: Sequence[str] = tuple(plays)) -> Figures:
        return {
            name: [row.figures(one[pace], m) for one, row, m in zip(plays[name], of_seeds, masks, strict=True)]
            for name in names
        }

    every = [slice(None)] * len(of_seeds)
    lines(f"## {section}, {len(seeds)} seeds: {len(of_seeds[0].label):,} rows", figures("day", every), against)
    spent = {n: [dict(zip(("fit", "days"), one["seconds"], strict=True)) for one in p] for n, p in plays.items()}
    lines("seconds of a fit, and of predicting and learning all days", spent)
    for name in (name for name, (one, *_) in plays.items() if "never" in one):
        paces = [pace for pace in ("never", "day", "hour", "event") if pace in plays[name][0]]
        fresh = {f"{name}, {pace}": figures(pace, every, [name])[name] for pace in paces}
        lines("how fresh", fresh, f"{name}, never")
    for kind in () if section == "ablations" else ("user", "item"):
        for number, label in enumerate(COHORTS):
            masks = [np.searchsorted([1, 5, 20], row.seen[kind], side="right") == number for row in of_seeds]
            count = min(int(mask.sum()) for mask in masks)
            if count >= FEW:
                title = f"rows whose {kind} had {label} events before the day, {count:,} at least"
                lines(title, figures("day", masks), against)


@cache
def asked_later() -> Asked:
    """The rows of KuaiRand that are predicted."""
    return asked(log(), (CUT, END), "long_view")


def main() -> None:
    """Make what is not there yet, and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first, options.first + options.seeds)
    for section in options.sections:
        run, names = SECTIONS[section]
        plays: dict[str, list[Play]] = {name: [] for name in names}
        for seed in seeds:
            for name in names:
                drawn = 0 if (section, name) == ("arms", "GLMix") else seed  # which draws nothing
                place = options.out / f"{section}-{name.replace(' ', '_')}-{drawn}.npz"
                if not place.exists():
                    print(f"{section}, {name}, seed {drawn}", file=sys.stderr, flush=True)
                    np.savez(place, **run(name, drawn))
                with np.load(place) as kept:
                    plays[name].append(dict(kept))
        tables(section, plays, seeds)


if __name__ == "__main__":
    main()

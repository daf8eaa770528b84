"""What user vectors are worth on KuaiRand: every table of this folder's README, section by section.

KUAIRAND_DIR=... python examples/kuairand_encoder/evidence.py OUT [SECTION ...] [--first N] [--seeds N]

Sections: tasks, cold, freshness, stability, ablations, retrieval, together. Each writes OUT/section-seed.json; one
that is there already is not made again. Encoders know what is before 28 April; what they are asked is after.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy import sparse, stats
from sklearn.decomposition import PCA
from sklearn.metrics import ndcg_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

import acclimate as ac
from acclimate import pipeline
from acclimate.learners.user_encoder import UserEncoder
from acclimate.models.alignment import neighbourhood_overlap
from acclimate.project import load_project

FOLDER = Path(__file__).parent
CUT, WEEK = "2022-04-28", "2022-05-05"
SIZE = 64
RIDGES = (1.0, 10.0, 100.0, 1000.0)
IMPRESSIONS = ("long_view", "is_click", "is_like")
Vectors = np.ndarray


# --- what there is ----------------------------------------------------------------------------------------------


@cache
def log() -> ac.Events:
    """All events."""
    return pipeline.open_events(load_project(FOLDER / "acclimate.yaml"))


@cache
def past() -> ac.Events:
    """What encoders are fitted on."""
    return log().before(CUT).cached()


@cache
def later() -> pa.Table:
    """The week after, of which the questions are."""
    return log().between(CUT, WEEK).table(["user_id", "video_id", "video.tag", *IMPRESSIONS])


def declared(**changes: Any) -> Any:
    """The encoder of the project file, with some of its settings changed."""
    return replace(load_project(FOLDER / "acclimate.yaml").learners["taste"], **changes)


def encoder(seed: int, **changes: Any) -> UserEncoder:
    """It, fitted on the past."""
    parameters = declared(**changes)
    training = replace(parameters.training, seed=seed)
    model = UserEncoder(**{**vars(parameters), "training": training})
    return model.fit(past())


_ENCODERS: dict[int, tuple[UserEncoder, float]] = {}


def usual(seed: int) -> tuple[UserEncoder, float]:
    """The encoder of the project file with a seed, and the seconds of its fit."""
    if seed not in _ENCODERS:
        began = time.perf_counter()
        model = encoder(seed)
        _ENCODERS[seed] = (model, time.perf_counter() - began)
    return _ENCODERS[seed]


# --- the questions -----------------------------------------------------------------------------------------------


class Questions:
    """Of each user, by number among ``ids``: what the week after says, and who learns and who is asked."""

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self.ids = ids
        self.learns = np.random.default_rng([seed, 7]).random(len(ids)) < 0.5
        number = {id: n for n, id in enumerate(ids.tolist())}
        self.user = np.array([number.get(id, -1) for id in later()["user_id"].to_pylist()])

    def impressions(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Positive and negative rows of each user, ``(users,)``."""
        y = later()[label].to_numpy(zero_copy_only=False)
        known = (self.user >= 0) & ~np.isnan(y.astype(float))
        count = [np.bincount(self.user[known & (y == value)], minlength=len(self.ids)) for value in (1, 0)]
        return count[0], count[1]

    def active(self) -> np.ndarray:
        """Whether a user was there in the week after."""
        return np.bincount(self.user[self.user >= 0], minlength=len(self.ids)) > 0

    def tags(self) -> np.ndarray:
        """Long views of each of the tags, ``(users, tags)``."""
        rows = np.flatnonzero((later()["long_view"].to_numpy() == 1) & (self.user >= 0))
        lists = later()["video.tag"].take(rows).to_pylist()
        pairs = [
            (self.user[row], tag) for row, tags in zip(rows, lists, strict=True) for tag in (tags or "").split(",")
        ]
        names = {tag: n for n, tag in enumerate(sorted({tag for _, tag in pairs if tag}))}
        counts = np.zeros((len(self.ids), len(names)))
        for user, tag in pairs:
            if tag:
                counts[user, names[tag]] += 1
        return counts

    def degree(self) -> np.ndarray:
        """The degree of activity that the profile tells, a class of each user."""
        table = past().table(["user_id", "user.user_active_degree"])
        by_id = dict(zip(table["user_id"].to_pylist(), table["user.user_active_degree"].to_pylist(), strict=True))
        return np.unique([str(by_id[id]) for id in self.ids.tolist()], return_inverse=True)[1]


def head(vectors: Vectors, target: np.ndarray, kind: str, weight: np.ndarray | None = None) -> Any:
    """A head, its ridge chosen on a fifth of who learns."""
    judged = np.random.default_rng(0).random(len(vectors)) < 0.2
    part = None if weight is None else weight[~judged]

    def loss(ridge: float) -> float:
        said = (
            ac.TaskHead(kind, ridge=ridge)
            .fit(vectors[~judged], target[~judged], space="", weight=part)
            .predict(vectors[judged], space="")
        )
        w = np.ones(judged.sum()) if weight is None else weight[judged]
        truth = target[judged]
        if kind == "ridge":
            return float(np.mean((said - truth) ** 2))
        if said.ndim == 2:
            return float(-np.mean(np.log(np.clip(said[np.arange(len(truth)), truth], 1e-9, 1))))
        return float(-np.average(np.log(np.where(truth == 1, said, 1 - said)), weights=w))

    best = min(RIDGES, key=loss)
    return ac.TaskHead(kind, ridge=best).fit(vectors, target, space="", weight=weight)


def rows_of(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, labels and weights: a user's positive rows are one of that weight, and so are the negative ones."""
    users = np.arange(len(positive))
    user = np.concatenate([users, users])
    label = np.concatenate([np.ones(len(users), int), np.zeros(len(users), int)])
    weight = np.concatenate([positive, negative]).astype(float)
    kept = weight > 0
    return user[kept], label[kept], weight[kept]


def impressions_auc(vectors: Vectors, questions: Questions, label: str) -> float:
    """AUC over impressions of users who were not learned from."""
    user, y, weight = rows_of(*questions.impressions(label))
    learns = questions.learns[user]
    model = head(vectors[user[learns]], y[learns], "logistic", weight[learns])
    asked = user[~learns]
    return float(roc_auc_score(y[~learns], model.predict(vectors[asked], space=""), sample_weight=weight[~learns]))


def active_auc(vectors: Vectors, questions: Questions) -> float:
    """AUC of who comes in the week after."""
    active, learns = questions.active().astype(int), questions.learns
    model = head(vectors[learns], active[learns], "logistic")
    return float(roc_auc_score(active[~learns], model.predict(vectors[~learns], space="")))


def tags_ndcg(vectors: Vectors, questions: Questions) -> float:
    """nDCG@10 of the tags of next week's long views, of users who have some."""
    counts = questions.tags()
    some = counts.sum(axis=1) > 0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    learns, asked = some & questions.learns, some & ~questions.learns
    model = head(vectors[learns], shares[learns], "ridge")
    return float(ndcg_score(counts[asked], model.predict(vectors[asked], space=""), k=10))


def degree_auc(vectors: Vectors, questions: Questions) -> float:
    """AUC of each class of activity against the others, averaged by their size."""
    classes, learns = questions.degree(), questions.learns
    model = head(vectors[learns], classes[learns], "logistic")
    said = model.predict(vectors[~learns], space="")
    truth = classes[~learns]
    shares = np.bincount(truth, minlength=said.shape[1])
    aucs = [roc_auc_score(truth == c, said[:, c]) for c in range(said.shape[1]) if 0 < shares[c] < len(truth)]
    return float(np.average(aucs, weights=[n for n in shares if 0 < n < len(truth)]))


def answers(vectors: Vectors, questions: Questions, *, degree: bool = False) -> dict[str, float]:
    """How well heads on these vectors do, and the seconds that a head takes."""
    began, z = time.perf_counter(), np.asarray(vectors, np.float64)
    if degree:
        return {"active degree, AUC": degree_auc(z, questions)}
    said = {f"{label}, AUC": impressions_auc(z, questions, label) for label in IMPRESSIONS}
    said["comes next week, AUC"] = active_auc(z, questions)
    said["tags next week, nDCG@10"] = tags_ndcg(z, questions)
    return {**said, "seconds a head": (time.perf_counter() - began) / 5 / (len(RIDGES) + 1)}


# --- the others --------------------------------------------------------------------------------------------------


def principal(inputs: Vectors) -> Vectors:
    """The leading components of the standardised inputs."""
    return PCA(SIZE, random_state=0).fit_transform(StandardScaler().fit_transform(inputs))


def mean_items(model: UserEncoder) -> Vectors:
    """The average vectors of what a user has long viewed, of both kinds, over the longest window."""
    names, inputs = model.input_names, model.inputs_of(model.ids)
    windows, size = len(model.parameters.windows), 32
    columns = [
        begin + (windows - 1) * size + column
        for kind in model.parameters.items
        for begin in [names.index(f"{kind} long_view 0")]
        for column in range(size)
    ]
    return inputs[:, columns]


def interactions(model: UserEncoder) -> sparse.csr_matrix:
    """Long views of users and videos, ``(users, videos)``."""
    table = past().table(["user_id", "video_id", "long_view"])
    liked = table["long_view"].to_numpy() == 1
    users = {id: n for n, id in enumerate(model.ids.tolist())}
    row = np.array([users[id] for id in table["user_id"].to_numpy()[liked].tolist()])
    videos, column = np.unique(table["video_id"].to_numpy()[liked], return_inverse=True)
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(len(users), len(videos)))


def factors(matrix: sparse.csr_matrix, seed: int) -> Vectors:
    """User factors of implicit matrix factorisation."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(SIZE, regularization=0.05, iterations=20, random_state=seed, num_threads=1)
    model.fit(matrix, show_progress=False)
    return np.asarray(model.user_factors)


def two_towers(model: UserEncoder, seed: int) -> Vectors:
    """Vectors of users by id, trained against vectors of videos to tell long views from other impressions."""
    table = past().table(["user_id", "video_id", "long_view"])
    users = {id: n for n, id in enumerate(model.ids.tolist())}
    user = torch.tensor([users[id] for id in table["user_id"].to_pylist()])
    video = torch.from_numpy(np.unique(table["video_id"].to_numpy(), return_inverse=True)[1].astype(np.int64))
    y = torch.from_numpy(table["long_view"].to_numpy().astype(np.float32))
    torch.manual_seed(seed)
    tower = torch.nn.Embedding(len(users), SIZE)
    other = torch.nn.Embedding(int(video.max()) + 1, SIZE)
    biases = torch.nn.Embedding(len(users), 1), torch.nn.Embedding(int(video.max()) + 1, 1)
    for table_ in (tower, other, *biases):
        torch.nn.init.normal_(table_.weight, std=0.05)
    weights = [part.weight for part in (tower, other, *biases)]
    adam = torch.optim.Adam(weights, lr=0.005)
    for _ in range(4):
        for rows in torch.randperm(len(y)).split(4096):
            u, v = tower(user[rows]), other(video[rows])
            z = (u * v).sum(1) + biases[0](user[rows])[:, 0] + biases[1](video[rows])[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y[rows])
            loss = loss + 1e-2 * (u.square().sum(1) + v.square().sum(1)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return torch.cat([tower.weight, biases[0].weight], 1).detach().numpy()


def ways_to_see(model: UserEncoder, seed: int) -> dict[str, Vectors]:
    """All users as the encoder sees them, and as the others do: by name, in the encoder's order."""
    inputs = model.inputs_of(model.ids)
    return {
        "vectors": model.vectors_of(model.ids),
        "all inputs": inputs,
        "PCA of the inputs": principal(inputs),
        "mean item vector": mean_items(model),
        "matrix factorisation": factors(interactions(model), seed),
        "two towers": two_towers(model, seed),
    }


# --- the sections ------------------------------------------------------------------------------------------------


def tasks(seed: int) -> dict[str, Any]:
    """Heads on frozen vectors, against heads on everything else."""
    model, seconds = usual(seed)
    questions = Questions(model.ids, seed)
    plain = encoder(seed, columns={})
    result = {}
    for (name, vectors), without_profile in zip(
        ways_to_see(model, seed).items(), ways_to_see(plain, seed).values(), strict=True
    ):
        result[name] = answers(vectors, questions) | answers(without_profile, questions, degree=True)
        result[name]["bytes a user"] = 4 * vectors.shape[1]
    return {"ways": result, "fit seconds": seconds, "columns": len(model.input_names)}


def pairs(model: UserEncoder, table: pa.Table, *, viewed: bool) -> np.ndarray:
    """Numbers of users and ids of videos ``(p, 2)``, each pair once: all, or those with a long view."""
    users = {id: n for n, id in enumerate(model.ids.tolist())}
    user = np.array([users.get(id, -1) for id in table["user_id"].to_pylist()])
    rows = (user >= 0) & ((table["long_view"].to_numpy() == 1) | (not viewed))
    return np.unique(np.stack([user[rows], table["video_id"].to_numpy()[rows]], axis=1), axis=0)


def keys(pair: np.ndarray) -> np.ndarray:
    """A number for each pair of a user and a video."""
    return pair[:, 0] * 2**32 + pair[:, 1]


def mapped(vectors: Vectors, liked: np.ndarray, **settings: float) -> tuple[Vectors, ac.ItemMap]:
    """A map to videos from standardised vectors with a column of ones, and these."""
    z = np.column_stack([StandardScaler().fit_transform(vectors), np.ones(len(vectors))])
    return z, ac.ItemMap(**settings).fit(z, liked[:, 0], liked[:, 1], space="")


def recall(z: Vectors, model: ac.ItemMap, users: np.ndarray, seen: np.ndarray, wanted: np.ndarray) -> float:
    """The mean share of what users view that is among the fifty best that they had not seen."""
    seen, wanted = (pair[np.isin(pair[:, 0], users)] for pair in (seen, wanted))
    best, _ = model.top(z[users], 50, space="", seen=(np.searchsorted(users, seen[:, 0]), seen[:, 1]))
    shown = np.stack([np.repeat(users, 50), best.ravel()], axis=1)
    _, user = np.unique(wanted[:, 0], return_inverse=True)
    return float(np.mean(np.bincount(user, np.isin(keys(wanted), keys(shown))) / np.bincount(user)))


def retrieval(seed: int) -> dict[str, Any]:
    """Fifty videos, not seen before, for users of whom half chose the settings of the maps and half are asked.

    Not from all inputs: a system of equations of 630 columns for each video takes minutes.
    """
    model, _ = usual(seed)
    questions = Questions(model.ids, seed)
    table = past().table(["user_id", "video_id", "long_view"])
    seen, liked = (pairs(model, table, viewed=viewed) for viewed in (False, True))
    wanted = pairs(model, later(), viewed=True)
    wanted = wanted[~np.isin(keys(wanted), keys(seen)) & np.isin(wanted[:, 1], liked[:, 1])]
    users = np.unique(wanted[:, 0])
    learns, asked = users[questions.learns[users]], users[~questions.learns[users]]
    ways = ways_to_see(model, seed) | {"popularity alone": np.zeros((len(model.ids), 1))}
    del ways["all inputs"]
    result = {}
    for name, vectors in ways.items():
        maps = [
            mapped(vectors, liked, confidence=confidence, ridge=ridge)
            for confidence in (1.0, 10.0)
            for ridge in (10.0, 1000.0)
        ]
        z, best = max(maps, key=lambda each: recall(*each, learns, seen, wanted))
        result[name] = {"recall@50": recall(z, best, asked, seen, wanted)}
    return result


def within_users(user: np.ndarray, y: np.ndarray, said: np.ndarray) -> float:
    """The AUC within a user's rows, averaged over rows."""
    order = np.argsort(user, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    both = [rows for rows in parts if 0 < y[rows].sum() < len(rows)]
    return float(np.average([roc_auc_score(y[r], said[r]) for r in both], weights=[len(r) for r in both]))


def together(seed: int) -> dict[str, Any]:
    """Long views by user and video: heads on a user's vector, the video's, and the score of a map between them."""
    model, _ = usual(seed)
    questions = Questions(model.ids, seed)
    table = past().table(["user_id", "video_id", "long_view"])
    liked = pairs(model, table, viewed=True)
    asked = questions.user >= 0
    user, video = questions.user[asked], later()["video_id"].to_numpy()[asked]
    y = (later()["long_view"].to_numpy()[asked] == 1).astype(int)
    shown, viewed = table["video_id"].to_numpy(), table["long_view"].to_numpy() == 1
    known, number = np.unique(np.concatenate([shown, video]), return_inverse=True)
    before, number = number[: len(shown)], number[len(shown) :]
    count = np.bincount(before, minlength=len(known))
    rate = (np.bincount(before[viewed], minlength=len(known)) + 20 * viewed.mean()) / (count + 20)
    columns = [
        np.log1p(count),
        rate,
        *(placed(*model.item_vectors(kind)[:2], known) for kind in ("content", "together")),
    ]
    videos = np.column_stack(columns)[number]
    learns = questions.learns[user]

    def judged(x: Vectors) -> dict[str, float]:
        said = ac.TaskHead(ridge=10.0).fit(x[learns], y[learns], space="").predict(x[~learns], space="")
        inside = within_users(user[~learns], y[~learns], said)
        return {"AUC": float(roc_auc_score(y[~learns], said)), "AUC within a user": inside}

    result = {"video alone": judged(videos)}
    ways = ways_to_see(model, seed)
    del ways["all inputs"]
    for name, vectors in ways.items():
        z, learned = mapped(vectors, liked, ridge=1000.0)
        score = np.vecdot(z[user], placed(learned.ids, learned.item_vectors, known)[number])
        result[f"{name} and video"] = judged(np.column_stack([z[user, :-1], videos, score]))
    return result


def placed(ids: np.ndarray, vectors: Vectors, wanted: np.ndarray) -> Vectors:
    """The vectors of ids, zeros of those that have none."""
    order = np.argsort(ids)
    place = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    return np.where((ids[place] == wanted)[:, None], vectors[place], 0.0)


COUNTS = (0, 1, 2, 5, 10, 50)


def after(model: UserEncoder, count: int) -> Vectors:
    """Vectors of all users as they would be had they had so many events, the newest ones."""
    state = model._fitted()
    everyone = np.arange(len(state.users))
    short = model.emptied()
    known = short._fitted()
    known.users.admit(model.ids)
    known.histories.grow(len(everyone))
    known.histories.put(everyone, state.histories.log(everyone).newest(count))
    short.state = replace(known, cut=state.cut, last_seen=state.last_seen)
    return short.vectors_of(model.ids)


def cold(seed: int) -> dict[str, Any]:
    """Users who have had at least fifty events, as they were after few: one encoder, and one head, for all."""
    model, _ = usual(seed)
    questions = Questions(model.ids, seed)
    state = model._fitted()
    old = state.histories.lengths(np.arange(len(state.users))) >= max(COUNTS)
    vectors = {count: after(model, count).astype(np.float64) for count in COUNTS}
    mixed = np.random.default_rng(seed).choice(COUNTS, len(model.ids))
    learned = np.choose(np.searchsorted(COUNTS, mixed)[:, None], [vectors[count] for count in COUNTS])
    user, y, weight = rows_of(*questions.impressions("long_view"))
    keep = old[user]
    user, y, weight = user[keep], y[keep], weight[keep]
    learns = questions.learns[user]
    viewing = head(learned[user[learns]], y[learns], "logistic", weight[learns])
    active = questions.active().astype(int)
    coming = head(learned[questions.learns & old], active[questions.learns & old], "logistic")
    asked, who = user[~learns], ~questions.learns & old
    return {
        str(count): {
            "long_view, AUC": float(
                roc_auc_score(y[~learns], viewing.predict(v[asked], space=""), sample_weight=weight[~learns])
            ),
            "comes next week, AUC": float(roc_auc_score(active[who], coming.predict(v[who], space=""))),
        }
        for count, v in vectors.items()
    }


def refreshed(model: UserEncoder, events: ac.Events, every: str | None) -> Vectors:
    """The vectors that rows get where the encoder learns after each window, or never."""
    if every is None:
        return model.vectors(events)
    parts = []
    for window in events.windows(every):
        parts.append(model.vectors(window))
        model.update(window)
    return np.concatenate(parts)


def freshness(seed: int) -> dict[str, Any]:
    """Long views of 28 to 30 April from vectors of different ages; a head of the three days before."""
    model, _ = usual(seed)
    at = {"learn": ("2022-04-25", CUT), "ask": (CUT, "2022-05-01")}
    spans = {name: log().between(*span).cached() for name, span in at.items()}
    y = {name: events.table(["long_view"])["long_view"].to_numpy() for name, events in spans.items()}
    start = model.emptied().update(past().before("2022-04-25"))
    result: dict[str, Any] = {}
    learned = start.vectors_along(spans["learn"]).astype(np.float64)
    viewing = head(learned, y["learn"], "logistic")
    start.update(spans["learn"])
    ids = spans["ask"].table(["user_id", "time_ms"])
    user, when = ids["user_id"].to_numpy(), ids["time_ms"].cast(pa.int64()).to_numpy()
    order = np.lexsort((when, user))
    again = np.zeros(len(user), bool)
    again[order[1:]] = (np.diff(user[order]) == 0) & (np.diff(when[order]) < 3_600_000_000)
    ways: dict[str, Callable[[], Vectors]] = {
        "after each event": lambda: start.vectors_along(spans["ask"]),
        "every hour": lambda: refreshed(copy.deepcopy(start), spans["ask"], "1h"),
        "every day": lambda: refreshed(copy.deepcopy(start), spans["ask"], "1d"),
        "never": lambda: refreshed(start, spans["ask"], None),
    }
    for name, vectors in ways.items():
        said = viewing.predict(vectors().astype(np.float64), space="")
        result[name] = {
            "all rows": float(roc_auc_score(y["ask"], said)),
            "an event within the hour before": float(roc_auc_score(y["ask"][again], said[again])),
        }
    return {"ways": result, "share": float(again.mean())}


def stability(seed: int) -> dict[str, Any]:
    """Two trainings of one encoder, a head of the first on vectors of the second, and drift between refreshes."""
    second, _ = usual(seed)
    first = UserEncoder(**{**vars(declared()), "training": replace(declared().training, seed=seed + 100)})
    first.fit(past().before("2022-04-27"))
    first.update(past().after("2022-04-27"))
    ids = first.ids
    one, other = first.vectors_of(ids), second.vectors_of(ids)
    second.aligned_with(first)
    mapped = second.in_space(other, first.space)
    sample = np.random.default_rng(seed).choice(len(ids), 5000, replace=False)
    questions = Questions(ids, seed)
    user, y, weight = rows_of(*questions.impressions("long_view"))
    learns = questions.learns[user]
    viewing = head(one[user[learns]].astype(np.float64), y[learns], "logistic", weight[learns])
    anew = head(other[user[learns]].astype(np.float64), y[learns], "logistic", weight[learns])

    def auc(model: Any, vectors: Vectors) -> float:
        said = model.predict(vectors[user[~learns]].astype(np.float64), space="")
        return float(roc_auc_score(y[~learns], said, sample_weight=weight[~learns]))

    result = {
        "ten nearest in common": float(neighbourhood_overlap(one[sample], other[sample], 10)),
        "head and vectors of the first": auc(viewing, one),
        "head of the first, vectors of the second": auc(viewing, other),
        "head of the first, vectors of the second mapped": auc(viewing, mapped),
        "head and vectors of the second": auc(anew, other),
    }
    day = log().between(CUT, "2022-04-29").cached()
    before = first.vectors_of(ids)
    moved = copy.deepcopy(first).update(day)
    after_day = moved.vectors_of(ids)
    touched = dict(zip(*np.unique(day.table(["user_id"])["user_id"].to_numpy(), return_counts=True), strict=True))
    new = np.array([touched.get(id, 0) for id in ids.tolist()])
    spread = np.sqrt(((before - before.mean(0)) ** 2).sum(1).mean())
    drift = np.linalg.norm(after_day - before, axis=1) / spread
    groups = {"0": new == 0, "1": new == 1, "2 to 5": (new > 1) & (new < 6), "6 and more": new > 5}
    return {**result, "drift": {name: float(drift[group].mean()) for name, group in groups.items()}}


ABLATIONS: dict[str, dict[str, Any]] = {
    "as in the project": {},
    "no content": {"items": "together"},
    "no togetherness": {"items": "content"},
    "no likes": {"behaviours": {"event": None, "long_view": "long_view"}},
    "no profile": {"columns": {}},
    "vectors of 16": {"size": 16},
    "vectors of 32": {"size": 32},
    "vectors of 128": {"size": 128},
    "one window, 180 days": {"windows": ("180d",)},
    "windows of 1, 7, 30, 180 days": {"windows": ("1d", "7d", "30d", "180d")},
    "fading instead of windows": {"decay": "exponential"},
    "no noise, nothing masked": {"noise": 0.0, "masked": 0.0},
    "no group dropout": {"group_dropout": 0.0},
    "nothing added, nothing hidden": {"noise": 0.0, "masked": 0.0, "group_dropout": 0.0},
    "four times as wide": {"code": 128, "hidden": 512},
    "togetherness with a shift of 5": {"items": {"together": {"shift": 5.0}}},
    "vectors of length 1": {"normalised": True},
}


def ablations(seed: int) -> dict[str, Any]:
    """The same questions to encoders that lack something."""
    result = {}
    for name, changes in ABLATIONS.items():
        items = declared().items
        if isinstance(kept := changes.get("items"), str):
            changes = {"items": {kept: items[kept]}}
        elif kept:
            changes = {"items": items | {kind: replace(items[kind], **fields) for kind, fields in kept.items()}}
        model = encoder(seed, **changes) if changes else usual(seed)[0]
        result[name] = answers(model.vectors_of(model.ids), Questions(model.ids, seed))
    return result


SECTIONS: Mapping[str, Callable[[int], Any]] = {
    "tasks": tasks,
    "cold": cold,
    "freshness": freshness,
    "stability": stability,
    "ablations": ablations,
    "retrieval": retrieval,
    "together": together,
}


# --- tables ------------------------------------------------------------------------------------------------------


def flat(result: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """All numbers of a result with the keys that lead to them."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from flat(value, prefix if key == "ways" else (*prefix, key))
    else:
        yield prefix, float(result)


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds, by Student's t."""
    mean = float(np.mean(values))
    form = ".4f" if abs(mean) < 1 else ".2f" if abs(mean) < 10 else ".0f"
    if len(values) < 2:
        return f"{mean:{form}}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:{form}} ± {half:{form}}"


def table(results: list[Any]) -> str:
    """Lines by all but the last key, columns by the last; where vectors come first, what they are ahead by."""
    by_seed = [dict(flat(result)) for result in results]
    values = {keys: [seed[keys] for seed in by_seed] for keys in by_seed[0]}
    for (*line, column), other in list(values.items()):
        first, measured = next(iter(values))[0], column.split()[-1].partition("@")[0] in ("AUC", "nDCG", "recall")
        if first.startswith("vectors") and measured and len(line) == 1 and line[0] != first:
            both = zip(values[first, column], other, strict=True)
            values[f"{first} minus {line[0]}", column] = [one - another for one, another in both]
    lines: dict[str, dict[str, str]] = {}
    for (*line, column), numbers in values.items():
        lines.setdefault(", ".join(line), {})[column] = interval(numbers)
    columns = list(dict.fromkeys(column for line in lines.values() for column in line))
    parts = [["", *columns], ["---"] * (len(columns) + 1)]
    parts += [[name, *(line.get(column, "") for column in columns)] for name, line in lines.items()]
    return "\n".join(f"| {' | '.join(part)} |" for part in parts)


def main() -> None:
    """Make what is not there yet, and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--first", type=int, default=0, help="but from this one on")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Any]] = {section: [] for section in asked.sections}
    for seed in range(asked.first, asked.seeds):
        for section in asked.sections:
            place = asked.out / f"{section}-{seed}.json"
            if not place.exists():
                print(f"{section}, seed {seed}", file=sys.stderr)
                place.write_text(json.dumps(SECTIONS[section](seed), indent=1))
            results[section].append(json.loads(place.read_text()))
    for section, by_seed in results.items():
        print(f"\n## {section}, {len(by_seed)} seeds\n\n{table(by_seed)}")


if __name__ == "__main__":
    main()

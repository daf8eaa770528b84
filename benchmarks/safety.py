"""What a saved model withstands, counted: flipped bytes, loads during saves, updates that race or are killed.

``python -m benchmarks.safety``, a few minutes. Every process is real, and so are the files.
"""

import contextlib
import itertools
import multiprocessing
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pyarrow as pa

import acclimate as ac
from acclimate import GLMix, learners, pipeline
from acclimate.errors import AlreadyLearnedError, FormatError
from acclimate.project import Project, load_project

FLIPS, LOADS, RACES, RACERS, KILLS = 2_000, 10_000, 200, 3, 50
RATE = "learners={all: {kind: rate, entity: user}}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline.make_world(folder / "world", users=40, days=10, seed=0)
        flip(folder)
        load_during_saves(folder)
        race(folder)
        kill(folder)


def project_of(folder: Path, *overrides: str) -> Project:
    return load_project(folder / "world" / "acclimate.yaml", overrides)


def files(model: Path) -> list[Path]:
    return sorted(file for file in model.rglob("*") if file.is_file())


def flip(folder: Path) -> None:
    """Single random bytes, over all files of a model by size and by name alike."""
    project = project_of(folder)
    events = pipeline.open_events(project).cached()
    expected = pipeline.fit(project, folder / "flipped", allow_unconverged=True).predict(events)
    rng, refused, harmless, wrong = np.random.default_rng(0), 0, 0, 0
    paths = files(folder / "flipped")
    for _ in range(FLIPS):
        path = paths[rng.integers(len(paths))]
        good = path.read_bytes()
        place = rng.integers(len(good))
        path.write_bytes(good[:place] + bytes([good[place] ^ int(rng.integers(1, 256))]) + good[place + 1 :])
        try:
            same = np.array_equal(GLMix.load(folder / "flipped").predict(events), expected)
            harmless, wrong = harmless + same, wrong + (not same)
        except FormatError:
            refused += 1
        path.write_bytes(good)
    print(f"{FLIPS:,} flipped bytes: {refused:,} refused, {harmless:,} harmless (white space), {wrong:,} wrong")


def load_during_saves(folder: Path) -> None:
    """A process saves two states in turn, as fast as it can; every load is one of them."""
    log = pipeline.open_events(project_of(folder))
    for number, end in enumerate(("2024-01-05", "2024-01-09")):
        learners.make(project_of(folder, RATE).learner()).fit(log.before(end)).save(folder / f"state-{number}")
    known = [identity(folder / f"state-{number}") for number in range(2)]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    saver = context.Process(target=save_in_turn, args=(folder, there))
    saver.start()
    here.recv()
    seen, absent = list[tuple[int, bytes]](), 0
    for _ in range(LOADS):
        try:
            seen.append(identity(folder / "target"))
        except FormatError:
            absent += 1
    here.send("enough")
    saves = here.recv()
    saver.join()
    mixed = sum(one not in known for one in seen)
    found = f"{mixed} mixed, {absent} absent or damaged; {len(set(seen))} states seen"
    print(f"{LOADS:,} loads during {saves:,} saves: {found}")


def identity(model: Path) -> tuple[int, bytes]:
    """The cut, of the manifest, and the counts, of the arrays."""
    rate = learners.load(model)
    return rate.cut, rate.counts.rows.tobytes()  # type: ignore[attr-defined]


def save_in_turn(folder: Path, told: Connection) -> None:
    states = [learners.load(folder / f"state-{number}") for number in range(2)]
    states[0].save(folder / "target")
    told.send("begun")
    saves = 1
    while not told.poll():
        turn = states[saves % 2]
        turn._saved = None  # type: ignore[attr-defined]  # on purpose over what another has saved
        turn.save(folder / "target", overwrite=True)
        saves += 1
    told.recv()
    told.send(saves)


def race(folder: Path) -> None:
    """Three processes update one model at once, each to a random end."""
    project = project_of(folder, RATE)
    log = pipeline.open_events(project).cached()
    pipeline.fit(project, folder / "start", until="2024-01-03")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(RACERS + 1)
    racers = [context.Process(target=run_races, args=(folder, number, barrier)) for number in range(RACERS)]
    for racer in racers:
        racer.start()
    bad = 0
    for _ in range(RACES):
        shutil.rmtree(folder / "raced", ignore_errors=True)
        shutil.copytree(folder / "start", folder / "raced")
        barrier.wait()
        barrier.wait()
        bad += not is_serial(folder / "raced", log)
    for racer in racers:
        racer.join()
    print(f"{RACES} races of {RACERS} updates: {bad} differ from every serial order")


def run_races(folder: Path, number: int, barrier: Barrier) -> None:
    rng, project = np.random.default_rng(number), project_of(folder, RATE)
    for _ in range(RACES):
        barrier.wait()
        with contextlib.suppress(AlreadyLearnedError):
            pipeline.update(project, folder / "raced", until=f"2024-01-{rng.integers(3, 11):02d}")
        barrier.wait()


def is_serial(model: Path, log: pipeline.Events) -> bool:
    """Whether the model is what its history says, learned in that order, each window once and none left out."""
    raced = learners.load(model)
    edges = [line.end for line in raced.history]
    once = [line.start for line in raced.history] == [None, *edges[:-1]]
    one = learners.make(raced.parameters).fit(log.before(edges[0]))
    for start, end in itertools.pairwise(edges):
        one.update(log.between(start, end))
    same = np.array_equal(one.predict(log), raced.predict(log))
    return once and same and sum(line.rows for line in raced.history) == log.before(raced.cut + 1).count()


def kill(folder: Path) -> None:
    """Processes that update a model of many users day by day are killed at random moments; another goes on."""
    rng, model = np.random.default_rng(0), folder / "killed"
    days = [daily(number) for number in range(KILLS + 1)]
    ac.GLMix(fixed=["x"], random={"user": ["x"]}).fit(days[0]).save(model)
    context = multiprocessing.get_context("spawn")
    old, new, seconds = 0, 0, 0.0
    for number in range(KILLS + 1):
        day = min(number + 1, KILLS)
        shutil.copytree(model, folder / "whole")
        here, there = context.Pipe()
        learner = context.Process(target=learn_day, args=(model, day, there))
        learner.start()
        here.recv()
        begun = time.monotonic()
        if not number:
            learner.join()
            seconds = time.monotonic() - begun
        else:
            time.sleep(rng.uniform(0.0, 1.1 * seconds))
            learner.kill()
            learner.join()
        states = known(model)
        before, after = known(folder / "whole"), ac.GLMix.load(folder / "whole").update(days[day])
        after.save(folder / "whole", overwrite=True)
        old, new = (
            old + (number > 0 and states == before),
            new + (number > 0 and states == known(folder / "whole")),
        )
        shutil.rmtree(model)
        (folder / "whole").rename(model)
    print(f"{KILLS} updates killed within {seconds:.2f} s: {old} old, {new} new, {KILLS - old - new} between")


def daily(number: int) -> ac.Events:
    """20,000 rows of 10,000 of 100,000 users, on a day of their own."""
    rng, rows = np.random.default_rng(number), 20_000
    columns = {
        "time": pa.array(
            1_700_000_000_000_000 + number * 86_400_000_000 + np.arange(rows), pa.timestamp("us", "UTC")
        ),
        "user": rng.choice(100_000, 10_000, replace=False).repeat(2),
        "x": rng.normal(size=rows),
        "click": rng.integers(0, 2, rows),
    }
    return ac.read_events(pa.table(columns), ac.Schema(time="time", entities=["user"], labels="click"))


def learn_day(model: Path, number: int, told: Connection) -> None:
    day = daily(number)
    told.send("begun")
    ac.GLMix.load(model).update(day).save(model, overwrite=True)


def known(model: Path) -> list[tuple[int, bytes, bytes, int]]:
    """All that is known of users, byte by byte, and of the fixed effect with it."""
    loaded = ac.GLMix.load(model)
    states = loaded.states("user")
    order = np.argsort(states.ids)
    parts = (states.ids, states.posterior.mean, states.posterior.precision, states.touched, states.rows)
    return [
        (loaded.cut, repr(loaded.weights()).encode(), b"".join(p[order].tobytes() for p in parts), len(states))
    ]


if __name__ == "__main__":
    main()

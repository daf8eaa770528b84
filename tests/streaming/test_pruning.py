"""What a store holds of spaces that are gone goes with them, while streams go on."""

import contextlib
from dataclasses import replace

import pytest
import yaml
from small_project import content
from typer.testing import CliRunner

from acclimate import publishing
from acclimate.artifacts import Commit
from acclimate.cli.commands import app
from acclimate.errors import OutputError
from acclimate.project import parse_project
from acclimate.publish.stores import open_store
from acclimate.publish.stores.units import ROWS, Unit


def units(small):
    with contextlib.closing(open_store(small.project().publish.store)) as store:
        return sorted(store.units())


def replaced(small):
    """A second space is live, and the first one retired."""
    first, second = small.spaces.live("ranker"), small.publish()
    small.spaces.promote(second, instead_of=first)
    small.spaces.retire(first)
    return first, second


def test_a_worker_that_refreshes_what_is_pruned_goes_on_with_the_others(small):
    first = small.spaces.live("ranker")
    with small.worker() as worker:
        worker.step()
        replaced(small)
        pruned = publishing.prune(small.project())
        assert (pruned.spaces, pruned.units) == ([str(first)], ["ranker/1/0"])
        assert units(small) == []
        worker.step()  # it has not looked at the spaces since
        assert worker.metrics.fenced.labels("ranker/1", 0)._value.get() == 1
        worker.run(until_drained=True)
    assert units(small) == ["ranker/2/0"]
    assert publishing.prune(small.project()) == publishing.Pruned([], [])


def test_a_space_that_is_gone_is_not_filled_anew(small):
    with small.worker() as worker:
        worker._settle()
        replaced(small)
        publishing.prune(small.project())
        worker.step()
        assert units(small) == []


def test_what_is_of_others_stays_and_what_was_half_filled_goes(small):
    small.drain()
    first, _ = replaced(small)
    with contextlib.closing(open_store(small.project().publish.store)) as store:
        unit = Unit(store, first, 0)
        table = next(table for table in store.size(unit.name) if table.startswith(ROWS))
        row = next(store.scan(unit.name, table))
        other = Unit(store, replace(first, cut=0), 0)._told_space
        for name, values in {
            "ranker/1/1": {table: [row]},
            "ranker/1/2": {"shared": [(b"learner", b""), (b"space", other)]},
            "ranker/1/3": {"notes": [row]},
            "other/1/0": {table: [row]},
            "ranker/9/0": {table: [row]},
            "ranker/1/0/0": {table: [row]},
        }.items():
            store.commit(store.acquire(name, "test", 60.0), Commit(values, None, None))
        before = units(small)
    assert publishing.prune(small.project()).units == ["ranker/1/0", "ranker/1/1"]
    assert units(small) == [name for name in before if name not in ("ranker/1/0", "ranker/1/1")]


def test_a_store_that_cannot_be_reached_leaves_what_it_holds_and_says_so(small, dead_port):
    replaced(small)
    there = {"spaces": "spaces", "store": f"redis://127.0.0.1:{dead_port}"}
    project = parse_project({**content(), "publish": there}, small.folder)
    with pytest.raises(OutputError, match=r"units of spaces that are gone may be left .* removed: ranker/1 \("):
        publishing.prune(project)
    with pytest.raises(OutputError, match=r"removed: nothing \("):
        publishing.prune(project)


def test_the_command_counts_units(small):
    small.drain()
    replaced(small)
    path = small.folder / "acclimate.yaml"
    path.write_text(yaml.safe_dump(content()))
    done = [CliRunner().invoke(app, ["spaces", "prune", str(path)]).stdout for _ in range(2)]
    assert done == [
        "removed: ranker/1; 1 of the units in the store: ranker/1/0\n",
        "there was nothing to remove\n",
    ]

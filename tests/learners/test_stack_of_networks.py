"""A GLMix on a network: its vectors move and do no harm, and all of a stack learn or none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_networks import SCHEMA, day, net

import acclimate as ac
from acclimate.arrays import FloatArray
from acclimate.artifacts import Events
from acclimate.errors import ConfigError, NotConvergedError
from acclimate.models.scaling import Scaling

# --- vectors that move ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> ac.Events:
    """A young log: a network changes much from day to day."""
    return ac.simulate(users=500, items=100, days=8, events_per_day=2000, seed=2)


def on_network() -> ac.Stack:
    features = ["surface", "topics", "position", "duration", "user_id", "item_id"]
    return ac.Stack(ac.GLMix(fixed=["surface", "net"]), {"net": ac.SequentialLaplace(features=features)})


def day_by_day(stack: ac.Stack, events: Events, start: str) -> FloatArray:
    """Mean probability minus rate, and log-loss, of each day before it is learned, ``(days, 2)``."""
    found: list[tuple[float, float]] = []
    for window in events.windows("1d", start=start):
        rows = window.cached()
        p, y = stack.predict(rows).clip(1e-9, 1 - 1e-9), rows.table(["click"])["click"].to_numpy()
        found.append((float(p.mean() - y.mean()), -float(np.log(np.where(y == 1, p, 1.0 - p)).mean())))
        stack.update(rows)
    return np.array(found)


def test_a_stack_stays_near_the_rate_over_many_updates(world: ac.Events) -> None:
    away, loss = day_by_day(on_network().fit(world.before("2024-01-03")), world, "2024-01-03").T
    assert np.abs(away).max() < 0.15
    assert np.abs(away).mean() < 0.06
    assert loss.max() < 0.63


def test_with_units_of_their_own_numbers_that_wake_ruin_it(
    world: ac.Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scaling, "with_one_unit", lambda self, _: self)
    stack = on_network().fit(world.before("2024-01-03"))
    assert day_by_day(stack, world, "2024-01-03")[:, 1].max() > 0.7


def test_an_update_moves_vectors_of_other_names_by_less_than_their_unit() -> None:
    network = net().fit(day(0, rows=3000))
    asked, window = only_items(day(3), below=5), only_items(day(1), below=10, least=5)
    before, unit = network.vectors(asked), network.vectors(day(0)).std(axis=0)
    away = network.update(window).vectors(asked) - before
    assert 0.0 < np.sqrt(np.mean(away**2)) < 0.5 * np.sqrt(np.mean(unit**2))


def only_items(events: ac.Events, *, below: int, least: int = 0) -> ac.Events:
    table = events.table()
    items = table["item_id"].to_numpy()
    return ac.read_events(table.filter((items >= least) & (items < below)), SCHEMA)


def test_a_network_whose_last_layer_is_not_known_is_its_logit() -> None:
    own = {"net": net(ranker="own_ranker:Own")}
    stack = ac.Stack(ac.GLMix(fixed=["x", "net"]), own, every="6h").fit(day(0))
    assert [name for name, *_ in stack.weights()][-1] == "net"
    assert stack.update(day(1)).predict(day(2)).shape == (400,)
    wrong = ac.Stack(ac.GLMix(fixed=["x", "net"]), {"net": net(ranker="wide-and-depe")})
    with pytest.raises(ConfigError, match="no ranker 'wide-and-depe'"):
        wrong.fit(day(0))


# --- all learn, or none ---------------------------------------------------------------------------------------


def saved(model: Any, folder: Path) -> dict[str, bytes]:
    model.save(folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("who", ["member", "on top", "nested"])
def test_where_one_undoes_its_update_nobody_learns(who: str, tmp_path: Path) -> None:
    """Learning at such a rate makes the newest rows less likely, or runs away."""
    wild = net(refuse_above=0.0, features=["user", "item", "x"], training={"update_rate": 10.0})
    members: dict[str, Any] = {"rate": ac.Rate("user"), "net": wild}
    stack = ac.Stack(ac.GLMix(fixed=["x", "rate", "net"]), members, warm_up=0.9, every="1d")
    if who == "on top":
        on_top = net(refuse_above=0.0, features=["item", "rate"], training={"update_rate": 10.0})
        stack = ac.Stack(on_top, {"rate": ac.Rate("user")}, every="1d")
    if who == "nested":
        stack = ac.Stack(ac.GLMix(fixed=["stack"]), {"stack": stack}, warm_up=0.9, every="1d")
    stack.fit(day(0))
    assert stack.refusal() == ""
    before = saved(stack, tmp_path / "before")
    stack.update(day(1))
    member = {"member": "member 'net': ", "on top": "", "nested": "member 'stack': member 'net': "}[who]
    assert stack.refusal().startswith(f"{member}the update was refused: ")
    assert saved(stack, tmp_path / "after") == before
    assert stack.shortfall() == stack.refusal()
    with pytest.raises(NotConvergedError, match="the update was refused") as caught:
        stack.check_converged()
    assert "refuse_above" in caught.value.hint
    assert [line.split(" rows")[0] for line in stack.summary()] == ["learned 0"]

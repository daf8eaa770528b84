"""The life of spaces: what may follow what, who reads which, and what is left of it all."""

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sample_spaces import flip, made, promote, publish, saved

from acclimate.errors import ConfigError, FormatError, OutputError, SourceError, SpaceError
from acclimate.publish import Spaces

HERE = Path(__file__).parent


@pytest.fixture
def spaces(tmp_path: Path) -> Spaces:
    return Spaces(tmp_path / "spaces", who="ann@here")


def lives(spaces: Spaces) -> dict[str, str]:
    return {str(one.space): one.life for one in spaces.state().known}


def test_a_life_from_building_to_gone(spaces, tmp_path):
    assert spaces.state().known == ()
    with pytest.raises(SpaceError, match="no space of 'ranker' is live"):
        spaces.live("ranker")
    first = spaces.begin(made())
    assert lives(spaces) == {"ranker/1": "building"}
    with pytest.raises(SpaceError, match="ranker/1 is building and cannot be promoted"):
        spaces.promote(first, instead_of=None)
    second, third = publish(spaces), publish(spaces)
    promote(spaces, second)
    promote(spaces, third)
    assert lives(spaces) == {"ranker/1": "building", "ranker/2": "ready", "ranker/3": "live"}
    assert spaces.live("ranker") == third
    assert spaces.roll_back("ranker", instead_of=third) == second
    assert spaces.live("ranker") == second
    with pytest.raises(SpaceError, match="no space of 'ranker' was live before ranker/2"):
        spaces.roll_back("ranker", instead_of=second)
    with pytest.raises(SpaceError, match="ranker/2 is live and cannot be retired"):
        spaces.retire(second)
    spaces.retire(third)
    assert spaces.prune() == ["ranker/3"]
    assert spaces.prune(abandoned_after=0) == ["ranker/1"]
    assert lives(spaces) == {"ranker/2": "live"}
    assert sorted(path.name for path in (tmp_path / "spaces" / "ranker").iterdir()) == ["2"]
    assert publish(spaces).number == 4
    with pytest.raises(SpaceError, match=r"the space ranker/3 was removed"):
        spaces.open("ranker/3")
    with pytest.raises(SpaceError, match=r"the space ranker/9 is not known \(did you mean 'ranker/"):
        spaces.open("ranker/9")
    told = [(entry.number, entry.action, entry.space, entry.who) for entry in spaces.entries()]
    assert told[0] == (1, "begin", "ranker/1", "ann@here")
    assert [action for _, action, _, _ in told[1:]] == [
        *("begin", "ready", "begin", "ready", "promote", "promote", "rollback", "retire", "prune", "prune"),
        *("begin", "ready"),
    ]


def test_pins_keep_a_space_and_both_are_refreshed(spaces):
    old, new = publish(spaces), publish(spaces)
    promote(spaces, old)
    spaces.pin("feed", old)
    spaces.pin("mail", old)
    promote(spaces, new)
    assert spaces.refreshed("ranker") == [old, new]
    with pytest.raises(SpaceError, match=r"ranker/1 is pinned by feed \(for 0s\), mail \(for 0s\) and cannot"):
        spaces.retire(old)
    spaces.pin("feed", new)  # it moves
    assert spaces.pinned("feed", "ranker") == new
    assert spaces.pinned("mail", "ranker") == old
    spaces.unpin("mail", "ranker")
    assert spaces.refreshed("ranker") == [new]
    spaces.retire(old)
    with pytest.raises(SpaceError, match="'mail' has pinned no space of 'ranker'"):
        spaces.unpin("mail", "ranker")
    with pytest.raises(SpaceError, match="'mail' has pinned no space"):
        spaces.pinned("mail", "ranker")
    with pytest.raises(SpaceError, match="ranker/1 is retired and cannot be pinned"):
        spaces.pin("mail", old)
    with pytest.raises(ConfigError, match="the owner of a pin is empty"):
        spaces.pin(" ", new)


def test_a_space_is_kept_and_refreshed_while_one_that_reads_its_vectors_is_used(spaces):
    taste, head = publish(spaces, "taste"), publish(spaces, "head", parents=("taste/1",))
    index = publish(spaces, "index", parents=("head/1",))
    assert spaces.refreshed("taste") == []
    spaces.pin("feed", index)
    assert (spaces.refreshed("taste"), spaces.refreshed("head")) == ([taste], [head])
    for parent, child in ((taste, head), (head, index)):
        with pytest.raises(SpaceError, match=f"{parent} cannot be retired, since {child} read its vectors"):
            spaces.retire(parent)
    spaces.unpin("feed", "index")
    promote(spaces, head)
    assert spaces.refreshed("taste") == [taste]
    promote(spaces, publish(spaces, "head", parents=("taste/1",)))
    spaces.roll_back("head", instead_of=spaces.live("head"))
    with pytest.raises(SpaceError, match="taste/1 cannot be retired, since head/1 read its vectors"):
        spaces.retire(taste)


def test_what_reads_vectors_of_a_space_that_is_not_kept_is_not_used(spaces):
    with pytest.raises(SpaceError, match="the space taste/1 is not known"):
        publish(spaces, "head", parents=("taste/1",))
    taste, other = publish(spaces, "taste"), publish(spaces, "taste")
    heads = [publish(spaces, "head", parents=(str(parent),)) for parent in (taste, other)]
    promote(spaces, heads[0])
    promote(spaces, heads[1])
    spaces.retire(taste)
    for use in (
        lambda: spaces.pin("feed", heads[0]),
        lambda: spaces.promote(heads[0], instead_of=heads[1]),
        lambda: spaces.roll_back("head", instead_of=heads[1]),
        lambda: publish(spaces, "head", parents=("taste/1",)),
    ):
        with pytest.raises(SpaceError, match="taste/1 is retired and cannot be read by head/"):
            use()
    assert spaces.live("head") == heads[1]
    assert spaces.prune() == ["taste/1"]
    with pytest.raises(SpaceError, match="the space taste/1 was removed"):
        spaces.pin("feed", heads[0])


@pytest.mark.parametrize("name", ["journal", "a/b", ".hidden", "", "a\nb", "-x", ".."])
def test_a_name_that_is_no_folder_is_refused(spaces, name):
    with pytest.raises(ConfigError, match="cannot name a space"):
        publish(spaces, name)
    assert spaces.state().known == ()


def test_two_names_know_nothing_of_each_other(spaces):
    a, b = publish(spaces, "taste"), publish(spaces, "größe 2.0")
    promote(spaces, a)
    promote(spaces, b)
    assert (a.number, b.number) == (1, 1)
    assert (spaces.live("taste"), spaces.live("größe 2.0")) == (a, b)


def test_an_update_on_stale_facts_is_refused(spaces):
    first, second, third = publish(spaces), publish(spaces), publish(spaces)
    promote(spaces, first)
    spaces.promote(second, instead_of=first)
    with pytest.raises(SpaceError, match="ranker/2 of 'ranker' is live, and not ranker/1: it changed meanwhile"):
        spaces.promote(third, instead_of=first)
    with pytest.raises(SpaceError, match="it changed meanwhile"):
        spaces.roll_back("ranker", instead_of=first)
    with pytest.raises(SpaceError, match="ranker/2 is live and cannot be promoted"):
        spaces.promote(second, instead_of=second)


def test_of_promoters_at_once_one_wins_and_no_entry_is_lost(spaces, tmp_path):
    base = publish(spaces)
    promote(spaces, base)
    candidates = [publish(spaces) for _ in range(8)]
    results, start = [], threading.Barrier(len(candidates))

    def attempt(space):
        ours = Spaces(tmp_path / "spaces", who=str(space))
        start.wait()
        ours.pin(f"reader of {space}", space)
        try:
            ours.promote(space, instead_of=base)
            results.append(space)
        except SpaceError as error:
            assert "it changed meanwhile" in str(error)  # noqa: PT017 - each thread meets one or the other

    threads = [threading.Thread(target=attempt, args=(space,)) for space in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = results
    assert spaces.live("ranker") == winner
    assert len(spaces.state().pins) == len(candidates)
    actions = [entry.action for entry in spaces.entries()]
    assert (actions.count("pin"), actions.count("promote")) == (8, 2)


def test_publishers_at_once_get_numbers_of_their_own(spaces, tmp_path):
    start, numbers = threading.Barrier(6), []

    def attempt():
        start.wait()
        numbers.extend(publish(Spaces(tmp_path / "spaces")).number for _ in range(3))

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 19))
    assert set(lives(spaces).values()) == {"ready"}


# --- the journal ---------------------------------------------------------------------------------------------


def test_a_change_of_an_entry_is_seen(spaces, tmp_path):
    publish(spaces)
    path = tmp_path / "spaces" / "journal" / "00000001.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "who": "eve"}))
    with pytest.raises(FormatError, match=r"journal/00000001\.json is damaged: it is not what was written"):
        list(spaces.entries())
    path.write_text("{")
    with pytest.raises(FormatError, match=r"journal/00000001\.json is damaged"):
        list(spaces.entries())
    path.unlink()
    with pytest.raises(FormatError, match=r"journal/00000001\.json is damaged: it is absent"):
        list(spaces.entries())
    path.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(FormatError, match="has format 99; this version"):
        list(spaces.entries())


def test_an_entry_of_another_registry_breaks_the_chain(spaces, tmp_path):
    publish(spaces)
    publish(Spaces(tmp_path / "other"))
    places = [tmp_path / name / "journal" / "00000001.json" for name in ("spaces", "other")]
    places[0].write_bytes(places[1].read_bytes())
    with pytest.raises(FormatError, match=r"00000002\.json is damaged: it does not follow"):
        list(spaces.entries())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for url in (tmp_path / "file" / "spaces", tmp_path / "file"):
        with pytest.raises(SourceError, match=r"file.* cannot be read: Not a directory"):
            publish(Spaces(url))
    (tmp_path / "spaces" / "journal" / "00000001.json").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"00000001\.json cannot be read: Is a directory"):
        Spaces(tmp_path / "spaces").state()


def test_an_entry_that_is_nested_without_end(spaces, tmp_path):
    publish(spaces)
    (tmp_path / "spaces" / "journal" / "00000002.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"00000002\.json is damaged: maximum recursion"):
        spaces.state()


def test_spaces_of_a_folder_need_no_home(tmp_path, monkeypatch):
    def nobody():
        raise RuntimeError("nobody is at home")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    spaces = Spaces(tmp_path / "spaces")
    assert spaces.open(publish(spaces)).is_dir()
    remote = Spaces(f"memory://{tmp_path.name}")
    with pytest.raises(ConfigError, match="there is no place for snapshots: nobody is at home"):
        remote.open(publish(remote))


def test_rolled_back_twice_it_is_as_it_was_twice_before(spaces):
    one, two, three = publish(spaces), publish(spaces), publish(spaces)
    for space in (one, two, three, two):
        promote(spaces, space)
    assert spaces.roll_back("ranker", instead_of=two) == three
    assert spaces.roll_back("ranker", instead_of=three) == two
    assert spaces.roll_back("ranker", instead_of=two) == one
    with pytest.raises(SpaceError, match="no space of 'ranker' was live before ranker/1"):
        spaces.roll_back("ranker", instead_of=one)


def test_of_two_who_prune_at_once_one_writes_it_down(spaces, tmp_path, monkeypatch):
    spaces.retire(publish(spaces))
    other, seen = Spaces(tmp_path / "spaces"), spaces._journal.head()
    assert other.prune() == ["ranker/1"]
    heads = iter([seen])  # what was read before the other one pruned
    head = spaces._journal.head
    monkeypatch.setattr(spaces._journal, "head", lambda: next(heads, None) or head())
    assert spaces.prune() == []
    assert [entry.action for entry in spaces.entries()] == ["begin", "ready", "retire", "prune"]


# --- snapshots -----------------------------------------------------------------------------------------------


def test_a_flipped_byte_is_refused_with_the_name_of_its_file(spaces):
    space = publish(spaces)
    folder = spaces.open(space)
    assert spaces.verify(space).seal == spaces.state().known[0].seal
    flip(folder / "generation-1" / "arrays.safetensors")
    what = r"ranker/1 is damaged: 1 of 1 files are not what was published: generation-1/arrays\.safetensors"
    for look in (spaces.open, spaces.verify):
        with pytest.raises(FormatError, match=what):
            look(space)
    (folder / "generation-1" / "arrays.safetensors").unlink()
    with pytest.raises(FormatError, match=what):
        spaces.open(space)
    flip(folder / "manifest.json")
    with pytest.raises(FormatError, match=r"ranker/1 is damaged"):
        spaces.open(space)


def test_another_snapshot_in_its_place_is_refused(spaces):
    first, second = publish(spaces, seed=1), publish(spaces, seed=2)
    one, two = spaces.open(first), spaces.open(second)
    one.rename(one.with_name("x"))
    two.rename(one)
    with pytest.raises(SpaceError, match="is another snapshot than was published under this name"):
        spaces.open(first)


def test_a_space_of_another_registry_is_refused(spaces, tmp_path):
    publish(spaces)
    other = Spaces(tmp_path / "other").publish(made(weights="v"), saved())
    with pytest.raises(SpaceError, match="ranker/1 is another space here: of weights wwww"):
        spaces.open(other)
    for verb in (spaces.retire, lambda space: spaces.pin("feed", space)):
        with pytest.raises(SpaceError, match="ranker/1 is another space here: of weights wwww"):
            verb(other)
    with pytest.raises(SpaceError, match="ranker/1 is another space here"):
        spaces.promote(other, instead_of=None)
    assert set(lives(spaces).values()) == {"ready"}


def test_a_failed_save_leaves_no_folder_and_its_number_is_passed(spaces):
    def fails(_):
        raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        spaces.publish(made(), fails)
    assert lives(spaces) == {"ranker/1": "building"}
    assert publish(spaces).number == 2
    assert spaces.prune(abandoned_after=0) == ["ranker/1"]


def test_a_publisher_that_was_given_up_is_told(spaces):
    space = spaces.begin(made())
    spaces.prune(abandoned_after=0)
    spaces_manifest = spaces.manifest(publish(spaces))
    with pytest.raises(SpaceError, match=r"ranker/1 was removed"):
        spaces.ready(space, spaces_manifest)


def test_a_publisher_killed_at_random_instants_leaves_a_whole_registry(tmp_path):
    place, rng = tmp_path / "spaces", random.Random(0)
    for _ in range(12):
        command = [sys.executable, str(HERE / "publish_until_killed.py"), str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0.0, 0.4))
            process.kill()
        spaces = Spaces(place)
        assert [entry.number for entry in spaces.entries()] == list(range(1, len(list(spaces.entries())) + 1))
        state = spaces.state()
        for one in state.known:
            if one.life in ("ready", "live"):
                spaces.verify(one.space)
        before = state.last.get("ranker", 0)
        space = publish(spaces)
        assert space.number == before + 1
        promote(spaces, space)
        spaces.prune(abandoned_after=0)
        kept = {str(one.space.number) for one in spaces.state().known if one.space.name == "ranker"}
        assert {path.name for path in (place / "ranker").iterdir()} == kept
        assert all(path.suffix == ".json" for path in (place / "journal").iterdir())
    assert spaces.state().last["ranker"] > 24  # the killed ones got somewhere


# --- the life cycle against a plain model --------------------------------------------------------------------


class Lives(RuleBasedStateMachine):
    """Any order of verbs: the registry allows what the model allows, and is where the model is."""

    @initialize()
    def begins(self):
        self.spaces = Spaces(f"memory://machine-{id(self)}", who="machine")
        self.life, self.pins, self.lived, self.all = {}, {}, [], []

    def _live(self):
        return next((number for number, life in self.life.items() if life == "live"), None)

    def _space(self, number):
        return self.all[number - 1] if number else None

    def _allowed(self, is_allowed, verb, *arguments, **options):
        if is_allowed:
            verb(*arguments, **options)
        else:
            with pytest.raises(SpaceError):
                verb(*arguments, **options)
        return is_allowed

    @rule(whole=st.booleans())
    def publish(self, whole):
        space = publish(self.spaces) if whole else self.spaces.begin(made())
        self.all.append(space)
        assert space.number == len(self.all)
        self.life[space.number] = "ready" if whole else "building"

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def promote(self, data):
        number = data.draw(st.integers(1, len(self.all)))
        believed = data.draw(st.sampled_from([self._live(), self._live(), number, None]))
        allowed = self.life.get(number) == "ready" and believed == self._live()
        options = {"instead_of": self._space(believed)}
        if self._allowed(allowed, self.spaces.promote, self._space(number), **options):
            if self._live():
                self.lived.append(self._live())
                self.life[self._live()] = "ready"
            self.life[number] = "live"

    @precondition(lambda self: self.all)
    @rule()
    def roll_back(self):
        kept = [number for number in self.lived if self.life.get(number) == "ready"]
        before = self._space(self._live()) or self.all[0]
        allowed = bool(self._live() and kept)
        if self._allowed(allowed, self.spaces.roll_back, "ranker", instead_of=before):
            self.life[self._live()] = "ready"
            self.life[kept[-1]] = "live"
            self.lived = self.lived[: len(self.lived) - 1 - self.lived[::-1].index(kept[-1])]

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def retire(self, data):
        number = data.draw(st.integers(1, len(self.all)))
        allowed = self.life.get(number) == "ready" and number not in self.pins.values()
        if self._allowed(allowed, self.spaces.retire, self._space(number)):
            self.life[number] = "retired"

    @precondition(lambda self: self.all)
    @rule(owner=st.sampled_from("ab"), data=st.data())
    def pin(self, owner, data):
        number = data.draw(st.integers(1, len(self.all)))
        if self._allowed(self.life.get(number) in ("ready", "live"), self.spaces.pin, owner, self._space(number)):
            self.pins[owner] = number

    @rule(owner=st.sampled_from("ab"))
    def unpin(self, owner):
        if self._allowed(owner in self.pins, self.spaces.unpin, owner, "ranker"):
            del self.pins[owner]

    @rule()
    def prune(self):
        gone = [number for number, life in self.life.items() if life in ("retired", "building")]
        assert self.spaces.prune(abandoned_after=0) == [f"ranker/{number}" for number in gone]
        self.life = {number: life for number, life in self.life.items() if number not in gone}

    @invariant()
    def is_where_the_model_is(self):
        state = self.spaces.state()
        assert {one.space.number: one.life for one in state.known} == self.life
        assert {pin.owner: pin.number for pin in state.pins} == self.pins
        read = {self._live(), *self.pins.values()} - {None}
        assert {space.number for space in self.spaces.refreshed("ranker")} == read


Lives.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)
TestLives = Lives.TestCase

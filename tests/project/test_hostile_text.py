"""Project files that are no project files: each is refused at once, in one line, with its place."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acclimate.errors import AcclimateError, ConfigError, SourceError
from acclimate.pipeline import open_events
from acclimate.project import load_project

GOOD: dict[str, Any] = {
    "name": "small",
    "events": {
        "path": ["log.csv"],
        "time": {"column": "t", "zone": "Europe/Berlin"},
        "entities": {"user": "user_id", "item": "item_id"},
        "labels": ["y"],
        "tables": {"item": {"source": "items.csv", "key": "item_id"}},
    },
    "features": {"a": {"kind": "numeric"}, "both": {"kind": "cross", "of": ["a", "hour"]}},
    "learners": {
        "ranker": {
            "kind": "glmix",
            "fixed": {"features": ["a"], "ridge": 2.0, "half_life": "7d"},
            "random": {"user": {"max_rows": 5}},
        },
        "rate": {"kind": "rate", "entity": "item"},
    },
    "replay": {
        "start": "2024-01-05",
        "end": "2024-02-05",
        "every": "6h",
        "arms": ["stale", {"name": "mine", "learner": "rate", "regime": "retrain", "window": "14d"}],
        "learner": "ranker",
        "label_delay": "1h",
    },
}
TEXT = yaml.safe_dump(GOOD, sort_keys=False)


def is_line(message: str) -> bool:
    return len(message.splitlines()) <= 1 and "\x1b" not in message and len(message) < 2_000


def failure(file: Path, content: str | bytes, *overrides: str) -> ConfigError:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_project(file, overrides)
    assert is_line(caught.value.message)
    assert len(str(caught.value)) < 1_000
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "acclimate.yaml"


def laughing(item: str, alias: str) -> str:
    """Ten times ten times ... of the item."""
    lines = (f"a{i}: &a{i} {alias.format(','.join([f'*a{i - 1}'] * 10))}" for i in range(1, 12))
    return "\n".join([f"a0: &a0 {item}", *lines])


# --- texts ---------------------------------------------------------------------------------------------------

TEXTS: dict[str, tuple[str | bytes, str]] = {
    "a list in itself": ("x: &a [*a]", "line 1: more than 50 levels deep, or within itself"),
    "a section in itself": ("\nx: &a {b: *a}", "line 2: more than 50 levels deep"),
    "a merge of itself": ("x: &a {<<: *a}", "line 1: more than 50 levels deep"),
    "deep lists": ("x: " + "[" * 5_000, "line 1: more than 50 levels deep"),
    "deep lists, closed": ("x: " + "[" * 5_000 + "]" * 5_000, "line 1: more than 50 levels deep"),
    "deep sections": ("x: " + "{a: " * 5_000, "line 1: more than 50 levels deep"),
    "deep blocks": ("".join(" " * i + "a:\n" for i in range(500)), "line 51: more than 50 levels deep"),
    "exploding aliases": (laughing("[1, 2]", "[{}]"), "more than 50,000 values"),
    "exploding merges": (laughing("{x: 1}", "{{<<: [{}]}}"), "more than 50,000 values"),
    "a long number": ("x: " + "9" * 5_000, "line 1: a number of 5,000 characters"),
    "a long hexadecimal number": ("x: 0x" + "f" * 5_000, "line 1: a number of 5,002 characters"),
    "a long time": ("x: " + ":".join(["1"] * 20_000), "line 1: a number of 39,999 characters"),
    "a long number as a key": ("? " + "9" * 5_000 + "\n: 1", "line 1: a number of 5,000 characters"),
    "no number": ("x: 0b_", "line 1: '0b_' is no number and no time"),
    "no day": ("x: 2024-02-30", "line 1: '2024-02-30' is no number and no time"),
    "no day in a list": ("x:\n - 1\n - 2024-13-01", "line 3: '2024-13-01' is no number and no time"),
    "no zone": ("x: 2024-01-01 00:00:00 +99:99", "line 1: '2024-01-01 00:00:00 +99:99' is no number"),
    "a key twice": (TEXT + "name: other\n", "the key 'name' is there twice, first in line 1"),
    "a key twice, deep": (TEXT + "  seed: 1\n  seed: 2\n", "the key 'seed' is there twice, first in line "),
    "a key twice, inline": ("x: {a: 1, b: 2, a: 3}", "line 1: the key 'a' is there twice, first in line 1"),
    "a tag": ("x: !!python/object:os.system {}", "line 1: the tag '!!python/object:os.system'"),
    "a tag of a scalar": ("x: !!bool perhaps", "line 1: the tag '!!bool'"),
    "a tag of a time": ("x: !!timestamp soon", "line 1: the tag '!!timestamp'"),
    "a set": ("x: !!set {a}", "line 1: the tag '!!set'"),
    "a tag of the user's": ("x: !mine [a]", "line 1: the tag '!mine'"),
    "a NUL": ('x: "a\\0b"', "line 1: a text with a NUL"),
    "half a surrogate": ('name: "\\ud800"', "line 1: a text with a NUL or half a surrogate pair"),
    "a NUL in a key": ('"a\\0b": 1', "line 1: a text with a NUL"),
    "a list as a key": ("? [a, b]\n: 1", "line 1: a key that is a list or a section"),
    "raw NULs": (b"x: 1\n\x00\x01", "line 2: is no YAML: a control character"),
    "an escape": (b"x: 1\n\n\x1b[31m", "line 3: is no YAML: a control character"),
    "no UTF-8": (b"x: 1\nname: caf\xe9\n", "line 2: is no YAML: 'utf-8' codec can't decode"),
    "two documents": ("x: 1\n---\nx: 2", "line 2: is no YAML: expected a single document"),
    "an alias of nothing": ("x: *a", "line 1: is no YAML: found undefined alias"),
    "a merge of text": ("<<: text", "line 1: '<<' takes over what is no section"),
    "too many bytes": ("x: " + "a" * 600_000, " has more than 500,000 bytes"),
    "too many values": ("x: [" + "a," * 60_000 + "]", "line 1: more than 50,000 values"),
    "names without end": (TEXT.replace("small", "n" * 100_000), "line 1: name: a name has 100,000 characters"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_hostile_text_is_refused_in_one_line(file: Path, case: str) -> None:
    text, message = TEXTS[case]
    assert message in failure(file, text).message


OVERRIDES = [case for case, (text, _) in TEXTS.items() if isinstance(text, str) and not text.startswith("name")]


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_hostile_override_is_refused_in_one_line(file: Path, case: str) -> None:
    text = str(TEXTS[case][0])
    assert "--set" in str(failure(file, TEXT, f"x={text}")) or "'x=" in str(failure(file, TEXT, f"x={text}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("replay.start=2024-02-30", "'replay.start=2024-02-30': '2024-02-30' is no number and no time"),
        ("replay.seed=" + "9" * 5_000, "a number of 5,000 characters"),
        ("a." * 10_000 + "b=1", "the key is 10,001 levels deep"),
        ("name=caf\udce9", "is no YAML: a control character"),
        ("name\n=1", "--set: name\\n: unknown key"),
        ("features={a: {}, a: {}}", "the key 'a' is there twice"),
        ("x" * 100_000, " is no override"),
        ("name=" + "x" * 100_000, "a name has 100,000 characters"),
    ],
    ids=["day", "number", "deep", "bytes", "newline", "twice", "long", "name"],
)
def test_a_hostile_key_or_value(file: Path, override: str, message: str) -> None:
    assert message in failure(file, TEXT, override).message


def test_aliases_and_merges_of_a_sane_size_are_read(file: Path) -> None:
    file.write_text(
        TEXT.replace("path:\n", "path: &paths\n").replace("source: items.csv", "source: *paths")
        + "  ndcg_at: &ten 10\n"
    )
    assert load_project(file).events.schema.tables["item"].source == [str(file.parent / "log.csv")]
    file.write_text("x: 1")
    file.write_text(TEXT.replace("rate:\n    kind: rate", "rate:\n    <<: [{kind: rate}, {kind: glmix}]"))
    assert load_project(file).learner("rate").kind == "rate"
    file.write_text(TEXT.replace("rate:\n    kind: rate", "rate:\n    <<: {kind: glmix}\n    kind: rate"))
    assert load_project(file).learner("rate").kind == "rate"


# --- values --------------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[tuple[str, ...], Any, str]] = {
    # a place, what is put there, and what is said of it
    "no ndcg_at": (("replay", "ndcg_at"), 0, "replay.ndcg_at: should be greater than or equal to 1"),
    "ndcg_at": (("replay", "ndcg_at"), 1e30, "replay.ndcg_at: "),
    "huge ndcg_at": (("replay", "ndcg_at"), 10**9, "replay.ndcg_at: should be less than or equal to 1000000"),
    "follow": (("replay", "follow"), 10**30, "replay.follow"),
    "end": (("replay", "end"), "2024-01-05", "replay.end: the span from 2024-01-05 to 2024-01-05 is empty"),
    "end in a zone": (("replay", "end"), "2024-01-04T23:00+00:00", "replay.end: the span from"),
    "year 1": (("replay", "start"), "0001-01-01", "replay.start: '0001-01-01' is outside the years 1900 to 2200"),
    "every": (("replay", "every"), "1e9d", "replay.every: '1e9d' is longer than ten thousand years"),
    "zone of zones": (("events", "time", "zone"), "Europe", "events.time.zone: no time zone 'Europe'"),
    "zone with a path": (("events", "time", "zone"), "../../etc", "events.time.zone: no time zone"),
    "no zone": (("events", "time", "zone"), "", "events.time.zone: no time zone ''"),
    "long zone": (("events", "time", "zone"), "x" * 5_000, "events.time.zone: no time zone 'xxx"),
    "no path": (("events", "path"), [""], "events.path: is empty"),
    "no name": (("name",), "", "name: a name is empty"),
    "blank name": (("name",), " \t", "name: a name is empty"),
    "name of two lines": (("name",), "a\nb", "name: a name has a line break"),
    "coloured name": (("name",), "\x1b[31m", "name: a name has a line break or another control character"),
    "arm of two lines": (
        ("replay", "arms"),
        [{"name": "a\nb", "learner": "rate"}],
        "replay.arms.0.name: a name has",
    ),
    "memory": (("memory_limit",), "much", "memory_limit: 'much' is no size (write 512MB or 4GB)"),
    "memory without unit": (("memory_limit",), 4, "memory_limit: '4' is no size"),
    "no memory": (("memory_limit",), "10B", "memory_limit: '10B' is too small"),
    "huge memory": (("memory_limit",), "9999999TB", "memory_limit: '9999999TB' is too large"),
    "memory of two lines": (("memory_limit",), "1GB\n", "memory_limit: '1GB\\n' is no size"),
    "max_rows": (
        ("learners", "ranker", "random", "user", "max_rows"),
        2**70,
        "random.user.max_rows: should be less",
    ),
    "max_steps": (("learners", "ranker", "max_steps"), 10**9, "learners.ranker.max_steps: should be less than"),
    "buckets": (
        ("features", "a"),
        {"kind": "categorical", "buckets": 10**12},
        "features.a.buckets: should be less",
    ),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_out_of_bounds_is_named_with_its_line(file: Path, case: str) -> None:
    place, value, message = VALUES[case]
    content = copy.deepcopy(GOOD)
    section = content
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    text = yaml.safe_dump(content, sort_keys=False)
    told = failure(file, text).message
    line = int(told.split(": line ")[1].split(":")[0])
    assert message in told
    assert text.splitlines()[line - 1].strip().startswith((f"{place[-1]}:", "- name: ", "buckets: "))


def test_a_learner_without_a_name(file: Path) -> None:
    assert "learners.: a name is empty" in failure(file, TEXT, "learners={'': {kind: glmix}}").message
    assert (
        "learners.a\\nb: a name has a line break"
        in failure(file, TEXT, 'learners={"a\\nb": {kind: glmix}}').message
    )


@pytest.mark.parametrize(
    "features",
    [
        {"c0": ["a", "b"]} | {f"c{i}": [f"c{i - 1}", f"c{i - 1}"] for i in range(1, 25)},
        {"c0": ["a", "b"]} | {f"c{i}": [f"c{i - 1}", "a"] for i in range(1, 2_000)},
        {"wide": [f"f{i}" for i in range(9)]},
        {"wide": ["a"] * 5_000},
    ],
    ids=["nested", "a chain", "wide", "very wide"],
)
def test_crosses_are_bounded(file: Path, features: dict[str, list[str]]) -> None:
    crosses = {name: {"kind": "cross", "of": parts} for name, parts in features.items()}
    told = failure(file, yaml.safe_dump(GOOD | {"features": crosses}, sort_keys=False)).message
    assert "multiplies more than 8 features, those of the crosses in it counted" in told


def test_crosses_within_the_bound_are_read(file: Path) -> None:
    crosses = {"c0": ["a", "b"], "c1": ["c0", "c0"], "c2": ["c1", "c1"]}
    features = {name: {"kind": "cross", "of": parts} for name, parts in crosses.items()}
    file.write_text(yaml.safe_dump(GOOD | {"features": features}))
    assert list(load_project(file).events.schema.features) == ["c0", "c1", "c2"]


# --- files ---------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fifo, "is no file that ends, but a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file that ends"),
        (Path.mkdir, "is a folder"),
        (loop, "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("absent"), "No such file or directory"),
    ],
    ids=["fifo", "endless", "folder", "loop", "broken link"],
)
def test_what_is_no_file_is_refused(file: Path, make: Any, message: str) -> None:
    make(file)
    with pytest.raises(ConfigError) as caught:
        load_project(file)
    assert caught.value.message.startswith(f"{file}: {message}")


@pytest.mark.parametrize("name", ["a\0b", "x" * 1_000, "caf\udce9", "a\nb", "file.yaml/below"])
def test_odd_paths_are_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path / name)
    assert is_line(caught.value.message)
    assert caught.value.hint


# --- all of it at random -------------------------------------------------------------------------------------

PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "? ",
        "- ",
        ": ",
        "\n",
        "\t",
        '"',
        "'",
        "|",
        ">",
        "#",
        "%",
        "@",
    ),
    *(
        "\0",
        "\ud7ff",
        "\x85",
        "\u2028",
        "\ufeff",
        "9" * 5_000,
        "2024-02-30",
        "-1",
        "1e400",
        ".nan",
        "~",
        "on",
        "---\n",
    ),
]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(),
    st.sampled_from([[], {}, "", "${X}", "${X:-y}", 10**400, "1" * 300, ["a"], {"a": "b"}, [[]]]),
)  # fmt: skip
AT_RANDOM = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def attempt(file: Path, content: bytes, *overrides: str) -> str:
    """What is said of it; nothing where it is read, and all that is no error of the tree is raised."""
    file.write_bytes(content)
    try:
        load_project(file, overrides)
    except AcclimateError as error:
        return error.message
    return ""


@AT_RANDOM
@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 40), st.sampled_from(PIECES)), max_size=6))
def test_any_edit_of_the_text_is_read_or_refused(file: Path, edits: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for at, length, piece in edits:
        at %= len(text) + 1
        text = text[:at] + piece + text[at + length :]
    assert is_line(attempt(file, text.encode()))


@AT_RANDOM
@given(content=st.binary(max_size=200), at=st.integers(0, len(TEXT)))
def test_any_bytes_are_read_or_refused(file: Path, content: bytes, at: int) -> None:
    assert is_line(attempt(file, content))
    assert is_line(attempt(file, TEXT.encode()[:at] + content + TEXT.encode()[at:]))


def places(value: Any, *place: Any) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(deeper for key, item in inner for deeper in places(item, *place, key))]


PLACES = places(GOOD)[1:]


@AT_RANDOM
@given(place=st.sampled_from(PLACES), value=ODD, key=st.one_of(st.none(), ODD))
def test_any_change_of_the_structure_is_read_or_refused(
    file: Path, place: tuple[Any, ...], value: Any, key: Any
) -> None:
    """Every value replaced by an odd one, and every key too where a mapping can have it."""
    content = copy.deepcopy(GOOD)
    section: Any = content
    for part in place[:-1]:
        section = section[part]
    if key is not None and isinstance(section, dict) and not isinstance(key, list | dict):
        section[key] = section.pop(place[-1])
    else:
        section[place[-1]] = value
    assert is_line(attempt(file, yaml.safe_dump(content, allow_unicode=True).encode(errors="surrogatepass")))


VALUES_OF_ANY_KIND = [
    *("", "~", "[]", "{}", "3", "-1", "1.5", "text", "[a, b]", "{a: b}", "{kind: rate}", "2024-01-01"),
    *("[[a]]", "[{a: b}]", "{1: 2}", "[1, 2]", "{a: [b]}", "true", ".nan", "{~: ~}", "[~]"),
]


@pytest.mark.parametrize("value", VALUES_OF_ANY_KIND)
def test_any_value_at_any_place_is_read_or_refused(file: Path, value: str) -> None:
    keys = [".".join(place) for place in PLACES if all(isinstance(part, str) for part in place)]
    assert len(keys) == 40
    assert all(is_line(attempt(file, TEXT.encode(), f"{key}={value}")) for key in keys)


def test_an_address_with_a_password_is_refused_and_not_shown(file: Path) -> None:
    address = "https://ann:secret@host/log.parquet?token=1"
    file.write_text(TEXT)
    project = load_project(file, [f"events.path={address}"])
    assert project.events.path == (address,)
    with pytest.raises(SourceError) as caught:
        open_events(project)
    assert "secret" not in str(caught.value) + caught.value.hint

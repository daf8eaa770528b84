"""The documentation: its examples run, its links lead somewhere, and it names what there is."""

import doctest
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import acclimate as ac
from acclimate import pipeline, project
from acclimate.config import (
    LEARNERS,
    CalibratedParameters,
    Gates,
    GLMixParameters,
    GlobalRateParameters,
    RateParameters,
    SequentialLaplaceParameters,
    StackParameters,
    class_of,
)
from acclimate.errors import AcclimateError

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)
DECISIONS = [page for page in PAGES if re.match(r"\d{4}-", page.name)]
FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> str:
    """The page's Python examples alone, each line where it stands in the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in FENCE.finditer(text):
        if block[1] == "python":
            first = text.count("\n", 0, block.start(2))
            lines[first : first + block[2].count("\n")] = block[2].splitlines()
    return "\n".join(lines)


RUNNABLE = [page for page in PAGES if ">>>" in examples(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=named)
def test_examples_run(page: Path) -> None:
    test = doctest.DocTestParser().get_doctest(examples(page), {}, named(page), str(page), 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 1
    assert result.failed == 0, "".join(report)


def test_all_pages_with_python_are_run() -> None:
    """A Python block that does not begin with a prompt would be shown and never run."""
    blocks = [block for page in PAGES for block in FENCE.findall(page.read_text()) if block[0] == "python"]
    assert all(block[1].startswith(">>>") for block in blocks)
    assert len(blocks) > 10
    names = "quickstart events features replay arms transfer interoperability errors datasets"
    expected = {"README.md", *(f"docs/guide/{name}.md" for name in names.split())}
    assert expected <= {named(page) for page in RUNNABLE}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MyST give to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](page.md#a-title) [b](#a-title) [c](none.md) [d](#none) `[e](code.md)`\n")
    assert broken_links(page) == ["none.md", "#none"]


@pytest.mark.parametrize("page", DECISIONS, ids=named)
def test_decisions_say_what_they_cost(page: Path) -> None:
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert parts[0].startswith(f"# {page.name[:4]}: ")
    assert parts[1::2] == ["Status", "Context", "Decision", "Gains", "Costs"]
    assert all(part.strip() for part in parts[2::2])


def test_decisions_are_numbered() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    assert len(DECISIONS) >= 8


# --- pages that list what there is ---------------------------------------------------------------------------

GUIDE = ROOT / "docs/guide"
NOT_IN_THE_FILE = {"folder", "schema"}  # where the file lies, and a section that is not nested in it


@pytest.mark.parametrize(
    "record",
    [
        *(project.Project, project.EventsSection, project.ReplaySection, project.ArmSection),
        *(project.PublishSection, Gates),
        *(GLMixParameters, GlobalRateParameters, RateParameters, StackParameters, CalibratedParameters),
        *(ac.Schema, ac.TimeColumn, ac.EntityTable, ac.Feature, ac.FixedEffect, ac.RandomEffect),
    ],
)
def test_every_key_of_the_project_file_is_described(record: type) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (GUIDE / "project-file.md").read_text(encoding="utf-8"), re.MULTILINE)
    keys = {field.name for field in fields(record)} - NOT_IN_THE_FILE
    assert len(keys) > 0
    assert keys <= set(rows)


def tables_of_learners() -> dict[str, dict[str, str]]:
    """By heading, "learners" among them: the keys in the tables below it, and their defaults as written."""
    text = (GUIDE / "project-file.md").read_text(encoding="utf-8")
    section = text.partition("\n## learners\n")[2].partition("\n## ")[0]
    parts = re.split(r"^####? (.+)$", section, flags=re.MULTILINE)
    tables = dict(zip(["learners", *parts[1::2]], parts[::2], strict=True))
    return {
        heading: {key: default for key, default, _ in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", part, re.M)}
        for heading, part in tables.items()
    }


def test_a_meta_block_has_a_part_of_the_guide() -> None:
    described = tables_of_learners()["A meta block"]
    for field in fields(ac.MetaBlock):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        written = "required" if default is MISSING else default or "none"
        assert described.pop(field.name).strip("`") == str(written)
    assert not described


@pytest.mark.parametrize("record", LEARNERS)
def test_every_kind_of_learner_has_a_part_of_the_guide(record: Any) -> None:
    tables = tables_of_learners()
    assert set(tables["learners"]) == {"kind", "label", "calibrate"}
    tables["learners"].pop("calibrate")  # declares a learner around it
    described = tables["learners"] | tables[class_of(record).kind]
    within = {GLMixParameters: (ac.FixedEffect, ac.RandomEffect), SequentialLaplaceParameters: (ac.Training,)}
    parts = within.get(record, ())
    # Not a key of a stack's own, but of the one on top; encoders have none.
    label = {"label"} - {field.name for field in fields(record)}
    assert set(described) - label == {field.name for each in (record, *parts) for field in fields(each)}
    for field in (field for each in (record, *parts) for field in fields(each)):
        written = described[field.name]
        if field.name == "kind":  # has a default in Python alone
            assert written == "required"
        elif written == "required":
            assert field.default is MISSING
        elif written.startswith("`"):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert yaml.safe_load(written.strip("`")) == default
        elif field.name not in ("fixed", "entity", "members", "training"):  # an effect's entity is its key
            empty = field.default_factory is dict or getattr(field.default, "default_factory", None) is dict
            assert empty or field.default in (None, ())


def test_the_kinds_of_learners_are_listed() -> None:
    text = (GUIDE / "project-file.md").read_text(encoding="utf-8")
    kinds = [class_of(record).kind for record in LEARNERS]
    assert [heading for heading in tables_of_learners() if " " not in heading] == [
        "learners",
        "glmix",
        "rate",
        "global-rate",
        "sequential-laplace",
        "meta-ranker",
        "user-encoder",
        "stack",
        "calibrated",
    ]
    assert sorted(re.findall(r"^\| `([\w-]+)` \| [^|]+ \|$", text, re.MULTILINE)) == sorted(kinds)
    (row,) = re.findall(r"^\| `kind` \| required \| (.*) \|$", text, re.MULTILINE)
    assert re.findall(r"`([\w-]+)`", row) == [
        *(
            "glmix",
            "rate",
            "global-rate",
            "sequential-laplace",
            "meta-ranker",
            "user-encoder",
            "stack",
            "calibrated",
        )
    ]


def test_the_project_files_of_the_guide_load(tmp_path: Path) -> None:
    blocks = [t for kind, t in FENCE.findall((GUIDE / "project-file.md").read_text()) if kind == "yaml"]
    first, ratings, short, long, second = map(yaml.safe_load, blocks)
    stars = project.parse_project(ratings, tmp_path).learner("ratings")
    assert isinstance(stars, GLMixParameters)
    assert (stars.loss, stars.fixed.ridge) == ("squared", "learned")
    (tmp_path / "acclimate.yaml").write_text(blocks[0])
    loaded = project.load_project(tmp_path / "acclimate.yaml", ["replay.every=6h"])
    assert loaded.events.path == (str(tmp_path / "logs/*.parquet"),)
    assert loaded.replay is not None
    assert loaded.replay.every == "6h"
    ranker = loaded.learner("ranker")
    assert isinstance(ranker, GLMixParameters)
    assert [effect.entity for effect in ranker.random] == [("user",), ("video",)]
    several = project.parse_project(first | second, tmp_path)
    assert several.learner("popular") == RateParameters("video", prior_rows=50)
    assert [arm.name for arm in pipeline.arms_of(several)] == ["incremental", "fixed", "popular"]
    popular = RateParameters("video")
    stack = project.parse_project(first | short, tmp_path).learner("ranker")
    assert isinstance(stack, StackParameters)
    assert stack.members["popular"] == popular
    assert list(stack.members) == ["popular", "taste"]
    stack = project.parse_project(first | long, tmp_path).learner("ranker")
    assert stack == StackParameters(stack.learner, {"popular": popular}, warm_up=0.3, every="6h")


def test_the_arms_of_the_guide_are_allowed() -> None:
    text = next(t for kind, t in FENCE.findall((GUIDE / "arms.md").read_text()) if kind == "yaml")
    arms = yaml.safe_load(text)["replay"]["arms"]
    assert [project.ArmSection(**({"name": arm} if isinstance(arm, str) else arm)).name for arm in arms] == [
        *("incremental", "fortnight", "integrated", "outsider")
    ]


def test_every_error_and_its_exit_code_is_described() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", (GUIDE / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)

    def below(error: type[AcclimateError]) -> list[type[AcclimateError]]:
        return [e for child in error.__subclasses__() for e in (child, *below(child))]

    tree = [error for error in below(AcclimateError) if error.__module__ == "acclimate.errors"]
    assert sorted(rows) == sorted((str(error.exit_code), error.__name__) for error in tree)


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\.\. auto\w+:: acclimate\.(\w+)$", text, re.MULTILINE))
    assert described - {"errors"} == set(ac.__all__) - {"__version__"}


def test_every_record_of_a_learner_is_in_the_reference_and_named_by_its_class() -> None:
    text = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    described = re.findall(r"^\.\. autoclass:: acclimate\.config\.(\w+)$", text, re.MULTILINE)
    assert described == [record.__name__ for record in LEARNERS]
    for record in LEARNERS:
        assert f":class:`acclimate.config.{record.__name__}`" in " ".join(class_of(record).__doc__.split())

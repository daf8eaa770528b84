"""The documentation: its examples run, its links lead somewhere, and it names what there is."""

import doctest
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import acclimate as ac
from acclimate import project
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
    expected = {"README.md", *(f"docs/guide/{name}.md" for name in ("quickstart", "events", "features", "replay"))}
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
        *(project.Project, project.EventsSection, project.GLMixSection, project.ReplaySection, project.ArmSection),
        *(ac.Schema, ac.TimeColumn, ac.EntityTable, ac.Feature, ac.FixedEffect, ac.RandomEffect),
    ],
)
def test_every_key_of_the_project_file_is_described(record: type) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (GUIDE / "project-file.md").read_text(encoding="utf-8"), re.MULTILINE)
    keys = {field.name for field in fields(record)} - NOT_IN_THE_FILE
    assert len(keys) > 0
    assert keys <= set(rows)


def test_the_project_file_of_the_guide_loads(tmp_path: Path) -> None:
    text = next(t for kind, t in FENCE.findall((GUIDE / "project-file.md").read_text()) if kind == "yaml")
    (tmp_path / "acclimate.yaml").write_text(text)
    loaded = project.load_project(tmp_path / "acclimate.yaml", ["replay.every=6h"])
    assert loaded.events.path == (str(tmp_path / "logs/*.parquet"),)
    assert loaded.replay is not None
    assert loaded.replay.every == "6h"
    assert [effect.entity for effect in loaded.learner("ranker").random.values()] == ["user", "video"]


def test_the_arms_of_the_guide_are_allowed() -> None:
    text = next(t for kind, t in FENCE.findall((GUIDE / "arms.md").read_text()) if kind == "yaml")
    arms = yaml.safe_load(text)["replay"]["arms"]
    assert [project.ArmSection(**({"name": arm} if isinstance(arm, str) else arm)).name for arm in arms] == [
        *("incremental", "fortnight", "outsider")
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

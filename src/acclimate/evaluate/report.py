"""A report on disk: ``metrics.json`` for programs, ``report.html`` for people.

``metrics.json`` is the :class:`~acclimate.artifacts.Report` field by field, with ``format`` beside them; what is
not defined is null. Its JSON schema is ``docs/reference/metrics.schema.json``.
"""

import inspect
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from acclimate import artifacts
from acclimate.artifacts import Report
from acclimate.errors import FormatError
from acclimate.evaluate.page import render_page
from acclimate.storage import replacing_folder, verify_file

FORMAT = 1
"""Raised when an older reader could misread a newer file."""

_ADAPTER = TypeAdapter(Report)


def write_report(report: Report, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the folder ``out`` of ``metrics.json`` and ``report.html``, whole or not at all.

    Raises:
        OutputExistsError: ``out`` is taken and ``overwrite`` was not asked for.
        OutputError: the disk is full, or the place cannot be written.
    """
    metrics = json.dumps({"format": FORMAT, **asdict(report)}, indent=1, allow_nan=False, ensure_ascii=False)
    page = render_page(report)
    with replacing_folder(out, "report", overwrite=overwrite) as folder:
        (folder / "metrics.json").write_text(metrics, encoding="utf-8")
        (folder / "report.html").write_text(page, encoding="utf-8")
    return Path(out)


def read_report(path: str | Path) -> Report:
    """The report in a folder that :func:`write_report` made, or in its ``metrics.json``.

    Where its manifest is beside it, it proves the file.

    Raises:
        FormatError: there is none, it is damaged, or another format version wrote it.
    """
    path = Path(path)
    path = path / "metrics.json" if path.is_dir() else path
    if path.with_name("manifest.json").exists():
        verify_file(path.parent, path.name)
    try:
        text = path.read_text(encoding="utf-8")
        version = json.loads(text).get("format")
        if version != FORMAT:
            raise FormatError(f"{path} has format {version}; this version of acclimate reads format {FORMAT}")
        return _ADAPTER.validate_json(text, strict=True)
    except FileNotFoundError as error:
        raise FormatError(f"{path} is absent", hint="give the folder that a replay wrote") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is no report: {error}", hint="run the replay again") from error


def metrics_schema() -> dict[str, Any]:
    """The JSON schema of ``metrics.json``, generated from the records."""
    schema = _ADAPTER.json_schema()
    schema["properties"] = {"format": {"const": FORMAT, "description": "version"}, **schema["properties"]}
    schema["required"] = ["format", *schema["required"]]
    for name, definition in schema["$defs"].items():
        definition["description"] = _description(getattr(artifacts, name))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _description(record: type) -> str:
    """What the record and those it extends say of their fields."""
    return "\n\n".join(inspect.getdoc(part) or "" for part in record.__mro__ if is_dataclass(part))

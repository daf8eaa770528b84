"""Tables of figures, in Markdown and as records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """Rows are records with the same keys; ``formats`` says how a column is written."""

    title: str
    about: str
    formats: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **cells: Any) -> None:
        """A row, which is shown at once."""
        self.rows.append(cells)
        print(f"{self.title}: " + ", ".join(f"{k} {self._cell(k, v)}" for k, v in cells.items()), flush=True)

    def markdown(self) -> str:
        """With its title and what is to be known of it."""
        heads = list(self.formats)
        lines = [f"## {self.title}", "", self.about, "", _line(heads), _line(["---"] * len(heads))]
        lines += [_line([self._cell(head, row.get(head)) for head in heads]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def _cell(self, column: str, value: Any) -> str:
        return "" if value is None else format(value, self.formats.get(column, ""))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

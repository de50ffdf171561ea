"""What is told and what is wrong while a registry file is read, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chargewatch.errors import RegistryFileError

MAX_ERRORS_SHOWN = 100


def readable(text: str) -> str:
    """Return a text without half characters, which names of files and keys may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in the file, and where; its columns are those of its list."""

    file: str
    line: int
    values: dict[str, object]


@dataclass(frozen=True)
class ListSource:
    """How many rows of a list were read from where."""

    list: str
    source: str
    rows: int

    def __str__(self) -> str:
        """Return the line for people."""
        return f"{self.list}: {self.rows} {'row' if self.rows == 1 else 'rows'} from {self.source}"


@dataclass
class _Told:
    line: int
    given: str
    taken: str
    count: int = 0

    def sentence(self, file: str, column: str, what: str) -> str:
        rows = f"{self.count} rows, first in line" if self.count > 1 else "line"
        change = f" ({self.given} -> {self.taken})" if self.taken else f" ({self.given})"
        return f"{file}, column {column}: {what} in {rows} {self.line}{change}"


@dataclass
class Notes:
    """Collects, so that a file of 100,000 faulty rows needs no more memory than one of 100."""

    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    sentences: list[str] = field(default_factory=list)
    sources: list[ListSource] = field(default_factory=list)
    _values: dict[tuple[str, str, str], _Told] = field(default_factory=dict)

    def wrong(self, sentence: str) -> None:
        """Note that something can't be taken."""
        self.problem_count += 1
        if len(self.problems) < MAX_ERRORS_SHOWN:
            self.problems.append(readable(sentence))

    def tell(self, sentence: str) -> None:
        """Note how something of the file was understood."""
        self.sentences.append(sentence)

    def tell_value(
        self, place: tuple[str, int, str], what: str, *, given: str, taken: str = ""
    ) -> None:
        """Note how a cell was understood; a column's cells of one kind make one sentence."""
        file, line, column = place
        told = self._values.setdefault((file, column, what), _Told(line, given, taken))
        told.count += 1

    def told(self) -> list[str]:
        """Return everything that was told, in the order in which it was met."""
        cells = (
            told.sentence(file, column, what) for (file, column, what), told in self._values.items()
        )
        return [readable(sentence) for sentence in (*self.sentences, *cells)]

    def refuse(self) -> None:
        """Raise RegistryFileError when anything was wrong."""
        refuse(self.problems, count=self.problem_count)


def refuse(problems: Sequence[str], *, count: int | None = None) -> None:
    """Raise RegistryFileError that lists up to 100 problems and says how many there are."""
    if not problems:
        return
    total = len(problems) if count is None else count
    shown = problems[:MAX_ERRORS_SHOWN]
    errors = f"{total} error{'s' if total > 1 else ''}"
    tail = [f"... and {total - len(shown)} more"] if total > len(shown) else []
    raise RegistryFileError(
        "\n  ".join([f"nothing was taken, {errors}; mend and import again:", *shown, *tail])
    )

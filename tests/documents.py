"""What the documents say, read for tests that hold them together with the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "src" / "chargewatch"
DOCS = CHECKOUT / "docs"
PAGES = (CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

_CODE = re.compile(r"`([^`\n]+)`")
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log")


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """Return the text under a heading, up to the next one of its level or above."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", page(name), re.MULTILINE)
    assert level is not None, f"docs/{name} has no heading {heading!r}"
    return re.split(rf"\n#{{1,{len(level[1])}}} ", page(name)[level.end() :])[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows of a text, headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, line in enumerate(lines) if set(line) <= set("|- :")]
    heads = {number for rule in rules for number in (rule, rule - 1)}
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for number, line in enumerate(lines)
        if number not in heads
    ]


def code(text: str) -> list[str]:
    """Return what stands between backticks."""
    return _CODE.findall(text)


def first_codes(text: str) -> list[str]:
    """Return the words between backticks in the first cells of all table rows."""
    return [word for row in rows(text) for word in code(row[0])]


def log_events() -> Iterator[tuple[str, str]]:
    """Yield every event that the program logs, with its level; `any` when it depends."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                words = node.args[node.func.attr == "log"]
                assert isinstance(words, ast.Constant), f"{path}:{node.lineno}: no constant text"
                level = {"exception": "error", "log": "any"}.get(node.func.attr, node.func.attr)
                yield str(words.value).split()[0].rstrip(":;,"), level

"""What several test modules share stands in modules that hold no tests."""

from __future__ import annotations

import ast

from documents import CHECKOUT

LINES = 500


def test_no_test_module_is_imported() -> None:
    for path in (CHECKOUT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert not name.rpartition(".")[2].startswith("test_"), f"{path.name}: {name}"


def test_modules_stay_short_enough_to_read_at_once() -> None:
    for folder in ("src", "tests", "scripts"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines < LINES, (
                f"{path.relative_to(CHECKOUT)}: {lines} lines, split it by subject"
            )

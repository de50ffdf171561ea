"""What several test modules share stands in modules that hold no tests."""

from __future__ import annotations

import ast

from documents import CHECKOUT


def test_no_test_module_is_imported() -> None:
    for path in (CHECKOUT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert not name.rpartition(".")[2].startswith("test_"), f"{path.name}: {name}"

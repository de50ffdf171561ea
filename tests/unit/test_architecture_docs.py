"""docs/architecture.md names every package, and what each knows of the others."""

from __future__ import annotations

import ast
from pathlib import Path

from documents import SOURCE, code, page, rows

PAGE = page("architecture.md")
ROOMS = {
    name: row[2]
    for row in rows(PAGE.partition("\n## ")[0])
    for name in code(row[0])
    if name not in {"settings", "domain", "errors"}
}
# What is no room of its own: everybody may know it, and tests of layers say in which order.
COMMON = {"settings", "domain", "errors", "logs"}


def known_to(package: Path) -> set[str]:
    """Return the other packages that one imports from."""
    found = set()
    files = package.rglob("*.py") if package.is_dir() else [package.with_suffix(".py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chargewatch."):
                found.add(str(node.module).split(".")[1])
    return found - {package.name} - COMMON


def test_every_package_has_its_row() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")} - COMMON
    assert set(ROOMS) == packages | {"cli", "console"}


def test_what_a_package_knows_is_what_its_row_says() -> None:
    for name, told in ROOMS.items():
        if not told.startswith("everything"):
            assert known_to(SOURCE / name) == set(code(told)), name


def test_modules_that_import_aiomqtt_are_named() -> None:
    importing = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "import aiomqtt" in path.read_text(encoding="utf-8")
    }
    [sentence] = [line for line in PAGE.splitlines() if line.endswith("import aiomqtt.")]
    named = {word for word in code(sentence.rpartition("Only ")[2]) if word.endswith(".py")}
    assert named == importing


def test_modules_named_by_their_dots_exist() -> None:
    for word in code(PAGE):
        first, dot, rest = word.partition(".")
        if dot and (SOURCE / first).is_dir() and rest.isidentifier():
            assert (SOURCE / first / f"{rest}.py").exists(), word

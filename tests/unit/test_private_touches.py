"""What is used of aiomqtt and paho below their public face is justified in the decision record."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from documents import SOURCE, code, page, rows

RECORD = "decisions/ingest-aiomqtt.md"


def touches() -> Iterator[tuple[str, str]]:
    """Yield (name, module) of each private name of another's object, and each replaced method.

    Only of modules that know the libraries.
    """
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not libraries_of(tree):
            continue
        module = str(path.relative_to(SOURCE))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and not is_own(node):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                if private or (isinstance(node.ctx, ast.Store) and is_method(node.attr)):
                    yield node.attr, module


def libraries_of(tree: ast.Module) -> set[str]:
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    return {name.partition(".")[0] for name in imported} & {"aiomqtt", "paho"}


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def is_method(name: str) -> bool:
    # Callbacks of paho are properties: setting one is what they are for.
    return any(callable(getattr(kind, name, None)) for kind in (aiomqtt.Client, Client))


def recorded() -> set[tuple[str, str]]:
    return {
        (code(touch)[0].rpartition(".")[2], module)
        for touch, modules, *_ in rows(page(RECORD).partition("**Version 3")[0])
        for module in code(modules)
    }


def test_every_touch_of_a_private_part_is_in_the_decision_record() -> None:
    assert set(touches()) == recorded()


def test_each_touch_has_its_reason_and_the_condition_of_its_end() -> None:
    for touch, _, why, goes_when in rows(page(RECORD).partition("**Version 3")[0]):
        assert why and goes_when, touch


def test_the_touched_parts_are_still_there() -> None:
    paho = Client(CallbackAPIVersion.VERSION2)
    for touch, *_ in rows(page(RECORD).partition("**Version 3")[0]):
        name = code(touch)[0].rpartition(".")[2]
        if touch.endswith("aiomqtt"):
            text = Path(aiomqtt.client.__file__).read_text(encoding="utf-8")
            assert f"self.{name}" in text, name
        else:
            assert hasattr(paho, name), name
    assert {"command", "packet", "remaining_length"} <= paho._in_packet.keys()

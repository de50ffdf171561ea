#!/usr/bin/env python3
"""Write the table of priors in docs/metrology.md from the priors; a test says when to run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PRIORS = CHECKOUT / "src" / "chargewatch" / "risk" / "priors.py"
PAGE = CHECKOUT / "docs" / "metrology.md"
BEGIN, END = "<!-- priors: written by scripts/priors_table.py -->", "<!-- end of priors -->"
FORM = re.compile(r"(?P<meaning>.+?) Unit: (?P<unit>.+?)\. Source: (?P<source>.+)\.")


def _value(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        arguments = [ast.unparse(argument) for argument in node.args]
        # A mean with its uncertainty, or an array.
        return " ± ".join(arguments).strip("[]")
    return ast.unparse(node).strip("()")


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return name, value, unit, meaning and source of every prior."""
    found = []
    body = ast.parse(PRIORS.read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(node, ast.Assign):
            continue
        name = ast.unparse(node.targets[0])
        told = None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told = FORM.fullmatch(" ".join(str(after.value.value).split()))
        if told is None:
            message = f"{name}: say '<meaning>. Unit: <unit>. Source: <source>.' below it"
            raise SystemExit(message)
        found.append((name, _value(node.value), told["unit"], told["meaning"], told["source"]))
    return found


def page() -> str:
    """Return the page with the table as the priors are."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    lines = ["| prior | value | unit | meaning | source |", "|---|---|---|---|---|"]
    lines += [f"| `{name}` | {' | '.join(cells)} |" for name, *cells in rows()]
    return "\n".join([head + BEGIN, *lines, END + tail])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

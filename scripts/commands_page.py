#!/usr/bin/env python3
"""Write docs/commands.md from the commands themselves; a test says when it has to be run again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from chargewatch.cli import root

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Every command with all of its options, as `--help` tells them. This page is written by \
`scripts/commands_page.py`; what each is for: [operating.md](operating.md#commands).

Every option can be given as an environment variable too: `CHARGEWATCH_ASSESS_DAYS=30` is \
`chargewatch assess --days 30`. `chargewatch --debug ...` shows the cause chain of an error. \
Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage. With `--json` a \
command prints exactly one JSON document on stdout, and everything else on stderr.
"""


def commands(command: click.Command, name: str) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield every command that does something, with a context that knows its whole name."""
    context = click.Context(command, info_name=name)
    if not isinstance(command, click.Group):
        yield context, command
        return
    for word in command.list_commands(context):
        found = command.get_command(context, word)
        assert found is not None
        yield from commands(found, f"{name} {word}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _section(context: click.Context, command: click.Command) -> str:
    arguments = [
        parameter.make_metavar(context)
        for parameter in command.params
        if isinstance(parameter, click.Argument)
    ]
    title = " ".join([str(context.info_name), *arguments])
    words = "\n\n".join(_cell(part) for part in (command.help or "").split("\n\n"))
    records = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    lines = [f"## {context.info_name}", "", f"`{title}`", "", words]
    if records:
        lines += ["", "| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(names)}` | {_cell(meaning)} |" for names, meaning in records]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *(_section(*each) for each in commands(root, "chargewatch"))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

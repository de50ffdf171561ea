"""`chargewatch settings`."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from chargewatch.console import json_option, print_json, settings_of
from chargewatch.settings import setting_rows


@click.command("settings")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Print every setting and what it means. With its value, and where that came from."""
    rows = setting_rows(settings_of(context))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = Table("setting", "value", "from", "meaning")
    for row in rows:
        table.add_row(row.name, row.value, row.source, row.meaning)
    Console().print(table)

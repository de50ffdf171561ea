"""`chargewatch money export`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import click

from chargewatch.commands.assessments import export_options, write_export
from chargewatch.console import run_async, settings_of
from chargewatch.errors import NotFoundError
from chargewatch.runs.exports import MONEY_SCHEMA, export_rows
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database
from chargewatch.storage.office import money as money_rows


class MonthType(click.ParamType[date]):
    """A month like 2026-11."""

    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return its first day."""
        if isinstance(value, date):
            return value
        try:
            year, month = str(value).split("-")
            return date(int(year), int(month), 1)
        except ValueError:
            self.fail(f"{value!r} is no month: write it like 2026-11", param, ctx)


async def _rows(settings: Settings, month: date | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with open_database(settings.require_database_url()) as database:
        async with database.connect() as connection:
            known = [row["month"] for row in await money_rows.months(connection, limit=1_000)]
        if not known:
            raise NotFoundError("no month is counted yet: run `chargewatch assess`")
        if month is not None and month not in known:
            raise NotFoundError(
                f"{month:%Y-%m} was not counted; these are: "
                + ", ".join(f"{item:%Y-%m}" for item in sorted(known))
            )
        async for rows in money_rows.stream_owed(database, month=month, scope=None):
            found += [{**row, "month": f"{row['month']:%Y-%m}"} for row in rows]
    return export_rows(found, MONEY_SCHEMA)


@click.group("money")
def command() -> None:
    """What drivers paid too much and too little, by month."""


@command.command("export")
@export_options
@click.option("--month", type=MonthType(), help="Of the city's time zone, like 2026-11. [all]")
@click.pass_context
def export(context: click.Context, form: str, out: Path | None, month: date | None) -> None:
    """Write what was owed at every connector, by month and cause.

    A connector without a line by bills in a month has none that differs.
    """
    rows = run_async(_rows(settings_of(context), month))
    write_export(rows, MONEY_SCHEMA, form=form, out=out)

"""`chargewatch serve`: API and pages."""

from __future__ import annotations

from dataclasses import replace

import click

from chargewatch import logs
from chargewatch.console import run_async, say, settings_of
from chargewatch.ingest.intake import Intake
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.web.app import create_app
from chargewatch.web.server import address_of, listen, serve


async def _serve(settings: Settings) -> None:
    listener = listen(settings.http_host, settings.http_port)
    with listener:
        async with open_migrated(settings.require_database_url(), pool_size=10) as database:
            say(f"chargewatch serves on {address_of(listener)} ({database.capabilities.engine})")
            # Pages may not write readings: the HTTP door has a role of its own where there is one.
            door = replace(
                settings, database_url=settings.ingest_database_url or settings.database_url
            )
            async with Intake(door) as intake:
                app = create_app(settings, database, intake=intake)
                await serve(app, listener, trusted_proxies=settings.trusted_proxies)


@click.command("serve")
@click.option("--host", help="Address to listen on (default: CHARGEWATCH_HTTP_HOST).")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one (default: CHARGEWATCH_HTTP_PORT).",
)
@click.pass_context
def command(context: click.Context, host: str | None, port: int | None) -> None:
    """Serve the API and the pages."""
    settings = settings_of(context)
    settings = replace(
        settings,
        http_host=host or settings.http_host,
        http_port=settings.http_port if port is None else port,
    )
    logs.configure(settings)
    run_async(_serve(settings))

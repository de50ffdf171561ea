"""`chargewatch health`: asks a running service whether it gets on; for containers and timers."""

from __future__ import annotations

import http.client
from typing import Any

import click
import orjson

from chargewatch.console import (
    FiniteRange,
    json_option,
    print_json,
    say,
    settings_of,
)
from chargewatch.errors import SettingError
from chargewatch.settings import Settings

MAX_ANSWER_BYTES = 65_536
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where not to ask


def _address(settings: Settings, service: str) -> tuple[str, int, str]:
    """Return host, port and path of a service of this machine."""
    host = _EVERYWHERE.get(settings.http_host, settings.http_host)
    if service == "serve":
        return host, settings.http_port, "/api/v1/health"
    if not settings.metrics_port:
        raise SettingError(
            "CHARGEWATCH_METRICS_PORT is not set: ingest answers about its health on that port"
        )
    return host, settings.metrics_port, "/healthz"


def ask(host: str, port: int, path: str, *, timeout_s: float) -> dict[str, Any]:
    """Return what a service answers; one that doesn't is failing too."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        document = orjson.loads(answer.read(MAX_ANSWER_BYTES))
        if not isinstance(document, dict):
            raise TypeError("not an object")
    except (OSError, http.client.HTTPException) as exc:
        reason = f"no answer from {host}:{port}: {exc or type(exc).__name__}"
        return {"status": "failing", "reason": reason}
    except (orjson.JSONDecodeError, TypeError):
        reason = f"{host}:{port} answers, but is not this service: check the port"
        return {"status": "failing", "reason": reason}
    finally:
        connection.close()
    return document


@click.command("health")
@click.argument("service", type=click.Choice(["ingest", "serve"]))
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@json_option
@click.pass_context
def command(context: click.Context, service: str, timeout_s: float, as_json: bool) -> int:
    """Ask the ingest or serve of this machine how it is. Exits with 1 when it doesn't get on."""
    host, port, path = _address(settings_of(context), service)
    document = ask(host, port, path, timeout_s=timeout_s)
    ok = document.get("status") == "ok"
    if as_json:
        print_json(document)
    elif ok:
        say(f"{service}: ok")
    else:
        reason = document.get("reason") or f"database: {document.get('database')}"
        say(f"{service}: failing: {reason}")
    return 0 if ok else 1

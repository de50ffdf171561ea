"""What every command shares: settings, errors, JSON on stdout and nothing else there."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click
import orjson

from chargewatch import logs
from chargewatch.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout."
)


def settings_of(context: click.Context) -> Settings:
    """Return the settings that the root command built."""
    settings = context.find_root().obj
    if not isinstance(settings, Settings):
        raise TypeError("the root command sets the settings")
    return settings


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result."""
    return asyncio.run(main)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout; NaN becomes null, times RFC 3339."""
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.buffer.write(orjson.dumps(document, option=option))
    sys.stdout.buffer.flush()


def say(line: str) -> None:
    """Print a line for people, on stderr: stdout is for results."""
    if logs.are_json():
        log.info("progress message=%s", line)
    else:
        click.echo(line, err=True)

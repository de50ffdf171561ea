"""What every command shares: settings, errors, JSON on stdout and nothing else there."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from chargewatch import logs
from chargewatch.errors import InputFileError
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
    write_stdout(orjson.dumps(document, option=option))


def write_stdout(content: bytes) -> None:
    """Write bytes to stdout; a reader that has gone ends the command without a word.

    Raises: InputFileError when they can't be written.
    """
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        # What is still in the buffer would be tried, and complained about, again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputFileError(
            f"stdout can't be written: {exc.strerror}; make room, or use a file"
        ) from exc


class FiniteRange(click.FloatRange):
    """A number within limits; NaN is within all of them, and none that makes sense."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail with wrong usage."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def say(line: str) -> None:
    """Print a line for people, on stderr: stdout is for results."""
    if logs.are_json():
        log.info("progress message=%s", line)
    else:
        click.echo(line, err=True)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises: InputFileError that names the file.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror or exc}") from exc


def read_text_file(path: Path) -> str:
    """Return a UTF-8 file as it is, line ends and all.

    Raises: InputFileError that names the file.
    """
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as exc:
        raise InputFileError(f"{path} is not UTF-8: {exc}") from exc


def write_text_file(path: Path, text: str) -> None:
    """Write a UTF-8 file.

    Raises: InputFileError that names the file.
    """
    try:
        path.write_bytes(text.encode())
    except OSError as exc:
        raise InputFileError(f"{path} can't be written: {exc.strerror or exc}") from exc

"""The `chargewatch` command: parses, builds the settings, calls one command."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from chargewatch import __version__, logs
from chargewatch.errors import ChargewatchError
from chargewatch.settings import load_settings

log = logging.getLogger(__name__)

COMMANDS: dict[str, str] = {
    "assess": "assess",
    "assessments": "assessments",
    "audit": "audit",
    "bench": "bench",
    "credit": "credit",
    "complaints": "complaints",
    "cases": "cases",
    "db": "db",
    "demo": "demo",
    "doctor": "doctor",
    "draw": "draw",
    "evaluate": "evaluate",
    "evidence": "evidence",
    "gateway": "gateway",
    "health": "health",
    "ingest": "ingest",
    "inspections": "inspections",
    "jobs": "jobs",
    "migrate": "migrate",
    "money": "money",
    "openapi": "openapi",
    "outcomes": "outcomes",
    "quarantine": "quarantine",
    "refresh": "refresh",
    "registry": "registry",
    "replay": "replay",
    "serve": "serve",
    "settings": "settings",
    "signals": "signals",
    "simulate": "simulate",
    "user": "user",
    "verification": "verification",
    "work": "work",
}
"""Command name to module of chargewatch.commands; a module is imported when its command runs."""


class LazyCommands(click.Group):
    """Imports a command's module only when it is asked for, so that the command starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"chargewatch.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(cls=LazyCommands, context_settings={"auto_envvar_prefix": "CHARGEWATCH"})
@click.option("--debug", is_flag=True, help="Show the cause chain of an error.")
@click.version_option(__version__, prog_name="chargewatch")
@click.pass_context
def root(context: click.Context, debug: bool) -> None:
    """Metering supervision of EV charging piles."""
    context.obj = load_settings()


def _tell(failure: str) -> None:
    if logs.are_json():
        log.error("command_failed error=%s", failure)
    else:
        click.echo(f"chargewatch: {failure}", err=True)


def _open_closed_streams() -> None:
    """Let what is written to a closed stream go nowhere, and not into the next socket."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for good
            setattr(sys, name, nowhere)


def main() -> NoReturn:
    """Run the command line; exit with 0 (done), 1 (failed) or 2 (wrong usage)."""
    # Read when numpy is imported. The engine's matrices are small and it has threads of its own:
    # those of OpenBLAS only wait for each other, and their number would change the last bits.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _open_closed_streams()
    try:
        status = root.main(prog_name="chargewatch", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except ChargewatchError as exc:
        if "--debug" in sys.argv:
            raise
        _tell(str(exc))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as exc:
        if "--debug" in sys.argv:
            raise
        _tell(f"unexpected {type(exc).__name__}: {exc}; `chargewatch --debug ...` shows where")
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)

"""`chargewatch bench`: performance, measured and printed, never asserted."""

from __future__ import annotations

import importlib

import click

BENCHES = ("api", "assess", "engine", "faults", "ingest", "nights", "storage")


class LazyBenches(click.Group):
    """Imports a benchmark's module only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all benchmarks."""
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a benchmark by name."""
        if cmd_name not in BENCHES:
            return None
        command: click.Command = importlib.import_module(f"chargewatch.benches.{cmd_name}").command
        return command


@click.group("bench", cls=LazyBenches)
def command() -> None:
    """Measure the platform on this machine."""

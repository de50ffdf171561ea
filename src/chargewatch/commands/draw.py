"""`chargewatch draw`: double random inspections that anyone can verify, offline."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from chargewatch.commands.draw_office import COMMANDS
from chargewatch.console import json_option, print_json, read_text_file, say, write_text_file
from chargewatch.draws.frame import list_hash, read_frame
from chargewatch.draws.plans import ACCEPTABLE_QUALITY, LIMITING_QUALITY, sampling_plan
from chargewatch.draws.sequential import CONFORMING_SHARE
from chargewatch.errors import InputFileError
from chargewatch.supervision.draw_bundle import (
    ThrowRow,
    bundle_text,
    lot_stand,
    make_bundle,
    read_bundle,
    verify_bundle,
)
from chargewatch.supervision.timestamp import read_certificates

in_file = click.Path(exists=True, dir_okay=False, path_type=Path)
out_file = click.Path(dir_okay=False, path_type=Path)


@click.group("draw")
def command() -> None:
    """Draw piles and inspectors, verify draws.

    hash, make, plan, stand and verify need no database.
    """


for _step in COMMANDS:
    command.add_command(_step)


def _throw(text: str) -> ThrowRow:
    witness, equal, digits = text.partition("=")
    if not equal or not witness.strip():
        raise click.BadParameter(f"{text!r} must be WITNESS=DIGITS", param_hint="--throw")
    return ThrowRow(witness=witness.strip(), digits=digits.strip(), at=datetime.now(UTC))


@command.command("hash")
@click.argument("list_file", metavar="LIST", type=in_file)
@json_option
def hash_(list_file: Path, as_json: bool) -> None:
    """Check a frozen list and print its hash.

    To be published before the dice are thrown.
    """
    text = read_text_file(list_file)
    frame = read_frame(text)
    found = {
        "draw": frame.draw,
        "piles": len(frame.piles),
        "inspectors": len(frame.inspectors),
        "sha256": list_hash(text),
    }
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['sha256']}  {list_file}")


@command.command("make")
@click.argument("list_file", metavar="LIST", type=in_file)
@click.option("--size", required=True, type=click.IntRange(1), help="Piles to draw.")
@click.option(
    "--throw",
    "throws",
    required=True,
    multiple=True,
    metavar="WITNESS=DIGITS",
    help="The ten-sided dice of one witness, at least ten; given once for each of two or more.",
)
@click.option(
    "--published",
    required=True,
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]),
    help="When the list's hash was made public.",
)
@click.option("--beacon", default="", help="Value of a public randomness beacon, if one was told.")
@click.option("--out", required=True, type=out_file, help="The draw's file, to be published.")
def make(
    list_file: Path,
    size: int,
    throws: tuple[str, ...],
    published: datetime,
    beacon: str,
    out: Path,
) -> None:
    """Draw from a frozen list and write the file.

    Anyone can verify it.
    """
    bundle = make_bundle(
        read_text_file(list_file),
        published_at=published,
        throws=tuple(_throw(one) for one in throws),
        size=size,
        beacon=beacon,
    )
    write_text_file(out, bundle_text(bundle))
    say(f"{len(bundle.drawn)} piles drawn; `chargewatch draw verify {out}` checks the file")


@command.command("plan")
@click.option("--lot", required=True, type=click.IntRange(1), help="Instruments of the lot.")
@click.option(
    "--acceptable",
    default=ACCEPTABLE_QUALITY,
    show_default=True,
    help="Share of nonconforming ones of a lot that passes with 95 % probability.",
)
@click.option(
    "--limiting",
    default=LIMITING_QUALITY,
    show_default=True,
    help="Share of nonconforming ones of a lot that passes with at most 5 %.",
)
@json_option
def plan(lot: int, acceptable: float, limiting: float, as_json: bool) -> None:
    """Say how many of a lot to inspect.

    And with how many nonconforming ones it still passes.
    """
    found = sampling_plan(lot, acceptable=acceptable, limiting=limiting)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(
        f"inspect {found.size} of {found.lot}; the lot passes with at most {found.allowed} "
        f"nonconforming (a good lot fails with {found.producers_risk:.3f}, a bad one passes with "
        f"{found.consumers_risk:.3f})"
    )


@command.command("stand")
@click.argument("file", type=in_file)
@click.option(
    "--results",
    required=True,
    type=in_file,
    help="CSV, one line a pile: its name, and conforming, nonconforming or unknown (for good).",
)
@click.option(
    "--claim",
    default=CONFORMING_SHARE,
    show_default=True,
    help="Share of the list that is claimed to conform.",
)
@json_option
def stand_(file: Path, results: Path, claim: float, as_json: bool) -> None:
    """Say what the results so far confirm.

    Or refute, each at 5 % risk: that so many of the list conform. May be asked after every result:
    looking often does not raise the risk.
    """
    found = lot_stand(read_bundle(file), _results(results), conforming=claim)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(
        f"{found.outcome}: {found.nonconforming} of {found.inspected} nonconforming; risk of "
        f"confirming wrongly {found.risk_of_confirming:.3f}, of refuting wrongly "
        f"{found.risk_of_refuting:.3f}"
    )


RESULTS = {"conforming": False, "nonconforming": True, "unknown": None}


def _results(path: Path) -> dict[str, bool | None]:
    """Return by pile whether it was found nonconforming; None: will never be known."""
    found: dict[str, bool | None] = {}
    for number, line in enumerate(read_text_file(path).splitlines(), start=1):
        name, comma, word = (part.strip() for part in line.partition(","))
        if not line.strip():
            continue
        if not comma or word not in RESULTS or name in found:
            raise InputFileError(
                f"{path}, line {number}: a pile's name and one of {', '.join(RESULTS)} must "
                f"stand here, each pile once; it is {line[:80]!r}"
            )
        found[name] = RESULTS[word]
    return found


@command.command("verify")
@click.argument("file", type=in_file)
@click.option("--published-hash", help="The list's hash as you saw it before the throw.")
@click.option(
    "--tsa-certificate",
    type=in_file,
    help="Certificates of the time-stamp authority, PEM, its root among them.",
)
@json_option
@click.pass_context
def verify(
    context: click.Context,
    file: Path,
    published_hash: str | None,
    tsa_certificate: Path | None,
    as_json: bool,
) -> None:
    """Make a published draw again and say what holds."""
    authority = read_certificates(tsa_certificate) if tsa_certificate else ()
    checks = verify_bundle(read_bundle(file), published=published_hash, authority=authority)
    holds = all(one.holds for one in checks)
    if as_json:
        print_json({"holds": holds, "checks": [asdict(one) for one in checks]})
    else:
        for one in checks:
            click.echo(f"{'holds' if one.holds else 'FAILS':6} {one.name}: {one.detail}")
        click.echo("the draw holds" if holds else "the draw does not hold")
    context.exit(0 if holds else 1)

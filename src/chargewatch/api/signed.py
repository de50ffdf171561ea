"""What the signed records of sessions prove, check by check, as API and pages show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.domain.times import EPOCH
from chargewatch.supervision.ocmf_checks import Facts, State, check_records, plain_serial

_HIDDEN = {column.name for column in SESSION_COLUMNS if not column.in_api}


def _seconds(moment: datetime) -> float:
    # At the ends of the calendar timestamp() fails, and asyncpg's times have no zone.
    return (moment.replace(tzinfo=UTC) - EPOCH).total_seconds()


def _checks(row: Mapping[str, Any], pile: Mapping[str, Any]) -> list[dict[str, str]] | None:
    if row["signed_format"] is None:
        return None
    if row["signed_format"].upper() != "OCMF" or not row["signed_data"]:
        detail = f"records in {row['signed_format'][:32]} can't be verified here"
        return [{"check": "signature", "state": State.UNKNOWN.value, "detail": detail}]
    serial = plain_serial(pile["serial"])
    facts = Facts(
        start_wh=row["start_wh"],
        stop_wh=row["stop_wh"],
        started_s=_seconds(row["started_at"]),
        ended_s=_seconds(row["ended_at"]),
        resolution_wh=pile["resolution_wh"] or 1.0,
        registered_key=pile["signing_key"],
        told_key=row["signed_public_key"],
        connector=pile["connector"],
        meters={serial: frozenset({pile["connector"]})} if serial else {},
    )
    return [
        {"check": check.name, "state": check.state.value, "detail": check.detail}
        for check in check_records(row["signed_data"], facts).checks
    ]


def _summary(checks: Sequence[Mapping[str, str]] | None) -> str | None:
    if checks is None:
        return None
    states = {check["check"]: check["state"] for check in checks}
    if states["signature"] == State.FAILED:
        return "forged"
    if State.FAILED in states.values():
        return "mismatch"
    return "genuine" if states["signature"] == State.OK else "not_verified"


async def with_signed_checks(
    rows: Sequence[Mapping[str, Any]], pile: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return sessions with `signed_checks` and their summary `signed` in place of the record.

    The summary is genuine, forged (wrong under the registered key), mismatch (another check
    failed) or not_verified; None where nothing is signed.
    """

    def checked() -> list[dict[str, Any]]:
        found = []
        for row in rows:
            checks = _checks(row, pile)
            shown = {name: value for name, value in row.items() if name not in _HIDDEN}
            found.append({**shown, "signed": _summary(checks), "signed_checks": checks})
        return found

    return await asyncio.to_thread(checked)

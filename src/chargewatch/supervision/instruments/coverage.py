"""Coverage: the share of instruments that have a valid verification, by district and operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office.coverage import By, coverage_rows


@dataclass(frozen=True, kw_only=True)
class VerifiedShare:
    """The registered instruments of one district or operator by their verification on a day.

    Attributes:
        name: code of the district (GB/T 2260), operator_id, or "" for the city; "" also for
            stations of which no district is known.
        title: the operator's name.
        instruments: registered connectors; valid + expired + never.
        valid: last passed, without a fail since, and not past its last day.
        expired: past that day, or failed since.
        failed: of the expired, those that failed.
        never: without a verification that tells an end.
        share: valid of instruments, 0 to 1; None without any.
    """

    name: str
    title: str
    instruments: int
    valid: int
    expired: int
    failed: int
    never: int

    @property
    def share(self) -> float | None:
        """The share of the instruments that have a valid verification."""
        return self.valid / self.instruments if self.instruments else None


async def coverage(
    connection: AsyncConnection,
    on: date,
    by: By = "district",
    *,
    scope: str | None = None,
    today: date | None = None,
) -> Sequence[VerifiedShare]:
    """Return the coverage on a day.

    Args:
        connection: to the registry.
        on: the day; of a day before `today` only verifications count that stood by then, over the
            instruments that are registered now.
        by: what a row is of.
        scope: the one operator whose instruments may be seen; None: everybody's.
        today: the present day; None: `on` is not in the past.
    """
    is_past = today is not None and on < today
    found = await coverage_rows(connection, on=on, by=by, scope=scope, is_past=is_past)
    return [VerifiedShare(**row) for row in found]


def city_of(rows: Sequence[VerifiedShare]) -> VerifiedShare:
    """Return the sum of districts or operators."""
    return VerifiedShare(
        name="",
        title="",
        instruments=sum(row.instruments for row in rows),
        valid=sum(row.valid for row in rows),
        expired=sum(row.expired for row in rows),
        failed=sum(row.failed for row in rows),
        never=sum(row.never for row in rows),
    )

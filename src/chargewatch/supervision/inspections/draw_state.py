"""How far a draw is, and that a step finds it where it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.draws.frame import DrawError
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.office import draws as rows

LONGEST_WORDS = 500


class DrawStateError(ChargewatchError):
    """A step of a draw that is not the next one."""


@dataclass(frozen=True, kw_only=True)
class DrawClock:
    """What time it is, and where days begin."""

    now: datetime
    zone: ZoneInfo

    @property
    def today(self) -> date:
        """The day."""
        return self.now.astimezone(self.zone).date()


def is_open(draw: Mapping[Any, Any], today: date) -> bool:
    """Return whether list, seed and all piles of a draw are public."""
    return draw["opened_at"] is not None or (
        draw["opens_on"] is not None and today >= draw["opens_on"]
    )


def words(text: str, what: str) -> str:
    """Return what somebody told, blanks put right.

    Raises: DrawError when it is nothing, too long, or holds what can't be read.
    """
    told = " ".join(text.split())
    if not told or len(told) > LONGEST_WORDS or not told.isprintable():
        raise DrawError(f"{what} must be told in 1 to {LONGEST_WORDS} characters")
    return told


async def locked_draw(connection: AsyncConnection, draw_id: str, *states: str) -> RowMapping:
    """Return a draw that waits for this step, locked.

    Raises: NotFoundError, DrawStateError.
    """
    found = await rows.lock_draw(connection, draw_id)
    if found is None:
        raise NotFoundError(f"no draw {draw_id!r}: `chargewatch draw list` lists them")
    if found["state"] not in states:
        raise DrawStateError(
            f"draw {draw_id} is {found['state']}: this step needs one that is {' or '.join(states)}"
        )
    return found

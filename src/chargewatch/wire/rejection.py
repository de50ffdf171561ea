"""Why a message, or one item of it, is not stored."""

from __future__ import annotations

from dataclasses import dataclass

from chargewatch.errors import ChargewatchError
from chargewatch.wire.personal import without_vin

MALFORMED = "malformed"
INVALID_FIELD = "invalid_field"
NAIVE_TIME = "naive_time"
IN_FUTURE = "in_future"
TOO_OLD = "too_old"
FOREIGN_IDENTITY = "foreign_identity"
CONFLICT = "conflict"
PERSONAL_DATA = "personal_data"
INTERNAL_ERROR = "internal_error"
"""The platform failed on a message for a reason of its own; kept whole, to be read again."""

CODES = (
    MALFORMED,
    INVALID_FIELD,
    NAIVE_TIME,
    IN_FUTURE,
    TOO_OLD,
    FOREIGN_IDENTITY,
    CONFLICT,
    PERSONAL_DATA,
    INTERNAL_ERROR,
)
"""Every code of the contract's table."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One thing that was refused; index None means the whole message."""

    index: int | None
    code: str
    detail: str


class RejectedMessage(ChargewatchError):  # noqa: N818 - the contract's word
    """A whole message is refused.

    seq is kept when it could be read; items is how many items go with it (1 when there are none or
    they can't be counted), so that stored + duplicate + rejected stays their number and a refused
    message is always in the sums.
    """

    def __init__(self, code: str, detail: str, *, seq: int | None = None, items: int = 1) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.seq = seq
        self.items = max(1, items)


class RejectedItem(ChargewatchError):  # noqa: N818 - the contract's word
    """One reading or session is refused; the others of its message are not."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def shown(value: object, limit: int = 40) -> str:
    """Return a value as it may stand in a detail: short, printable, without NUL or plain VIN.

    What is inside a list or an object is not shown: it may be of any size and depth.
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        value = without_vin(value)[: limit + 1]
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."

"""Taking a complaint: what a form told, checked and as it is kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError

from chargewatch.domain.identity import name_fault
from chargewatch.errors import ChargewatchError
from chargewatch.storage.database import Database
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.complaints.clocks import clocks_on
from chargewatch.supervision.complaints.references import new_reference

COMPLAINT_KINDS = ("price", "energy", "display", "other")
LEAST_TEXT = 10
MOST_TEXT = 2_000
MOST_WORDS = 200
"""Letters of what names a session, and of whom to tell."""
LONGEST_PILE_NAME = 64
FUTURE = timedelta(minutes=10)
PUBLIC = Actor(name="public")
_MONEY = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,2})?")
_CONTACT = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|(?:\D*\d){7,15}\D*")


class FormFieldError(ChargewatchError):
    """A field of a complaint can't be taken.

    Attributes:
        field: which one.
        code: why, for the page's words.
    """

    def __init__(self, field: str, code: str) -> None:
        super().__init__(f"{field}: {code}")
        self.field = field
        self.code = code


@dataclass(frozen=True, kw_only=True)
class NewComplaint:
    """A complaint as it came."""

    connector: str
    kind: str
    text: str
    session_text: str | None
    session_at: datetime | None
    bill_cny: Decimal | None
    contact: str | None
    language: str


@dataclass(frozen=True, kw_only=True)
class Filed:
    """A complaint that was taken: its number, and the reference that the complainer is told."""

    complaint_id: int
    reference: str


def is_plausible_name(connector: str) -> bool:
    """Return whether a connector can have such a name."""
    return 0 < len(connector) <= LONGEST_PILE_NAME and name_fault(connector) is None


def plain_words(text: str) -> str:
    """Return text without what nobody can see: control characters, and what turns its direction."""
    composed = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = (
        letter
        for letter in composed
        if letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).strip()


def read_complaint(
    connector: str, fields: Mapping[str, str], *, zone: ZoneInfo, now: datetime, language: str
) -> NewComplaint:
    """Return the complaint that a form tells.

    Raises: FormFieldError for the first field that can't be taken.
    """
    if not is_plausible_name(connector):
        raise FormFieldError("connector", "bad_name")
    kind = fields.get("kind", "")
    if kind not in COMPLAINT_KINDS:
        raise FormFieldError("kind", "choose_kind")
    text = plain_words(fields.get("text", ""))
    if len(text) < LEAST_TEXT:
        raise FormFieldError("text", "too_short")
    if len(text) > MOST_TEXT:
        raise FormFieldError("text", "too_long")
    session_text = _short(fields, "session_text")
    contact = _short(fields, "contact")
    if contact is not None and not _CONTACT.fullmatch(contact):
        raise FormFieldError("contact", "bad_contact")
    return NewComplaint(
        connector=connector,
        kind=kind,
        text=text,
        session_text=session_text,
        session_at=_moment(fields.get("session_at", ""), zone=zone, now=now),
        bill_cny=_money(fields.get("bill", "")),
        contact=contact,
        language=language,
    )


def _short(fields: Mapping[str, str], name: str) -> str | None:
    text = plain_words(fields.get(name, "")).replace("\n", " ")
    if len(text) > MOST_WORDS:
        raise FormFieldError(name, "too_long")
    return text or None


def _moment(text: str, *, zone: ZoneInfo, now: datetime) -> datetime | None:
    """Return the time of the charge, as a browser writes it, in the office's time zone."""
    if not text.strip():
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise FormFieldError("session_at", "bad_time") from exc
    found = found if found.tzinfo else found.replace(tzinfo=zone)
    if found.year < 2000 or found > now + FUTURE:
        raise FormFieldError("session_at", "bad_time")
    return found


def _money(text: str) -> Decimal | None:
    plain = re.sub(r"[\s¥元]|CNY|RMB", "", unicodedata.normalize("NFKC", text[:40]).upper())
    if not plain:
        return None
    if not _MONEY.fullmatch(plain):
        raise FormFieldError("bill", "bad_money")
    return Decimal(plain)


async def file_complaint(
    database: Database, told: NewComplaint, *, now: datetime, zone: ZoneInfo
) -> Filed:
    """Keep a complaint; who has the connector registered is noted beside it."""
    received = now.astimezone(zone).date()
    clocks = clocks_on(received)
    while True:
        reference = new_reference()
        try:
            async with database.begin() as connection:
                known = await rows.registered(connection, told.connector)
                complaint_id = await rows.add(
                    connection,
                    {
                        "reference": reference,
                        "received_at": now,
                        "connector": told.connector,
                        "station_id": None if known is None else known["station_id"],
                        "operator_id": None if known is None else known["operator_id"],
                        "kind": told.kind,
                        "text": told.text,
                        "session_text": told.session_text,
                        "session_at": told.session_at,
                        "bill_cny": told.bill_cny,
                        "language": told.language,
                        "state": "received",
                        "clocks": clocks.name,
                        "accept_by": clocks.accept_by(received),
                    },
                    contact=told.contact,
                )
                await record(
                    connection,
                    PUBLIC,
                    Action.COMPLAINT_FILED,
                    f"complaint:{complaint_id}",
                    at=now,
                    connector=told.connector,
                    kind=told.kind,
                )
        except IntegrityError as exc:
            # Two complaints drew one number: the second draws again.
            if "uq_complaint_reference" not in str(exc.orig):
                raise
            continue
        return Filed(complaint_id=complaint_id, reference=reference)

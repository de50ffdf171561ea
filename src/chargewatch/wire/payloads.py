"""The wire in pydantic models: what the API's documentation shows.

The hot path of ingest (wire.decode) checks the same by hand; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from chargewatch.domain.columns import ValueKind
from chargewatch.domain.session import TOLD_COLUMNS, SessionColumn
from chargewatch.wire.record_models import with_fields

CONTEXTS = (
    "Sample.Periodic",
    "Sample.Clock",
    "Transaction.Begin",
    "Transaction.End",
    "Interruption.Begin",
    "Interruption.End",
    "Trigger",
    "Other",
    "Register.Reset",
)
"""Why a register was read; register_reading.context is the index into this tuple."""

EVENT_KINDS = (
    "meter_replaced",
    "register_reset",
    "cable_replaced",
    "connector_replaced",
    "metering_firmware",
    "seal_opened",
    "clock_set",
    "out_of_service",
    "in_service",
)
"""What may be declared to have changed at an instrument."""

Name = Annotated[str, Field(min_length=1, max_length=64)]
SessionText = Annotated[str, Field(min_length=1, max_length=255)]
ShortText = Annotated[str, Field(max_length=255)]
EnergyWh = Annotated[float, Field(ge=0, le=2**53, description="Wh, rounded to 0.001")]
Percent = Annotated[float, Field(ge=0, le=100)]
DecimalText = Annotated[str, Field(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$")]
Seq = Annotated[int, Field(ge=1, le=2**53, description="+1 a message, per topic")]
Context = Literal[
    "Sample.Periodic",
    "Sample.Clock",
    "Transaction.Begin",
    "Transaction.End",
    "Interruption.Begin",
    "Interruption.End",
    "Trigger",
    "Other",
    "Register.Reset",
]
EventKind = Literal[
    "meter_replaced",
    "register_reset",
    "cable_replaced",
    "connector_replaced",
    "metering_firmware",
    "seal_opened",
    "clock_set",
    "out_of_service",
    "in_service",
]
Code = Literal[
    "malformed",
    "invalid_field",
    "naive_time",
    "in_future",
    "too_old",
    "foreign_identity",
    "conflict",
    "personal_data",
    "internal_error",
]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class RegisterReading(_Wire):
    """One reading of a connector's energy register."""

    connector: Name
    at: AwareDatetime
    energy_wh: EnergyWh
    power_w: float | None = None
    voltage_v: float | None = None
    current_a: float | None = None
    soc_pct: Percent | None = None
    session: ShortText | None = None
    context: Context = "Sample.Periodic"


class RegistersMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/registers."""

    seq: Seq
    sent_at: AwareDatetime
    readings: Annotated[list[RegisterReading], Field(max_length=10_000)]


class ReferenceReading(_Wire):
    """One reading of a reference meter's energy register."""

    meter: Name
    at: AwareDatetime
    energy_wh: EnergyWh


class ReferenceMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/reference."""

    seq: Seq
    sent_at: AwareDatetime
    readings: Annotated[list[ReferenceReading], Field(max_length=10_000)]


class PricePeriod(_Wire):
    """A part of a session at one price."""

    from_: Annotated[AwareDatetime, Field(alias="from")]
    to: AwareDatetime
    energy_wh: EnergyWh
    energy_price: DecimalText | None = None
    service_price: DecimalText | None = None


class SignedRecord(_Wire):
    """What the meter signed itself, for example OCMF."""

    format: ShortText
    data: str
    public_key: str | None = None


_SESSION_TYPES: Mapping[ValueKind, Any] = {
    ValueKind.NAME: Name,
    ValueKind.LABEL: SessionText,
    ValueKind.PSEUDONYM: SessionText,
    ValueKind.MOMENT: AwareDatetime,
    ValueKind.ENERGY: EnergyWh,
    ValueKind.CAPACITY: Annotated[float, Field(ge=0)],
    ValueKind.PERCENT: Percent,
    ValueKind.CURRENCY: Annotated[str, Field(pattern="^[A-Z]{3}$")],
    ValueKind.MONEY: DecimalText,
    ValueKind.DISCOUNT: DecimalText,
    ValueKind.PERIODS: Annotated[list[PricePeriod], Field(max_length=1000)],
    ValueKind.FREE_TEXT: ShortText,
}


def _session_field(column: SessionColumn) -> tuple[Any, Any]:
    told = _SESSION_TYPES[column.kind] | None if column.optional else _SESSION_TYPES[column.kind]
    if column.note:
        told = Annotated[told, Field(description=column.note)]
    return told, None if column.optional else ...


@with_fields(
    {
        **{c.name: _session_field(c) for c in TOLD_COLUMNS if c.kind != ValueKind.SIGNED},
        "signed": (SignedRecord | None, None),
    }
)
class ChargingSession(_Wire):
    """A finished charging session; immutable once sent."""


class SessionsMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/sessions."""

    seq: Seq
    sent_at: AwareDatetime
    sessions: Annotated[list[ChargingSession], Field(max_length=10_000)]


class InstrumentEvent(_Wire):
    """What was changed at a connector, a reference meter, or (neither told) at the station."""

    connector: Name | None = None
    meter: Name | None = None
    at: AwareDatetime
    kind: EventKind
    detail: Annotated[str, Field(max_length=1000)] | None = None
    serial: ShortText | None = None
    start_wh: Annotated[EnergyWh | None, Field(description="new register's first reading")] = None
    stop_wh: Annotated[EnergyWh | None, Field(description="old register's last reading")] = None


class EventsMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/events."""

    seq: Seq
    sent_at: AwareDatetime
    events: Annotated[list[InstrumentEvent], Field(max_length=10_000)]


class StatusMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/status; a last will has `online` only."""

    seq: Seq | None = None
    sent_at: AwareDatetime | None = None
    online: bool
    clock_offset_ms: float | None = None
    backlog: Annotated[int, Field(ge=0)] | None = None
    firmware: ShortText | None = None


class ReceiptError(_Wire):
    """Why one item (index) or the whole message (index null) was refused."""

    index: int | None
    code: Code
    detail: str


class Receipt(_Wire):
    """What became of one message."""

    topic: Literal["registers", "reference", "sessions", "events"]
    seq: int | None
    stored: int
    duplicate: int
    rejected: int
    errors: Annotated[list[ReceiptError], Field(max_length=100)]


class ReceiptsMessage(_Wire):
    """Payload of cw/v1/{operator_id}/{station_id}/receipt."""

    receipts: list[Receipt]


MESSAGES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "registers": (RegistersMessage, RegisterReading),
    "reference": (ReferenceMessage, ReferenceReading),
    "sessions": (SessionsMessage, ChargingSession),
    "events": (EventsMessage, InstrumentEvent),
    "status": (StatusMessage, StatusMessage),
}
"""The models of a message and of one item of it, by kind."""

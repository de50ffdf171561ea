"""Rows of a registry file, version 1: what each list may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from chargewatch.wire.registry import values
from chargewatch.wire.registry.ledger_columns import ledger_headings


def _periods(value: Any) -> Any:
    """A cell of a table holds the periods as JSON."""
    if isinstance(value, values.Formula):
        raise ValueError("holds a formula: give its value")
    return values.list_of_json(value) if isinstance(value, str) else value


def _clock(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("is not a time of the day: write 07:00")
    text = values.strip(value).replace("：", ":")
    found = re.fullmatch(r"(\d{1,2}):(\d{2})(?::00)?", text)
    if found is None or int(found[1]) > 24 or int(found[2]) > 59:
        raise ValueError("is not a time of the day: write 07:00")
    if int(found[1]) == 24:
        if found[2] != "00":
            raise ValueError("is not a time of the day: write 07:00")
        return time(0, 0)
    return time(int(found[1]), int(found[2]))


def _whole(value: Any, info: ValidationInfo) -> Any:
    """A cell of a table holds a whole number as text or as a sheet's number."""
    number = values.read_number(value, info)
    if number != int(number):
        raise ValueError("is not a whole number")
    return int(number)


MOST_OTHERS = 50
"""Columns of a ledger that are kept as they are."""


def _others(value: Any, info: ValidationInfo) -> Any:
    """Columns that nobody knows, by their heading; an object in JSON, or JSON in a cell."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as exc:
            raise ValueError("is not a JSON object") from exc
    if not isinstance(value, dict):
        raise ValueError("is not an object of headings and their values")
    if len(value) > MOST_OTHERS:
        raise ValueError(f"has more than {MOST_OTHERS} columns that aren't of the ledger")
    return {
        str(key)[:100]: values.read_text(cell, info)[:2000]
        for key, cell in value.items()
        if not values.is_blank(cell)
    }


Identity = Annotated[
    str,
    BeforeValidator(values.read_name),
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
]
InstrumentName = Annotated[
    str, BeforeValidator(values.read_name), StringConstraints(min_length=1, max_length=64)
]
_LENGTH = StringConstraints(min_length=1, max_length=2000)
Text = Annotated[str, BeforeValidator(values.read_text), _LENGTH]
Code = Annotated[str, BeforeValidator(values.read_code), _LENGTH]
# Part of an index, whose rows have a limit.
Certificate = Annotated[
    str, BeforeValidator(values.read_code), StringConstraints(min_length=1, max_length=200)
]
PlaceCode = Annotated[
    str,
    BeforeValidator(values.read_code),
    StringConstraints(pattern=r"^[1-9]\d{5}(\d{3}|\d{6})?$"),
]
"""GB/T 2260: six digits of a district; nine with the street, twelve with the community."""
AccuracyClass = Annotated[str, BeforeValidator(values.read_class), _LENGTH]
Key = Annotated[str, BeforeValidator(values.read_key)]
Day = Annotated[date, BeforeValidator(values.read_date)]
Number = Annotated[float, BeforeValidator(values.read_number)]
Positive = Annotated[float, BeforeValidator(values.read_number), Field(gt=0)]
Fraction = Annotated[float, BeforeValidator(values.read_fraction)]
PositiveFraction = Annotated[float, BeforeValidator(values.read_fraction), Field(gt=0)]
Flag = Annotated[bool, BeforeValidator(values.read_bool)]
Price = Annotated[Decimal, BeforeValidator(values.read_price), Field(ge=0, le=1_000_000)]
Clock = Annotated[time, BeforeValidator(_clock)]
Moment = Annotated[AwareDatetime, BeforeValidator(values.read_moment)]
Current = Annotated[Literal["AC", "DC"], BeforeValidator(values.choice(AC=("交流",), DC=("直流",)))]
Scope = Annotated[
    Literal["station", "connector"],
    BeforeValidator(values.choice(station=("站",), connector=("枪",))),
]
Result = Annotated[
    Literal["pass", "fail", "undecided"],
    BeforeValidator(
        values.choice(**{"pass": ("合格",), "fail": ("不合格",), "undecided": ("未判定",)})
    ),
]


class Row(BaseModel):
    """A row of any list.

    key_columns: what identifies a row in its list.
    headings: other names of columns, as the national ledger has them.
    keeps_others: whether columns that nobody knows are kept as they are, under `extra`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    key_columns: ClassVar[tuple[str, ...]]
    headings: ClassVar[Mapping[str, Sequence[str]]] = {}
    keeps_others: ClassVar[bool] = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the row in its list."""
        return tuple(getattr(self, column) for column in self.key_columns)

    @classmethod
    def required(cls) -> list[str]:
        """Return the columns without which there is no row."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]


class OperatorRow(Row):
    """An operator of charging stations."""

    key_columns = ("operator_id",)
    operator_id: Identity
    name: Text | None = None
    credit_code: Code | None = None
    contact: Text | None = None


class StationRow(Row):
    """A charging station."""

    key_columns = ("station_id",)
    station_id: Identity
    operator_id: Identity
    name: Text | None = None
    district: Code | None = None
    longitude: Annotated[Number, Field(ge=-180, le=180)] | None = None
    latitude: Annotated[Number, Field(ge=-90, le=90)] | None = None
    address: Text | None = None
    opened_on: Day | None = None


class ConnectorRow(Row):
    """A connector with its own meter."""

    key_columns = ("connector",)
    connector: InstrumentName
    station_id: Identity
    current: Current
    accuracy_class: AccuracyClass
    pile: Code | None = None
    rated_power_w: Positive | None = None
    min_current_a: Number | None = None
    max_current_a: Positive | None = None
    model: Text | None = None
    manufacturer: Text | None = None
    serial: Code | None = None
    resolution_wh: Positive | None = None
    cable_loss_compensated: Flag | None = None
    in_service_on: Day | None = None
    signing_key: Key | None = None


class ReferenceMeterRow(Row):
    """A traceable meter of a feeder, or in series with one connector."""

    key_columns = ("meter",)
    meter: InstrumentName
    station_id: Identity
    scope: Scope
    connectors: Annotated[list[InstrumentName], BeforeValidator(values.read_names)] = []
    current: Current = "AC"
    relative_uncertainty: PositiveFraction
    coverage_factor: Positive = 2.0
    resolution_wh: Positive | None = None
    certificate: Certificate | None = None
    calibrated_on: Day | None = None
    valid_until: Day | None = None

    @model_validator(mode="after")
    def _one_connector_in_series(self) -> ReferenceMeterRow:
        if self.scope == "connector" and len(self.connectors) != 1:
            raise ValueError("connectors: scope 'connector' needs exactly one connector")
        if len(set(self.connectors)) != len(self.connectors):
            raise ValueError("connectors: one of them stands there twice")
        return self


class VerificationRow(Row):
    """The result of one verification of one connector."""

    key_columns = ("connector", "verified_on", "certificate")
    connector: InstrumentName
    verified_on: Day
    valid_until: Day | None = None
    result: Result
    relative_error: Fraction | None = None
    expanded_uncertainty: PositiveFraction | None = None
    coverage_factor: Positive | None = None
    certificate: Certificate | None = None
    institute: Text | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> VerificationRow:
        if self.valid_until is not None and self.valid_until < self.verified_on:
            raise ValueError("valid_until: lies before verified_on")
        return self


class TariffPeriod(BaseModel):
    """Prices between two times of the day; ``to`` 00:00 or 24:00 means midnight."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: Annotated[Clock, Field(alias="from")]
    to: Clock
    energy_price: Price
    service_price: Price = Decimal(0)

    def as_json(self) -> dict[str, str]:
        """Return the period as it stands in a registry file."""
        return {
            "from": self.start.strftime("%H:%M"),
            "to": self.to.strftime("%H:%M"),
            "energy_price": format(self.energy_price, "f"),
            "service_price": format(self.service_price, "f"),
        }


class TariffRow(Row):
    """The prices of an operator, at one station or (no station) at all of its stations."""

    key_columns = ("operator_id", "station_id", "valid_from")
    operator_id: Identity
    station_id: Identity | None = None
    valid_from: Moment
    periods: Annotated[
        list[TariffPeriod], BeforeValidator(_periods), Field(min_length=1, max_length=1000)
    ]


class InspectorRow(Row):
    """A person who inspects, and the operators whose piles that person must not inspect."""

    key_columns = ("name",)
    name: InstrumentName
    username: Identity | None = None
    active: Flag = True
    recused_operators: Annotated[list[Identity], BeforeValidator(values.read_names)] = []

    @model_validator(mode="after")
    def _no_operator_twice(self) -> InspectorRow:
        if len(set(self.recused_operators)) != len(self.recused_operators):
            raise ValueError("recused_operators: one of them stands there twice")
        return self


class LedgerRow(Row):
    """An instrument as the national ledger has it; what isn't given stays as it is."""

    key_columns = ("connector", "serial", "manufacturer")
    headings = ledger_headings()
    keeps_others = True
    connector: InstrumentName | None = None
    instrument_name: Text | None = None
    item: Text | None = None
    kind: Text | None = None
    model: Text | None = None
    measuring_range: Text | None = None
    accuracy_class: AccuracyClass | None = None
    serial: Code | None = None
    manufacturer: Text | None = None
    origin: Text | None = None
    place: Text | None = None
    place_code: PlaceCode | None = None
    quantity: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1_000_000)] | None = None
    purpose: Text | None = None
    submission: Text | None = None
    extra: Annotated[dict[str, str], BeforeValidator(_others)] = {}

    @model_validator(mode="after")
    def _is_named(self) -> LedgerRow:
        if self.connector is None and self.serial is None:
            raise ValueError("connector: is missing, and so is the serial number: give one of them")
        return self


LISTS: dict[str, type[Row]] = {
    "operators": OperatorRow,
    "stations": StationRow,
    "connectors": ConnectorRow,
    "reference_meters": ReferenceMeterRow,
    "verifications": VerificationRow,
    "tariffs": TariffRow,
    "inspectors": InspectorRow,
    "ledger": LedgerRow,
}
"""Lists of a registry file, in the order in which they refer to one another."""

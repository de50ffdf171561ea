"""Rows of a registry file, version 1: what each list may hold."""

from __future__ import annotations

import re
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
    model_validator,
)

from chargewatch.wire.registry import values


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
    """A row of any list."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key_columns: ClassVar[tuple[str, ...]]

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


LISTS: dict[str, type[Row]] = {
    "operators": OperatorRow,
    "stations": StationRow,
    "connectors": ConnectorRow,
    "reference_meters": ReferenceMeterRow,
    "verifications": VerificationRow,
    "tariffs": TariffRow,
}
"""Lists of a registry file, in the order in which they refer to one another."""

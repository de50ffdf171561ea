"""Rows of a registry file, version 1: what each list may hold."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _text_of_number(value: Any) -> Any:
    """A spreadsheet turns class "2" or a serial into a number."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int) else value


def _list_of_text(value: Any) -> Any:
    """A cell of a table holds a list as text, separated by blanks or semicolons."""
    if value is None:
        return []
    return value.replace(";", " ").split() if isinstance(value, str) else value


def _list_of_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"is not a JSON list: {exc}") from exc


Identity = Annotated[
    str, BeforeValidator(_text_of_number), StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")
]
# PostgreSQL's text can't hold NUL.
Text = Annotated[
    str,
    BeforeValidator(_text_of_number),
    StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$", strip_whitespace=True),
]
InstrumentName = Annotated[
    str,
    BeforeValidator(_text_of_number),
    StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00]*$"),
]
OptionalText = Annotated[Text | None, BeforeValidator(_none_if_blank)]
OptionalDate = Annotated[date | None, BeforeValidator(_none_if_blank)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OptionalFinite = Annotated[Finite | None, BeforeValidator(_none_if_blank)]
OptionalPositive = Annotated[Positive | None, BeforeValidator(_none_if_blank)]
Current = Literal["AC", "DC"]


class Row(BaseModel):
    """A row of any list; unknown columns are ignored, and named in the import's report."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    key_columns: ClassVar[tuple[str, ...]]

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the row in its list."""
        return tuple(getattr(self, column) for column in self.key_columns)


class OperatorRow(Row):
    """An operator of charging stations."""

    key_columns = ("operator_id",)
    operator_id: Identity
    name: OptionalText = None
    credit_code: OptionalText = None
    contact: OptionalText = None


class StationRow(Row):
    """A charging station."""

    key_columns = ("station_id",)
    station_id: Identity
    operator_id: Identity
    name: OptionalText = None
    district: OptionalText = None
    longitude: Annotated[
        Annotated[float, Field(ge=-180, le=180)] | None, BeforeValidator(_none_if_blank)
    ] = None
    latitude: Annotated[
        Annotated[float, Field(ge=-90, le=90)] | None, BeforeValidator(_none_if_blank)
    ] = None
    address: OptionalText = None
    opened_on: OptionalDate = None


class ConnectorRow(Row):
    """A connector with its own meter."""

    key_columns = ("connector",)
    connector: InstrumentName
    station_id: Identity
    current: Current
    accuracy_class: Text
    pile: OptionalText = None
    rated_power_w: OptionalPositive = None
    min_current_a: OptionalFinite = None
    max_current_a: OptionalPositive = None
    model: OptionalText = None
    manufacturer: OptionalText = None
    serial: OptionalText = None
    resolution_wh: OptionalPositive = None
    cable_loss_compensated: Annotated[bool | None, BeforeValidator(_none_if_blank)] = None
    in_service_on: OptionalDate = None
    signing_key: OptionalText = None


class ReferenceMeterRow(Row):
    """A traceable meter of a feeder, or in series with one connector."""

    key_columns = ("meter",)
    meter: InstrumentName
    station_id: Identity
    scope: Literal["station", "connector"]
    connectors: Annotated[list[InstrumentName], BeforeValidator(_list_of_text)] = []
    current: Current = "AC"
    relative_uncertainty: Positive
    coverage_factor: Positive = 2.0
    resolution_wh: OptionalPositive = None
    certificate: OptionalText = None
    calibrated_on: OptionalDate = None
    valid_until: OptionalDate = None

    @model_validator(mode="after")
    def _one_connector_in_series(self) -> ReferenceMeterRow:
        if self.scope == "connector" and len(self.connectors) != 1:
            raise ValueError("connectors: scope 'connector' needs exactly one connector")
        return self


class VerificationRow(Row):
    """The result of one verification of one connector."""

    key_columns = ("connector", "verified_on", "certificate")
    connector: InstrumentName
    verified_on: date
    valid_until: OptionalDate = None
    result: Literal["pass", "fail"]
    relative_error: OptionalFinite = None
    expanded_uncertainty: OptionalPositive = None
    coverage_factor: OptionalPositive = None
    certificate: OptionalText = None
    institute: OptionalText = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> VerificationRow:
        if self.valid_until is not None and self.valid_until < self.verified_on:
            raise ValueError("valid_until: lies before verified_on")
        return self


def _clock(value: Any) -> Any:
    return "00:00" if value == "24:00" else value


class TariffPeriod(BaseModel):
    """Prices between two times of the day; ``to`` 00:00 or 24:00 means midnight."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    start: Annotated[time, BeforeValidator(_clock), Field(alias="from")]
    to: Annotated[time, BeforeValidator(_clock)]
    energy_price: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    service_price: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)

    def as_json(self) -> dict[str, str]:
        """Return the period as it stands in a registry file."""
        return {
            "from": self.start.strftime("%H:%M"),
            "to": self.to.strftime("%H:%M"),
            "energy_price": str(self.energy_price),
            "service_price": str(self.service_price),
        }


class TariffRow(Row):
    """The prices of an operator, at one station or (no station) at all of its stations."""

    key_columns = ("operator_id", "station_id", "valid_from")
    operator_id: Identity
    station_id: Annotated[Identity | None, BeforeValidator(_none_if_blank)] = None
    valid_from: AwareDatetime
    periods: Annotated[list[TariffPeriod], BeforeValidator(_list_of_json), Field(min_length=1)]


LISTS: dict[str, type[Row]] = {
    "operators": OperatorRow,
    "stations": StationRow,
    "connectors": ConnectorRow,
    "reference_meters": ReferenceMeterRow,
    "verifications": VerificationRow,
    "tariffs": TariffRow,
}
"""Lists of a registry file, in the order in which they refer to one another."""

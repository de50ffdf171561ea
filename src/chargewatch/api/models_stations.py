"""What the API's answers about stations look like."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, Field


class Station(BaseModel):
    """A station with the tiers of its connectors."""

    station_id: str
    name: str
    district: str | None
    operator_id: str
    operator_name: str | None
    longitude: float | None
    latitude: float | None
    connectors: int
    red: int
    orange: int
    yellow: int
    grey: int
    green: int
    money: float | None
    meters: int
    online: bool | None
    status_at: datetime | None


class Stations(BaseModel):
    """One page of stations."""

    total: int
    limit: int
    offset: int
    stations: list[Station]


class BalanceStep(BaseModel):
    """A feeder's energy beside the sum of its piles in one step of time."""

    at: datetime
    reference_wh: float
    piles_wh: float
    slots: int


class Balance(BaseModel):
    """The energy balance of one feeder meter."""

    meter: str
    since: datetime | None
    until: datetime | None
    step_s: int
    steps: list[BalanceStep]


class StationRow(BaseModel):
    """A station's registry row and the newest status of its gateway."""

    station_id: str
    operator_id: str
    operator_name: str | None
    name: str
    district: str | None
    longitude: float | None
    latitude: float | None
    address: str | None
    opened_on: date | None
    online: bool | None
    status_at: datetime | None
    clock_offset_ms: float | None
    backlog: int | None
    firmware: str | None


class Meter(BaseModel):
    """A reference meter of a station."""

    meter: str
    scope: str | None
    current: str | None
    relative_uncertainty: float | None
    coverage_factor: float | None
    resolution_wh: float | None
    certificate: str | None
    calibrated_on: date | None
    valid_until: date | None
    connectors: list[str] | None = Field(description="null: all connectors of the station")


class PileAtStation(BaseModel):
    """One connector of a station with what the newest finished run says of it."""

    connector: str
    pile: str | None
    current: str | None
    accuracy_class: str | None
    model: str | None
    registered: bool
    relative_error: float | None
    standard_uncertainty: float | None
    mpe: float | None
    p_nonconforming: float | None
    verdict: str | None
    tier: str | None
    priority_money: float | None
    latest_at: datetime | None
    latest_power_w: float | None
    open_signals: list[str] | None


class Gap(BaseModel):
    """A hole in the sequence numbers of a topic."""

    topic: str
    first_seq: int
    last_seq: int
    found_at: datetime
    from_at: datetime | None = Field(description="when the message before the hole was sent")
    to_at: datetime | None = Field(description="when the message behind the hole was sent")
    implausible: bool = Field(description="a jump that no count of messages explains")


class StationGap(Gap):
    """A hole in the sequence numbers of a station's topic, open or closed."""

    closed_at: datetime | None


class StationDetail(BaseModel):
    """A station, its meters, piles, energy balance and gaps."""

    station: StationRow
    meters: list[Meter]
    balances: list[Balance]
    piles: list[PileAtStation]
    gaps: list[StationGap]

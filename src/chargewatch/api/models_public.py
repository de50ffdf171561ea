"""What the API tells everybody, without a log-in: the open data."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field

Status = Literal["verified", "expired", "undated", "failed", "never"]


class PublicPileRow(BaseModel):
    """A registered pile (connector) and its newest verification."""

    connector: str
    current: Literal["AC", "DC"] | None
    station_id: str
    station_name: str
    district: str | None = Field(description="administrative code (GB/T 2260)")
    address: str | None
    operator_id: str
    operator_name: str
    status: Status = Field(
        description="verified; expired; undated: passed, but no end of validity is on record; "
        "failed: the newest verification was not passed; never: none is on record"
    )
    verified_on: date | None
    valid_until: date | None
    certificate: str | None
    institute: str | None


class PublicInspection(BaseModel):
    """The newest inspection whose draw was published."""

    done_on: date
    result: Literal["pass", "fail"]
    draw_id: str


class PublicGrade(BaseModel):
    """The newest published credit grade of an operator."""

    month: str = Field(description="the month that it is about, as 2026-10")
    grade: Literal["A", "B", "C", "D"]


class OpenData(BaseModel):
    """What every document of the open data begins with."""

    licence: str
    as_of: date = Field(description="the day on which validity was looked at")


class PublicPileDetail(PublicPileRow):
    """One registered pile."""

    licence: str
    as_of: date
    last_inspection: PublicInspection | None
    operator_grade: PublicGrade | None


class PublicPiles(OpenData):
    """One page of registered piles by name; `after` of the next page is `next_after`."""

    piles: list[PublicPileRow]
    next_after: str | None


class StatusCounts(BaseModel):
    """How many registered piles are of which status."""

    piles: int
    verified: int
    expired: int
    undated: int
    failed: int
    never: int


class PublicStationRow(StatusCounts):
    """A station and its piles by status."""

    station_id: str
    station_name: str
    district: str | None
    address: str | None
    operator_id: str
    operator_name: str


class PublicStations(OpenData):
    """One page of stations by id."""

    stations: list[PublicStationRow]
    next_after: str | None


class PublicDistrictRow(StatusCounts):
    """A district and its piles by status; null: of stations without one."""

    district: str | None


class PublicDistricts(OpenData):
    """All districts."""

    districts: list[PublicDistrictRow]

"""What the API takes and answers about the registry, what is due in it, and its coverage."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

Texts = list[str]
VerificationState = Literal["valid", "due", "over", "failed", "never"]


class Instrument(BaseModel):
    """A registered connector; the station, model and serial number that it has."""

    connector: str
    pile: str | None
    station_id: str
    station_name: str
    district: str | None = Field(description="administrative code, GB/T 2260")
    operator_id: str
    operator_name: str
    model: str | None
    manufacturer: str | None
    serial: str | None
    current: Literal["AC", "DC"] | None
    accuracy_class: str | None
    rated_power_w: float | None
    until: date | None = Field(description="last day of its verification")
    state: VerificationState
    matched: str | None = Field(description="serial number, certificate, model or maker found")


class Instruments(BaseModel):
    """One page of a search."""

    instruments: list[Instrument]
    next_after: str | None = Field(description="give it as `after` for the next page")


class ListedRow(BaseModel):
    """A row of a list, to be asked for by its name."""

    name: str
    title: str | None
    more: str | None


class ListedRows(BaseModel):
    """One page of a list."""

    rows: list[ListedRow]
    next_after: str | None


class RegisteredRow(BaseModel):
    """A row with its fields as a registry file has them, and its version for edits."""

    list: str
    name: str
    identifier: str
    version: int
    values: dict[str, Any]


class ChangedField(BaseModel):
    """What a field was and what it is since."""

    before: Any
    after: Any


class HistoryEntry(BaseModel):
    """One change: who, when, why, and from which imported file, "" by hand."""

    history_id: int
    list: str
    identifier: str
    at: datetime
    actor: str
    why: str
    source: str
    is_new: bool
    fields: dict[str, ChangedField]


class RowHistory(BaseModel):
    """One page of a row's history, the newest first."""

    changes: list[HistoryEntry]
    next_before: int | None


class Edit(BaseModel):
    """An edit: new values by field (null erases), the version that was looked at, and why."""

    values: dict[str, Any] = Field(max_length=50)
    version: int = Field(ge=0, description="of the row, as it was answered")
    why: str = Field(max_length=1000)


class NewRow(BaseModel):
    """A row to register by hand, and why."""

    values: dict[str, Any] = Field(max_length=50)
    why: str = Field(max_length=1000)


class EditedRow(BaseModel):
    """What an edit changed, the new version, and what was understood otherwise than written."""

    list: str
    identifier: str
    version: int
    fields: dict[str, ChangedField]
    told: Texts


class PreviewedRow(BaseModel):
    """A registered row that an import would change."""

    list: str
    identifier: str
    fields: dict[str, ChangedField]


class PreviewedSource(BaseModel):
    """How many rows of a list were read from where."""

    list: str
    source: str
    rows: int


class PreviewedImport(BaseModel):
    """What an import of the kept file would do; confirm it with file_id, sha256 and digest."""

    file_id: int
    name: str
    sha256: str
    digest: str
    rows: dict[str, int]
    new: dict[str, int]
    changed: dict[str, int]
    unchanged: dict[str, int]
    added: dict[str, list[str]]
    changes: list[PreviewedRow]
    notices: list[str]
    told: list[str]
    sources: list[PreviewedSource]


class Confirmation(BaseModel):
    """That exactly what a preview has shown is to be taken, and why."""

    sha256: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    why: str = Field(max_length=1000)


class DoneImport(BaseModel):
    """What an import did."""

    import_id: int
    rows: dict[str, int]
    new: dict[str, int]
    changed: dict[str, int]
    notices: list[str]


class TakenStep(BaseModel):
    """A step on the way to the next verification."""

    step: Literal["filed", "booked", "accepted", "verified", "certificate"]
    done_on: date
    note: str
    at: datetime
    actor: str


class DueInstrument(BaseModel):
    """An instrument whose verification ends or is over, the working day to book by, its steps."""

    connector: str
    station_id: str
    station_name: str
    district: str | None
    operator_id: str
    operator_name: str
    model: str | None
    serial: str | None
    until: date | None
    failed: bool
    days_left: int | None
    book_by: date | None
    is_late: bool
    next_step: str
    steps: list[TakenStep]


class DueInstruments(BaseModel):
    """One page of what is due, the earliest first."""

    today: date
    due: list[DueInstrument]
    next_after: str | None


class NewStep(BaseModel):
    """A step that was taken."""

    step: Literal["filed", "booked", "accepted", "verified", "certificate"]
    done_on: date
    note: str = Field(default="", max_length=500)


class StepTakenBack(BaseModel):
    """Why a step is taken back."""

    why: str = Field(max_length=500)


class CoverageRow(BaseModel):
    """Instruments of a district (GB/T 2260) or operator by their verification."""

    name: str
    title: str
    instruments: int
    valid: int
    expired: int = Field(description="over, or failed")
    failed: int = Field(description="of the expired")
    never: int
    share: float | None = Field(description="valid of instruments, 0 to 1")


class CoverageFigures(BaseModel):
    """The coverage on a day."""

    on: date
    by: Literal["district", "operator", "city"]
    city: CoverageRow
    rows: list[CoverageRow]

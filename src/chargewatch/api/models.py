"""What the API's answers look like, for its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, Field

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS, AssessmentColumn
from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS, SessionColumn
from chargewatch.wire.record_models import with_fields


class ErrorBody(BaseModel):
    """Why a request failed and what to do next."""

    code: str
    message: str


class Error(BaseModel):
    """The body of every error."""

    error: ErrorBody


ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Error, "description": "Not logged in"},
    404: {"model": Error, "description": "Not there, or not yours to see"},
}


class Token(BaseModel):
    """A log-in: send the token as `Authorization: Bearer ...`."""

    token: str
    expires_at: datetime
    username: str
    role: str
    operator_id: str | None


class Me(BaseModel):
    """Who is logged in."""

    username: str
    role: str
    operator_id: str | None


class BudgetComponent(BaseModel):
    """One component of an uncertainty budget."""

    component: str
    standard_uncertainty: float


class Drift(BaseModel):
    """Whether a connector's error has changed lately."""

    alarm: bool = Field(description="an undeclared change is very likely")
    statistic: float = Field(description="natural logarithm of the odds that it has changed")
    changed_at: datetime | None
    interval: list[datetime | None] = Field(description="between which times it changed")


_FINDING_TYPES: Mapping[Form, Any] = {
    Form.TEXT: str,
    Form.TIME: datetime,
    Form.REAL: float | None,  # NaN is null
    Form.COUNT: int,
}
_LIST_NOTES = {
    "relative_error": "null: not identifiable or not assessed",
    "priority_money": "expected overcharge beyond the MPE and of bills, money per month",
    "overcharge_error": "paid too much in 30 days by the meter's error, expected, money",
    "undercharge_error": "paid too little in 30 days by the meter's error, expected, money",
    "overcharge_billing": "charged too much in 30 days by bills, money",
    "undercharge_billing": "charged too little in 30 days by bills, money",
}
_FINDING_DOCUMENTS: Mapping[str, Any] = {"budget": list[BudgetComponent], "drift": Drift}


def _finding_fields(columns: Iterable[AssessmentColumn]) -> dict[str, tuple[Any, Any]]:
    found = {}
    for column in columns:
        shown = _FINDING_DOCUMENTS.get(column.name) or _FINDING_TYPES[column.kind.form]
        found[column.name] = (shown | None if column.optional else shown, ...)
    return found


class PlacedPile(BaseModel):
    """A connector and where it stands."""

    connector: str
    pile: str | None
    station_id: str
    station_name: str | None
    district: str | None
    operator_id: str
    operator_name: str | None
    current: str | None
    accuracy_class: str | None
    model: str | None
    registered: bool


@with_fields(
    {
        # Nothing is known of a connector that wasn't assessed.
        name: (shown | None, Field(description=_LIST_NOTES.get(name)))
        for name, (shown, _) in _finding_fields(c for c in ASSESSMENT_COLUMNS if c.in_list).items()
    }
)
class AssessedPile(PlacedPile):
    """A connector with the columns of its assessment that the list shows."""


class Pile(AssessedPile):
    """One connector with what the newest finished run says of it; fractions, never per cent."""

    latest_at: datetime | None
    open_signals: list[str] | None


class Piles(BaseModel):
    """One page of the triage list."""

    run_id: int | None
    as_of: datetime | None
    total: int
    limit: int
    offset: int
    piles: list[Pile]


class Rules(BaseModel):
    """The rule set that a run took its MPE from."""

    name: str
    regulation: str
    valid_from: date
    valid_until: date | None
    in_force: bool
    checked_against_source: bool


class RunOf(BaseModel):
    """Which run says something."""

    run_id: int
    as_of: datetime


@with_fields(_finding_fields(ASSESSMENT_COLUMNS))
class Findings(RunOf):
    """All columns of an assessment."""


class Assessment(Findings):
    """What one run says of a connector."""

    rules: Rules | None


class Verification(BaseModel):
    """One verification of a connector."""

    verification_id: int
    verified_on: date
    valid_until: date | None
    result: str
    relative_error: float | None
    expanded_uncertainty: float | None
    coverage_factor: float | None
    certificate: str
    institute: str | None


class Signal(BaseModel):
    """One integrity signal with its evidence."""

    signal_id: int
    code: str
    severity: str
    subject: str
    connector: str | None
    station_id: str | None
    operator_id: str | None
    first_at: datetime
    last_at: datetime
    count: int
    value: float | None
    limit: float | None
    detail: str
    evidence: dict[str, Any] = Field(description="the records that prove it, by kind of signal")
    rule_version: int
    opened_run: int
    last_run: int
    closed_run: int | None


class RegistryRow(BaseModel):
    """What the registry knows of a connector, and its newest reading."""

    connector: str
    operator_id: str
    operator_name: str | None
    station_id: str
    station_name: str | None
    district: str | None
    address: str | None
    longitude: float | None
    latitude: float | None
    registered: bool = Field(description="false: telemetry named it, nobody registered it")
    first_seen_at: datetime
    pile: str | None
    current: str | None
    accuracy_class: str | None
    rated_power_w: float | None
    min_current_a: float | None
    max_current_a: float | None
    model: str | None
    manufacturer: str | None
    serial: str | None
    resolution_wh: float | None
    cable_loss_compensated: bool | None
    in_service_on: date | None
    signing_key: str | None
    latest_at: datetime | None
    latest_energy_wh: float | None
    latest_power_w: float | None
    latest_received_at: datetime | None


class PileDetail(BaseModel):
    """Everything about one connector but its long lists."""

    registry: RegistryRow
    assessment: Assessment | None
    verifications: list[Verification]
    signals: list[Signal]
    n_sessions_stored: int


@with_fields(_finding_fields(column for column in ASSESSMENT_COLUMNS if column.in_history))
class HistoryPoint(RunOf):
    """What one run said."""


class History(BaseModel):
    """What the finished runs said of a connector, oldest first."""

    connector: str
    history: list[HistoryPoint]


class SignedCheck(BaseModel):
    """One check of a session's signed record."""

    check: str = Field(description="schema, signature, key, identity, register or clock")
    state: str = Field(description="ok, failed or unknown")
    detail: str


class Period(BaseModel):
    """A part of a session at one price; prices are missing where none was told."""

    from_: datetime = Field(alias="from")
    to: datetime
    energy_wh: float
    energy_price: str | None = None
    service_price: str | None = None


_SESSION_TYPES: Mapping[Form, Any] = {
    Form.TEXT: str,
    Form.TIME: datetime,
    Form.REAL: float,
    Form.SHORT_REAL: float,
    Form.DECIMAL: str,
    Form.DOCUMENT: list[Period],
}


def _session_field(column: SessionColumn) -> tuple[Any, Any]:
    shown = _SESSION_TYPES[column.kind.form]
    return shown | None if column.optional else shown, ...


@with_fields({column.name: _session_field(column) for column in SESSION_COLUMNS if column.in_api})
class SessionTold(BaseModel):
    """What of a session is answered as it was sent."""


class Session(SessionTold):
    """One charging session as it was sent; fees are decimal strings."""

    received_at: datetime
    signed: str | None = Field(
        description="genuine, forged, mismatch or not_verified; null: nothing is signed"
    )
    signed_checks: list[SignedCheck] | None


class Sessions(BaseModel):
    """One page of a connector's sessions, newest first."""

    connector: str
    total: int
    limit: int
    offset: int
    sessions: list[Session]


class Change(BaseModel):
    """What a gateway, the office or an operator declared to have changed.

    At the connector or at its station; origin: topic, office or operator.
    """

    event_id: int
    kind: str
    at: datetime
    of_connector: bool
    detail: str | None
    serial: str | None
    start_wh: float | None
    stop_wh: float | None
    received_at: datetime
    origin: str
    declared_by: str | None
    withdrawn_at: datetime | None
    withdrawn_why: str | None


class Changes(BaseModel):
    """Declared changes of a connector and its station, newest first."""

    connector: str
    changes: list[Change]


class Readings(BaseModel):
    """Raw registers as columns of equal length, oldest first; null: not told."""

    connector: str
    since: datetime
    until: datetime
    truncated: bool
    at: list[datetime]
    energy_wh: list[float]
    power_w: list[float | None]
    voltage_v: list[float | None]
    current_a: list[float | None]
    soc_pct: list[float | None]


class Signals(BaseModel):
    """Signals, newest first; `before` of the next page is the last `signal_id`."""

    signals: list[Signal]
    next_before: int | None


class Run(BaseModel):
    """One risk run; summary and configuration are for the authority's users only."""

    run_id: int
    state: str
    mode: str
    as_of: datetime
    data_from: datetime | None
    data_to: datetime | None
    started_at: datetime
    finished_at: datetime | None
    version: str
    configuration: dict[str, Any] | None
    result_digest: str | None
    summary: dict[str, Any] | None


class Runs(BaseModel):
    """Runs, newest first."""

    runs: list[Run]


class Health(BaseModel):
    """Whether the service can work."""

    status: str
    version: str
    database: str
    engine: str
    schema_revision: str | None
    newest_run_as_of: datetime | None

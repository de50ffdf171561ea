"""What the API takes and answers of verifications, declared changes and outcomes of flags."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chargewatch.supervision.verifications.judge import MOST_POINTS, MOST_REPETITIONS

Kind = Literal["initial", "subsequent", "inspection", "complaint"]
Fraction = Annotated[float, Field(description="a fraction: 0.02 for 2 %")]
Energy = Annotated[float, Field(ge=0, le=1e9, description="Wh")]
ShortText = Annotated[str, Field(max_length=200)]
LongText = Annotated[str, Field(max_length=1000)]
Number = Annotated[int, Field(ge=1, le=2**63 - 1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ComparisonAsked(_Asked):
    """One comparison at one load."""

    indicated_wh: Energy
    reference_wh: Energy


class LoadAsked(_Asked):
    """One load: comparisons, or error and expanded uncertainty as a laboratory tells them."""

    load: Annotated[str, Field(min_length=1, max_length=100, examples=["100 %"])]
    current_a: Annotated[float, Field(gt=0, le=1e5)] | None = None
    power_w: Annotated[float, Field(gt=0, le=1e7)] | None = None
    repetitions: Annotated[list[ComparisonAsked], Field(max_length=MOST_REPETITIONS)] = []
    relative_error: Fraction | None = None
    expanded_uncertainty: Fraction | None = None
    coverage_factor: Annotated[float, Field(ge=1, le=10)] = 2.0


class ReferenceAsked(_Asked):
    """With what the pile was compared, as the certificate tells it."""

    name: ShortText = ""
    expanded_uncertainty: Annotated[Fraction, Field(gt=0, lt=1)]
    coverage_factor: Annotated[float, Field(ge=1, le=10)] = 2.0
    resolution_wh: Energy = 0.0


class VerificationAsked(_Asked):
    """A verification to enter."""

    connector: Annotated[str, Field(min_length=1, max_length=64)]
    station_id: Annotated[str, Field(max_length=64)] | None = None
    operator_id: Annotated[str, Field(max_length=64)] | None = None
    verified_on: date
    kind: Kind
    loads: Annotated[list[LoadAsked], Field(min_length=1, max_length=MOST_POINTS)]
    reference: ReferenceAsked | None = None
    resolution_wh: Energy | None = None
    repeatability: Annotated[Fraction, Field(ge=0, lt=1)] | None = None
    certificate: ShortText = ""
    institute: ShortText = ""
    note: LongText = ""
    valid_until: date | None = None
    rule_set: ShortText | None = None
    inspection_id: Number | None = None
    case_id: Number | None = None


class EnteredVerification(BaseModel):
    """The number of a verification that was entered, and what it says."""

    verification_id: int
    result: str


class VerificationPoint(BaseModel):
    """One load of a verification."""

    place: int
    load: str
    current_a: float | None
    power_w: float | None
    relative_error: float | None
    expanded_uncertainty: float | None
    coverage_factor: float | None
    limit: float | None
    basis: str | None
    clause: str | None
    verdict: str
    detail: dict[str, Any] | None


class VerificationDetail(BaseModel):
    """One verification with its loads."""

    verification_id: int
    connector: str
    station_id: str
    operator_id: str
    verified_on: date
    valid_until: date | None
    result: str
    relative_error: float | None
    expanded_uncertainty: float | None
    coverage_factor: float | None
    certificate: str
    institute: str | None
    kind: str | None
    rule_set: str | None
    decision_rule: str | None
    reference: str | None
    note: str | None
    file_id: int | None
    inspection_id: int | None
    case_id: int | None
    entered_at: datetime | None
    entered_by: str | None
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    withdrawn_why: str | None
    points: list[VerificationPoint]


class VerificationRow(BaseModel):
    """One verification in a list."""

    verification_id: int
    connector: str
    verified_on: date
    valid_until: date | None
    result: str
    relative_error: float | None
    expanded_uncertainty: float | None
    certificate: str
    kind: str | None
    entered_at: datetime
    entered_by: str | None
    withdrawn_at: datetime | None


class EnteredVerifications(BaseModel):
    """Verifications that were entered in the office, the newest first."""

    verifications: list[VerificationRow]
    next_before: int | None


class Why(_Asked):
    """The reason of something that is taken back."""

    why: Annotated[str, Field(min_length=3, max_length=1000)]


class ChangeAsked(_Asked):
    """A work on a pile to declare."""

    kind: Annotated[str, Field(max_length=64)]
    at: datetime
    detail: LongText = ""
    serial: Annotated[str, Field(max_length=255)] = ""
    start_wh: Annotated[float, Field(ge=0, le=2**53)] | None = None
    stop_wh: Annotated[float, Field(ge=0, le=2**53)] | None = None


class DeclaredChange(BaseModel):
    """The number of a change that was declared."""

    event_id: int


class ShareFigures(BaseModel):
    """A share with intervals of 95 %: Wilson's, and Clopper and Pearson's."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None
    exact_low: float | None
    exact_high: float | None


class DelayFigures(BaseModel):
    """How long something takes, in days, by Kaplan and Meier."""

    over: int
    waiting: int
    median_days: float | None
    quarter_days: float | None
    most_days: float | None
    curve: list[tuple[float, float]]


class OutcomeFigures(BaseModel):
    """How good flags are, against later verifications."""

    flags: dict[str, int]
    precision: dict[str, ShareFigures]
    recall: ShareFigures
    uniform_recall: ShareFigures
    detection: DelayFigures
    verification: DelayFigures


class FlagOutcome(BaseModel):
    """One flag and what became of it."""

    connector: str
    station_id: str
    operator_id: str
    flagged_at: datetime
    ended_at: datetime | None
    tier: str
    outcome: str
    changed_at: datetime | None
    delay_days: float | None
    verification_id: int | None
    verified_on: date | None
    relative_error: float | None
    expanded_uncertainty: float | None


class FlagOutcomes(BaseModel):
    """Flags, the newest first."""

    flags: list[FlagOutcome]
    next_before: str | None

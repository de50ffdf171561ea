"""What the API takes and answers about credit grades and self-commitments."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from chargewatch.supervision.credit.commitments import LONGEST_TEXT

Letter = Literal["A", "B", "C", "D"]
MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"
Month = Annotated[str, Field(pattern=MONTH, description="as `2026-11`")]


class GradeLine(BaseModel):
    """One item of a grade: figures are decimal strings, null where nothing is known."""

    item: str
    weight: str = Field(description="per cent of the score, where it is fully known")
    months: int = Field(description="how many, up to the graded one, are looked at")
    per: int = Field(description="what the rate is told for")
    bad: str | None
    all: str | None
    rate: str | None
    low: str | None = Field(description="95 % interval of the rate, where it is of a sample")
    high: str | None
    points: str | None
    rows: int = Field(description="rows of the tables it was counted from")
    weight_in_force: str


class Arithmetic(BaseModel):
    """A grade with all it was computed from; `chargewatch credit replay` computes it again."""

    form: int
    operator_id: str
    month: Month
    rules: dict[str, Any] = Field(description="the rule set")
    facts: dict[str, Any] = Field(description="by item: `bad` of `all`, and how many rows")
    lines: list[GradeLine]
    weight_in_force: str
    score: str | None
    grade: Letter | None
    worst: str | None = Field(description="the item with the fewest points")


class Publication(BaseModel):
    """Which revision of a month's grade it is, and why there is one."""

    revision: int
    made_at: datetime
    why: str


class PublishedArithmetic(Arithmetic):
    """A published grade."""

    published: Publication


class OperatorRow(BaseModel):
    """An operator of the list, with its newest published grade and the one to come."""

    operator_id: str
    name: str
    month: date | None
    grade: Letter | None
    score: str | None
    worst: str | None
    draft_month: date | None
    draft_grade: Letter | None
    draft_score: str | None
    connectors: int | None
    trend: list[str] = Field(description="grades of twelve months, as `2026-11 B`, oldest first")


class Operators(BaseModel):
    """One page of operators."""

    total: int
    limit: int
    offset: int
    operators: list[OperatorRow]


class NeedRow(BaseModel):
    """What one item could do for the next better grade."""

    item: str
    gain: float = Field(description="score that it adds when nothing of it is bad")
    better: Literal["more", "fewer"] = Field(description="more good ones, or fewer bad ones")
    count: float | None = Field(description="so many alone give the next grade; null: it can't")


class OutlookAnswer(BaseModel):
    """What would change the provisional grade most, the most effective first."""

    grade: Letter | None
    next_grade: Letter | None
    missing: float | None
    needs: list[NeedRow]


class HistoryRow(BaseModel):
    """A published grade of the past, each revision."""

    month: date
    revision: int
    grade: Letter | None
    score: str | None
    worst: str | None
    rule_version: str
    made_at: datetime
    why: str


class CommitmentRow(BaseModel):
    """What an operator promised, and whether it was kept; null while that is open."""

    commitment_id: int
    operator_id: str
    text: str
    made_on: date
    until: date
    made_by: str
    kept: bool | None
    decided_on: date | None
    decided_by: str | None
    why: str | None
    published: bool


class WeekRow(BaseModel):
    """What an operator's stations sent in a week, hours of stations."""

    week: date = Field(description="its Monday")
    days: int
    station_hours: int | None
    heard_hours: int | None
    lost_hours: str
    messages: int
    items: int
    rejected: int
    sessions: int


class OperatorDetail(BaseModel):
    """All of one operator's credit."""

    operator_id: str
    name: str
    published: PublishedArithmetic | None
    draft: Arithmetic | None
    outlook: OutlookAnswer | None
    history: list[HistoryRow]
    commitments: list[CommitmentRow]
    weeks: list[WeekRow]


class NewCommitment(BaseModel):
    """What an operator promises."""

    text: str = Field(max_length=LONGEST_TEXT)
    until: date


class MadeCommitment(BaseModel):
    """The number of a commitment that was recorded."""

    commitment_id: int


class Decision(BaseModel):
    """Whether a commitment was kept, and why that is said."""

    kept: bool
    why: str = Field(max_length=LONGEST_TEXT)


class Grading(BaseModel):
    """What to do with a month."""

    action: Literal["draft", "publish", "recount"]
    why: str = Field(default="", max_length=LONGEST_TEXT, description="needed by recount")


class AskedJob(BaseModel):
    """The job that does it: see `GET /api/v1/jobs/{job_id}`."""

    job_id: int


class PublicGrade(BaseModel):
    """A published grade, as anybody may know it."""

    month: Month
    grade: Letter | None
    score: str | None
    revision: int
    rule_version: str


class PublicCommitment(BaseModel):
    """A published commitment."""

    text: str
    made_on: date
    until: date
    kept: bool | None
    decided_on: date | None
    why: str | None


class PublicOperator(BaseModel):
    """What anybody may know of an operator."""

    operator_id: str
    name: str
    grade: PublicGrade | None
    commitments: list[PublicCommitment]


class PublicOperators(BaseModel):
    """One page of operators; `after` = `next_after` gives the next one."""

    operators: list[PublicOperator]
    next_after: str | None

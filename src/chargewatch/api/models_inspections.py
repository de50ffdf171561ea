"""What the API takes and answers about draws, inspections, lots and published results."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from chargewatch.supervision.inspections.eligible import LATELY_VERIFIED_DAYS

ShortText = Annotated[str, Field(min_length=1, max_length=500)]


class Lot(BaseModel):
    """What a lot is told apart by; what is not given narrows nothing."""

    operator_id: str | None = Field(default=None, max_length=64)
    manufacturer: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200)
    current: Literal["AC", "DC"] | None = None
    accuracy_class: str | None = Field(default=None, max_length=20)


class NewDraw(BaseModel):
    """A draw whose list is to be frozen."""

    draw_id: str = Field(max_length=40, description="as 2026-12")
    size: int = Field(ge=1, le=1_000_000)
    uniform: Decimal = Field(
        default=Decimal("0.2"), ge=0, le=1, description="share that nothing weighs in"
    )
    crew: int = Field(default=2, ge=1, le=20)
    due_days: int = Field(default=30, ge=1, le=366)
    lately_days: int = Field(
        default=LATELY_VERIFIED_DAYS, ge=0, le=3660, description="who passed so lately is left out"
    )
    lot: Lot = Field(default_factory=Lot)


class NewRecusal(BaseModel):
    """An inspector that must not inspect an operator's piles in one draw."""

    inspector: ShortText
    operator_id: ShortText
    why: ShortText


class Publication(BaseModel):
    """How a list's hash is published."""

    beacon_source: str = Field(
        default="", max_length=500, description="public randomness to be added, of which moment"
    )
    with_timestamp: bool = Field(
        default=True, description="of the authority that is set, where one is"
    )


class NewThrow(BaseModel):
    """The dice of one witness; the other's are entered by another user."""

    witness: ShortText
    digits: str = Field(max_length=400)


class DrawRun(BaseModel):
    """What is added to the throws."""

    beacon: str = Field(default="", max_length=500, description="value of what was announced")


class NewSize(BaseModel):
    """A larger draw."""

    size: int = Field(ge=1, le=1_000_000)


class Reason(BaseModel):
    """Why something is given up."""

    why: ShortText


class VerificationFound(BaseModel):
    """The verification that an inspection found."""

    verification_id: int = Field(ge=1, lt=2**63)


class NewInspection(BaseModel):
    """An inspection for a case."""

    case: str = Field(max_length=20, description="number of the case, as 2026-000123")
    inspectors: list[ShortText] = Field(min_length=1, max_length=20)
    due_on: date


class PlannedInspection(BaseModel):
    """The number of a new inspection."""

    inspection_id: int


class DrawPlan(BaseModel):
    """The sampling plan of a draw's lot."""

    size: int
    allowed: int


class DrawBase(BaseModel):
    """A draw and how far it is."""

    draw_id: str
    state: Literal["frozen", "published", "drawn", "done", "withdrawn"]
    list_sha256: str
    piles: int
    size: int
    uniform_share: float
    crew: int
    due_days: int
    weights_rule: str
    excluded: dict[str, int] = Field(description="left out of the list, by reason")
    lot: dict[str, str] | None
    plan: DrawPlan | None
    frozen_at: datetime
    made_by: str
    beacon_source: str
    published_at: datetime | None
    time_stamped: bool
    drawn_at: datetime | None
    opens_on: date | None = Field(
        description="list and piles are public from then on at the latest"
    )
    opened_at: datetime | None
    withdrawn_at: datetime | None
    withdrawn_why: str


class DrawRow(DrawBase):
    """A draw with what came of its inspections."""

    inspections: int
    planned: int
    passed: int
    failed: int


class Draws(BaseModel):
    """Draws, the newest first; `frozen_before` of the next page is `next_before`."""

    draws: list[DrawRow]
    next_before: datetime | None


class ThrowRow(BaseModel):
    """A throw; its digits are told once the draw is drawn."""

    witness: str
    at: datetime
    dice: int
    digits: str | None


class RecusalRow(BaseModel):
    """A recusal that was said for one draw."""

    inspector: str
    operator_id: str
    why: str
    at: datetime
    entered_by: str


class StandRow(BaseModel):
    """What the results so far say of "95 % of these piles conform"."""

    operator_id: str = Field(description="empty: of the whole list")
    lot: int
    drawn: int = Field(description="of the uniform part")
    inspected: int
    nonconforming: int
    outcome: Literal["confirmed", "refuted", "open"]
    risk_of_confirming: float
    risk_of_refuting: float


class DrawDetail(BaseModel):
    """Everything about one draw but its list and file."""

    draw: DrawBase
    throws: list[ThrowRow]
    recusals: list[RecusalRow]
    stands: list[StandRow]


class InspectionRow(BaseModel):
    """One inspection."""

    inspection_id: int
    draw_id: str | None
    case_id: int | None
    connector: str
    station_id: str
    operator_id: str
    inspector: str
    crew: list[str]
    part: Literal["uniform", "weighted", "case"]
    rank: int | None
    ticket: str | None
    planned_at: datetime
    due_on: date
    state: Literal["planned", "done", "cancelled"]
    verification_id: int | None
    result: Literal["pass", "fail"] | None
    done_on: date | None
    cancelled_why: str


class Inspections(BaseModel):
    """Inspections, the newest first; an operator's user is told of its own that are done."""

    inspections: list[InspectionRow]
    next_before: int | None


class LotRow(BaseModel):
    """A lot of the registry."""

    operator_id: str
    manufacturer: str | None
    model: str | None
    current: str | None
    accuracy_class: str | None
    instruments: int


class PlanRow(BaseModel):
    """A single sampling plan with what it is worth for the lot."""

    name: str
    source: str
    confirmed: bool = Field(description="whether the figures were read in the document itself")
    size: int
    allowed: int
    producers_risk: float = Field(description="that a lot of acceptable quality fails")
    consumers_risk: float = Field(description="that a lot of limiting quality passes")


class LotPlans(BaseModel):
    """The plans of a lot."""

    instruments: int
    acceptable: float
    limiting: float
    plans: list[PlanRow]


class Lots(BaseModel):
    """The largest lots, and the plans of all that was narrowed to."""

    lots: list[LotRow]
    plan: LotPlans | None


class PublicDraw(BaseModel):
    """What everybody may see of a draw."""

    draw_id: str
    state: Literal["published", "drawn", "done", "withdrawn"]
    list_sha256: str
    piles: int
    size: int
    crew: int
    uniform_share: float
    published_at: datetime
    time_stamped: bool
    beacon_source: str
    drawn_at: datetime | None
    opens_on: date | None
    open: bool = Field(description="whether list, seed and all piles are public")
    withdrawn_at: datetime | None
    withdrawn_why: str


class PublicDrawRow(PublicDraw):
    """A published draw with its sums."""

    inspections: int
    passed: int
    failed: int


class PublicDraws(BaseModel):
    """The newest published draws."""

    draws: list[PublicDrawRow]


class PublicOperator(BaseModel):
    """What a draw found of one operator's piles."""

    operator_id: str
    name: str | None
    inspected: int
    passed: int
    failed: int


class PublicResult(BaseModel):
    """One inspection that was made."""

    rank: int
    connector: str
    station_id: str
    operator_id: str
    crew: list[str]
    done_on: date
    result: Literal["pass", "fail"]


class PublicDrawDetail(BaseModel):
    """A published draw with its throws and results; `after` of the next page is `next_after`."""

    draw: PublicDraw
    throws: list[ThrowRow]
    operators: list[PublicOperator]
    results: list[PublicResult]
    next_after: int | None


class VisitRow(BaseModel):
    """One pile of a route; fractions, money of a month."""

    connector: str
    tier: str
    p_nonconforming: float
    expanded_now: float = Field(description="U now, k = 2")
    expanded_after: float = Field(description="U after the test, k = 2")
    money: float
    settled: float = Field(description="of it by this test")
    told_of_neighbours: float = Field(description="doubt removed at untested piles of the station")


class StopRow(BaseModel):
    """One station of a route."""

    station_id: str
    station_name: str
    operator_id: str
    visits: list[VisitRow]
    minutes: float


class RouteAnswer(BaseModel):
    """Where to go first."""

    stops: list[StopRow]
    undecided_before: float
    settled: float
    minutes: float
    looked_at: int


class NeighbourRow(BaseModel):
    """What a test would tell of another pile of the station."""

    connector: str
    expanded_now: float
    expanded_after: float


class Settles(BaseModel):
    """What one field test would do to a pile, and to its neighbours."""

    u_ref: float
    expanded_now: float
    expanded_after: float
    p_now: float
    shown_nonconforming: float
    shown_conforming: float
    left_open: float
    settled: float = Field(description="money of a month")
    neighbours: list[NeighbourRow]


class SettlesAnswer(BaseModel):
    """What would settle a pile; null where nothing is known of it."""

    connector: str
    settles: Settles | None

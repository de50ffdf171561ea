"""What the API's answers on money owed look like."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, Field


class CountedMonth(BaseModel):
    """A month of the city's time zone, as far as it was counted."""

    month: date = Field(description="its first day")
    counted_from: datetime = Field(description="sessions that ended from then on")
    counted_to: datetime = Field(description="sessions that ended before then")
    run_id: int = Field(description="the risk run that counted it last")


class Sides(BaseModel):
    """Too much and too little, apart: expected amounts with 95 % intervals; null: not known."""

    overcharge_cny: float | None = Field(description="paid too much, money")
    overcharge_low_cny: float | None = Field(description="lower end of the 95 % interval")
    overcharge_high_cny: float | None = Field(description="upper end of the 95 % interval")
    undercharge_cny: float | None = Field(description="paid too little, money, not negative")
    undercharge_low_cny: float | None = Field(description="lower end of the 95 % interval")
    undercharge_high_cny: float | None = Field(description="upper end of the 95 % interval")
    sessions: int = Field(
        description="by error all that ended in the month, by billing those that differ"
    )
    sessions_unknown: int = Field(description="whose amount is not known, and not in the sums")
    energy_wh: float = Field(description="by the register, of the sessions that are counted, Wh")
    paid_cny: float = Field(description="for energy and service by these sessions, money")


class MoneyTotal(Sides):
    """The sums of an operator's piles in a month by one cause."""

    month: date
    operator_id: str = Field(description="empty: of all operators")
    operator_name: str | None
    cause: str = Field(description="error: by the meters; billing: by the bills")
    net_cny: float | None = Field(description="too much less too little, money")
    net_low_cny: float | None = Field(description="lower end of the 95 % interval")
    net_high_cny: float | None = Field(description="upper end of the 95 % interval")
    connectors: int = Field(description="with sessions in the month")
    connectors_unknown: int = Field(description="with sessions whose amount is not known")
    run_id: int


class Money(BaseModel):
    """Sums of one month by operator and cause."""

    month: date | None = Field(description="null: no month was counted yet")
    months: list[CountedMonth] = Field(description="newest first")
    totals: list[MoneyTotal]


class PileOwed(Sides):
    """What one connector's drivers paid too much and too little in a month by one cause."""

    connector: str
    registered: bool
    station_id: str
    station_name: str | None
    operator_id: str
    operator_name: str | None
    cause: str


class PilesOwed(BaseModel):
    """One page of the connectors of a month, the most first."""

    month: date | None = Field(description="null: no month was counted yet")
    cause: str
    side: str
    piles: list[PileOwed]
    next_after: str | None = Field(description="`after` of the next page; null: this is the last")


class MonthOwed(Sides):
    """One month of a connector by one cause."""

    month: date
    cause: str
    counted_from: datetime
    counted_to: datetime
    undelivered_share: float | None = Field(
        description="expected share of the energy indicated that was not delivered; by error"
    )
    undelivered_share_before: float | None = Field(
        description="the same before the error changed; null: it did not, or it is not known"
    )
    changed_at: datetime | None = Field(description="when the error began to change")
    settled_at: datetime | None = Field(description="when it had changed; at once for a step")
    run_id: int


class PileMoney(BaseModel):
    """What was owed at a connector, newest month first.

    A month without bills that differ has no line for billing.
    """

    connector: str
    months: list[MonthOwed]


class SessionOwed(BaseModel):
    """A session with what it should have been; null: not known."""

    session: str
    started_at: datetime
    ended_at: datetime
    metered_wh: float | None = Field(description="by the register, Wh")
    charged_wh: float | None = Field(description="that was charged for, Wh")
    currency: str | None
    paid: float | None = Field(description="for energy and service before discounts, money")
    should_have_been: float | None = Field(description="paid less both differences, money")
    bill_difference: float | None = Field(description="charged too much (+), too little (-)")
    error_difference: float | None = Field(description="paid for what was not delivered, expected")
    difference: float | None = Field(description="both together")
    why: list[str] = Field(
        description="energy, price: of the bill; error: of the meter; no_money, no_energy, "
        "no_error: what is not known"
    )
    counted: bool = Field(description="whether both differences are known")


class SessionsOwed(BaseModel):
    """One page of a connector's sessions of a month, newest first."""

    connector: str
    month: date | None = Field(description="null: no month was counted yet")
    total: int
    limit: int
    offset: int
    sessions: list[SessionOwed]

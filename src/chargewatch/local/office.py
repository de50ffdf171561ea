"""A simulated office: what people would have done with the flags of the demo's city.

Every step is taken by the functions that pages and commands take it by, so roles, reasons and the
audit trail are real; what is measured on site comes from the city's truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from chargewatch.domain.mpe import rule_set
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.cases.model import Case, CaseOutcome, Origin
from chargewatch.supervision.cases.opening import open_case
from chargewatch.supervision.cases.replies import object_to, reply
from chargewatch.supervision.cases.steps import StepName
from chargewatch.supervision.cases.working import StepRequest, step_case, write_comment
from chargewatch.supervision.complaints import triage
from chargewatch.supervision.complaints.filing import NewComplaint, file_complaint
from chargewatch.supervision.credit import commitments, grading
from chargewatch.supervision.inspections import draws
from chargewatch.supervision.inspections.draw_state import DrawClock
from chargewatch.supervision.inspections.eligible import DrawWanted
from chargewatch.supervision.permissions import Role
from chargewatch.supervision.verifications.budget import ReferenceUsed, Repetition
from chargewatch.supervision.verifications.entering import Place, enter_verification
from chargewatch.supervision.verifications.judge import NewPoint, NewVerification

INSPECTORS = ("wang", "li")
WITNESS = "zhao"
DRAWN = 8
TEST_WH = 5_000.0
"""Energy of one comparison on site, Wh."""
NOTES = {
    "confirmed": "On site the pile told clearly more than the reference meter.",
    "objection": "We replaced the meter last week and ask for a second look.",
    "reply": "The transformer was being repaired; the readings of those days are sent again.",
    "complaint": "The display told 31 kWh, my car took 28.",
}


@dataclass(kw_only=True)
class Office:
    """Who works there, on which database, and with what to measure.

    errors: true relative error of every connector.
    """

    database: Database
    settings: Settings
    supervisor: str
    errors: Mapping[str, float]
    now: datetime
    places: Mapping[str, tuple[str, str]]  # station and operator of every registered connector
    random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    @property
    def zone(self) -> ZoneInfo:
        """Where days begin."""
        return self.settings.zone

    @property
    def lead(self) -> Actor:
        """Who decides."""
        return Actor(name=self.supervisor, role=Role.SUPERVISOR.value)

    @property
    def clock(self) -> DrawClock:
        """The present moment."""
        return DrawClock(now=self.now, zone=self.zone)

    @staticmethod
    def inspector(name: str) -> Actor:
        """Return somebody who inspects."""
        return Actor(name=name, role=Role.INSPECTOR.value)

    @staticmethod
    def of_operator(operator_id: str) -> Actor:
        """Return an operator's user."""
        return Actor(name=operator_user(operator_id), role=Role.OPERATOR.value)


def operator_user(operator_id: str) -> str:
    """Return the name of the user of an operator."""
    return f"op-{operator_id}"[:64]


async def add_people(database: Database, operators: Sequence[str], *, password: str) -> None:
    """Make the office's users, and one for each operator."""
    actor = Actor(name="demo")
    people: list[tuple[str, Role, str | None]] = [(WITNESS, Role.SUPERVISOR, None)]
    people += [(name, Role.INSPECTOR, None) for name in INSPECTORS]
    people += [(operator_user(one), Role.OPERATOR, one) for one in operators]
    people += [("auditor", Role.AUDITOR, None)]
    for name, role, operator_id in people:
        await accounts.add_user(
            database, name, role=role, operator_id=operator_id, password=password, actor=actor
        )


def inspector_rows(operators: Sequence[str]) -> list[dict[str, Any]]:
    """Return the inspectors as a registry file holds them; one of them is recused."""
    recused = [[operators[0]] if operators else [], []]
    return [
        {"name": name, "username": name, "active": True, "recused_operators": list(whom)}
        for name, whom in zip(INSPECTORS, recused, strict=True)
    ]


async def _open(office: Office, connector: str, *, origin: Origin, key: str, title: str) -> Case:
    station_id, operator_id = office.places[connector]
    async with office.database.begin() as connection:
        return await open_case(
            connection, office.lead, operator_id=operator_id, station_id=station_id,
            connector=connector, subject=f"connector:{connector}", origin=origin, origin_key=key,
            title=title, deadline=office.clock.today + timedelta(days=14), now=office.now,
        )  # fmt: skip


async def _step(office: Office, actor: Actor, case: Case, step: StepName, **more: Any) -> None:
    async with office.database.begin() as connection:
        wanted = StepRequest(step=step, **more)
        await step_case(connection, actor, case.case_id, wanted, now=office.now)


async def _verify(
    office: Office,
    connector: str,
    *,
    by: str,
    inspection_id: int | None = None,
    case_id: int | None = None,
) -> int:
    """Measure on site: three comparisons at full load, and enter them."""
    error = office.errors[connector]
    points = []
    for load, power_w in (("full load", 6_600.0), ("half load", 3_300.0)):
        repetitions = tuple(
            Repetition(
                indicated_wh=TEST_WH * (1 + error + office.random.gauss(0.0, 0.0005)),
                reference_wh=TEST_WH,
            )
            for _ in range(3)
        )
        points.append(NewPoint(load=load, power_w=power_w, repetitions=repetitions))
    station_id, operator_id = office.places[connector]
    new = NewVerification(
        verified_on=office.clock.today,
        kind="inspection",
        points=tuple(points),
        # A pile may be measured for a case and for a draw on one day.
        certificate=f"DEMO-{connector}" + ("-CASE" if inspection_id is None else "-DRAW"),
        institute="simulated office",
        reference=ReferenceUsed(expanded_uncertainty=0.001, name="simulated reference"),
        inspection_id=inspection_id,
        case_id=case_id,
    )
    async with office.database.begin() as connection:
        return await enter_verification(
            connection,
            office.inspector(by),
            Place(connector=connector, station_id=station_id, operator_id=operator_id),
            new,
            rules=rule_set(office.settings.mpe_rules),
            now=office.now,
            zone=office.zone,
        )


async def _play_cases(office: Office, red: Sequence[str], silent: Sequence[str]) -> int:
    """Leave cases in every state; return how many."""
    steps: list[Callable[[str], Any]] = [
        lambda one: _confirmed(office, one),
        lambda one: _waiting(office, one),
        lambda one: _inspecting(office, one),
        lambda one: _assigned(office, one),
        lambda one: _flagged(office, one),
    ]
    for play, connector in zip(steps, red, strict=False):
        await play(connector)
    if silent:
        case = await _open(
            office, silent[0], origin=Origin.HAND, key="", title=f"{silent[0]}: nothing is heard"
        )
        await _step(
            office, office.lead, case, StepName.CLOSE, outcome=CaseOutcome.INCONCLUSIVE,
            why="Out of service since spring; there is nothing to measure.",
        )  # fmt: skip
    return min(len(steps), len(red)) + bool(silent)


async def _flagged(office: Office, connector: str) -> Case:
    return await _open(
        office, connector, origin=Origin.FLAG, key="", title=f"{connector} errs beyond its MPE"
    )


async def _assigned(office: Office, connector: str, to: str = INSPECTORS[0]) -> Case:
    case = await _flagged(office, connector)
    await _step(office, office.lead, case, StepName.ASSIGN, owner=to)
    return case


async def _inspecting(office: Office, connector: str) -> Case:
    case = await _assigned(office, connector, INSPECTORS[1])
    await _step(office, office.inspector(INSPECTORS[1]), case, StepName.INSPECT)
    async with office.database.begin() as connection:
        await write_comment(
            connection,
            office.inspector(INSPECTORS[1]),
            case.case_id,
            text=f"On the way. @{office.supervisor} please tell the operator.",
            now=office.now,
        )
    return case


async def _waiting(office: Office, connector: str) -> Case:
    case = await _assigned(office, connector)
    await _step(
        office, office.inspector(INSPECTORS[0]), case, StepName.ASK,
        why="Which work was done at this pile in the last month?",
    )  # fmt: skip
    return case


async def _confirmed(office: Office, connector: str) -> None:
    """Play a case to its end: asked, answered, measured, closed, objected to, closed again."""
    operator = office.of_operator(office.places[connector][1])
    case = await _waiting(office, connector)
    async with office.database.begin() as connection:
        await reply(connection, operator, case.case_id, text=NOTES["reply"], now=office.now)
    by = INSPECTORS[0]
    await _step(office, office.inspector(by), case, StepName.INSPECT)
    await _verify(office, connector, by=by, case_id=case.case_id)
    close = {"outcome": CaseOutcome.CONFIRMED, "why": NOTES["confirmed"]}
    await _step(office, office.lead, case, StepName.CLOSE, **close)
    async with office.database.begin() as connection:
        await object_to(connection, operator, case.case_id, text=NOTES["objection"], now=office.now)
    await _step(
        office, office.lead, case, StepName.CLOSE, outcome=CaseOutcome.CONFIRMED,
        why="The meter's change was declared after the inspection; what was measured stands.",
    )  # fmt: skip


async def _play_draw(office: Office) -> int:
    """Make a draw, inspect every pile of it, open it; return how many piles."""
    draw_id = f"{office.clock.today:%Y-%m}"
    wanted = DrawWanted(draw_id=draw_id, size=DRAWN, uniform=Decimal("0.5"), crew=1, due_days=14)
    witness = Actor(name=WITNESS, role=Role.SUPERVISOR.value)
    await draws.freeze(office.database, wanted, actor=office.lead, clock=office.clock)
    await draws.publish(office.database, draw_id, actor=office.lead, clock=office.clock)
    for actor in (office.lead, witness):
        dice = "".join(str(office.random.randrange(10)) for _ in range(10))
        await draws.throw(
            office.database, draw_id, witness=actor.name, digits=dice, actor=actor,
            clock=office.clock,
        )  # fmt: skip
    bundle = await draws.run(office.database, draw_id, actor=office.lead, clock=office.clock)
    async with office.database.connect() as connection:
        planned = await inspection_rows.of_draw(connection, draw_id, limit=DRAWN)
    for row in planned:
        await _verify(
            office, row["connector"], by=row["inspector"], inspection_id=row["inspection_id"]
        )
    await draws.open_draw(office.database, draw_id, actor=office.lead, clock=office.clock)
    return len(bundle.drawn)


async def _play_complaints(office: Office, connectors: Sequence[str]) -> int:
    """Leave complaints in every state; return how many."""
    for place, connector in enumerate(connectors[:4]):
        told = NewComplaint(
            connector=connector, kind="energy", text=NOTES["complaint"], session_text="yesterday",
            session_at=None, bill_cny=Decimal("42.50"), contact="driver@example.org", language="en",
        )  # fmt: skip
        filed = await file_complaint(office.database, told, now=office.now, zone=office.zone)
        number = filed.complaint_id
        async with office.database.begin() as connection:
            if place == 1:
                await triage.refuse(
                    connection, office.lead, number, now=office.now,
                    reason="The bill that was sent is of another city.",
                )  # fmt: skip
            if place >= 2:
                await triage.accept(
                    connection, office.lead, number, now=office.now, zone=office.zone
                )
        if place == 3:
            async with office.database.begin() as connection:
                await triage.answer(
                    connection, office.lead, number, now=office.now,
                    text="The pile was inspected; its operator pays back what it took.",
                )  # fmt: skip
            async with office.database.begin() as connection:
                await triage.end(connection, office.lead, number, now=office.now, zone=office.zone)
    return min(4, len(connectors))


async def _play_credit(office: Office, operators: Sequence[str]) -> None:
    """Publish last month's grades, draft this month's, and record a promise."""
    month = office.clock.today.replace(day=1)
    before = (month - timedelta(days=1)).replace(day=1)
    await grading.publish_month(
        office.database, before, actor=office.lead, now=office.now, zone=office.zone
    )
    await grading.draft_month(office.database, month, now=office.now, zone=office.zone)
    if operators:
        number = await commitments.commit(
            office.database,
            operators[0],
            text="All piles are verified again by the end of the quarter.",
            until=office.clock.today + timedelta(days=60),
            actor=office.of_operator(operators[0]),
            now=office.now,
            zone=office.zone,
        )
        await commitments.publish(
            office.database, operators[0], number, actor=office.lead, now=office.now
        )


async def play_office(
    office: Office, *, red: Sequence[str], silent: Sequence[str], operators: Sequence[str]
) -> dict[str, int]:
    """Play the office's work and return how much there is of it.

    Args:
        office: who works there.
        red: connectors that are red, the most urgent first.
        silent: connectors of which nothing is heard.
        operators: all of them.
    """
    cases = await _play_cases(office, red, silent)
    drawn = await _play_draw(office)
    complaints = await _play_complaints(office, red)
    await _play_credit(office, operators)
    return {"cases": cases, "drawn": drawn, "complaints": complaints}

"""Cases of two operators, each shown to its operator, with a file: 2026-000001 and so on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chargewatch.storage.database import Database
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.cases.opening import open_case
from chargewatch.supervision.cases.steps import StepName
from chargewatch.supervision.cases.working import (
    StepRequest,
    close_case,
    step_case,
    write_comment,
)
from chargewatch.supervision.files import check_file

NUMBER, FILE_ID = "2026-000001", "1"
OPENED_AT = datetime(2026, 3, 1, 8, tzinfo=UTC)


async def seed_cases(
    database: Database, piles: list[tuple[str, str, str, str]], *, owner: str = "admin"
) -> None:
    """Open a case for each pile (operator, station, connector, what marks it); close the first."""
    boss = Actor(name="admin", role="administrator")
    for minute, (operator_id, station_id, connector, mark) in enumerate(piles):
        now = OPENED_AT + timedelta(minutes=minute)
        checked = await check_file(f"{mark}.txt", f"{mark} measured on site".encode())
        async with database.begin() as connection:
            case = await open_case(
                connection,
                boss,
                operator_id=operator_id,
                station_id=station_id,
                connector=connector,
                subject=f"connector:{connector}",
                origin="signal",
                origin_key="1",
                title=f"{mark} reads high",
                deadline=(now + timedelta(days=30)).date(),
                now=now,
            )
            written = {"text": f"{mark} told, @{owner}", "files": [checked], "for_operator": True}
            await write_comment(connection, boss, case.case_id, now=now, **written)  # type: ignore[arg-type]
            assign = StepRequest(step=StepName.ASSIGN, owner=owner)
            await step_case(connection, boss, case.case_id, assign, now=now)
            if minute == 0:
                await close_case(connection, boss, case.case_id, "confirmed", f"{mark} +3 %", now)

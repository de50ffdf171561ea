"""Evidence files in a database without the runs that would have taken them."""

import numpy as np

from chargewatch.storage import sql
from chargewatch.storage.office.evidence import KeptFile
from chargewatch.supervision.evidence.form import made, packed
from chargewatch.supervision.evidence.kept import keep_evidence

ANY_RUN = sql.statement("test: any finished run", "SELECT max(run_id) FROM risk_run")


def hollow_file(operator_id, station_id, connector):
    """Return an evidence file that tells whose it is, and nothing that decides anything."""
    told = {
        "pile": {"connector": connector, "station_id": station_id, "operator_id": operator_id},
        "run": {"run_id": 1, "as_of": "2026-11-20", "result_digest": "0" * 64, "version": "0"},
        "row": {},
        "values": {},
        "signals": [],
        "made_with": {},
    }
    return made(told, {"nothing": np.zeros(1)})


async def seed_evidence(database, piles):
    """Keep a hollow file of each pile (operator, station, connector) in the newest run."""
    files = []
    for operator_id, station_id, connector in piles:
        file = hollow_file(operator_id, station_id, connector)
        files.append(
            KeptFile(
                operator_id=operator_id,
                station_id=station_id,
                connector=connector,
                tier="red",
                digest=file.digest,
                content=packed(file),
            )
        )
    async with database.raw() as connection, connection.transaction():
        run_id = await sql.value(connection, ANY_RUN)
        await keep_evidence(connection, run_id, files)

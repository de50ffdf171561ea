"""Which engine this is and what it can do; found out once, asked by everything else."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class Capabilities:
    """Features of the database that the platform may use."""

    postgres_version: str
    timescale_version: str | None
    timescale_license: str | None

    @property
    def hypertables(self) -> bool:
        """Whether tables can be chunked by time."""
        return self.timescale_version is not None

    @property
    def columnstore(self) -> bool:
        """Whether chunks can be compressed (community licence only)."""
        return self.timescale_license == "timescale"

    @property
    def policies(self) -> bool:
        """Whether TimescaleDB runs retention by itself (community licence only)."""
        return self.timescale_license == "timescale"

    @property
    def engine(self) -> str:
        """The engine in one word and its version, for people."""
        if self.timescale_version is None:
            return f"PostgreSQL {self.postgres_version}"
        edition = "community" if self.columnstore else "Apache"
        return (
            f"TimescaleDB {self.timescale_version} ({edition} edition) "
            f"on PostgreSQL {self.postgres_version}"
        )


async def find_capabilities(connection: AsyncConnection) -> Capabilities:
    """Return what the connected database can do."""
    postgres = (await connection.execute(text("SHOW server_version"))).scalar_one()
    timescale = (
        await connection.execute(
            text("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        )
    ).scalar_one_or_none()
    license_name = None
    if timescale is not None:
        license_name = (
            await connection.execute(text("SELECT current_setting('timescaledb.license', true)"))
        ).scalar_one_or_none()
    return Capabilities(str(postgres).split(" ")[0], timescale, license_name)

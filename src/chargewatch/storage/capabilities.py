"""Which engine this is and what it can do; found out once, asked by everything else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

SAFE_COLUMNSTORE = (2, 18, 1)
"""The first TimescaleDB whose INSERT ... ON CONFLICT DO NOTHING into a compressed chunk goes on
after the first conflict (its issue 7672, mended by its pull request 7673)."""


def version_numbers(version: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a version such as 2.18.1 or 2.19.0-dev, None when unreadable."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


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
    def columnstore_fault(self) -> str:
        """Why this server must not compress what late data is written into, '' when it may."""
        if not self.columnstore or self.timescale_version is None:
            return ""
        numbers = version_numbers(self.timescale_version)
        if numbers is not None and numbers >= SAFE_COLUMNSTORE:
            return ""
        needed = ".".join(map(str, SAFE_COLUMNSTORE))
        return (
            f"TimescaleDB {self.timescale_version} silently loses late readings in compressed "
            "chunks (INSERT ... ON CONFLICT DO NOTHING ends at the first duplicate, TimescaleDB "
            f"issue 7672); {needed} and newer don't"
        )

    @property
    def losses(self) -> str:
        """What is missing on this engine against TimescaleDB's community edition, '' nothing."""
        if not self.hypertables:
            return "hypertables, compression, and retention that drops whole chunks"
        return "" if self.columnstore else "compression and retention policies"

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


SERVER_VERSION = sql.statement(
    "capabilities: server version", "SELECT current_setting('server_version')"
)
TIMESCALE_VERSION = sql.statement(
    "capabilities: timescale version",
    "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
)
TIMESCALE_LICENSE = sql.statement(
    "capabilities: timescale license", "SELECT current_setting('timescaledb.license', true)"
)


async def find_capabilities(connection: AsyncConnection) -> Capabilities:
    """Return what the connected database can do."""
    postgres = await sql.value(connection, SERVER_VERSION)
    timescale = await sql.value(connection, TIMESCALE_VERSION)
    license_name = None
    if timescale is not None:
        license_name = await sql.value(connection, TIMESCALE_LICENSE)
    return Capabilities(str(postgres).split(" ")[0], timescale, license_name)

"""What the API answers about evidence files."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class EvidenceEntry(BaseModel):
    """One evidence file of a pile."""

    run_id: int
    tier: str = Field(description="when it was taken")
    made_at: datetime
    digest: str = Field(description="SHA-256 of its manifest, as the audit trail has it")
    size: int = Field(description="bytes, without the proof")


class EvidenceFiles(BaseModel):
    """The evidence files of a pile, the newest first."""

    connector: str
    station_id: str
    operator_id: str
    files: list[EvidenceEntry]
    wanted: bool = Field(description="whether the next run is asked for one")


class EvidenceAsked(BaseModel):
    """What became of a wish."""

    connector: str
    asked: bool = Field(description="false: somebody had asked already")

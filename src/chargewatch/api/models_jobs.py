"""What the API answers about jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class JobRow(BaseModel):
    """One job."""

    job_id: int
    kind: str
    arguments: dict[str, Any]
    wanted_by: str = Field(description="a user, the command line, or timer")
    key: str | None
    state: Literal["waiting", "running", "done", "failed"]
    made_at: datetime
    due_at: datetime
    tries: int
    worker: str | None
    alive_at: datetime | None = Field(description="when its worker last said that it lives")
    progress: str
    finished_at: datetime | None
    result: Any
    error: str


class Jobs(BaseModel):
    """One page of jobs, the newest first."""

    jobs: list[JobRow]
    next_before: int | None = Field(description="give it as `before` for the next page")

"""Every kind of job."""

from __future__ import annotations

from datetime import time
from typing import Any

from chargewatch.supervision import audit
from chargewatch.supervision.credit.job import grade_operators
from chargewatch.supervision.jobs.kinds import JobKind, Work


async def _sign_audit_trail(work: Work) -> dict[str, Any]:
    if not work.settings.audit_key:
        return {"signed": False}
    note = await audit.make_checkpoint(
        work.database, audit.read_keys(work.settings.audit_key), now=work.now
    )
    return {"signed": True, "entries": int(note.text.splitlines()[1])}


JOB_KINDS = (
    JobKind(
        name="sign_audit_trail",
        meaning="verify the audit trail and sign a checkpoint of it, where a key is set",
        work=_sign_audit_trail,
        daily_at=time(3, 30),
    ),
    JobKind(
        name="grade_operators",
        meaning="compute the provisional credit grades of the running month, and of the one before",
        work=grade_operators,
        daily_at=time(4, 30),
    ),
)
"""In the order of docs/operating.md."""

"""What a run leaves for the next."""

from types import SimpleNamespace

import numpy as np

from chargewatch.runs.owed import ODD_BILL
from chargewatch.runs.state import pack_state, unpack_state
from chargewatch.runs.verify_signed import Verified
from chargewatch.signals.declarations import Resets
from chargewatch.signals.findings import Finding


def test_a_state_is_the_same_bytes_in_whatever_order_findings_were_made():
    registry = SimpleNamespace(
        connector_ids=np.array([3, 7]),
        meter_ids=np.array([5]),
        connector_rows=lambda ids: np.searchsorted(np.array([3, 7]), ids),
    )
    findings = [
        Finding(
            code=code,
            row=row,
            day=20_000 + day,
            first_s=0.0,
            last_s=1.0,
            count=1,
            value=2.0,
            limit=1.0,
            detail="",
            origin="readings",
        )
        for code in ("register_fall", "register_jump")
        for row in (0, 1)
        for day in (1, 0)
    ]

    def packed(order):
        return pack_state(
            registry,
            engine={},
            findings=order,
            verified=Verified.none(),
            usual_gap_s=np.full(2, 60.0),
            resets=Resets.none(),
            odd_bills=np.empty(0, ODD_BILL),
        )

    one, other = packed(findings), packed(findings[::-1])
    assert one == other
    assert len(unpack_state(one, registry).findings) == len(findings)

"""What a run leaves for the next: statistics, findings by the day, verified records."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from chargewatch.domain.arrays import Floats
from chargewatch.risk.memory import Arrays
from chargewatch.risk.parallel import in_threads
from chargewatch.runs.load import Registry
from chargewatch.runs.owed import ODD_BILL
from chargewatch.runs.verify_signed import OUTCOME, Verified
from chargewatch.signals.declarations import Resets
from chargewatch.signals.findings import Finding
from chargewatch.storage.bulk import Records

SAMPLE_BYTES = 65_536
LEAST_GAIN = 0.75
"""An array is compressed when a sample of it gets smaller than this share."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """State of an earlier run, on the rows of today's fleet."""

    engine: Arrays | None
    findings: list[Finding]
    verified: Verified
    usual_gap_s: Floats
    resets: Resets
    odd_bills: Records  # dtype ODD_BILL, by session_id, ascending


def _packed(array: NDArray) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getbuffer()
    # Measured numbers don't get smaller: trying takes more time than all else here.
    middle = content[content.nbytes // 2 :][:SAMPLE_BYTES]
    smaller = len(zlib.compress(middle, 1)) < LEAST_GAIN * middle.nbytes
    return zlib.compress(content, 1 if smaller else 0)


def _unpacked(content: bytes) -> NDArray:  # type: ignore[type-arg]
    return np.load(io.BytesIO(zlib.decompress(content)), allow_pickle=False)  # type: ignore[no-any-return]


def _identifier(finding: Finding, registry: Registry) -> Any:
    if finding.kind == "connector":
        return int(registry.connector_ids[finding.row])
    if finding.kind == "meter":
        return int(registry.meter_ids[finding.row])
    return list(registry.places[finding.row])


def _row(kind: str, identifier: Any, registry: Registry) -> int | None:
    if kind == "station":
        return registry.place_rows.get((identifier[0], identifier[1]))
    ids = registry.connector_ids if kind == "connector" else registry.meter_ids
    row = int(np.searchsorted(ids, identifier))
    return row if row < ids.size and ids[row] == identifier else None


def pack_state(
    registry: Registry,
    *,
    engine: Arrays,
    findings: list[Finding],
    verified: Verified,
    usual_gap_s: Floats,
    resets: Resets,
    odd_bills: Records,
) -> dict[str, bytes]:
    """Return a run's state by name; findings that every run makes anew are left out.

    Their order says nothing and depends on what was read first, so it is fixed.
    """
    kept = sorted(
        (
            {**asdict(finding), "row": _identifier(finding, registry)}
            for finding in findings
            if finding.origin != "window"
        ),
        key=orjson.dumps,
    )
    names = [f"engine/{name}" for name in engine]
    state = dict(zip(names, in_threads(_packed, engine.values()), strict=True))
    state["findings"] = zlib.compress(orjson.dumps(kept), 1)
    state["cadence/connector_id"] = _packed(registry.connector_ids)
    state["cadence/usual_gap_s"] = _packed(usual_gap_s)
    state["resets/connector_id"] = _packed(registry.connector_ids[resets.connector])
    state["resets/at_s"] = _packed(resets.at_s)
    state["money/odd_bills"] = _packed(odd_bills)
    state["signed/outcomes"] = _packed(verified.outcomes)
    state["signed/reason"] = zlib.compress(orjson.dumps(list(verified.reason)), 1)
    return state


def engine_version(state: Mapping[str, bytes]) -> int:
    """Return the version of the engine's state (`risk.memory.STATE_VERSION`)."""
    return int(_unpacked(state["engine/version"])[0])


def engine_slot(state: Mapping[str, bytes]) -> int:
    """Return the first slot that the engine's state doesn't hold yet."""
    return int(_unpacked(state["engine/clock"])[0])


def _unpack_engine(state: Mapping[str, bytes]) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Return the engine's arrays of a state."""
    packed = {name: content for name, content in state.items() if name.startswith("engine/")}
    names = [name.removeprefix("engine/") for name in packed]
    return dict(zip(names, in_threads(_unpacked, packed.values()), strict=True))


def _unpack_verified(state: Mapping[str, bytes]) -> Verified:
    """Return the checked records; none of a state in another form: they are checked again."""
    packed = state.get("signed/outcomes")
    outcomes = np.empty(0, OUTCOME) if packed is None else _unpacked(packed)
    if packed is None or outcomes.dtype != OUTCOME:
        return Verified.none()
    return Verified(outcomes, tuple(orjson.loads(zlib.decompress(state["signed/reason"]))))


def _unpack_resets(state: Mapping[str, bytes], registry: Registry) -> Resets:
    """Return the resets of connectors that the registry still has; none of an older state."""
    if "resets/at_s" not in state:
        return Resets.none()
    ids, at_s = _unpacked(state["resets/connector_id"]), _unpacked(state["resets/at_s"])
    found = Resets(registry.connector_rows(ids), at_s)
    return found.take(np.isin(ids, registry.connector_ids))


def _unpack_odd_bills(state: Mapping[str, bytes]) -> Records:
    """Return the odd bills; none of a state of before, which no run goes on from."""
    packed = state.get("money/odd_bills")
    return np.empty(0, ODD_BILL) if packed is None else _unpacked(packed)


def unpack_state(state: Mapping[str, bytes], registry: Registry) -> RunState:
    """Return a state on the rows of today's fleet; what is gone from the registry is dropped."""
    findings = []
    for item in orjson.loads(zlib.decompress(state["findings"])):
        row = _row(item["kind"], item["row"], registry)
        if row is not None:
            findings.append(Finding(**{**item, "row": row}))
    usual = np.full(registry.connector_ids.size, np.nan)
    ids = _unpacked(state["cadence/connector_id"])
    if usual.size:
        rows = np.minimum(registry.connector_rows(ids), usual.size - 1)
        same = registry.connector_ids[rows] == ids
        usual[rows[same]] = _unpacked(state["cadence/usual_gap_s"])[same]
    return RunState(
        engine=_unpack_engine(state),
        findings=findings,
        verified=_unpack_verified(state),
        usual_gap_s=usual,
        resets=_unpack_resets(state, registry),
        odd_bills=_unpack_odd_bills(state),
    )

"""A signed record was changed after the meter signed it."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.signal import Severity
from chargewatch.domain.signed_words import FORGED
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.signed import Signatures, record_findings

CODE = "signature_invalid"


def find(signatures: Signatures) -> list[Finding]:
    """Return findings of forged records."""
    signed = signatures.signed
    return record_findings(CODE, signed, np.flatnonzero(signed.forged), lambda k: signed.reason[k])


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Invalid signature",
    raised=(
        "the signature of a record (OCMF) is wrong under the registered key: somebody changed the "
        "record"
    ),
    left_alone=(
        "everything that can't be verified (no registered key, a curve that can't be computed "
        'here, such as secp192k1): it is "not verified", never "genuine"'
    ),
    sentences=(FORGED,),
    checks=(Check(Signatures, find),),
)

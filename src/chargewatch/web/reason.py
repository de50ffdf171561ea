"""A run's reasons about a connector in the visitor's language."""

from __future__ import annotations

from chargewatch.domain.reason import Reason, decode
from chargewatch.web.language import Translator


def _worded(part: Reason, t: Translator) -> str:
    counts = [t(f"reason.count.{name}", n=n) for name, n in part.counts()]
    return t(f"reason.{part.code}", counts=t("list.separator").join(counts), **part.shown())


def worded_reason(kept: str, t: Translator) -> str:
    """Return what the table of assessments keeps as one sentence."""
    parts = [_worded(part, t) for part in decode(kept)]
    if not parts:
        return ""
    text = t("reason.separator").join(parts) + t("reason.end")
    return text[:1].upper() + text[1:]

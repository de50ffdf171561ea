"""docs/telemetry.md names every topic, rejection code, receipt field and kind of event."""

from __future__ import annotations

import json
import re
from typing import get_args

from chargewatch.wire import payloads
from chargewatch.wire.kinds import Kind
from chargewatch.wire.receipts import MAX_ERRORS, receipt
from chargewatch.wire.rejection import CODES, Rejection
from chargewatch.wire.topics import RECEIPT, topic
from documents import code, first_codes, rows, section

HOLDS = "What a message holds"


def test_every_topic_is_documented_once() -> None:
    documented = first_codes(section("telemetry.md", "Connection"))
    every = [topic("{operator_id}", "{station_id}", kind) for kind in (*Kind, RECEIPT)]
    assert sorted(documented) == sorted(every)


def test_every_rejection_code_is_documented_once() -> None:
    documented = first_codes(section("telemetry.md", "Resend: what to do with each code"))
    assert sorted(documented) == sorted(CODES)
    assert get_args(payloads.Code) == CODES


def test_the_receipt_shown_has_the_fields_of_a_receipt() -> None:
    text = section("telemetry.md", "Receipts")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    [shown] = json.loads(block[1])["receipts"]
    made = receipt(
        "registers",
        seq=1042,
        stored=48,
        duplicate=2,
        rejections=[Rejection(17, "naive_time", "x")],
        rejected=1,
    )
    assert list(shown) == list(made)
    assert list(shown["errors"][0]) == list(made["errors"][0])
    assert f"At most {MAX_ERRORS} errors" in text


def keys_of(model: type[payloads.BaseModel], *, required: bool = False) -> set[str]:
    """Return the keys of a model and of the models inside it, the envelope's left out."""
    parts: list[type[payloads.BaseModel]] = [model]
    if model is payloads.ChargingSession:
        parts += [payloads.PricePeriod, payloads.SignedRecord]
    return {
        field.alias or name
        for part in parts
        for name, field in part.model_fields.items()
        if field.is_required() or not required
    } - {"seq", "sent_at"}


def test_every_key_of_every_message_is_documented_and_the_required_ones_are_bold() -> None:
    table = {code(row[0])[0]: row for row in rows(section("telemetry.md", HOLDS))}
    assert list(table) == list(payloads.MESSAGES) == list(Kind)
    for kind, (message, item) in payloads.MESSAGES.items():
        _, a_list, keys = table[kind]
        assert set(code(a_list)) == (keys_of(message) if message is not item else set())
        assert set(code(keys)) == keys_of(item), kind
        bold = set(re.findall(r"\*\*`(\w+)`\*\*", keys))
        assert bold == keys_of(item, required=True), kind


def test_every_context_and_kind_of_event_is_documented() -> None:
    words = set(code(section("telemetry.md", HOLDS)))
    assert set(payloads.CONTEXTS) | set(payloads.EVENT_KINDS) <= words

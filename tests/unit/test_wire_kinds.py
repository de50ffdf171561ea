"""A kind of content is declared once, and everybody who handles messages knows it from there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import orjson
import pytest

from chargewatch.gateway.lines import read_line
from chargewatch.ingest.batch import ROWS
from chargewatch.ingest.identities import INSTRUMENT_TABLES
from chargewatch.ingest.isolation import sound_messages
from chargewatch.wire import payloads
from chargewatch.wire.kinds import Kind, items_of, kind_named, kind_of_item
from chargewatch.wire.topics import filters, has_receipt, is_retained, parse_topic, topic

AT = "2026-03-01T08:15:02+08:00"
ACL = Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl"


def test_every_kind_is_written_in_the_order_of_its_declaration() -> None:
    assert list(ROWS) == list(Kind)


def test_a_sound_message_of_every_kind_is_read_without_a_rejection() -> None:
    *sound, refused = sound_messages(now_us=1_780_000_000_000_000)
    assert refused.refused is not None
    assert [message.topic.kind for message in sound if message.topic] == list(Kind)
    for message in sound:
        assert message.decoded is not None, message.refused
        assert message.items == 1
        assert not message.item_rejections
        assert message.decoded.unknown_keys == 0


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_answers_for_its_items(kind: Kind) -> None:
    facts = kind.facts
    item = facts.example("X", AT)
    assert kind_of_item(item) is kind
    assert {key for key in INSTRUMENT_TABLES if key in item} <= set(facts.instruments)
    assert set(facts.instruments) <= INSTRUMENT_TABLES.keys()
    message, model = payloads.MESSAGES[kind]
    model.model_validate_json(orjson.dumps(item))
    assert set(message.model_fields) == kind.keys
    line = read_line(orjson.dumps(item))
    assert [each.kind for each in line.items] == ([kind] if facts.list_key else [])
    assert (line.status is None) is (facts.list_key is not None)
    if facts.list_key is not None:
        assert items_of({"seq": 1, facts.list_key: [item]}) == [item]


@pytest.mark.parametrize("kind", Kind)
def test_a_topic_tells_its_kind(kind: Kind) -> None:
    text = topic("OP1", "ST1", kind)
    assert text == f"cw/v1/OP1/ST1/{kind.value}"
    parsed = parse_topic(text)
    assert parsed is not None
    assert parsed.kind is kind
    assert is_retained(text) is kind.facts.retained
    assert has_receipt(text) is kind.facts.has_receipt
    assert topic("+", "+", kind) in filters()


def test_what_no_kind_is_named_after_is_none() -> None:
    for name in ("REGISTERS", "receipt", "", None, 5, ["status"]):
        assert kind_named(name) is None
    assert not is_retained("any/topic")
    assert has_receipt("any/topic")
    assert items_of({"": [1], "online": True}) is None


def test_receipts_name_the_kinds_that_get_them() -> None:
    answered = [kind for kind in Kind if kind.facts.has_receipt]
    assert list(get_args(payloads.Receipt.model_fields["topic"].annotation)) == answered


def test_the_access_list_lets_operators_write_every_kind_and_no_more() -> None:
    allowed = re.findall(r"^pattern write cw/v1/%u/\+/(\S+)$", ACL.read_text(), re.MULTILINE)
    assert sorted(allowed) == sorted(Kind)


def test_a_gateway_needs_neither_numpy_nor_pydantic() -> None:
    asked = (
        "import sys, chargewatch.gateway.service\n"
        "print(*({'numpy', 'pydantic', 'asyncpg'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")

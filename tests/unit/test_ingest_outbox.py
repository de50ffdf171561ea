"""Receipts and acknowledgements: their order, their window, and brokers that take no receipt."""

from __future__ import annotations

import pytest

from chargewatch.ingest.outbox import PATIENCE_S, REST_S, SILENCE_S, Outbox
from chargewatch.ingest.packets import puback_packets, publish_packet


class Broker:
    """What a broker sees of an outbox, and a clock."""

    def __init__(self, *, window: int = 2) -> None:
        self.now = 0.0
        self.window = window
        self.written: list[bytes] = []
        self.fates = {"sent": 0, "refused": 0, "dropped": 0}
        self.outbox = Outbox(count=self.count, clock=lambda: self.now)
        self.connect()

    def count(self, fate: str, number: int) -> None:
        self.fates[fate] += number

    def connect(self) -> None:
        self.written.clear()
        self.outbox.open(self.written.append, window=self.window)

    def cut(self) -> None:
        self.outbox.close()
        self.connect()

    def saw(self, packet: bytes) -> bool:
        return packet in b"".join(self.written)

    def saw_receipt(self, text: bytes) -> bool:
        return text in b"".join(self.written)


ACK = puback_packets([5])


def test_the_window_and_the_order_are_kept():
    broker = Broker()
    broker.outbox.put([("t", b"<1>"), ("t", b"<2>"), ("t", b"<3>")], ACK)
    broker.outbox.put([], puback_packets([6]))
    assert len(broker.written) == 1
    assert not broker.saw(ACK)
    broker.outbox.acknowledged(1000)
    assert broker.written[1] == publish_packet("t", b"<3>", 1002) + puback_packets([5, 6])
    broker.outbox.acknowledged(1001)
    broker.outbox.acknowledged(1002)
    broker.outbox.acknowledged(1002)
    assert broker.outbox.pending == 0
    assert broker.fates == {"sent": 3, "refused": 0, "dropped": 0}


def test_acknowledgements_go_without_a_receipt_that_can_not():
    broker = Broker(window=1)
    broker.outbox.put([("t", b"<1>"), ("t", b"<2>")], ACK)
    broker.now = PATIENCE_S / 2
    broker.outbox.tick()
    assert not broker.saw(ACK)
    broker.now = PATIENCE_S
    broker.outbox.tick()
    assert broker.saw(ACK)
    # From then on nothing waits, and the end of the service does not either.
    broker.outbox.put([("t", b"<3>")], puback_packets([7]))
    assert broker.saw(puback_packets([7]))
    assert broker.outbox.pending == 0


def test_a_receipt_that_was_out_is_sent_again_alone_and_after_the_acknowledgements():
    broker = Broker()
    broker.outbox.put([("a", b"<1>"), ("b", b"<2>"), ("c", b"<3>")], ACK)
    broker.cut()
    assert not broker.saw(ACK)  # the broker sends those messages again
    assert broker.written == [publish_packet("a", b"<1>", 1002)]
    broker.outbox.put([("d", b"<4>")], ACK)
    assert broker.saw(ACK)
    for mid, last in ((1002, b"<2>"), (1003, b"<3>")):
        assert not broker.saw_receipt(last)
        broker.outbox.acknowledged(mid)
        assert broker.saw_receipt(last)


def test_one_that_cuts_the_connection_is_given_up_with_its_topic():
    broker = Broker()
    broker.outbox.put([("bad", b"<1>"), ("good", b"<2>")], b"")
    cuts = 0
    broker.cut()
    while not broker.saw_receipt(b"<2>"):
        broker.cut()
        cuts += 1
        assert cuts < 10
    assert cuts == 3
    broker.outbox.acknowledged(1000 + 2 + cuts)
    broker.outbox.put([("bad", b"again"), ("good", b"<3>")], b"")
    assert not broker.saw_receipt(b"again")
    assert broker.saw_receipt(b"<3>")
    broker.now = REST_S
    broker.outbox.put([("bad", b"later")], b"")
    assert broker.saw_receipt(b"later")


def test_a_broker_that_cuts_at_every_receipt_gets_none_for_a_while():
    broker = Broker()
    cuts = 0
    for number in range(100):
        broker.outbox.put([(f"t{number}", b"receipt")], ACK)
        if broker.saw_receipt(b"receipt"):
            broker.cut()
            cuts += 1
    assert cuts < 15
    broker.written.clear()
    broker.outbox.put([("t", b"receipt")], ACK)
    assert broker.written == [ACK]
    broker.now = REST_S
    broker.outbox.put([("t", b"receipt")], ACK)
    assert broker.saw_receipt(b"receipt")


def test_a_suspect_that_is_never_answered_holds_up_nobody():
    broker = Broker()
    broker.outbox.put([("t", b"<1>")], b"")
    broker.cut()
    broker.outbox.put([("t", b"<2>")], b"")
    assert not broker.saw_receipt(b"<2>")
    broker.now = SILENCE_S + 1
    broker.outbox.tick()
    assert broker.saw_receipt(b"<2>")


def test_refused_and_too_long_ones_are_counted():
    broker = Broker(window=10)
    broker.outbox.open(broker.written.append, window=10, max_packet=40)
    broker.outbox.put([("t", b"x"), ("t", b"x" * 50)], ACK)
    broker.outbox.acknowledged(1000, 0x87)
    assert broker.fates == {"sent": 0, "refused": 1, "dropped": 1}
    assert broker.saw(ACK)


def test_what_waits_for_a_silent_broker_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("chargewatch.ingest.outbox.MAX_WAITING_BYTES", 10_000)
    broker = Broker(window=1)
    for _ in range(100):
        broker.outbox.put([("t", b"x" * 700)], b"")
    assert broker.fates["dropped"] == 89

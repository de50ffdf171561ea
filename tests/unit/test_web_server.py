"""The socket that the pages are served on."""

from __future__ import annotations

import socket

from chargewatch.web.server import listen


def test_answers_are_not_held_back_by_nagles_algorithm() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP

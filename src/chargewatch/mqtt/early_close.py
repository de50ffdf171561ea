"""A connection that is closed before the log-in has failed; aiomqtt would wait its time-out out."""

from __future__ import annotations

from typing import Any

import aiomqtt


def notice_early_close(client: aiomqtt.Client) -> None:
    """Let a client's log-in fail as soon as the connection is closed.

    A load balancer takes a connection and closes it when its broker is away: aiomqtt 2.5 goes on
    waiting for the CONNACK then.
    """
    told = client._client.on_disconnect

    def on_disconnect(*arguments: Any) -> None:
        if not client._connected.done():
            client._connected.set_exception(aiomqtt.MqttError("closed before the log-in"))
        if told is not None:
            told(*arguments)

    client._client.on_disconnect = on_disconnect

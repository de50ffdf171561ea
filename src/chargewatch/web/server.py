"""The HTTP server around the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from chargewatch.errors import ChargewatchError

SHUTDOWN_TIMEOUT_S = 5
# A client has so long to take what waits for it (64 KiB at most); then its connection is cut.
WRITE_TIMEOUT_S = 30.0


log = logging.getLogger(__name__)


class PortTakenError(ChargewatchError):
    """The address to listen on is in use or not allowed."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises: PortTakenError with the next step.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio turns Nagle's algorithm off: without it every answer of
    # two packets waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as exc:
        listener.close()
        raise PortTakenError(
            f"can't listen on {host} port {port}: {exc.strerror or exc}; "
            "choose another with --port or CHARGEWATCH_HTTP_PORT (0 takes a free one)"
        ) from exc
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of the pages for a browser."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class TimelyProtocol(H11Protocol):
    """HTTP to a client that takes its answers: one that stops to read is cut off."""

    _write_deadline: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Wait for the client, but not for ever."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_TIMEOUT_S, self._cut)

    def resume_writing(self) -> None:
        """Go on."""
        self._forget_deadline()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way for the client."""
        self._forget_deadline()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one whose client left its last answer lying is cut."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _cut(self) -> None:
        log.info("client_cut address=%s: it does not read", self.client)
        self.transport.abort()

    def _forget_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None


class Server(uvicorn.Server):
    """A server that leaves signals alone: who runs it decides what they mean."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


def make_server(app: FastAPI, *, trusted_proxies: str = "") -> Server:
    """Return a server; set its `should_exit` to stop it from another task.

    trusted_proxies: whose X-Forwarded-For is believed, addresses or networks with commas between.
    """
    config = uvicorn.Config(
        app,
        http=TimelyProtocol,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        timeout_keep_alive=30,
    )
    return Server(config)


async def serve(app: FastAPI, listener: socket.socket, *, trusted_proxies: str = "") -> None:
    """Serve until SIGTERM or SIGINT; open streams get a few seconds to end."""
    server = make_server(app, trusted_proxies=trusted_proxies)

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

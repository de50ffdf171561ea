"""The HTTP server around the application."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from chargewatch.errors import ChargewatchError

SHUTDOWN_TIMEOUT_S = 5


class PortTakenError(ChargewatchError):
    """The address to listen on is in use or not allowed."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises: PortTakenError with the next step.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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


def make_server(app: FastAPI) -> uvicorn.Server:
    """Return a server; set its `should_exit` to stop it from another task."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        timeout_keep_alive=30,
    )
    return uvicorn.Server(config)


async def serve(app: FastAPI, listener: socket.socket) -> None:
    """Serve until a signal or a cancellation; open streams get a few seconds to end."""
    server = make_server(app)
    await server.serve(sockets=[listener])

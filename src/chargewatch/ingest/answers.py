"""What ingest answers over HTTP, from a thread: metrics for Prometheus, health for a watchdog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app

from chargewatch.errors import SettingError
from chargewatch.ingest.health import IngestHealth

CLIENT_S = 5.0
"""How long a client may take over its request."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, *_: Any) -> None:
        """Say nothing: every scrape would be a line."""


def answer_questions(
    host: str, port: int, *, registry: CollectorRegistry, health: IngestHealth
) -> None:
    """Answer `GET /healthz` and, at any other path, with the metrics.

    Raises: SettingError when the port can't be listened on.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/healthz":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        verdict = health.verdict()
        status = "200 OK" if verdict.ok else "503 Service Unavailable"
        start_response(
            status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        )
        return [orjson.dumps(verdict.document())]

    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as exc:
        raise SettingError(
            f"CHARGEWATCH_METRICS_PORT: can't listen on {host}:{port}: {exc.strerror or exc}; "
            "give every ingest on this machine a port of its own"
        ) from exc
    threading.Thread(target=server.serve_forever, name="answers", daemon=True).start()

"""Static files: what stands in the wheel, with the hashes that pages pin."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path


def static_folder() -> Path:
    """Return the folder of the static files."""
    return Path(str(files("chargewatch.web").joinpath("static")))


@cache
def _digest(name: str) -> bytes:
    return hashlib.sha384(static_folder().joinpath(name).read_bytes()).digest()


def static_url(name: str) -> str:
    """Return the address of a static file; it changes with the content."""
    return f"/static/{name}?v={_digest(name).hex()[:12]}"


def integrity(name: str) -> str:
    """Return the hash that a browser checks before it runs a script."""
    return "sha384-" + base64.b64encode(_digest(name)).decode()

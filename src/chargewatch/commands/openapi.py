"""`chargewatch openapi`: the API's document."""

from __future__ import annotations

import click

from chargewatch.console import print_json
from chargewatch.web.app import api_document


@click.command("openapi")
def command() -> None:
    """Print the API's OpenAPI document; needs no database."""
    print_json(api_document())

"""Where the broker is, and how to check that it is that one."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from chargewatch.errors import SettingError
from chargewatch.settings import Settings


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where the broker is, and how to log in."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: bool
    ca_file: str = ""

    def __str__(self) -> str:
        """Return the address without name and password."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    @property
    def label(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return how to check the broker's certificate, None without TLS.

        Raises: SettingError when the file of the authority can't be read.
        """
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as exc:
            raise SettingError(
                f"CHARGEWATCH_MQTT_CA_FILE {self.ca_file}: can't be read: {exc}"
            ) from exc


def parse_broker_url(url: str, *, ca_file: str = "") -> BrokerAddress:
    """Return the address in a URL.

    Raises: SettingError when it isn't one of mqtt:// or mqtts://.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise SettingError(f"CHARGEWATCH_MQTT_URL can't be read: {exc}") from exc
    if parts.scheme not in {"mqtt", "mqtts"} or not host:
        raise SettingError(
            "CHARGEWATCH_MQTT_URL is not a broker's address: use mqtt://user:password@host:1883 "
            "or mqtts://user:password@host:8883"
        )
    tls = parts.scheme == "mqtts"
    return BrokerAddress(
        host=host,
        port=port or (8883 if tls else 1883),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        ca_file=ca_file,
    )


def broker_address(settings: Settings) -> BrokerAddress:
    """Return the broker's address of the settings.

    Raises: SettingError when the URL is missing or isn't a broker's.
    """
    return parse_broker_url(settings.require_mqtt_url(), ca_file=settings.mqtt_ca_file)

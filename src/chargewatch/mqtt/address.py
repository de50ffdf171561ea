"""Where the broker is, for whoever publishes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from chargewatch.errors import SettingError
from chargewatch.settings import Settings


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where the broker is, from CHARGEWATCH_MQTT_URL."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: bool
    ca_file: str

    def __str__(self) -> str:
        """Return the address without the password."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def broker_address(settings: Settings) -> BrokerAddress:
    """Return the broker's address of the settings.

    Raises: SettingError when the URL is missing or isn't mqtt:// or mqtts://.
    """
    parts = urlsplit(settings.require_mqtt_url())
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
        raise SettingError(
            "CHARGEWATCH_MQTT_URL: use mqtt://host:1883 or mqtts://host:8883, "
            f"not {parts.scheme or 'a text without a scheme'}"
        )
    tls = parts.scheme == "mqtts"
    return BrokerAddress(
        host=parts.hostname,
        port=parts.port or (8883 if tls else 1883),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        ca_file=settings.mqtt_ca_file,
    )

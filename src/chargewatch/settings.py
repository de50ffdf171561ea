"""One table of settings, read once from the environment and passed in."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from chargewatch.errors import SettingError

PREFIX = "CHARGEWATCH_"


def _text(value: str) -> str:
    return value


def _bool(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use true or false")


def _int(value: str) -> int:
    return int(value)


def _positive_int(value: str) -> int:
    number = int(value)
    if number <= 0:
        raise ValueError("must be greater than 0")
    return number


def _natural_int(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("must not be below 0")
    return number


def _float(value: str) -> float:
    return float(value)


def _positive_float(value: str) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError("must be a number greater than 0")
    return number


def _port(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 65_535:
        raise ValueError("use 0 to 65535")
    return number


def _zone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError("no such time zone; write one such as Asia/Shanghai") from exc


def _networks(value: str) -> str:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        try:
            ipaddress.ip_network(part)
        except ValueError as exc:
            raise ValueError(f"{exc}; write addresses such as 127.0.0.1,10.0.0.0/8") from exc
    return ",".join(parts)


def _site_address(value: str) -> str:
    parts = urlsplit(value.strip().rstrip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write https://host, as the public reaches these pages")
    # A port that is none is refused when it is looked at.
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or parts.port == 0:
        raise ValueError("write scheme and host only, https://host or https://host:port")
    return f"{parts.scheme}://{parts.netloc}"


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(f"use {', '.join(words[:-1])} or {words[-1]}")
        return word

    return read


def _broker_program(value: str) -> str:
    if value not in {"auto", "mosquitto", "rumqttd"}:
        raise ValueError("use auto, mosquitto or rumqttd")
    return value


def _option(
    default: Any, meaning: str, read: Callable[[str], Any] = _text, *, secret: bool = False
) -> Any:
    return field(default=default, metadata={"meaning": meaning, "read": read, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings; the name of each in the environment is CHARGEWATCH_ and its upper-case name."""

    database_url: str = _option(
        "", "PostgreSQL or TimescaleDB, postgresql://user:password@host:port/name", secret=True
    )
    ingest_database_url: str = _option(
        "",
        "the database with the rights of ingest, for the HTTP door of `chargewatch serve` "
        "(default: CHARGEWATCH_DATABASE_URL)",
        secret=True,
    )
    mqtt_url: str = _option(
        "", "MQTT broker, mqtt://user:password@host:port or mqtts://...", secret=True
    )
    mqtt_ca_file: str = _option("", "certificate authority for mqtts:// (default: the system's)")
    mqtt_client_id: str = _option("chargewatch-ingest", "client id of the ingest service")
    mqtt_session_expiry_s: int = _option(
        604_800, "how long the broker keeps the ingest session while ingest is away", _positive_int
    )
    http_host: str = _option("127.0.0.1", "address that API and pages listen on")
    http_port: int = _option(8080, "port that API and pages listen on", _port)
    trusted_proxies: str = _option(
        "",
        "reverse proxies whose X-Forwarded-For is believed: addresses or networks, separated by "
        "commas (default: nobody's)",
        _networks,
    )
    public_url: str = _option(
        "",
        "address of these pages for the public, https://host: what the QR codes of piles hold "
        "(default: none, and no codes)",
        _site_address,
    )
    open_data_licence: str = _option(
        "CC-BY-4.0", "under which the open data of /api/v1/public may be used: a name or an address"
    )
    audit_key: str = _option(
        "",
        "keys that sign the audit trail, as `chargewatch audit key` makes them; best in a file, "
        "named by CHARGEWATCH_AUDIT_KEY_FILE",
        secret=True,
    )
    second_factor: str = _option(
        "optional",
        "who must log in with a second factor: optional (whoever set one up), supervisors (and "
        "administrators), everybody",
        _one_of("optional", "supervisors", "everybody"),
    )
    smtp_url: str = _option(
        "",
        "mail server for notices, smtp://user:password@host:587 or smtps://... (default: no mail)",
        secret=True,
    )
    mail_from: str = _option("", "sender of mails, such as chargewatch@metrology.example")
    messengers: str = _option(
        "",
        "the office's messengers that are told what concerns it, addresses of apprise separated by "
        "spaces (wecombot://..., dingtalk://...)",
        secret=True,
    )
    oidc_issuer: str = _option(
        "", "OpenID Connect provider by which users may log in, https://... (default: none)"
    )
    oidc_client_id: str = _option("", "client id of this platform at that provider")
    oidc_client_secret: str = _option(
        "", "its secret; without one the provider must take public clients", secret=True
    )
    oidc_username_claim: str = _option(
        "preferred_username", "claim of the ID token that holds the name of the user here"
    )
    tsa_url: str = _option(
        "",
        "time-stamp authority (RFC 3161, http:// or https://) that stamps the frozen lists of "
        "draws; empty: none",
    )
    time_zone: str = _option("Asia/Shanghai", "time zone of pages, tariffs and days", _zone)
    currency: str = _option("CNY", "currency of money figures on pages and in exports")
    max_age_days: float = _option(180.0, "oldest reading that is accepted, days", _float)
    max_future_s: float = _option(600.0, "how far ahead of arrival a reading may be", _float)
    receipts: str = _option(
        "all", "which messages get a receipt: all, errors, none", _one_of("all", "errors", "none")
    )
    batch_readings: int = _option(
        20_000, "ingest flushes when this many readings wait", _positive_int
    )
    batch_ms: int = _option(250, "ingest flushes at the latest after this time", _positive_int)
    receive_maximum: int = _option(
        2_000, "messages the broker may have unacknowledged at ingest", _positive_int
    )
    metrics_port: int = _option(
        0, "port of ingest's Prometheus metrics and health; 0 turns them off", _port
    )
    stalled_s: float = _option(
        30.0,
        "ingest is not healthy when messages wait, or the broker is away, and nothing got on for "
        "this long",
        _positive_float,
    )
    raw_retention_days: int = _option(
        0, "days of raw readings to keep; 0: 90 with compression, 14 without", _int
    )
    rollup_retention_days: int = _option(
        1_185, "days of 15-minute rollups to keep (3 years and 3 months)", _positive_int
    )
    ledger_retention_days: int = _option(
        30, "days of single messages in the ledger to keep; older ones as sums a day", _positive_int
    )
    quarantine_rows_a_day: int = _option(
        1_000,
        "rejected messages kept a station and day; more are only counted",
        _positive_int,
    )
    quarantine_retention_days: int = _option(
        180, "days of rejected messages to keep", _positive_int
    )
    contact_retention_days: int = _option(
        90, "days after its end that a complaint keeps whom to tell", _positive_int
    )
    evidence_files: int = _option(
        200, "evidence files of new flags that a risk run takes at most; 0: none", _natural_int
    )
    half_life_days: float = _option(14.0, "half-life of evidence for the present error", _float)
    mpe_rules: str = _option("CN-2022", "rule set that maps accuracy classes to MPE")
    log_format: str = _option("text", "text, or json: one object a line", _one_of("text", "json"))
    log_level: str = _option(
        "info", "debug, info, warning or error", _one_of("debug", "info", "warning", "error")
    )
    broker_program: str = _option(
        "auto",
        "which broker the demo starts: mosquitto, rumqttd, or auto (Mosquitto where installed)",
        _broker_program,
    )
    data_folder: str = _option(
        "", "folder of the demo's engines and logs (default: a temporary one, deleted at the end)"
    )
    secure_cookies: bool = _option(
        False, "mark the log-in cookie Secure; turn on behind HTTPS", _bool
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def zone(self) -> ZoneInfo:
        """Where days begin."""
        return ZoneInfo(self.time_zone)

    def require_database_url(self) -> str:
        """Return the database's URL, or raise SettingError with the next step."""
        if not self.database_url:
            raise SettingError(
                "CHARGEWATCH_DATABASE_URL is not set: point it at PostgreSQL or TimescaleDB "
                "(postgresql://user@host/name), or try `chargewatch demo`, which brings its own"
            )
        return self.database_url

    def require_mqtt_url(self) -> str:
        """Return the broker's URL, or raise SettingError with the next step."""
        if not self.mqtt_url:
            raise SettingError(
                "CHARGEWATCH_MQTT_URL is not set: point it at an MQTT broker "
                "(mqtt://user@host:1883), or try `chargewatch demo`, which brings its own"
            )
        return self.mqtt_url


@dataclass(frozen=True)
class SettingRow:
    """One line of ``chargewatch settings``."""

    name: str
    value: str
    source: str
    meaning: str


def secret_from(variable: str, environ: Mapping[str, str]) -> str:
    """Return a secret from a variable, or from the file that VARIABLE_FILE names; "" without both.

    Raises: SettingError, naming the variable, when both are set or the file holds no secret.
    """
    of_file = f"{variable}_FILE"
    value, path = environ.get(variable, ""), environ.get(of_file, "")
    if not path:
        return value
    if value:
        raise SettingError(f"{variable} and {of_file} are both set: keep one of them")
    try:
        value = Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not text"
        raise SettingError(f"{of_file}: can't read {path}: {reason}") from exc
    if not value:
        raise SettingError(f"{of_file}: {path} is empty: write the password into it")
    return value


def _with_password(url: str, password: str, variable: str) -> str:
    """Return an address with the password of its user."""
    parts = urlsplit(url)
    user, at, address = parts.netloc.rpartition("@")
    of_password = variable.removesuffix("_URL") + "_PASSWORD"
    if ":" in user:
        raise SettingError(f"{variable} holds a password, and {of_password} another: keep one")
    if not at or not user:
        raise SettingError(f"{variable} names no user for {of_password}; write user@host")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{address}"))


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of an environment (default: the process's).

    The password of an address may have a variable of its own, or a file: for ..._DATABASE_URL
    these are ..._DATABASE_PASSWORD and ..._DATABASE_PASSWORD_FILE.

    Raises: SettingError, naming the variable, when a value can't be read.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in fields(Settings):
        if "read" not in option.metadata:
            continue
        variable = PREFIX + option.name.upper()
        if option.metadata["secret"] and not variable.endswith("_URL"):
            values[option.name] = secret_from(variable, environ)
            given = f"environment ({variable} or {variable}_FILE)"
            sources[option.name] = given if values[option.name] else "default"
            continue
        if variable not in environ or environ[variable] == "":
            sources[option.name] = "default"
            continue
        try:
            values[option.name] = option.metadata["read"](environ[variable])
        except ValueError as exc:
            raise SettingError(f"{variable}: can't read {environ[variable]!r}: {exc}") from exc
        sources[option.name] = f"environment ({variable})"
        if option.metadata["secret"]:
            of_password = variable.removesuffix("_URL") + "_PASSWORD"
            if password := secret_from(of_password, environ):
                values[option.name] = _with_password(values[option.name], password, variable)
                sources[option.name] = f"environment ({variable}, {of_password})"
    return Settings(**values, sources=sources)


def _hide_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = f"{parts.username or ''}:***@"
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=user + address))


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Return every setting with its value (passwords hidden), source and meaning."""
    rows = []
    for option in fields(Settings):
        if "read" not in option.metadata:
            continue
        value = str(getattr(settings, option.name))
        if option.metadata["secret"]:
            is_address = option.name.endswith("_url")
            value = _hide_password(value) if is_address else "***" * bool(value)
        source = settings.sources.get(option.name, "default")
        rows.append(
            SettingRow(PREFIX + option.name.upper(), value, source, option.metadata["meaning"])
        )
    return rows

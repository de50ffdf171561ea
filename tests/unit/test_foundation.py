"""Settings, command line, packaging and documentation agree with each other."""

from __future__ import annotations

import importlib
import json
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from chargewatch import __version__, cli
from chargewatch.errors import ChargewatchError, SettingError
from chargewatch.settings import PREFIX, Settings, load_settings, setting_rows
from running import RunCommand

CHECKOUT = Path(__file__).resolve().parents[2]
SETTING_NAMES = [option.name for option in fields(Settings) if "read" in option.metadata]


def documentation() -> str:
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
    return "\n".join(page.read_text("utf-8") for page in pages)


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{PREFIX}{name.upper()}`" in documentation()


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_documented_and_can_be_loaded(name: str) -> None:
    assert f"chargewatch {name}" in documentation()
    module = importlib.import_module(f"chargewatch.commands.{cli.COMMANDS[name]}")
    assert isinstance(module.command, click.Command)
    assert module.command.help


def variables_of(command: click.Command, prefix: str) -> set[str]:
    """Return the environment variables of the options of a command and of those below it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        found = set()
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= variables_of(below, f"{prefix}{name.upper().replace('-', '_')}_")
        return found
    return {
        f"{prefix}{parameter.name.upper()}"
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name
    }


def test_documented_variables_exist() -> None:
    named = set(re.findall(r"`(CHARGEWATCH_[A-Z0-9_]+)`", documentation()))
    known = {PREFIX + name.upper() for name in SETTING_NAMES} | variables_of(cli.root, PREFIX)
    # A secret may lie in a file.
    secrets = {option.name for option in fields(Settings) if option.metadata.get("secret")}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in secrets}
    of_scripts = {
        name
        for name in named
        if name.startswith(("CHARGEWATCH_SERVICES_", "CHARGEWATCH_TEST_"))
        or re.fullmatch(r"CHARGEWATCH_[A-Z_]+_PASSWORD(_FILE)?", name)
    }
    of_compose = set(
        re.findall(r"\$\{(CHARGEWATCH_[A-Z_]+)", (CHECKOUT / "compose.yaml").read_text())
    )
    assert named - known - of_scripts - of_compose == set()


def test_settings_come_from_the_environment_with_their_source() -> None:
    settings = load_settings({"CHARGEWATCH_HTTP_PORT": "9000", "CHARGEWATCH_SECURE_COOKIES": "yes"})
    assert settings.http_port == 9000
    assert settings.secure_cookies is True
    rows = {row.name: row for row in setting_rows(settings)}
    assert rows["CHARGEWATCH_HTTP_PORT"].source == "environment (CHARGEWATCH_HTTP_PORT)"
    assert rows["CHARGEWATCH_HTTP_HOST"].source == "default"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHARGEWATCH_HTTP_PORT", "eighty"),
        ("CHARGEWATCH_BATCH_READINGS", "0"),
        ("CHARGEWATCH_RECEIPTS", "some"),
        ("CHARGEWATCH_SECURE_COOKIES", "maybe"),
        ("CHARGEWATCH_MAX_AGE_DAYS", "long"),
    ],
)
def test_unreadable_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{variable}.*{value}"):
        load_settings({variable: value})


def test_empty_variable_counts_as_not_set() -> None:
    assert load_settings({"CHARGEWATCH_HTTP_PORT": ""}).http_port == Settings().http_port


def test_password_of_a_url_is_hidden() -> None:
    settings = load_settings({"CHARGEWATCH_DATABASE_URL": "postgresql://me:secret@host:5432/db"})
    row = next(row for row in setting_rows(settings) if row.name == "CHARGEWATCH_DATABASE_URL")
    assert row.value == "postgresql://me:***@host:5432/db"


def test_missing_address_names_the_next_step() -> None:
    for ask in (Settings().require_database_url, Settings().require_mqtt_url):
        with pytest.raises(SettingError, match="chargewatch demo"):
            ask()


def test_settings_command_prints_every_setting_as_json(run_command: RunCommand) -> None:
    done = run_command("settings", "--json", env={"CHARGEWATCH_MQTT_URL": "mqtt://u:topsecret@h"})
    assert done.returncode == 0, done.stderr
    assert "topsecret" not in done.stdout
    names = re.findall(r"CHARGEWATCH_[A-Z_]+", done.stdout)
    json.loads(done.stdout)
    assert {PREFIX + name.upper() for name in SETTING_NAMES} <= set(names)


def test_wrong_usage_exits_with_2(run_command: RunCommand) -> None:
    for arguments in (["nonsense"], ["migrate", "--nonsense"]):
        done = run_command(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""


def test_failure_exits_with_1_and_one_clear_line(run_command: RunCommand) -> None:
    done = run_command("migrate")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "CHARGEWATCH_DATABASE_URL is not set" in done.stderr
    assert "Traceback" in run_command("--debug", "migrate").stderr


def test_version_is_the_same_everywhere(run_command: RunCommand) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__
    assert __version__ in run_command("--version").stdout


def test_every_error_derives_from_the_root() -> None:
    module = importlib.import_module("chargewatch.errors")
    errors = [item for item in vars(module).values() if isinstance(item, type)]
    assert errors
    assert all(issubclass(error, ChargewatchError) for error in errors)


def test_constraints_are_exact_versions_without_addresses() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!-]*", line) for line in pins)


def test_constraints_cover_every_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["demo"], *extras["docs"], *extras["test"]]
    names = {re.split(r"[\[<>=]", item)[0].lower() for item in wanted} - {"chargewatch"}
    pinned = {
        line.split("==")[0].lower()
        for line in (CHECKOUT / "constraints.txt").read_text().splitlines()
    }
    assert {name.replace("_", "-") for name in names} <= {pin.replace("_", "-") for pin in pinned}


def test_password_of_an_address_comes_from_its_own_variable_or_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/wörd:#\n")
    environ = {
        "CHARGEWATCH_DATABASE_URL": "postgresql://reader@host:5432/name",
        "CHARGEWATCH_DATABASE_PASSWORD_FILE": str(file),
        "CHARGEWATCH_MQTT_URL": "mqtt://platform@host:1883",
        "CHARGEWATCH_MQTT_PASSWORD": "plain",
    }
    settings = load_settings(environ)
    parts = urlsplit(settings.database_url)
    assert (parts.username, parts.hostname, parts.path) == ("reader", "host", "/name")
    assert unquote(parts.password or "") == "p@ss/wörd:#"
    assert settings.mqtt_url == "mqtt://platform:plain@host:1883"
    row = {row.name: row for row in setting_rows(settings)}["CHARGEWATCH_DATABASE_URL"]
    assert row.value == "postgresql://reader:***@host:5432/name"
    assert "CHARGEWATCH_DATABASE_PASSWORD" in row.source


@pytest.mark.parametrize(
    ("url", "password", "file", "words"),
    [
        ("postgresql://u:x@host/n", "y", "", "CHARGEWATCH_DATABASE_URL holds a password"),
        ("postgresql://host/n", "y", "", "CHARGEWATCH_DATABASE_URL names no user"),
        ("postgresql://u@host/n", "y", "/secret", "PASSWORD_FILE are both set"),
        ("postgresql://u@host/n", "", "/no/such", "PASSWORD_FILE: can't read /no/such: No such"),
        ("postgresql://u@host/n", "", os.devnull, f"PASSWORD_FILE: {os.devnull} is empty"),
    ],
)
def test_password_that_is_missing_or_doubled_is_named(
    url: str, password: str, file: str, words: str
) -> None:
    environ = {
        "CHARGEWATCH_DATABASE_URL": url,
        "CHARGEWATCH_DATABASE_PASSWORD": password,
        "CHARGEWATCH_DATABASE_PASSWORD_FILE": file,
    }
    with pytest.raises(SettingError, match=words):
        load_settings(environ)

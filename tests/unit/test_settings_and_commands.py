"""Every setting and option is obeyed, and the documents name what there is and nothing else."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from chargewatch.cli import COMMANDS, root
from chargewatch.errors import SettingError
from chargewatch.settings import PREFIX, Settings, load_settings

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "src" / "chargewatch"
SCRIPT = CHECKOUT / "scripts" / "commands_page.py"
# Of scripts/services, of tests, and the passwords of roles, users and compose.yaml.
OTHER_VARIABLES = re.compile(
    r"CHARGEWATCH_((TEST|SERVICES)_\w+|[A-Z_]+_PASSWORD(_FILE)?|SECRETS|ARCHIVE|BROKER_PORT)"
)
VARIABLE = re.compile(r"\bCHARGEWATCH_[A-Z0-9_]+\b")
LIMITS = re.compile(r"\n## Known limits\n.*?(?=\n## |\Z)", re.DOTALL)


def setting_names() -> list[str]:
    return [field.name for field in fields(Settings) if "read" in field.metadata]


def documents() -> Iterator[tuple[str, str]]:
    """Yield name and text of every document for users, without what is said to be missing."""
    for path in (CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *CHECKOUT.glob("docs/*.md")):
        yield path.name, LIMITS.sub("", path.read_text(encoding="utf-8"))


def all_commands(
    command: click.Command, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield (*names, name), found
            yield from all_commands(found, (*names, name))


def test_every_setting_is_read_where_it_should_work() -> None:
    read: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if path == SOURCE / "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = getattr(owner, "id", getattr(owner, "attr", ""))
                if "settings" in name:
                    read.add(node.attr.removeprefix("require_"))
    assert set(setting_names()) <= read


def test_every_option_of_every_command_is_used() -> None:
    checked = 0
    for names, command in [((), root), *all_commands(root)]:
        callback = inspect.unwrap(command.callback) if command.callback else None
        if callback is None:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(callback)))
        if any(isinstance(node, ast.FunctionDef) and node.args.kwarg for node in ast.walk(tree)):
            continue  # Passed on as a whole.
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for parameter in command.params:
            if not parameter.expose_value or parameter.name is None:
                continue
            checked += 1
            # main() looks for --debug itself: it is wanted before anything is parsed.
            if (names, parameter.name) != ((), "debug"):
                assert parameter.name in used, f"{' '.join(names)}: {parameter.name} is not used"
    assert checked > 50


def _options(command: click.Command) -> set[str]:
    found = {"--help"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


COMMAND = re.compile(r"(?<![\w/.-])chargewatch((?: +[^\s`|;&)]+)*)")


def _commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words behind `chargewatch` in code: between backticks and in blocks."""
    for code in re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        for line in "".join(code).splitlines():
            if line.lstrip().startswith("#"):
                continue
            for match in COMMAND.finditer(line.partition(" # ")[0]):
                yield match[1].split()


def test_every_command_and_option_in_the_documents_exists() -> None:
    checked = 0
    for document, text in documents():
        for words in _commands_in(text):
            command: click.Command = root
            for word in words:
                if word.startswith("--"):
                    option = re.split(r"[=\[\]|,.]", word)[0]
                    known = _options(command) | (set() if command is root else _options(root))
                    assert option in known, f"{document}: chargewatch {' '.join(words)}"
                    checked += 1
                elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
                    found = command.get_command(click.Context(command), word)
                    assert found is not None, f"{document}: chargewatch {' '.join(words)}"
                    command = found
                    checked += 1
    assert checked > 100


def test_every_command_is_in_the_documents() -> None:
    operating = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = operating.partition("\n## Commands\n")[2].partition("\n## ")[0]
    for name in COMMANDS:
        assert f"`chargewatch {name}`" in table, f"operating.md, Commands: {name}"
    text = "\n".join(text for _, text in documents())
    for names, _ in all_commands(root):
        if len(names) > 1:
            words = " ".join(names)
            assert (
                f"chargewatch {words}" in text
                or f"`{' '.join(names[1:])}" in text
                or (f"`{names[0]} {names[-1]}" in text)
            ), f"no document names `chargewatch {words}`"


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    # It stands beside the package, not in it.
    spec = importlib.util.spec_from_file_location("commands_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/commands_page.py"


def test_every_command_and_option_says_what_it_does_in_a_sentence() -> None:
    for names, command in [((), root), *all_commands(root)]:
        where = " ".join(("chargewatch", *names))
        short = command.get_short_help_str(62)
        assert re.fullmatch(r"[A-Z].*(?<!\.\.)\.", short), f"{where} is cut off in lists: {short}"
        for option in command.params:
            if isinstance(option, click.Option):
                told = f"{where} {option.opts[0]}: {option.help}"
                assert re.fullmatch(r"[A-Z].*[.\]]", option.help or ""), told


def test_settings_table_and_settings_are_the_same() -> None:
    operating = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = operating.partition("\n## Settings\n")[2].partition("\n## ")[0]
    documented = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in VARIABLE.findall(row.split("|")[1])
    }
    assert documented == {PREFIX + name.upper() for name in setting_names()}


def test_every_variable_in_the_documents_and_files_exists() -> None:
    known = {PREFIX + name.upper() for name in setting_names()}
    known |= {f"{variable}_FILE" for variable in known}
    for names, command in all_commands(root):
        for parameter in command.params:
            variable = "_".join([*names, str(parameter.name)]).upper().replace("-", "_")
            known.add(PREFIX + variable)
    files = [*CHECKOUT.glob("*.yaml"), *CHECKOUT.glob("Dockerfile"), *CHECKOUT.glob("deploy/**/*")]
    texts = [*documents()]
    texts += [(path.name, path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    for document, text in texts:
        # What compose.yaml asks for and puts in somewhere itself.
        put_in = set(re.findall(r"\$\{(CHARGEWATCH_\w+)", text))
        for variable in set(VARIABLE.findall(text)) - put_in:
            if variable not in known and not OTHER_VARIABLES.fullmatch(variable):
                raise AssertionError(f"{document}: nothing reads {variable}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("RECEIPTS", "some"),
        ("TIME_ZONE", "Mars/Olympus"),
        ("TIME_ZONE", "../etc/passwd"),
        ("HTTP_PORT", "70000"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "proxy.example.org"),
    ],
)
def test_bad_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=PREFIX + name):
        load_settings({PREFIX + name: value})


def test_settings_take_what_is_meant() -> None:
    settings = load_settings(
        {
            "CHARGEWATCH_LOG_FORMAT": "JSON",
            "CHARGEWATCH_LOG_LEVEL": "Debug",
            "CHARGEWATCH_TRUSTED_PROXIES": " 127.0.0.1, 10.0.0.0/8 ,",
        }
    )
    assert (settings.log_format, settings.log_level) == ("json", "debug")
    assert settings.trusted_proxies == "127.0.0.1,10.0.0.0/8"

"""What the code declares is obeyed, and stands once: finds the next one that isn't."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "chargewatch"

# The last word of a class that steers something, and what a variable that holds one is called.
STEERING = {"Config": "config", "Limits": "limits", "Set": "rules", "Settings": "settings"}

# One name, two meanings, and no reader takes one for the other.
NAMESAKES = {
    "Block": "of readings checked at once; of a simulated register",
    "Cadence": "of a connector as known; of a simulated gateway",
    "Facts": "of a signed record; of a kind of content",
    "Intake": "the door's need, and what meets it",
    "Kind": "of content on the wire; of instruments",
    "Readings": "as checked; as made",
    "SessionRows": "as stored; as the engine weighs them",
    "Clocks": "as told by stations; as simulated",
    "CONTEXTS": "of the contract; those that are simulated",
    "STUCK_WH": "the check's limit; what makes a simulated one certain",
    "ZONE": "of simulated cities; of the real sessions",
}

TYPE_VARIABLE = "TypeVar("


@cache
def modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def steering_classes() -> Iterator[tuple[str, ast.ClassDef, str]]:
    """Yield module, class and the name of its variables for every dataclass that steers."""
    for module, tree in modules().items():
        for node in tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            last_word = re.findall(r"[A-Z][a-z]*", node.name)[-1:]
            is_dataclass = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
            if is_dataclass and last_word and last_word[0] in STEERING:
                yield module, node, STEERING[last_word[0]]


def fields_of(node: ast.ClassDef) -> list[str]:
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def read_of(variable: str, *, by: ast.ClassDef) -> set[str]:
    """Return the attributes that are read of variables so called, or by the class's methods."""
    inside = set(map(id, ast.walk(by)))
    found = set()
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = getattr(node.value, "id", getattr(node.value, "attr", ""))
                if variable in owner.lower() or (owner == "self" and id(node) in inside):
                    found.add(node.attr)
    return found


def test_no_key_stands_twice_in_one_table() -> None:
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                keys = [ast.unparse(key) for key in node.keys if key is not None]
                twice = sorted({key for key in keys if keys.count(key) > 1})
                assert not twice, f"{module}:{node.lineno}: {', '.join(twice)}: the last one wins"


def test_every_field_that_steers_something_is_read() -> None:
    checked = set()
    for module, node, variable in steering_classes():
        # `require_database_url()` reads the setting for its caller.
        read = {name.removeprefix("require_") for name in read_of(variable, by=node)}
        checked.add(node.name)
        for name in fields_of(node):
            assert name in read, f"{module}: nobody reads {node.name}.{name}: obey it or delete it"
    assert {"EngineConfig", "RuleSet", "Settings", "TimeLimits"} <= checked


def values_of(name: str, value: ast.expr) -> str | None:
    """Return what a constant or an alias stands for; None when it is no such thing."""
    text = ast.unparse(value)
    is_constant = re.fullmatch(r"_?[A-Z][A-Z0-9_]+", name)
    is_alias = re.fullmatch(r"_?[A-Z][a-z]\w*", name) and isinstance(value, ast.Subscript)
    if text.startswith(TYPE_VARIABLE) or not (is_constant or is_alias):
        return None
    try:
        number: Any = eval(text, {"__builtins__": {}})
    except NameError:
        return text
    return repr(float(number)) if isinstance(number, int | float) else repr(number)


def declarations() -> Iterator[tuple[str, str, str]]:
    """Yield module, name and value of every constant and alias of a module."""
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                value = values_of(name, node.value)
                if value is not None:
                    yield module, name, value


def test_no_constant_and_no_alias_stands_twice() -> None:
    places = defaultdict(set)
    for module, name, value in declarations():
        places[name.lstrip("_"), value].add(module)
    assert len(places) > 300
    twice = {name: sorted(found) for (name, _), found in places.items() if len(found) > 1}
    assert not twice, "import it from one of them"


def named_things() -> Iterator[tuple[str, str]]:
    """Yield module and name of every class, and of every constant that is no text.

    Statements are read with the name of their module; the API's models are named as what they
    tell of; what each module of signals has is named alike on purpose.
    """
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not module.startswith("api/models"):
                yield module, node.name
    for module, name, value in declarations():
        is_text = re.match(r"""[frb]*['"]|text\(|Statement""", value) is not None
        if name.isupper() and not is_text and not module.startswith(("signals/rules/", "storage/")):
            yield module, name


def test_no_name_means_two_things() -> None:
    places = defaultdict(set)
    for module, name in named_things():
        if not name.startswith("_"):
            places[name].add(module)
    assert len(places) > 500
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert set(twice) <= set(NAMESAKES), "name one of them for what it is"


@pytest.mark.parametrize("home", ["arrays", "times"])
def test_what_domain_defines_for_all_is_defined_nowhere_else(home: str) -> None:
    shared = {name for module, name, _ in declarations() if module == f"domain/{home}.py"}
    assert shared
    again = [
        f"{module}: {name}"
        for module, name, _ in declarations()
        if name in shared and module != f"domain/{home}.py"
    ]
    assert not again


def test_every_prior_says_what_it_is_and_stands_in_the_table_of_the_docs() -> None:
    path = SOURCE.parents[1] / "scripts" / "priors_table.py"
    spec = importlib.util.spec_from_file_location("priors_table", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert len(script.rows()) > 60
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/priors_table.py"


# How a prior is called; what is so called and stands elsewhere is none.
PRIOR_NAMES = re.compile(r"\w+_(START|COUNTS|PRIOR|SPREAD|U|FLOOR|DEGREES)|(UNKNOWN|GARBAGE)_\w+")
NO_PRIORS = {"NEARLY_SETTLED_U", "NUISANCE_U"}


def test_what_the_engine_believes_before_data_stands_in_one_place() -> None:
    elsewhere = {
        f"{module}: {name}"
        for module, name, _ in declarations()
        if module.startswith("risk/") and module != "risk/priors.py"
        if PRIOR_NAMES.fullmatch(name) and name not in NO_PRIORS
    }
    assert not elsewhere, "move it to risk/priors.py"


# Named by tests alone: the documents are compared with the messages, cities get their faults.
FOR_TESTS = {"wire/payloads.py", "simulators/scenario.py: with_faults"}
# Python itself looks for it.
HOOKS = re.compile(r"__\w+__")


def test_nothing_that_a_module_defines_is_dead() -> None:
    """A function, class or constant that nothing names beyond its definition goes."""
    named: dict[str, int] = defaultdict(int)
    for path in [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.html")]:
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8")):
            named[word] += 1
    dead = []
    for module, tree in modules().items():
        for node in tree.body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                # What a decorator registers is reached by it.
                is_registered = any("dataclass" not in ast.unparse(d) for d in node.decorator_list)
                names = [] if is_registered else [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            dead += [
                f"{module}: {name}"
                for name in names
                if named[name] < 2 and not HOOKS.fullmatch(name) and module not in FOR_TESTS
            ]
    assert set(dead) <= FOR_TESTS

"""The shape of the project, read off the syntax trees of its modules.

Imports point one way, each library of the outside has one home, the engine is pure, and no module
is two ideas. What is said here about a module is said by its file's path under the repository.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
ENGINE = sorted((ROOT / "engine").rglob("*.py"))
TRANSPORTS = sorted((ROOT / "transports").rglob("*.py"))
MODULES = ENGINE + TRANSPORTS
FORMATS = {"chat", "responses", "peer", "codex", "messages"}

HOMES: dict[str, tuple[str, ...]] = {
    "httpx": ("transports/upstream/",),
    "httpcore": (),
    "httptools": ("transports/upstream/exchange.py",),
    "hypercorn": ("transports/http/server.py", "transports/http/protocol.py"),
    "h11": ("transports/http/protocol.py", "transports/upstream/proxied.py"),
    "wsproto": (),
    "quart": ("transports/http/",),
    "quart_trio": ("transports/http/",),
    "prometheus_client": ("transports/http/metrics.py",),
    "trio_websocket": ("transports/peers/",),
    "click": ("transports/cli.py",),
    "rich": ("transports/cli.py",),
    "watchfiles": ("transports/gateway.py",),
}
"""Library -> the files, or the folders, that may name it."""

IMPURE = {
    "asyncio",
    "datetime",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
"""Of the standard library: clocks, chance, processes, files and wires."""


RAISES_LATER = {"engine/pipeline.py", "transports/background.py"}
"""Catches a group of cancellations and raises the one that counts behind its `finally`."""


WALL_CLOCKS = {"time", "time_ns", "ctime", "gmtime", "localtime", "now", "utcnow", "today"}
"""Names of `time` and `datetime` that tell the time of day, which NTP and people may set."""

DATES: dict[str, set[str]] = {
    "transports/http/app.py": {"fresh_identity"},  # `created` of a reply
    "transports/upstream/demo.py": {"__init__"},  # `created` of the demo's replies
}
"""File -> functions that may look at the wall clock: they date a reply, and decide nothing."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def imports_of(path: Path) -> Iterator[str]:
    """Absolute dotted names of everything that a module imports, names of `from` included."""
    package = ["nursling", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)
each_engine_module = pytest.mark.parametrize("path", ENGINE, ids=name_of)


def test_there_is_something_to_look_at() -> None:
    """The tests below do not pass because they found nothing."""
    assert {"engine/events.py", "engine/pipeline.py"} <= {name_of(path) for path in ENGINE}
    assert "transports/config.py" in {name_of(path) for path in TRANSPORTS}
    assert "nursling.engine.errors.Truncated" in set(imports_of(ROOT / "engine/formats/wire.py"))


@each_engine_module
def test_the_engine_imports_nothing_of_the_transports(path: Path) -> None:
    """Imports point one way."""
    assert not [name for name in imports_of(path) if name.startswith("nursling.transports")]


@each_engine_module
def test_the_engine_is_pure(path: Path) -> None:
    """No I/O, no clock, no chance: what is random or timed comes in as an argument."""
    roots = {name.split(".")[0] for name in imports_of(path)} - {"nursling"}
    assert not roots & IMPURE
    foreign = {root for root in roots if root in HOMES or root in {"jsonschema", "structlog"}}
    assert not foreign


@each_engine_module
def test_only_the_pipeline_imports_trio(path: Path) -> None:
    """Everything else in the engine can be called from a REPL, a thread, or another loop."""
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert "trio" not in roots or name_of(path) == "engine/pipeline.py"


@each_engine_module
def test_formats_never_import_each_other(path: Path) -> None:
    """They meet in the normal form: N + M, never N x M."""
    where = "nursling.engine.formats."
    parts = path.relative_to(ROOT).with_suffix("").parts
    own = parts[2] if parts[:2] == ("engine", "formats") and len(parts) > 2 else None
    if own not in FORMATS:
        own = None
    imported = {
        name.removeprefix(where).split(".")[0]
        for name in imports_of(path)
        if name.startswith(where)
    }
    others = imported & FORMATS - {own}
    if name_of(path) in {"engine/__init__.py", "engine/formats/__init__.py"}:
        return  # the registry, and the embedder's API
    assert not others


@pytest.mark.parametrize("name", ["events", "limits"])
def test_the_vocabulary_depends_on_nothing_of_ours(name: str) -> None:
    """Events know only what an error is, limits know nobody."""
    ours = {
        imported
        for imported in imports_of(ROOT / f"engine/{name}.py")
        if imported.startswith("nursling")
    }
    assert ours <= {"nursling.engine.errors.ErrorInfo"}


def test_no_modules_import_each_other() -> None:
    """No circle, imports for type checkers included: every module can be understood by itself."""
    module_of = {_dotted(path): name_of(path) for path in MODULES}
    waits: dict[str, set[str]] = {}
    for path in MODULES:
        found = {owner for name in imports_of(path) if (owner := _owner(name, module_of))}
        waits[name_of(path)] = found - {name_of(path)}
    while free := {name for name, others in waits.items() if not others & waits.keys()}:
        waits = {name: others for name, others in waits.items() if name not in free}
    assert not waits, f"in circles, or behind one: {sorted(waits)}"


def _dotted(path: Path) -> str:
    parts = ["nursling", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _owner(name: str, module_of: dict[str, str]) -> str | None:
    """The module that an imported name comes from: itself one, or what it is taken from."""
    return module_of.get(name) or module_of.get(name.rpartition(".")[0])


@each_module
def test_each_library_of_the_outside_has_one_home(path: Path) -> None:
    """A library can be replaced by changing one file."""
    for root in {name.split(".")[0] for name in imports_of(path)} & HOMES.keys():
        assert name_of(path).startswith(HOMES[root]), f"{root} is named outside its home"


@each_module
def test_no_module_is_two_ideas(path: Path) -> None:
    """500 lines at most, 600 for a format."""
    limit = 600 if name_of(path).startswith("engine/formats/") else 500
    assert len(path.read_text().splitlines()) <= limit


@each_module
def test_every_module_begins_with_its_law(path: Path) -> None:
    """A reader is told what a file is for before its first import."""
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree)


@each_module
def test_nothing_prints_and_nothing_is_swallowed(path: Path) -> None:
    """No `print`, no bare `except`, no handler that could catch `Cancelled`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            names = {leaf.attr for leaf in ast.walk(node.type) if isinstance(leaf, ast.Attribute)}
            names |= {leaf.id for leaf in ast.walk(node.type) if isinstance(leaf, ast.Name)}
            again = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            again = again or name_of(path) in RAISES_LATER
            assert again or not names & {"BaseException", "Cancelled", "BaseExceptionGroup"}, (
                f"line {node.lineno} may swallow a cancellation"
            )


@each_module
def test_no_task_is_started_outside_a_nursery_of_ours(path: Path) -> None:
    """Nothing outlives its request: no system tasks, and no async generators around a scope."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr != "spawn_system_task"
        if isinstance(node, ast.AsyncFunctionDef):
            managed = any(
                "asynccontextmanager" in ast.dump(decorator) for decorator in node.decorator_list
            )
            yields = any(isinstance(inner, ast.Yield) for inner in _own_nodes(node))
            scopes = any(isinstance(inner, ast.AsyncWith | ast.With) for inner in _own_nodes(node))
            assert managed or not (yields and scopes), f"{node.name} yields inside a scope"


def _own_nodes(function: ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.fault(44, "V")
@each_module
def test_no_decision_by_the_wall_clock(path: Path) -> None:
    """A clock that jumps (NTP, an operator) cuts nothing: the time of day is for dates only."""
    origins = set(imports_of(path))
    assert not {name for name in origins if name.startswith("datetime")}
    assert not {name for name in origins if name.removeprefix("time.") in WALL_CLOCKS - {"time"}}
    assert "time.time" not in origins, "call it as time.time, so that it is seen"
    found = {
        (function.name if function is not None else "the module")
        for node, function in _with_functions(tree_of(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and node.attr in WALL_CLOCKS
    }
    assert found <= DATES.get(name_of(path), set())


def test_dates_are_dated() -> None:
    """The list of functions that may look at the wall clock is not longer than it must be."""
    for name, functions in DATES.items():
        seen = {
            function.name
            for node, function in _with_functions(tree_of(ROOT / name))
            if isinstance(node, ast.Attribute) and node.attr == "time" and function is not None
        }
        assert functions <= seen


def _with_functions(
    tree: ast.AST, function: ast.FunctionDef | ast.AsyncFunctionDef | None = None
) -> Iterator[tuple[ast.AST, ast.FunctionDef | ast.AsyncFunctionDef | None]]:
    """Every node, with the innermost function that it stands in."""
    for node in ast.iter_child_nodes(tree):
        inner = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield node, inner
        yield from _with_functions(node, inner)

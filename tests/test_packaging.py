"""What a user installs is what is in the repository."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> set[str]:
    return {
        ".".join(["nursling", *path.parent.relative_to(ROOT).parts])
        for top in ("engine", "transports")
        for path in (ROOT / top).rglob("__init__.py")
    }


def test_every_package_is_listed() -> None:
    """`packages` is written by hand: what it forgets would be missing from the wheel."""
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without `__init__.py` would not be found, and not be shipped."""
    folders = {
        path.parent for top in ("engine", "transports") for path in (ROOT / top).rglob("*.py")
    }
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("top", ["engine", "transports"])
def test_the_types_are_shipped(top: str) -> None:
    """Embedders' type checkers read our annotations (PEP 561)."""
    assert (ROOT / top / "py.typed").exists()


def test_the_top_level_is_what_was_agreed() -> None:
    """Nothing else lies about beside the fixed entries and dot-files."""
    listing = subprocess.run(
        ["git", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    tops = {name.split("/")[0] for name in listing.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "engine",
        "transports",
        "tests",
        "bench",
    }


def test_the_command_is_installed() -> None:
    """`nursling` names a function that exists."""
    module, _, function = PROJECT["project"]["scripts"]["nursling"].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.slow
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    """A wheel built from the sources has every module, the markers and the licence."""
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Could not find a version that satisfies the requirement setuptools" in built.stderr:
        pytest.skip("no package index within reach")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"nursling/{path.relative_to(ROOT).as_posix()}"
        for top in ("engine", "transports")
        for path in (ROOT / top).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert expected <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]

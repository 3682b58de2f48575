"""Environments of their own for clients: a virtual environment or an npm folder each, made once and kept.

They are below ``.cache/sdks``, by a digest of what is to be in them. Where the package index or npm cannot be reached
the tests that need one skip, with the reason; anything else that goes wrong with an installation is a failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
CACHE = HERE.parents[1] / ".cache" / "sdks"
INSTALL_TIMEOUT_S = 900
SCRIPT_TIMEOUT_S = 600
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Temporary failure in name resolution|Network is unreachable"
    r"|Failed to establish a new connection|from versions: none|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH"
)
PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")

Outcomes = dict[str, dict[str, Any]]


class Missing(Exception):
    """Why an environment is not there; ``excused``: for want of a registry or of Node."""

    def __init__(self, why: str, *, excused: bool) -> None:
        super().__init__(why)
        self.excused = excused


def run_python(
    environment: str, script: str, arguments: Sequence[str], names: Sequence[str], **variables: str
) -> Outcomes:
    """What the scenarios of a script found, by their names."""
    python = _there(_python_environment(environment))
    return _run([str(python), "-B", str(SCRIPTS / script), *arguments], names, variables)


def run_node(script: str, arguments: Sequence[str], names: Sequence[str], **variables: str) -> Outcomes:
    """What the scenarios of a script found, by their names."""
    folder = _there(_node_environment())
    return _run(["node", str(folder / script), *arguments], names, variables)


def _there(environment: Path | Missing) -> Path:
    if isinstance(environment, Path):
        return environment
    if environment.excused:
        pytest.skip(str(environment))
    raise environment


@cache
def _python_environment(name: str) -> Path | Missing:
    """The interpreter of an environment with what ``requirements-NAME.txt`` lists."""
    requirements = HERE / f"requirements-{name}.txt"
    folder = CACHE / f"{name}-{_digest(requirements.read_bytes(), sys.version.encode())}"
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    try:
        if not _is_ready(folder):
            _install([sys.executable, "-m", "venv", str(folder)])
            _install([*pip, "--requirement", str(requirements)])
            _set_ready(folder)
    except Missing as missing:
        return missing
    return python


@cache
def _node_environment() -> Path | Missing:
    """A folder with the packages of ``package-lock.json``, and the scripts beside them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return Missing("node and npm are not both in the path", excused=True)
    files = [HERE / "package.json", HERE / "package-lock.json"]
    folder = CACHE / f"node-{_digest(*(file.read_bytes() for file in files))}"
    # Some of the packages ask for a newer Node than may be here; they are tried with the one that is.
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--engine-strict=false", "--loglevel=error"]
    try:
        if not _is_ready(folder):
            folder.mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder)
            _install([npm, "ci", *quiet], folder)
            _set_ready(folder)
    except Missing as missing:
        return missing
    for script in SCRIPTS.glob("*.mjs"):
        # A module looks for packages where it lies.
        shutil.copy(script, folder)
    return folder


def _run(command: Sequence[str], names: Sequence[str], variables: Mapping[str, str]) -> Outcomes:
    own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        ended = subprocess.run(
            [*command, *names],
            capture_output=True,
            text=True,
            env={**own, **variables},
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return {name: {"failed": str(late)} for name in names}
    outcomes = {line.pop("scenario"): line for line in map(json.loads, ended.stdout.splitlines())}
    unsaid = {"failed": f"the script ended with {ended.returncode}:\n{ended.stderr[-4000:]}"}
    return {name: outcomes.get(name, unsaid) for name in names}


def _install(command: Sequence[str], folder: Path | None = None) -> None:
    """Raises Missing."""
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=INSTALL_TIMEOUT_S, check=False)
    if not ended.returncode:
        return
    said = f"{ended.stdout}\n{ended.stderr}"
    if (found := UNREACHABLE.search(said)) is not None:
        raise Missing(f"the packages cannot be had here ({found[0]}): {' '.join(command)}", excused=True)
    raise Missing(f"{' '.join(command)}\n{said[-4000:]}", excused=False)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _is_ready(folder: Path) -> bool:
    """Whether it is whole; what is left of one that is not is taken away."""
    if (folder / ".ready").exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _set_ready(folder: Path) -> None:
    (folder / ".ready").touch()

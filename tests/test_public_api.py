"""What a stranger meets first: the package's names, its weight, its command line, its lock files, its README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgebook

# What a command that only reads a table, or prints its help, must not wait for.
HEAVY = (
    "numba", "llvmlite", "numpy", "scipy", "sqlalchemy", "alembic", "duckdb", "psycopg", "pydantic", "matplotlib",
)  # fmt: skip


def run_python(repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the source tree on its path."""
    env = {**os.environ, "PYTHONPATH": str(repo / "src"), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, timeout=60)


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Name of each locked package to its version and hashes."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(.*)$", text, flags=re.MULTILINE)
    return {
        canonical(name): (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", rest)) for name, version, rest in pins
    }


def canonical(requirement: str) -> str:
    """``TA-Lib>=0.6`` and ``ta-lib`` are one package: ``ta-lib``."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


# ------------------------------------------------------------------ names and weight


def test_public_names_are_sorted_and_there():
    """Every name of __all__ exists, once, in alphabetical order."""
    assert edgebook.__all__ == sorted(set(edgebook.__all__))
    assert [name for name in edgebook.__all__ if not hasattr(edgebook, name)] == []


@pytest.mark.parametrize("module", ["edgebook", "edgebook.cli", "edgebook.__main__"])
def test_importing_it_loads_nothing_heavy(module, repo):
    """Neither the package nor its command line pulls in numerics or a database before they are needed."""
    code = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"

    done = run_python(repo, "-c", code)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# ------------------------------------------------------------------ the command line


def readme_commands(repo: Path) -> list[str]:
    """The commands of the README's table: ``edgebook run`` -> ``run``."""
    return re.findall(r"^\| `edgebook ([a-z-]+)", (repo / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_help_lists_every_command_of_the_readme(repo):
    """``python -m edgebook --help`` succeeds and knows each command that the README promises."""
    done = run_python(repo, "-m", "edgebook", "--help")

    assert done.returncode == 0, done.stderr
    promised = readme_commands(repo)
    assert {"run", "backtest", "inject", "explain"} <= set(promised)
    assert [command for command in promised if not re.search(rf"(?m)^\W*{command}\b", done.stdout)] == []


def test_an_unknown_command_is_bad_input(repo):
    """A command that does not exist exits with 2, on one line of stderr that names it."""
    done = run_python(repo, "-m", "edgebook", "frobnicate")

    assert done.returncode == 2
    assert "frobnicate" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_console_script_is_the_package_main(repo):
    """``edgebook`` and ``python -m edgebook`` are the same function."""
    scripts = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert scripts == {"edgebook": "edgebook.cli:main"}
    assert "from edgebook.cli import main" in (repo / "src/edgebook/__main__.py").read_text(encoding="utf-8")


# ------------------------------------------------------------------ what installs it


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_and_hashes_everything_and_names_no_address(name, repo):
    """Each package has one version and at least one hash; no index, no URL, no path of the machine that compiled it."""
    text = (repo / name).read_text(encoding="utf-8")
    pins = locked(repo / name)

    code = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(code) == len(pins)
    assert [package for package, (_, hashes) in pins.items() if not hashes] == []
    assert re.findall(r"://|--(?:extra-)?index|--find-links|--trusted-host|(?:^|[\s=])/\w", text) == []


def test_the_development_lock_contains_the_runtime_lock(repo):
    """What is tested is what runs: the same version and the same hashes."""
    runtime, development = locked(repo / "requirements.lock"), locked(repo / "requirements-dev.lock")

    assert {name: development.get(name) for name in runtime} == runtime


def test_every_declared_dependency_is_locked(repo):
    """pyproject.toml and the lock files agree on what is needed, the build backend included."""
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {*project["project"]["dependencies"], *project["build-system"]["requires"]}
    developed = needed | set(project["project"]["optional-dependencies"]["dev"])

    assert {canonical(r) for r in needed} - locked(repo / "requirements.lock").keys() == set()
    assert {canonical(r) for r in developed} - locked(repo / "requirements-dev.lock").keys() == set()


def test_the_gate_runs_the_test_command_of_the_readme(repo):
    """The continuous gate, the README and the Makefile speak of the same command."""
    gate = (repo / ".ci/run").read_text(encoding="utf-8").splitlines()

    assert [line for line in gate if line.startswith(("make", "exec make"))] == ["make test"]
    assert os.access(repo / ".ci/run", os.X_OK)
    readme = (repo / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^make run$", readme, flags=re.MULTILINE)
    assert re.search(r"^make test$", readme, flags=re.MULTILINE)

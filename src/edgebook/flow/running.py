"""The system as a process of its own: started by its command, spoken to through its ingress, stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgebook.domain.errors import InputError
from edgebook.runtime.ingress import (
    Answer,
    address_file,
    is_running,
    post,
    post_clock,
    post_move,
    post_steer,
    post_turn,
)

#: What starts edgebook; the mutation check puts another module in its place.
COMMAND: tuple[str, ...] = (sys.executable, "-m", "edgebook")
START_SECONDS = 120.0
STOP_SECONDS = 60.0
CALL_SECONDS = 300.0


class SystemDiedError(Exception):
    """The system's process ended, or does not answer; the end of what it printed."""


class Called(NamedTuple):
    """How a command ended, and what it printed; ``code`` is None where it had to be killed."""

    code: int | None
    out: str
    err: str


class Running:
    """A running system with a held clock on ``feed``; use as a context manager.

    Args:
        command: what starts edgebook.
        folder: where its output goes, ``system.log``, and where it works.
        given: settings, by name.
        options: further options of ``edgebook run``.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        db: str,
        feed: str,
        given: Mapping[str, Any] | None = None,
        options: Sequence[str] = ("--held",),
    ) -> None:
        self.db, self._folder, self._log = db, folder, folder / "system.log"
        self._program = list(command)
        self.command = [*command, "run", "--feed", feed, "--db", db, "--plain", *options]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGEBOOK_")}
        said = {f"EDGEBOOK_{name.upper()}": _text(value) for name, value in (given or {}).items()}
        self._environment = clean | said
        self.settings = dict(given or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.clock = 0

    def __enter__(self) -> Running:
        try:
            return self.start()
        except BaseException:  # it did not listen in time, or the campaign is ended meanwhile
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()
        address_file(self.db).unlink(missing_ok=True)  # what was killed could not take its address back

    def start(self) -> Running:
        """Start the process and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not is_running(self.db):
            if self._process.poll() is not None:
                raise SystemDiedError(f"it ended with code {self._process.returncode}: {self.said()}")
            if time.monotonic() > deadline:
                raise SystemDiedError(f"it did not listen within {START_SECONDS:.0f} s: {self.said()}")
            time.sleep(0.02)
        return self

    def said(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace").strip()[-600:] if self._log.exists() else ""

    def inject(self, *lines: str) -> Answer:
        """Packets, at the ingress, at the clock's time; what became of each."""
        return self._asked(lambda: post(self.db, lines))  # type: ignore[no-any-return]

    def pass_until(self, at: int) -> int:
        """Let virtual time pass up to a moment, microseconds UTC; the clock then."""
        self.clock = self._asked(lambda: post_clock(self.db, at))
        return self.clock

    def turn(self, on: bool, channel: str = "", why: str = "flow") -> Mapping[str, Any]:
        """The operator's kill switch."""
        return self._asked(lambda: post_turn(self.db, on, channel, "flow", why))  # type: ignore[no-any-return]

    def move(self, position_id: str, wish: str) -> Mapping[str, Any]:
        """The operator's wish about a position."""
        return self._asked(lambda: post_move(self.db, position_id, wish))  # type: ignore[no-any-return]

    def steer(self, act: str, target: str, why: str = "flow") -> Mapping[str, Any]:
        """The operator's act on what was learnt."""
        return self._asked(lambda: post_steer(self.db, act, target, "flow", why))  # type: ignore[no-any-return]

    def call(self, *words: str, db: str | None = None, seconds: float = CALL_SECONDS) -> Called:
        """A command of its user, under its settings and on its database unless another is given; waits for its end.

        A command that has not ended after ``seconds`` is killed; its code is None then.
        """
        line = [*self._program, *words, "--db", db or self.db]
        with subprocess.Popen(
            line,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                return Called(None, out, f"it had not ended after {seconds:.0f} s; {err.strip()}")
            except BaseException:  # the campaign is ended meanwhile
                process.kill()
                raise
        return Called(process.returncode, out, err.strip())

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ended(self) -> int | None:
        """The code the process ended with, None while it runs; one that listens no more is about to end."""
        assert self._process is not None
        if self._process.poll() is None and not is_running(self.db):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        return self._process.poll()

    def _asked(self, question: Any) -> Any:
        try:
            return question()
        except InputError as error:
            code = self._ended() if self._process else None
            if code is None:
                raise
            raise SystemDiedError(f"it ended with code {code}: {self.said()}") from error


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)

"""What a scenario finds: stages asked one after the other, until the packet has arrived or has died at one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebook.domain.errors import EdgebookError
from edgebook.flow.book import Book, Rows
from edgebook.flow.running import COMMAND, Running
from edgebook.flow.story import Story, iso

#: Rows of an answer that a transcript keeps.
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Expected:
    """What the rows of a query must be, in words and as a test."""

    words: str
    holds: Callable[[Rows], bool]

    def meaning(self, words: str) -> Expected:
        """The same, with what it means in front.

        >>> none().meaning("nothing happened twice").words
        'nothing happened twice: no row'
        """
        return Expected(f"{words}: {self.words}", self.holds)


def rows(count: int) -> Expected:
    """Exactly so many rows.

    >>> rows(2).words, rows(2).holds([(1,), (2,)])
    ('2 rows', True)
    """
    return Expected(f"{count} row{'' if count == 1 else 's'}", lambda found: len(found) == count)


def some(least: int = 1) -> Expected:
    """At least so many rows."""
    return Expected(f"at least {least} row{'' if least == 1 else 's'}", lambda found: len(found) >= least)


def none() -> Expected:
    """No row."""
    return Expected("no row", lambda found: not found)


def exactly(*wanted: Any) -> Expected:
    """These rows in this order; a value stands for a row of one column, floats to 1e-9.

    >>> exactly("S1", "S2").holds([("S1",), ("S2",)]), exactly((1, 0.5)).holds([(1, 0.5 + 1e-12)])
    (True, True)
    >>> exactly(("1h", "watchlist"), ("4h", "dormant")).words
    '1h, watchlist; 4h, dormant'
    """
    table = [row if isinstance(row, tuple) else (row,) for row in wanted]
    words = "; ".join(", ".join(map(str, row)) for row in table) or "no row"
    return Expected(words, lambda found: len(found) == len(table) and all(map(_alike, found, table)))


def every(words: str, test: Callable[..., Any], least: int = 1) -> Expected:
    """At least ``least`` rows, each of which passes a test of its columns."""
    return Expected(
        f"at least {least}, each {words}", lambda found: len(found) >= least and all(bool(test(*row)) for row in found)
    )


def that(words: str, test: Callable[[Rows], Any]) -> Expected:
    """Rows that pass a test as a whole."""
    return Expected(words, lambda found: bool(test(found)))


def _holds(expected: Expected, found: Rows) -> bool:
    """Whether an answer is as expected; one that is too short or of the wrong kind to be tested is not."""
    try:
        return bool(expected.holds(found))
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return False


def same(words: str, wanted: Rows) -> Expected:
    """The very rows of an earlier answer.

    >>> same("as before", [(1,)]).words, same("as before", [(1,)]).holds([(2,)])
    ('as before (1 row)', False)
    """
    return Expected(f"{words} ({len(wanted)} row{'' if len(wanted) == 1 else 's'})", lambda found: found == wanted)


def _alike(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    return len(found) == len(wanted) and all(
        abs(float(a) - b) <= 1e-9 * max(1.0, abs(b)) if isinstance(b, float) and a is not None else a == b
        for a, b in zip(found, wanted, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One stage asked: the query as a person would type it, what was expected, what was found."""

    stage: str
    packet: str
    query: str
    expected: str
    found: tuple[tuple[Any, ...], ...]
    total: int
    passed: bool

    @property
    def told(self) -> str:
        """What was found, in words."""
        if not self.total:
            return "no row"
        if self.total == 1 and len(self.found[0]) == 1:
            return _text(self.found[0][0])
        shown = "; ".join(", ".join(map(_text, row)) for row in self.found)
        return f"{self.total} row{'' if self.total == 1 else 's'}: {shown}" + (" ..." * (self.total > len(self.found)))


def _text(value: Any) -> str:
    """A value as a reader wants it: floats to ten digits.

    >>> _text(0.1 + 0.2), _text(None), _text(3)
    ('0.3', 'None', '3')
    """
    return f"{value:.10g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Moved:
    """Evidence that learning moved a number: the actions before and after, by strand id, and what each applied."""

    what: str
    before_id: str
    before: float
    after_id: str
    after: float
    why: str


class PacketDiedError(Exception):
    """A packet died at a stage."""

    def __init__(self, stage: str, packet: str, detail: str) -> None:
        super().__init__(f"packet {packet} died at stage {stage}: {detail}")
        self.stage, self.packet, self.detail = stage, packet, detail


@dataclass(slots=True)
class Flow:
    """One scenario on one database.

    Attributes:
        fresh: makes an empty database and gives its URL.
        folder: for scripts and the system's output.
        command: what starts edgebook.
        packets: signals injected, in order.
        findings, moved: what was asked, what was seen to move.
        commands: command lines of what was started.
        clocks: (where a clock stood at the start, where at the end) per run.
    """

    fresh: Callable[[], str]
    folder: Path
    command: Sequence[str] = COMMAND
    packets: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    clocks: list[tuple[int, int]] = field(default_factory=list)
    packet: str = ""
    book: Book | None = None
    _made: int = 0

    @contextmanager
    def system(
        self,
        story: Story | str,
        *,
        db: str | None = None,
        options: Sequence[str] = ("--held",),
        **settings: Any,
    ) -> Iterator[Running]:
        """The system running on a story (or a feed by its name), on a fresh database unless one is given."""
        self._made += 1
        folder = self.folder / f"run{self._made}"
        folder.mkdir(parents=True, exist_ok=True)
        feed = story if isinstance(story, str) else f"script:{story.write(folder / 'script.jsonl')}"
        url = db or self.fresh()
        self.book = Book(url)
        running = Running(self.command, folder, url, feed, settings, options)
        self.commands.append(_line(running))
        began = story.start if isinstance(story, Story) else 0
        try:
            with running:
                yield running
        finally:
            self.clocks.append((began, running.clock))

    def inject(self, running: Running, *lines: str) -> list[str]:
        """Packets at the ingress; the strand ids of their signals, as the database has them ("" where it has none)."""
        running.inject(*lines)
        names = [str(json.loads(line).get("id", "")) for line in lines]
        self.packets += names
        return [self.strand_of(name) for name in names]

    def strand_of(self, name: str) -> str:
        """Strand id of a signal by the id its sender gave it; "" when there is none."""
        found = self.ask(
            "SELECT id FROM ad_strands WHERE kind = 'social_lowcap' AND $text(content, signal_id) = :name", name=name
        )
        return str(found[0][0]) if found else ""

    def about(self, packet: str) -> None:
        """The packet that the next checks are about, by the id its sender gave it."""
        self.packet = packet

    def ask(self, query: str, **values: Any) -> Rows:
        """Rows of a query."""
        assert self.book is not None, "start a system first"
        return self.book.ask(query, **values)

    def check(self, stage: str, query: str, expected: Expected, **values: Any) -> Rows:
        """Ask a stage; the packet dies there if the answer is not as expected.

        Raises:
            PacketDiedError: with the query that shows it.
        """
        assert self.book is not None, "start a system first"
        spelt = self.book.spelt(query, **values)
        try:
            found = self.book.ask(query, **values)
        except EdgebookError as error:
            self.findings.append(Finding(stage, self.packet, spelt, expected.words, ((error.message,),), 1, False))
            raise PacketDiedError(stage, self.packet or "-", f"expected {expected.words}, {error.message}") from error
        passed = _holds(expected, found)
        kept = tuple(found[:SHOWN])
        self.findings.append(Finding(stage, self.packet, spelt, expected.words, kept, len(found), passed))
        if not passed:
            raise PacketDiedError(
                stage, self.packet or "-", f"expected {expected.words}, found {self.findings[-1].told}: {spelt}"
            )
        return found

    def note(self, stage: str, words: str, expected: str, passed: bool, told: str) -> None:
        """A stage seen otherwise than by a query: an answer of the ingress, an exit code.

        Raises:
            PacketDiedError: it is not as expected.
        """
        self.findings.append(Finding(stage, self.packet, words, expected, ((told,),), 1, passed))
        if not passed:
            raise PacketDiedError(stage, self.packet or "-", f"expected {expected}, found {told}: {words}")

    def saw(self, what: str, before: Sequence[Any], after: Sequence[Any], why: str = "") -> None:
        """Keep evidence of a move: (strand id, number) before and after."""
        self.moved.append(Moved(what, str(before[0]), float(before[1]), str(after[0]), float(after[1]), why))


def _line(running: Running) -> str:
    """The command as a person would type it: without this machine's folders, settings in front."""
    settings = " ".join(
        f"EDGEBOOK_{name.upper()}={value.name if isinstance(value, Path) else value}"
        for name, value in running.settings.items()
    )
    words = ["edgebook", *running.command[running.command.index("run") :]]
    for i, word in enumerate(words):
        head, slash, _ = word.partition("/")
        if slash:
            words[i] = head + ("//..." if word.startswith("postgres") else "") + word.rsplit("/", 1)[1]
    return f"{settings} {' '.join(words)}".strip()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario of trading.md 8: what it is called, what it shows, how it is run."""

    name: str
    title: str
    run: Callable[[Flow], None]


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, title: str) -> Callable[[Callable[[Flow], None]], Callable[[Flow], None]]:
    """Register a scenario."""

    def register(run: Callable[[Flow], None]) -> Callable[[Flow], None]:
        assert name not in SCENARIOS, f"{name} is there twice"
        SCENARIOS[name] = Scenario(name, title, run)
        return run

    return register


def clocks_text(clocks: Sequence[tuple[int, int]]) -> str:
    """Spans of virtual time, in words."""
    return ", ".join(f"{iso(a)} to {iso(b)}" if a else f"to {iso(b)}" for a, b in clocks if b)


def required(names: Mapping[str, Scenario], wanted: Sequence[str]) -> list[Scenario]:
    """Scenarios by name (case does not matter), all without names.

    Raises:
        KeyError: there is no such scenario.
    """
    by_name = {name.lower(): one for name, one in names.items()}
    for name in wanted:
        if name.lower() not in by_name:
            raise KeyError(name)
    return [by_name[name.lower()] for name in wanted] or list(names.values())

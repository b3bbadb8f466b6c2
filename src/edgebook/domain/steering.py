"""Steering: what an operator may do to what was learnt, and the strand that tells of it (decisions 39).

| act | target | does |
|---|---|---|
| ``mute`` | lesson | its override stays listed and does not act, at once |
| ``unmute`` | lesson | it acts again, by the slew |
| ``pin`` | lesson | its override stays as it is at this moment, whatever learning says |
| ``unpin`` | lesson | it follows learning again, by the slew |
| ``revert`` | config version | the overrides of that version, each until learning has new evidence for its lesson |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgebook.domain.errors import InputError

ACTS: tuple[str, ...] = ("mute", "unmute", "pin", "unpin", "revert")

MAX_WORDS = 500


@dataclass(frozen=True, slots=True)
class ConfigSteered:
    """An operator changed what of the learnt acts; the strand's time says when, by the clock of the book.

    Attributes:
        act: one of ``ACTS``.
        target: id of the lesson; for ``revert`` the number of the config version, as text.
        who, why: in the operator's own words; ``why`` may be "".
        version: the config version this made.
    """

    kind: ClassVar[str] = "config_steered"
    act: str
    target: str
    who: str
    why: str
    version: int


def check_words(**words: str) -> None:
    """Refuse what an operator may not write into the log.

    Raises:
        InputError: more than 500 characters, or one that cannot be printed, a line break among them.
    """
    for name, text in words.items():
        if len(text) > MAX_WORDS or not text.isprintable():
            raise InputError(f"{name} must be one line of at most {MAX_WORDS} printable characters, was {text[:80]!r}")


def operator_note(who: str, why: str) -> str:
    """Who did something and why, on one line, for strands that keep it as text.

    >>> operator_note("ann", "venue is down"), operator_note("ann", ""), operator_note("", "")
    ('operator ann: venue is down', 'operator ann', 'operator')
    """
    name = f"operator {who}".rstrip()
    return f"{name}: {why}" if why else name

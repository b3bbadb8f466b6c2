"""Protections: what forbids new buys for a while, and what is known of each scope that can be barred (trading.md 3.6).

A protection acts on buys only: exits, trims and emergency exits never ask. A scope is one of

| scope | bars |
|---|---|
| ``book`` | every buy |
| ``token\\|CHAIN\\|CONTRACT`` | buys of one token, on all its timeframes |
| ``pattern\\|uptrend.S1.buy_flag`` | buys under one pattern key |
| ``channel\\|dm`` | no buy: overrides of that learning channel are neutral |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar

BOOK = "book"
TOKEN, PATTERN, CHANNEL = "token|", "pattern|", "channel|"
#: What can forbid a buy, in the order it is named. ``kill_switch`` is the operator's own; the others follow from the
#: book and the settings.
REASONS: tuple[str, ...] = ("kill_switch", "stop_buy", "daily_loss", "drawdown", "cooldown", "loss_streak")


def token_scope(chain: str, contract: str) -> str:
    """The scope of one token.

    >>> token_scope("exchange", "AUSDT")
    'token|exchange|AUSDT'
    """
    return f"{TOKEN}{chain}|{contract}"


def pattern_scope(pattern_key: str) -> str:
    """The scope of one pattern key.

    >>> pattern_scope("module=pm|pattern_key=uptrend.S1.buy_flag")
    'pattern|uptrend.S1.buy_flag'
    """
    return PATTERN + pattern_key.rpartition("pattern_key=")[2]


def channel_scope(channel: str) -> str:
    """The scope of the kill switch: one learning channel, or with "" the book.

    >>> channel_scope("dm"), channel_scope("")
    ('channel|dm', 'book')
    """
    return CHANNEL + channel if channel else BOOK


@dataclass(frozen=True, slots=True)
class ProtectionChanged:
    """A protection went on, was prolonged (``on`` again, later ``until``), or went off.

    Attributes:
        reason: one of ``REASONS``.
        until: when it lifts by itself, microseconds UTC; 0 while its cause lasts or until an operator lifts it.
        detail: why, in words.
        nav_usd, against_usd: for ``daily_loss`` and ``drawdown`` the book's value at this moment, and the one it is
            measured against: the day's start, or the peak.
    """

    kind: ClassVar[str] = "protection_changed"
    reason: str
    scope: str
    on: bool
    until: int
    detail: str
    nav_usd: Decimal | None = None
    against_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class NavMarked:
    """What the book was worth, cash and holdings at mark: the start of a UTC day, or a new peak.

    Marks are no strands, so what losses are measured against is written down here. ``restarts``: an operator lifted the
    drawdown stop, and the peak is this value from now on.
    """

    kind: ClassVar[str] = "nav_marked"
    nav_usd: Decimal
    restarts: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A protection that is on: since when, until when (0: open end), and the strand that says so."""

    reason: str
    since: int
    until: int
    strand_id: str


@dataclass(frozen=True, slots=True)
class Losses:
    """Losing trades in a row of one token or pattern, and when, under which strand and signal the last one closed."""

    in_a_row: int = 0
    at: int = 0
    strand_id: str = ""
    signal_id: str = ""


@dataclass(frozen=True, slots=True)
class NavMarks:
    """What the book's losses are measured against: its value at the start of ``day`` (days since 1970, UTC) and its
    peak; ``at`` is the last mark."""

    day: int
    day_usd: Decimal
    peak_usd: Decimal
    at: int


@dataclass(frozen=True, slots=True)
class Protection:
    """What is known of one scope; folded from strands (``trading.protections.evolve_protection``).

    ``nav`` is of the scope ``book`` alone; ``changes`` counts the strands about the scope itself and makes their ids.
    """

    scope: str
    losses: Losses = field(default_factory=Losses)
    nav: NavMarks | None = None
    blocks: tuple[Block, ...] = ()
    changes: int = 0

    @property
    def key(self) -> str:
        """Row key."""
        return self.scope

    def block(self, reason: str) -> Block | None:
        """The protection of this scope that is on for ``reason``, None if there is none."""
        return next((block for block in self.blocks if block.reason == reason), None)

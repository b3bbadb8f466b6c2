"""Shadows as the log knows them: what each chance of an attempt would have brought (mission 3; learning.md 9.12,
9.14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ShadowOutcome:
    """One gate window, bought on paper of its own and followed by the base rules to the end of its attempt.

    Attributes:
        window_id, episode_type, window_kind, blocked_by: of the window.
        entered: whether the window was really bought; its shadow is still only a shadow.
        flag_on: whether the gates in force let it pass; else exactly one of them did not.
        entry_ts, exit_ts: closes of the bars it was bought and left on, microseconds UTC.
        entry_price, exit_price: with slippage.
        roi, rr: as of any trade, fees in.
        actions: how many buys and sells it took.
        scope: PM scope of the window.
        margins: ``u`` per gate lever it says something about, against the threshold in force; 0 or more passed.
        thresholds: the thresholds in force.
        values: per lever, what taking it was worth over leaving it, R: ``rr`` less that of the chance that would have
            been taken instead.
    """

    window_id: str
    episode_type: str
    window_kind: str
    entered: bool
    flag_on: bool
    blocked_by: tuple[str, ...]
    entry_ts: int
    exit_ts: int
    entry_price: float
    exit_price: float
    roi: float
    rr: float
    actions: int
    scope: Mapping[str, str | int]
    margins: Mapping[str, float]
    thresholds: Mapping[str, float]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ShadowsClosed:
    """An attempt has ended: the outcomes of all its chances, taken or not, in order of their entries.

    No money was moved, no trade is counted.
    """

    kind: ClassVar[str] = "shadows_closed"
    exit_reason: str
    windows: tuple[ShadowOutcome, ...]

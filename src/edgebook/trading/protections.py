"""Protections of the portfolio manager: when buys are forbidden, where, and until when (trading.md 3.6).

Facts are folded from strands (`evolve_protection`): losing trades in a row per token and pattern, the values of the
book that losses are measured against, and what is on. `review` compares the facts with the settings and tells what goes
on or off; a buy asks `Guard`, and only that. Exits, trims and emergency exits ask nobody.

| reason | goes on | lifts |
|---|---|---|
| ``kill_switch`` | an operator turns it | an operator turns it |
| ``stop_buy`` | the setting | the setting is gone |
| ``daily_loss`` | the book has lost that share since 00:00 UTC | at the next 00:00 UTC |
| ``drawdown`` | the book is that share below its peak | half of it is made good, or ``kill-switch off`` |
| ``cooldown`` | a trade of the token closed at a loss | so many hours after that close |
| ``loss_streak`` | that many trades in a row lost, of the token or the pattern | after a win, or so many hours |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import TradingError
from edgebook.domain.ids import stable_id
from edgebook.domain.protection import (
    BOOK,
    PATTERN,
    REASONS,
    TOKEN,
    Block,
    Losses,
    NavMarked,
    NavMarks,
    Protection,
    ProtectionChanged,
    pattern_scope,
    token_scope,
)
from edgebook.domain.strands import PositionClosed, Strand
from edgebook.domain.values import replace
from edgebook.trading.rules import ProtectionRules

_NOBODY: Mapping[str, tuple[str, ...]] = MappingProxyType({})
_REVIEWED = tuple(reason for reason in REASONS if reason != "kill_switch")
_OF_NAV = ("daily_loss", "drawdown")


# ---------------------------------------------------------------- asked by a buy


@dataclass(frozen=True, slots=True)
class Guard:
    """What forbids the buys of one token now: names for all of them, and more names for single patterns.

    >>> guard = Guard(("protection.cooldown",), {"pattern|uptrend.S3.dx": ("protection.loss_streak",)})
    >>> guard.against("module=pm|pattern_key=uptrend.S3.dx")
    ('protection.cooldown', 'protection.loss_streak')
    """

    all_buys: tuple[str, ...] = ()
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NOBODY)

    def against(self, pattern_key: str) -> tuple[str, ...]:
        """Names of what forbids a buy under ``pattern_key``; empty when it may be bought."""
        if not self.patterns:
            return self.all_buys
        return tuple(dict.fromkeys((*self.all_buys, *self.patterns.get(pattern_scope(pattern_key), ()))))


OPEN = Guard()


def guard_of(book: Protection | None, token: Protection | None, patterns: Iterable[Protection]) -> Guard:
    """The guard of a token's buys: what is on for the book, for the token, and for each pattern."""
    everything = dict.fromkeys(name for row in (book, token) if row is not None for name in _names(row))
    barred = {row.scope: names for row in patterns if (names := _names(row))}
    return Guard(tuple(everything), barred) if everything or barred else OPEN


def _names(row: Protection) -> tuple[str, ...]:
    return tuple(f"protection.{block.reason}" for block in row.blocks)


# ---------------------------------------------------------------- folded from strands


def scopes_of(strand: Strand) -> tuple[str, ...]:
    """The scopes a strand says something of; a closed trade counts for its token and for the pattern it was entered
    under."""
    payload = strand.payload
    if isinstance(payload, ProtectionChanged):
        return (payload.scope,)
    if isinstance(payload, NavMarked):
        return (BOOK,)
    if isinstance(payload, PositionClosed):
        entered = [pattern_scope(action.pattern_key) for action in payload.actions[:1]]
        return (token_scope(payload.chain, payload.contract), *entered)
    return ()


def evolve_protection(row: Protection | None, strand: Strand, scope: str) -> Protection:
    """The row of ``scope`` after ``strand``, whatever the settings.

    Raises:
        TradingError: the strand says nothing of the scope.
    """
    row, payload = row or Protection(scope), strand.payload
    if scope not in scopes_of(strand):
        raise TradingError(f"strand {strand.id} of kind {strand.kind} says nothing of {scope}", stage="protections")
    if isinstance(payload, ProtectionChanged):
        return _changed(row, strand, payload)
    if isinstance(payload, NavMarked):
        return replace(row, nav=_marked(row.nav, payload, strand.ts_event), changes=row.changes + 1)
    assert isinstance(payload, PositionClosed)
    if payload.summary.pnl_usd >= 0:
        return replace(row, losses=replace(row.losses, in_a_row=0))
    lost = Losses(row.losses.in_a_row + 1, strand.ts_event, strand.id, strand.correlation_id)
    return replace(row, losses=lost)


def _changed(row: Protection, strand: Strand, change: ProtectionChanged) -> Protection:
    before = row.block(change.reason)
    others = tuple(block for block in row.blocks if block.reason != change.reason)
    if not change.on:
        return replace(row, blocks=others, changes=row.changes + 1)
    since = before.since if before is not None else strand.ts_event
    block = Block(change.reason, since, change.until, strand.id)
    blocks = sorted((*others, block), key=lambda one: REASONS.index(one.reason))
    return replace(row, blocks=tuple(blocks), changes=row.changes + 1)


def _marked(marks: NavMarks | None, mark: NavMarked, ts: int) -> NavMarks:
    day, nav = ts // DAY, mark.nav_usd
    if marks is None:
        return NavMarks(day, nav, nav, ts)
    peak = nav if mark.restarts else max(marks.peak_usd, nav)
    return NavMarks(day, marks.day_usd if day == marks.day else nav, peak, ts)


# ---------------------------------------------------------------- reviewed


def review(
    rows: Sequence[Protection], rules: ProtectionRules, now: int, nav_usd: Decimal | None = None
) -> tuple[Strand, ...]:
    """What goes on or off at ``now``: ``protection_changed``, and ``nav_marked`` where losses get a new measure.

    Args:
        rows: scopes to look at.
        nav_usd: value of the book at ``now``; None where no setting asks for it, and then no loss of it is watched.

    Reviewing again at the same moment tells nothing new. The kill switch is left as it is.
    """
    return tuple(strand for row in rows for strand in _review(row, rules, now, nav_usd))


def _review(row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None) -> list[Strand]:
    told: list[Strand] = []
    if row.scope == BOOK and nav_usd is not None and _mark_is_due(row.nav, nav_usd, now):
        told.append(_strand(row, NavMarked(nav_usd), now))
        row = evolve_protection(row, told[-1], row.scope)
    for reason in _REVIEWED:
        wanted, block = _CHECKS[reason](row, rules, now, nav_usd), row.block(reason)
        if wanted is not None and (block is None or block.until != wanted.until):
            told.append(_strand(row, wanted, now, row.losses.strand_id, row.losses.signal_id))
        elif wanted is None and block is not None:
            told.append(_off(row, block, now, nav_usd if reason in _OF_NAV else None))
        else:
            continue
        row = evolve_protection(row, told[-1], row.scope)
    return told


def _mark_is_due(marks: NavMarks | None, nav_usd: Decimal, now: int) -> bool:
    """Whether the book's value is to be written down: the first of a day, or a new peak, once an hour at most."""
    if marks is None or now // DAY > marks.day:
        return True
    return nav_usd > marks.peak_usd and now // HOUR > marks.at // HOUR


Check = Callable[[Protection, ProtectionRules, int, Decimal | None], ProtectionChanged | None]


def _stop_buy(row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None) -> ProtectionChanged | None:
    if not (rules.stop_buy and row.scope == BOOK):
        return None
    return ProtectionChanged("stop_buy", BOOK, True, 0, "the setting stop_buy")


def _daily_loss(row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None) -> ProtectionChanged | None:
    if not rules.daily_loss or row.nav is None or nav_usd is None:
        return None
    block, start = row.block("daily_loss"), row.nav.day_usd
    lasts = block is not None and now < block.until
    if start <= 0 or (nav_usd > start * (1 - rules.daily_loss) and not lasts):
        return None
    midnight = (max(now // DAY, row.nav.day) + 1) * DAY  # a bar of yesterday that came late ends nothing today
    detail = f"{_share(nav_usd, start)} below the day's start"
    return ProtectionChanged("daily_loss", BOOK, True, midnight, detail, nav_usd, start)


def _drawdown(row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None) -> ProtectionChanged | None:
    if not rules.drawdown or row.nav is None or nav_usd is None:
        return None
    share = rules.drawdown / 2 if row.block("drawdown") else rules.drawdown
    peak = row.nav.peak_usd
    if nav_usd > peak * (1 - share):
        return None
    return ProtectionChanged("drawdown", BOOK, True, 0, f"{_share(nav_usd, peak)} below the peak", nav_usd, peak)


def _cooldown(row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None) -> ProtectionChanged | None:
    until = row.losses.at + rules.cooldown
    if not (rules.cooldown and row.losses.at and row.scope.startswith(TOKEN) and now < until):
        return None
    return ProtectionChanged("cooldown", row.scope, True, until, "a losing trade")


def _loss_streak(
    row: Protection, rules: ProtectionRules, now: int, nav_usd: Decimal | None
) -> ProtectionChanged | None:
    until, lost = row.losses.at + rules.loss_streak_pause, row.losses.in_a_row
    counted = row.scope.startswith((TOKEN, PATTERN))
    if not (rules.loss_streak and counted and lost >= rules.loss_streak and now < until):
        return None
    return ProtectionChanged("loss_streak", row.scope, True, until, f"{lost} losing trades in a row")


_CHECKS: Mapping[str, Check] = {
    "stop_buy": _stop_buy,
    "daily_loss": _daily_loss,
    "drawdown": _drawdown,
    "cooldown": _cooldown,
    "loss_streak": _loss_streak,
}


def _share(nav_usd: Decimal, against_usd: Decimal) -> str:
    return f"{100 * (1 - nav_usd / against_usd):.2f} %"


# ---------------------------------------------------------------- switched


def switch(
    row: Protection, on: bool, now: int, nav_usd: Decimal | None = None, note: str = "operator"
) -> tuple[Strand, ...]:
    """An operator turns the kill switch of a scope: the book's, or that of one learning channel.

    ``off`` lifts the book's drawdown stop too: no trade could, once nothing is held. The peak is the book's value from
    then on.

    Args:
        nav_usd: value of the book at ``now``; needed where ``off`` lifts a drawdown stop.
        note: who turned it and why (`domain.steering.operator_note`), the ``detail`` of the strand.

    Empty where it stands so already.
    """
    if on:
        change = ProtectionChanged("kill_switch", row.scope, True, 0, note)
        return () if row.block("kill_switch") is not None else (_strand(row, change, now),)
    told: list[Strand] = []
    stopped = row.block("drawdown") is not None
    for reason in ("kill_switch", "drawdown"):
        if (block := row.block(reason)) is not None:
            told.append(_off(row, block, now, nav_usd if reason in _OF_NAV else None, note))
            row = evolve_protection(row, told[-1], row.scope)
    if stopped and nav_usd is not None:
        told.append(_strand(row, NavMarked(nav_usd, restarts=True), now))
    return tuple(told)


def _off(row: Protection, block: Block, now: int, nav_usd: Decimal | None, detail: str = "over") -> Strand:
    change = ProtectionChanged(block.reason, row.scope, False, 0, detail, nav_usd)
    return _strand(row, change, now, block.strand_id, row.losses.signal_id)


def _strand(
    row: Protection, payload: ProtectionChanged | NavMarked, now: int, cause_id: str = "", signal_id: str = ""
) -> Strand:
    tags = (payload.kind, payload.reason) if isinstance(payload, ProtectionChanged) else (payload.kind,)
    return Strand(
        id=stable_id(payload.kind, row.scope, row.changes),
        payload=payload,
        ts_event=now,
        ts_recorded=now,
        module="pm",
        correlation_id=signal_id,
        causation_id=cause_id,
        tags=tags,
    )

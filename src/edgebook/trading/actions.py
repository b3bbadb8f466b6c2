"""The rules of the portfolio manager: at most one action per bar, first match wins (trading.md 3.4; decisions 25).

| rule | state | does |
|---|---|---|
| 1 | any | full exit when the attempt is over or the trade has met its stop, until nothing is left |
| 2 | S3 | emergency exit below EMA333; the trade stays open |
| 3 | S2, S3 | trim at a level |
| 4 | S3 | buy back after an emergency exit (switch, default off) |
| 5 | S1 | first entry of the attempt |
| 6 | S2 | retest, when flat and armed or from trim proceeds |
| 7 | S3 | a DX rung from trim proceeds |
| 8 | S3 | a DX buy without proceeds, once per arming |
| 9 | S3 | first dip, once |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from edgebook.domain.book import Position
from edgebook.domain.pattern import Pattern, generate_canonical_pattern_key
from edgebook.domain.reading import MarketReading, finite_or_none
from edgebook.domain.regime import Regime
from edgebook.domain.scope import ScopeItems
from edgebook.domain.strands import Nudge
from edgebook.domain.timeframe import micros
from edgebook.engine.gates import GateReport
from edgebook.overrides.combine import PlanControls, Strength, apply_pattern_strength_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.plan import Size, size_of
from edgebook.trading.position import gross
from edgebook.trading.protections import OPEN, Guard
from edgebook.trading.risk import BookView, limit_buy, usd_remaining
from edgebook.trading.rules import PmRules, TradingRules
from edgebook.trading.skew import lot_of, skew_of
from edgebook.trading.terms import CUTS, barred, cut_reason, terms_said

Reason = str | int | float | bool | None


@dataclass(slots=True)
class Situation:
    """Everything a rule may look at on one bar."""

    position: Position
    reading: MarketReading
    report: GateReport
    controls: PlanControls
    regime: Regime
    scope: ScopeItems
    history: ConfigHistory
    rules: TradingRules
    book: Callable[[], BookView]
    bar_volume_usd: float
    guard: Guard = OPEN
    holdout_strength: bool = False


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action, sized and limited. Buys have ``notional_usd``, sells ``quantity``; ``completes`` is the strand id of
    the action whose partial fill left this to order, "" for an action of its own."""

    rule: int
    pattern: Pattern
    decision_type: str
    side: str
    flag: str
    size: Size
    notional_usd: Decimal | None
    quantity: Decimal | None
    caps: tuple[str, ...]
    nudges: tuple[Nudge, ...]
    config_version: int
    level_price: float | None = None
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    completes: str = ""

    @property
    def takes_window(self) -> bool:
        """Whether the action enters the open gate window: it is a buy that a learned gate let through."""
        return self.rule in GATE_RULES and not self.completes


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is done. ``rule`` is 0 when none matched, else the rule that could not be carried out, with the
    reasons."""

    rule: int = 0
    reasons: tuple[str, ...] = ()


HOLD = Skip()
#: Rules that fire on flags learned gates decide, and whose fills enter windows.
GATE_RULES = frozenset({5, 7, 8})

_EXIT_STATE = {"s1_to_s0_bearish_order": "S1", "all_emas_below_333": "S3"}


# ---------------------------------------------------------------- when


def wants_exit(position: Position, reading: MarketReading) -> bool:
    """Rule 1: the attempt is over (or an exit was begun, or the trade has met a stop of its own) and tokens are held.

    The stops of `trading.terms` close the trade as the end of an attempt does, so they are of this rule and come before
    an emergency exit, which keeps the trade open: a trade that has lost or lasted too much must not wait to be bought
    back. Once begun, the exit goes on whatever the price does.
    """
    if not position.holding:
        return False
    over = reading.exit_position or reading.state == "S0" or position.exiting
    return over or bool(position.terms is not None and cut_reason(position, reading))


def wants_emergency(position: Position, reading: MarketReading) -> bool:
    """Rule 2: S3, close below EMA333, tokens held."""
    return reading.state == "S3" and reading.emergency_exit and position.holding and not position.emergency.filled


def wants_trim(position: Position, reading: MarketReading, rules: PmRules) -> bool:
    """Rule 3: overextended at a level, and neither too soon after the last trim nor at its level again."""
    if not (reading.trim_flag and position.holding and reading.state in ("S2", "S3")):
        return False
    since = (reading.ts - position.last_trim_ts) // micros(reading.timeframe) if position.last_trim_ts else None
    return trim_cooled(reading, since, position.last_trim_level, rules)


def trim_cooled(reading: MarketReading, bars_since: int | None, last_level: float | None, rules: PmRules) -> bool:
    """Whether a trim may follow one ``bars_since`` ago at ``last_level`` (decisions 59; None: there was none).

    At another level (more than 0.5 ATR away in price) after 3 bars, at the same one after 12; without a level never.
    """
    level = reading.nearest_level_price
    if level != level:
        return False
    if bars_since is None:
        return True
    same = last_level is not None and abs(level - last_level) <= rules.same_level_atr * reading.atr
    return bars_since >= (rules.same_level_bars if same else rules.trim_cooldown_bars)


def wants_reclaim(position: Position, reading: MarketReading, rules: PmRules) -> bool:
    """Rule 4: back above EMA333 after an emergency exit that was not bought back yet."""
    emergency = position.emergency
    return (
        rules.reclaim_enabled
        and reading.state == "S3"
        and reading.reclaimed_ema333
        and emergency.exit_value > 0
        and not emergency.rebuy_used
    )


def wants_s1(position: Position, reading: MarketReading, report: GateReport, rules: PmRules) -> bool:
    """Rule 5: the S1 buy signal, once per attempt.

    Under ``after_breakout`` only once the attempt has seen S2: ``armed_s2`` holds from then until an S2 buy fills, and
    from then on a trade is open.
    """
    if not (reading.state == "S1" and report.flags.buy_signal) or position.s1_used:
        return False
    return rules.s1_policy == "on_primer" or position.armed_s2 or bool(position.trade_id)


def wants_s2(position: Position, reading: MarketReading, report: GateReport) -> bool:
    """Rule 6: the S2 retest, when flat and armed, or holding with unspent trim proceeds."""
    if not (reading.state == "S2" and report.flags.buy_flag):
        return False
    return s2_from_pool(position) or (not position.holding and position.armed_s2)


def s2_from_pool(position: Position) -> bool:
    """Whether an S2 retest would be paid from trim proceeds."""
    flat_and_armed = not position.holding and position.armed_s2
    return not flat_and_armed and position.pool.basis > 0 and not position.pool.recovery


def wants_dx(position: Position, reading: MarketReading, report: GateReport, rules: PmRules) -> bool:
    """Rule 7: a DX rung from the pool, each one step below the fill of the last."""
    pool = position.pool
    if not in_dx_zone(reading, report) or pool.basis <= 0 or pool.dx_count >= rules.dx_max:
        return False
    return pool.next_arm is None or reading.price <= pool.next_arm


def wants_s3(position: Position, reading: MarketReading, report: GateReport, rules: PmRules) -> bool:
    """Rule 8: a DX buy with an empty pool, once per arming."""
    flag = reading.state == "S3" and report.flags.buy_flag and not reading.emergency_exit
    return flag and position.pool.basis <= 0 and position.armed_s3 and (not position.holding or not rules.pool_only)


def wants_first_dip(position: Position, reading: MarketReading, rules: PmRules) -> bool:
    """Rule 9: the first dip of an S3, once."""
    return rules.first_dip_enabled and reading.state == "S3" and reading.first_dip and not position.first_dip_used


def in_dx_zone(reading: MarketReading, report: GateReport) -> bool:
    """Whether the DX flag is on in the hallway between EMA333 and EMA144."""
    if not (reading.state == "S3" and report.flags.buy_flag and not reading.emergency_exit):
        return False
    return reading.ema333 < reading.price <= reading.ema144


# ---------------------------------------------------------------- which


def first_match(s: Situation) -> int:
    """Number of the first rule that matches on this bar, 0 for none.

    A trim worth less than the smallest order gives way to the next rule that matches; alone it is still the first.
    """
    found = _matches(s.position, s.reading, s.report, s.rules.pm)
    first = next(found, 0)
    if first != 3:
        return first
    lower = next(found, 0)
    return lower if lower and isinstance(_sell(s, 3), Skip) else first


def any_match(position: Position, reading: MarketReading, report: GateReport, rules: PmRules) -> bool:
    """Whether any rule matches on this bar; where none does, `plan_action` holds."""
    return next(_matches(position, reading, report, rules), 0) > 0


def _matches(position: Position, reading: MarketReading, report: GateReport, rules: PmRules) -> Iterator[int]:
    """Numbers of all rules that match on this bar, ascending."""
    if position.holding:
        if wants_exit(position, reading):
            yield 1
        if wants_emergency(position, reading):
            yield 2
        if wants_trim(position, reading, rules):
            yield 3
    if position.exiting:
        return
    if reading.state == "S3":
        if wants_reclaim(position, reading, rules):
            yield 4
        if wants_dx(position, reading, report, rules):
            yield 7
        if wants_s3(position, reading, report, rules):
            yield 8
        if wants_first_dip(position, reading, rules):
            yield 9
    elif wants_s1(position, reading, report, rules):
        yield 5
    elif wants_s2(position, reading, report):
        yield 6


def attempt_known(position: Position, rules: PmRules) -> bool:
    """Whether the start of the running attempt was seen; without it nothing is bought (``trade_mid_attempt``)."""
    return bool(position.attempt_id) or rules.trade_mid_attempt


def standing_blocks(s: Situation) -> tuple[str, ...]:
    """Why no gate rule could buy on this bar even with its flag on: what a window is ``blocked_by`` (decisions 28)."""
    position, reading, rules = s.position, s.reading, s.rules.pm
    blocks: list[str] = []
    if not attempt_known(position, rules):
        blocks.append("no_attempt")
    if s.guard is not OPEN:
        blocks += s.guard.against(_gate_pattern(position, reading))
    if not s.rules.risk.may_buy(position.symbol, position.contract):
        blocks.append("canary")
    if position.status not in ("watchlist", "active"):
        blocks.append(_not_buying(position))
    if position.planned is not None:
        blocks.append("order_open")
    if barred(position, reading.state):
        blocks.append("episode_block")
    if reading.state == "S1":
        if position.s1_used:
            blocks.append("s1_used")
        elif rules.s1_policy == "after_breakout" and not (position.armed_s2 or position.trade_id):
            blocks.append("not_armed")
    elif position.pool.basis > 0:
        if position.pool.next_arm is not None and reading.price > position.pool.next_arm:
            blocks.append("dx_spacing")
    elif not position.armed_s3:
        blocks += ["no_pool", "not_armed"]
    elif rules.pool_only and position.holding:
        blocks += ["no_pool", "flat_required"]
    return tuple(blocks)


def _gate_pattern(position: Position, reading: MarketReading) -> str:
    """Pattern key of the gate rule that would buy on this bar: 5 in S1, else 7 with a pool and 8 without."""
    if reading.state == "S1":
        return _pattern(5, "").key
    return _pattern(7 if position.pool.basis > 0 else 8, "").key


# ---------------------------------------------------------------- how much


@dataclass(frozen=True, slots=True)
class _Spec:
    motif: str
    flag: str
    kind: str
    state: str = ""


_SPECS: dict[int, _Spec] = {
    1: _Spec("exit", "exit_position", "exit"),
    2: _Spec("panic_exit", "emergency_exit", "exit", "S3"),
    3: _Spec("trim", "trim_flag", "trim"),
    4: _Spec("reclaimed_ema333", "reclaimed_ema333", "reclaim", "S3"),
    5: _Spec("buy_flag", "buy_signal", "s1", "S1"),
    6: _Spec("buy_flag", "buy_flag", "add", "S2"),
    7: _Spec("dx", "buy_flag", "dx", "S3"),
    8: _Spec("buy_flag", "buy_flag", "add", "S3"),
    9: _Spec("first_dip_buy", "first_dip_buy_flag", "add", "S3"),
}


def plan_action(s: Situation) -> PlannedAction | Skip:
    """The one action of this bar, or why there is none.

    A rule that matches but cannot be carried out (an order is open, buys are off, limits leave nothing) ends the
    search: the bar is skipped with its reasons, lower rules are not tried. Only a trim too small to be ordered gives
    way (`first_match`): a buy costs it nothing.
    """
    rule = first_match(s)
    if rule == 0:
        return HOLD
    if s.position.planned is not None:
        return Skip(rule, ("order_open",))
    return _sell(s, rule) if rule <= 3 else _buy(s, rule)


def _sell(s: Situation, rule: int) -> PlannedAction | Skip:
    position, reading = s.position, s.reading
    spec = _SPECS[rule]
    state = spec.state or reading.state
    strength, version = Strength(), s.history.version_at(reading.ts)
    reasons: dict[str, Reason] = {"ox": finite_or_none(reading.ox)}
    if rule == 1:
        reasons["exit_reason"], state = _leaving(position, reading)
    pattern = generate_canonical_pattern_key("pm", state, spec.motif, "trim" if rule == 3 else "exit")
    if rule == 3:
        pinned = s.history.as_of(position.pinned_config)
        strength = apply_pattern_strength_overrides(pinned, pattern, s.scope, reading.ts, holdout=s.holdout_strength)
        version = strength.config_version
        reasons["level_price"] = reading.nearest_level_price
    size = size_of(spec.kind, position, s.regime.a_base, s.regime.e_base, strength, s.rules.sizes)
    quantity = size.amount
    if rule == 3 and gross(quantity, reading.price) < s.rules.risk.min_notional_usd:
        return Skip(rule, ("min_notional",))
    return PlannedAction(
        rule=rule,
        pattern=pattern,
        decision_type="emergency_exit" if rule == 2 else pattern.category,
        side="sell",
        flag=spec.flag,
        size=size,
        notional_usd=None,
        quantity=quantity,
        caps=(),
        nudges=strength.nudges,
        config_version=version,
        level_price=reading.nearest_level_price if rule == 3 else None,
        reasons=reasons,
    )


def _leaving(position: Position, reading: MarketReading) -> tuple[str, str]:
    """Why a full exit is made, and the state that is left; a stop of the trade leaves the state it is in."""
    begun, in_attempt = position.exit_reason, reading.state != "S0"
    cut = begun if begun in CUTS else ""
    if not cut and in_attempt and not (reading.exit_reason or begun):
        cut = cut_reason(position, reading)
    if cut and in_attempt:
        return cut, reading.state
    why = cut or reading.exit_reason or begun or "attempt_over"
    return why, _EXIT_STATE.get(why, reading.prev_state)


def _buy(s: Situation, rule: int) -> PlannedAction | Skip:
    position, reading, rules = s.position, s.reading, s.rules
    spec, pattern = _SPECS[rule], _pattern(rule, position.trade_id)
    refusals = refusals_of(s, pattern.key)
    if refusals:
        return Skip(rule, refusals)
    kind = "pool" if rule == 6 and s2_from_pool(position) else spec.kind
    strength = apply_pattern_strength_overrides(s.history, pattern, s.scope, reading.ts, holdout=s.holdout_strength)
    book = s.book()
    allowance = usd_remaining(book, position.allocation_pct)
    skew = skew_of(lot_of(position, pattern.key), book.lots, book.nav, rules.skew) if rules.skew.enabled else 1.0
    size = size_of(kind, position, s.regime.a_base, s.regime.e_base, strength, rules.sizes, allowance, skew)
    capped = limit_buy(size.amount, book, allowance, s.bar_volume_usd, rules.risk)
    if capped.notional_usd <= 0:
        return Skip(rule, tuple(f"caps.{name}" for name in capped.caps))
    return PlannedAction(
        rule=rule,
        pattern=pattern,
        decision_type=pattern.category,
        side="buy",
        flag=spec.flag,
        size=size,
        notional_usd=capped.notional_usd,
        quantity=None,
        caps=capped.caps,
        nudges=(*s.controls.nudges, *strength.nudges) if rule in GATE_RULES else strength.nudges,
        config_version=strength.config_version,
        reasons=_buy_reasons(s, rule, kind) | _skewed(s, skew, strength.size_mult),
    )


def _pattern(rule: int, trade_id: str) -> Pattern:
    """Pattern of a buy: an entry where no trade is open, else an add (decisions 25)."""
    spec = _SPECS[rule]
    return generate_canonical_pattern_key("pm", spec.state, spec.motif, "add" if trade_id else "entry")


def refusals_of(s: Situation, pattern_key: str) -> tuple[str, ...]:
    """Why nothing may be bought under a pattern on this bar, whatever matches; empty when it may."""
    refusals = []
    if not attempt_known(s.position, s.rules.pm):
        refusals.append("no_attempt")
    if barred(s.position, s.reading.state):
        refusals.append("episode_block")
    refusals += s.guard.against(pattern_key)
    if not s.rules.risk.may_buy(s.position.symbol, s.position.contract):
        refusals.append("canary")
    if s.position.status not in ("watchlist", "active"):
        refusals.append(_not_buying(s.position))
    return tuple(refusals)


def _not_buying(position: Position) -> str:
    return "paused" if position.status == "paused" else "not_trading"


def _skewed(s: Situation, skew: float, size_mult: float) -> dict[str, Reason]:
    """What a skewed buy says of it: the skew, and its product with what learning makes of the size."""
    return {"exposure_skew": skew, "combined_mult": size_mult * skew} if s.rules.skew.enabled else {}


def _buy_reasons(s: Situation, rule: int, kind: str) -> dict[str, Reason]:
    reading, report, rules = s.reading, s.report, s.rules.pm
    reasons: dict[str, Reason] = {
        "size_kind": kind,
        "flag_base": report.flags_base.buy_signal or report.flags_base.buy_flag,
        "ts_score": finite_or_none(reading.ts_score),
        "sr_boost": finite_or_none(report.sr_boost),
        "dx": finite_or_none(reading.dx),
        "edx": finite_or_none(reading.edx),
    }
    if not s.position.trade_id:
        reasons.update(terms_said(rules))
    if kind == "pool":
        reasons["clears_pool"] = True
    if rule == 7:
        reasons["dx_step"] = rules.dx_step_atr * reading.atr
        reasons["clears_pool"] = s.position.pool.dx_count + 1 >= rules.dx_max
    return reasons

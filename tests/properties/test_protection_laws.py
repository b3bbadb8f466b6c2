"""Laws of protections over random histories: they only ever take buys away, and their fold is settled by the log."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.test_trading_laws import D, W, bars, live

from edgebook.domain.protection import BOOK, REASONS, NavMarked, Protection, pattern_scope, token_scope
from edgebook.domain.strands import PositionClosed, Strand
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.overrides.combine import apply_pattern_execution_overrides
from edgebook.overrides.history import ConfigHistory
from edgebook.trading.actions import Situation, Skip, plan_action
from edgebook.trading.protections import OPEN, Guard, evolve_protection, guard_of, review, scopes_of, switch
from edgebook.trading.risk import BookView
from edgebook.trading.rules import ProtectionRules

HOUR = 3_600_000_000
DAY = 24 * HOUR
KEYS = [
    f"uptrend.{key}" for key in ("S1.buy_flag", "S2.buy_flag", "S3.buy_flag", "S3.dx", "S3.first_dip_buy")
]  # fmt: skip
names = st.lists(st.sampled_from([f"protection.{reason}" for reason in REASONS]), unique=True, max_size=3).map(tuple)
guards = st.builds(
    Guard, names, st.dictionaries(st.sampled_from([f"pattern|{key}" for key in KEYS]), names, max_size=3)
)


def plans(script, guard):
    """What each bar of a script plans without a guard and with one, in the same situation."""
    world, _ = live(script)
    position = None
    by_seq = list(world.log)
    for bar in world.bars:
        while by_seq and by_seq[0].ts_recorded < bar.ts:
            strand = by_seq.pop(0)
            position = W.evolve(position, strand)
        assert position is not None
        free = Situation(
            position=position, reading=bar, report=evaluate(bar, BASE_GATES),
            controls=apply_pattern_execution_overrides(ConfigHistory(), bar.state, (), bar.ts, "1h"),
            regime=W.regime(), scope=(), history=ConfigHistory(), rules=W.PLAIN,
            book=lambda: BookView(D(100_000), D(100_000)), bar_volume_usd=1e9,
        )  # fmt: skip
        yield plan_action(free), plan_action(replace(free, guard=guard))


@settings(max_examples=60)
@given(bars, guards)
def test_a_protection_never_enlarges_an_order_and_never_holds_back_a_sale(script, guard):
    """With any guard a bar plans exactly what it would without one, or, if that is a buy, nothing, with its name; what
    is skipped anyway has one reason more."""
    for free, barred in plans(script, guard):
        if barred == free:
            continue
        assert isinstance(barred, Skip)
        assert barred.rule == free.rule
        if isinstance(free, Skip):
            assert set(free.reasons) < set(barred.reasons)
        else:
            assert free.side == "buy"
            assert barred.reasons == guard.against(free.pattern.key) != ()


@settings(max_examples=60)
@given(bars, guards)
def test_a_barred_world_buys_nothing_that_is_barred_and_gets_rid_of_what_it_holds(script, guard):
    """Bar after bar under a guard: no buy under a barred pattern, and every exit of rule 1 is carried out."""
    world, _ = live(script)
    before = len(world.actions)
    world.guard, world.refuse, world.share = guard, "", 1.0
    for state in ("S1", "S2", "S3"):
        world.bar(state, 100.0, ts_score=0.7, dx=0.9, first_dip=state == "S3")
    for _ in range(3):
        world.bar("S0", 94.0, exit_position=True, exit_reason="all_emas_below_333")
    planned = world.kinds("pm_action")[before:]
    assert not [s for s in planned if s.payload.side == "buy" and guard.against(s.payload.pattern_key)]
    assert not world.position.holding


# ------------------------------------------------------------------ review and fold

events = st.lists(
    st.one_of(
        st.tuples(
            st.just("close"), st.sampled_from("AB"), st.sampled_from(KEYS[:2]), st.sampled_from(["-1", "0", "2"])
        ),
        st.tuples(st.just("turn"), st.booleans()),
        st.tuples(st.just("nav"), st.integers(50, 150)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    max_size=40,
)
protected = st.builds(
    ProtectionRules,
    daily_loss=st.sampled_from([D(0), D("0.05"), D("0.2")]),
    drawdown=st.sampled_from([D(0), D("0.3")]),
    cooldown=st.sampled_from([0, 2 * HOUR, 30 * HOUR]),
    loss_streak=st.sampled_from([0, 1, 3]),
    loss_streak_pause=st.just(9 * HOUR),
    stop_buy=st.booleans(),
)


@cache
def any_close() -> Strand:
    """Some ``position_closed``."""
    world = W.World()
    world.s1_buy()
    world.bar("S1", 99.0)
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    (strand,) = world.kinds("position_closed")
    return strand


def close(number: int, now: int, token: str, key: str, pnl: str) -> Strand:
    """A closed trade of ``token``, entered under ``key``."""
    strand = any_close()
    payload = strand.payload
    assert isinstance(payload, PositionClosed)
    entry = replace(payload.actions[0], pattern_key=f"module=pm|pattern_key={key}")
    told = replace(payload, contract=token, summary=replace(payload.summary, pnl_usd=D(pnl)), actions=(entry,))
    return replace(strand, id=f"closed-{number}", payload=told, ts_event=now, ts_recorded=now)


def walk(script, rules: ProtectionRules) -> tuple[dict[str, Protection], list[Strand], int, Decimal]:
    """Rows and log of a book whose trades, values and operator are the script's, reviewed at each event."""
    rows: dict[str, Protection] = {}
    log: list[Strand] = []
    now, nav = 20_000 * DAY, D(100)

    def append(strands):
        for strand in strands:
            log.append(strand)
            for scope in scopes_of(strand):
                rows[scope] = evolve_protection(rows.get(scope), strand, scope)

    for number, (kind, *what) in enumerate(script):
        now += HOUR if kind != "wait" else what[0] * HOUR
        if kind == "close":
            append([close(number, now, *what)])
        elif kind == "nav":
            nav = D(what[0])
        elif kind == "turn":
            append(switch(rows.get(BOOK) or Protection(BOOK), what[0], now, nav))
        append(review([rows.get(s) or Protection(s) for s in sorted({BOOK, *rows})], rules, now, nav))
    return rows, log, now, nav


@settings(max_examples=80)
@given(events, protected)
def test_what_is_on_follows_from_the_log_alone_and_a_second_look_tells_nothing(script, rules):
    """Refolding finds the same rows without settings; ids are unique; reviewing again at the same moment is silent."""
    rows, log, now, nav = walk(script, rules)
    again: dict[str, Protection] = {}
    for strand in log:
        for scope in scopes_of(strand):
            again[scope] = evolve_protection(again.get(scope), strand, scope)
    assert again == rows
    assert len({s.id for s in log}) == len(log)
    assert review(list(rows.values()), rules, now, nav) == ()


@settings(max_examples=80)
@given(events, protected)
def test_on_and_off_alternate_and_nothing_stays_on_beyond_its_time(script, rules):
    """Per scope and reason: off only after on; on again only to be prolonged; what has an end is off after it."""
    rows, log, now, _ = walk(script, rules)
    on: dict[tuple[str, str], int] = {}
    for strand in log:
        if isinstance(strand.payload, NavMarked | PositionClosed):
            continue
        change = strand.payload
        key = change.reason, change.scope
        if change.on:
            assert on.get(key, -1) < change.until or key not in on
            on[key] = change.until
        else:
            assert key in on
            del on[key]
    assert {(b.reason, row.scope): b.until for row in rows.values() for b in row.blocks} == on
    assert all(until == 0 or until > now for until in on.values())


@settings(max_examples=80)
@given(events, protected)
def test_a_guard_names_exactly_what_is_on_for_its_token_and_pattern(script, rules):
    """Book, token and pattern, no other token's; with nothing on it is the open guard itself."""
    rows, _, _, _ = walk(script, rules)
    patterns = [row for row in rows.values() if row.scope.startswith("pattern|")]
    for token in "AB":
        scope = token_scope("exchange", token)
        guard = guard_of(rows.get(BOOK), rows.get(scope), patterns)
        for key in KEYS[:2]:
            full = f"module=pm|pattern_key={key}"
            mine = [rows[s] for s in (BOOK, scope, pattern_scope(full)) if s in rows]
            expected = {f"protection.{block.reason}" for row in mine for block in row.blocks}
            assert set(guard.against(full)) == expected
            assert len(guard.against(full)) == len(expected)
        if not any(row.blocks for row in rows.values()):
            assert guard is OPEN

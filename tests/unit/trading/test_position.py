"""The fold of a position: ledger arithmetic, and which fact changes which memory."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal, localcontext

import pytest

from edgebook.domain.book import Account, Emergency, Ledger, Pool
from edgebook.domain.codec import from_json, to_json
from edgebook.domain.errors import TradingError
from edgebook.domain.strands import OrderExpired, OrderFilled, StageTransition, Strand
from edgebook.trading.position import (
    apply_buy,
    apply_sell,
    evolve,
    evolve_account,
    gross,
    is_dust,
    unrealised,
    write_off,
)

D = Decimal


def example() -> Ledger:
    """Buy 100@1 fee .3, sell 40@1.5 fee .18, buy 50@1.2 fee .18 (trading.md 4.3)."""
    ledger = apply_buy(Ledger(), D(100), 1.0, D("0.3"))
    ledger = apply_sell(ledger, D(40), 1.5, D("0.18"))
    return apply_buy(ledger, D(50), 1.2, D("0.18"))


def test_ledger_check_values():
    """trading.md 4.3: 110 tokens, cost 120.36, realised 19.70, unrealised 22.64 at 1.3, total 42.34."""
    ledger = example()
    assert ledger.quantity == D(110)
    assert ledger.cost == D("120.36")
    assert ledger.realised == D("19.70")
    assert unrealised(ledger, 1.3) == D("22.64")
    assert ledger.realised + unrealised(ledger, 1.3) == D("42.34")
    assert ledger.fees == D("0.66")


def test_selling_more_than_is_held_is_refused():
    """Tokens that are not there cannot be sold."""
    with pytest.raises(TradingError, match="only 110"):
        apply_sell(example(), D("110.000000001"), 1.0, D(0))


@pytest.mark.parametrize(("quantity", "price", "fee"), [(D(0), 1.0, D(0)), (D(1), 0.0, D(0)), (D(1), 1.0, D(-1))])
def test_impossible_fills_are_refused(quantity, price, fee):
    """Quantity and price must be positive, fees not negative."""
    with pytest.raises(TradingError):
        apply_buy(Ledger(), quantity, price, fee)


@pytest.mark.parametrize(("quantity", "price", "dust"), [
    ("0.9", 1.0, True), ("1.1", 1.0, False), ("0.09", 200.0, True), ("0.1", 200.0, True), ("0.1", 200.01, False),
    ("0.09", 1e6, False), ("0.11", 150.0, False),
])  # fmt: skip
def test_dust_is_under_a_dollar_or_a_thousandth_worth_little(quantity, price, dust):
    """110 bought: 0.9 at 1 USD is dust by value; less than 0.11 is by share, up to a worth of 20 USD."""
    ledger = replace(example(), quantity=D(quantity), bought=D(110))
    assert is_dust(ledger, price) is dust


def test_written_off_dust_is_a_realised_loss():
    """Writing off keeps realised - cost == extracted - invested."""
    ledger = write_off(example())
    assert (ledger.quantity, ledger.cost) == (0, 0)
    assert ledger.realised == ledger.extracted - ledger.invested


def test_the_first_strand_must_create_the_position(w):
    """Only position_status makes a position; anything else without one is an error."""
    strand = Strand("x", StageTransition("S0", "S1", 1.0, "a"), 0, 0, position_id="position-1")
    with pytest.raises(TradingError, match="belongs to position"):
        evolve(None, strand)


def test_a_strand_of_another_position_is_refused(w):
    """Strands never leak between positions."""
    strand = Strand("x", StageTransition("S0", "S1", 1.0, "a"), 0, 0, position_id="other")
    with pytest.raises(TradingError, match="other"):
        evolve(w.position(), strand)


def test_a_fill_nobody_planned_is_refused(w):
    """A fill must answer the planned action."""
    fill = OrderFilled("c", "a", "buy", "entry", 5, D(1), 1.0, D(0), 0.0, False, 0)
    with pytest.raises(TradingError, match="did not plan"):
        evolve(w.position(), Strand("x", fill, 0, 0, position_id="position-1"))


def test_an_attempt_starts_with_a_clean_memory(w):
    """S0->S1 clears s1_used, pool, emergency, arming and the last trim; S0 ends the attempt."""
    old = w.position(
        s1_used=True, armed_s2=True, armed_s3=True, first_dip_used=True, last_trim_ts=5, last_trim_level=1.0,
        pool=Pool(D(5)), emergency=Emergency(True, D(5), False),
    )  # fmt: skip
    start = Strand("x", StageTransition("S0", "S1", 1.0, "attempt-2"), 7, 7, position_id="position-1")
    p = evolve(old, start)
    assert p == w.position(attempt_id="attempt-2")
    end = Strand("y", StageTransition("S1", "S0", 1.0, "attempt-2"), 8, 8, position_id="position-1")
    assert evolve(p, end).attempt_id == ""


def test_entering_s2_and_s3_arms_them(w):
    """Arming follows the transition; S3 opens its first dip anew."""
    p = evolve(w.position(), Strand("x", StageTransition("S1", "S2", 1.0, "a"), 7, 7, position_id="position-1"))
    assert (p.armed_s2, p.armed_s3) == (True, False)
    p = evolve(
        replace(p, first_dip_used=True),
        Strand("y", StageTransition("S2", "S3", 1.0, "a"), 8, 8, position_id="position-1"),
    )
    assert (p.armed_s3, p.first_dip_used) == (True, False)


def test_time_to_s3_starts_with_the_trade(w):
    """s3_reached_ts is the first S3 seen by an open trade, once."""
    change = StageTransition("S2", "S3", 1.0, "a")
    assert evolve(w.position(), Strand("x", change, 8, 8, position_id="position-1")).s3_reached_ts == 0
    open_trade = w.position(trade_id="t")
    assert evolve(open_trade, Strand("x", change, 8, 8, position_id="position-1")).s3_reached_ts == 8
    again = evolve(replace(open_trade, s3_reached_ts=3), Strand("x", change, 8, 8, position_id="position-1"))
    assert again.s3_reached_ts == 3


def test_an_expired_order_only_frees_the_position(world):
    """Nothing but the waiting order is forgotten."""
    world.s1_buy()
    planned = world.position
    expired = Strand("x", OrderExpired("c", "a", "buy", "entry", "no price"), 0, 0, position_id=planned.id)
    assert evolve(planned, expired) == replace(planned, planned=None, last_seq=0)


def test_a_trim_fills_the_pool_and_rearms(world):
    """F8: two trims add up in the pool by net proceeds; their level and time are remembered; S2 and S3 are armed
    again."""
    world.fee_rate = D("0.001")
    world.s1_buy()
    world.bar("S2", 101.0)
    world.bar("S3", 103.0)
    world.position = replace(world.position, armed_s3=False)
    world.trim(110.0)
    planned_at = world.now
    world.bar("S3", 108.0)
    first = world.position.pool.basis
    sold = world.kinds("order_filled")[-1].payload
    assert first == (sold.quantity * D(110)).quantize(D("0.000001")) - sold.fee_usd
    assert (world.position.last_trim_ts, world.position.last_trim_level) == (planned_at, 110.0)
    assert world.position.armed_s3
    world.trim(115.0)
    world.trim(115.0)
    world.bar("S3", 114.0)
    second = world.kinds("order_filled")[-1].payload
    assert len(world.kinds("order_filled")) == 3
    assert world.position.pool.basis == first + (second.quantity * D(115)).quantize(D("0.000001")) - second.fee_usd


def test_cash_moves_with_fills_only(world):
    """The account pays q*p + fee for a buy and receives q*p - fee for a sell."""
    world.fee_rate = D("0.001")
    world.s1_buy()
    before = world.account.cash_usd
    assert before == D(100_000)
    world.bar("S1", 99.0)
    spent = world.position.ledger.invested
    assert world.account.cash_usd == before - spent
    world.over("S1", 96.0)
    world.bar("S0", 95.0)
    closed = world.kinds("position_closed")[0].payload
    assert world.account.cash_usd == before + closed.summary.pnl_usd
    assert evolve_account(Account("paper", D(1)), world.log[0]) == Account("paper", D(1))


def test_the_row_survives_json(world):
    """A position with a planned action and executed ones is the same after its JSON round trip."""
    world.s1_buy()
    world.bar("S2", 101.0)
    world.bar("S3", 103.0)
    world.dx_buy()
    assert world.position.planned is not None
    assert world.position.actions
    assert from_json(type(world.position), to_json(world.position)) == world.position
    assert from_json(type(world.memory), to_json(world.memory)) == world.memory


def test_money_is_rounded_the_same_whatever_others_do_to_the_thread():
    """Libraries change how decimals are rounded; the ledger of a fold must not follow them."""
    with localcontext() as context:
        context.rounding = ROUND_HALF_UP
        spoilt = apply_buy(Ledger(), Decimal("23.1995371855"), 100.0, Decimal("0.0000005"))
    assert spoilt == apply_buy(Ledger(), Decimal("23.1995371855"), 100.0, Decimal("0.0000005"))
    assert (gross(Decimal("23.199537185"), 100.0), spoilt.quantity) == (Decimal("2319.953718"), Decimal("23.199537186"))

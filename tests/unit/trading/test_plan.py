"""Sizes: the continuous maps, payback multipliers, and the order in which learning enters (trading.md 3.3, 3.5)."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from edgebook.domain.book import Emergency, Ledger, Pool
from edgebook.domain.errors import TradingError
from edgebook.overrides.combine import Strength
from edgebook.trading.plan import KINDS, payback, size_fraction, size_of
from edgebook.trading.rules import SizeRules

D = Decimal
RULES = SizeRules()


@pytest.mark.parametrize(
    ("kind", "fractions"),
    [
        ("s1", (0.10, 0.30, 0.50)),
        ("add", (0.05, 0.15, 0.25)),
        ("pool", (0.10, 0.30, 0.60)),
        ("dx", (0.0333, 0.10, 0.20)),
        ("reclaim", (0.10, 0.30, 0.60)),
        ("trim", (0.15, 0.30, 0.60)),
    ],
)
def test_the_table_of_sizes(kind, fractions):
    """Patient, normal and aggressive sizes of trading.md 3.3 at A = .15, .5, .85, and flat outside."""
    for appetite, fraction in zip((0.15, 0.5, 0.85), fractions, strict=True):
        assert size_fraction(kind, appetite, RULES) == pytest.approx(fraction, abs=1e-15)
    assert size_fraction(kind, 0.0, RULES) == fractions[0]
    assert size_fraction(kind, 1.0, RULES) == fractions[2]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "exit"])
def test_sizes_rise_without_steps(kind):
    """A learned 2 % change of A changes the size wherever A is between the outer knots."""
    values = [size_fraction(kind, i / 1000, RULES) for i in range(1001)]
    assert values == sorted(values)
    assert max(b - a for a, b in pairwise(values)) < 0.002
    assert all(values[i] < values[i + 20] for i in range(150, 830))


def test_unknown_kinds_are_refused():
    """There is no silent default size."""
    with pytest.raises(TradingError, match="size kind"):
        size_fraction("moon_bag", 0.5, RULES)


def test_learning_enters_in_the_order_of_the_specification(w):
    """A' = A * aggression -> fraction -> size_mult: A .5 * 1.1 = .55 -> .30 + .2*(.05/.35) -> * 1.2."""
    size = size_of("s1", w.position(), 0.5, 0.5, Strength(1.2, 1.1, 1.0), RULES, D(1000))
    assert size.a_value == pytest.approx(0.55)
    assert size.fraction == pytest.approx((0.30 + 0.20 * (0.05 / 0.35)) * 1.2)
    assert size.base_fraction == 0.30
    assert size.amount == D(repr(size.fraction)) * 1000 // D("0.000000001") * D("0.000000001")


def test_a_matched_neutral_lesson_is_not_a_size_of_nothing(w):
    """Neutral multipliers leave the size exactly as it is (the reference once used a delta as a factor)."""
    size = size_of("s1", w.position(), 0.5, 0.5, Strength(), RULES, D(1000))
    assert size.fraction == size.base_fraction == 0.30


def test_exit_aggression_moves_trims_and_size_mult_does_not(w):
    """Trim: E' = E * exit_mult; size_mult and entry aggression are not its levers."""
    held = w.position(ledger=Ledger(D(100), D(100), D(100)))
    more = size_of("trim", held, 0.5, 0.5, Strength(1.5, 1.2, 1.2), RULES)
    assert more.e_value == pytest.approx(0.6)
    assert more.fraction == pytest.approx((0.30 + 0.30 * (0.1 / 0.35)) * 1.5)
    assert more.base_fraction == pytest.approx(0.45)


def test_full_exits_read_no_lever(w):
    """An exit is the whole quantity whatever learning says."""
    held = w.position(ledger=Ledger(D("12.5"), D(100), D(100)))
    size = size_of("exit", held, 0.1, 0.1, Strength(0.5, 0.8, 0.8), RULES)
    assert (size.fraction, size.amount) == (1.0, D("12.5"))


@pytest.mark.parametrize(("extracted", "trim"), [(0, 0.45), (49, 0.45), (50, 0.30), (100, 0.09), (300, 0.03)])
def test_trims_shrink_as_the_trade_pays_back(w, extracted, trim):
    """F8: extraction ratio 0/.5/1/3 -> trim multiplier 1.5/1/.3/.1."""
    held = w.position(ledger=Ledger(D(100), D(100), D(100), D(extracted)))
    assert size_of("trim", held, 0.5, 0.5, Strength(), RULES).fraction == pytest.approx(trim)


def test_a_trim_is_never_more_than_nine_tenths(w):
    """60 % * 1.5 = 90 %, and a lesson cannot push it further."""
    held = w.position(ledger=Ledger(D(100), D(100), D(100)))
    assert size_of("trim", held, 0.5, 1.0, Strength(1.0, 1.0, 1.2), RULES).fraction == pytest.approx(0.9)


def test_adds_shrink_once_the_trade_is_paid_back(w):
    """entry_multiplier: .3 from a payback of 1 on, 1 before; it never averages down."""
    paid = w.position(ledger=Ledger(D(1), D(1), D(100), D(100)))
    assert payback(paid.ledger) == 1.0
    assert size_of("add", paid, 0.5, 0.5, Strength(), RULES, D(1000)).fraction == pytest.approx(0.045)
    losing = w.position(ledger=Ledger(D(1), D(1), D(100), D(10)))
    assert size_of("add", losing, 0.5, 0.5, Strength(), RULES, D(1000)).fraction == pytest.approx(0.15)


def test_each_kind_is_a_share_of_its_own_basis(w):
    """Pool and DX of the pool, reclaim of the emergency's proceeds, trim of the tokens, the rest of what may be
    spent."""
    p = w.position(pool=Pool(D(200)), emergency=Emergency(True, D(300), False), ledger=Ledger(D(50), D(1), D(1)))
    amounts = {
        k: size_of(k, p, 0.5, 0.5, Strength(), RULES, D(1000)).amount for k in ("s1", "pool", "dx", "reclaim", "exit")
    }
    assert amounts == {"s1": D(300), "pool": D(60), "dx": D(20), "reclaim": D(90), "exit": D(50)}

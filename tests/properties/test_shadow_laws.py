"""Laws of shadows over random markets, through the real jobs: every twin's ledger adds up, each chance has one end, and
neither commits, crashes nor repeated calls change what is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scripted import FLAVOURS, HOUR, T0, ScriptedMarket, signal_line

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.desk import Desk
from edgebook.domain.book import ZERO, Shadow
from edgebook.domain.reading import MarketReading
from edgebook.domain.strands import ShadowsClosed, Strand
from edgebook.jobs import decision_maker, follow_shadows, ingest_signal, pm_core_tick, run_aggregator, settle_orders
from edgebook.learning.config import LearningConfig
from edgebook.runtime.replay import rebuild
from edgebook.stage import Stage
from edgebook.trading.position import gross, is_dust, unrealised, usd
from edgebook.trading.rules import PmRules, ShadowRules, TradingRules

D = Decimal
SYMBOLS = ("AUSDT", "BUSDT")
RULES = TradingRules(holdout=0.0, timeframes=("1h",), pm=PmRules(reclaim_enabled=True))
bar = st.tuples(
    st.sampled_from(["same", "same", "same", "on", "on", "back", "gone"]),
    st.sampled_from([100.0, 101.25, 96.5, 94.0, 110.1, 88.0]),
    st.sampled_from(["buy", "buy", *FLAVOURS]),
)
scripts = st.lists(st.tuples(bar, bar), min_size=10, max_size=45)
places = st.frozensets(st.integers(0, 45), max_size=8)


def market_of(script: list[Any]) -> ScriptedMarket:
    """The whole market at once: who walks it asks by time."""
    market = ScriptedMarket(SYMBOLS)
    gone = dict.fromkeys(SYMBOLS, 0)
    for bars in script:
        for symbol, (move, price, flavour) in zip(SYMBOLS, bars, strict=True):
            market.bar(symbol, move, price, flavour)
            if move == "gone":
                gone[symbol] += 1
            else:
                written = market._readings[symbol, "1h"]
                at = market.now + HOUR
                written[at] = replace(written[at], gap_bars=gone[symbol])
                gone[symbol] = 0
        market.pass_hour()
    return market


class Walk:
    """A market walked by the real jobs on a store, hour by hour."""

    def __init__(self, script, store=None, *, twice=False, rules=RULES, learn=False):
        self.market, self.rules, self.twice, self.learn = market_of(script), rules, twice, learn
        self.store, self.hours = store or MemoryStore(), len(script)
        self.hour = self.kept = 0
        self.open()
        for symbol in SYMBOLS:
            ingest_signal(self.desk, signal_line(symbol, symbol, T0), T0)
        decision_maker(self.desk, T0)
        self.uow.commit()

    def open(self):
        self._writer = self.store.writer()
        self.uow = self._writer.__enter__()
        self.desk = Desk(self.uow, self.market, PaperBroker(), {}, self.rules, LearningConfig())

    def close(self):
        self._writer.__exit__(None, None, None)

    def crash(self):
        """The process ends without a commit; the next one walks again what was not kept."""
        self.close()
        self.hour = self.kept
        self.open()

    def commit(self):
        self.uow.commit()
        self.kept = self.hour

    def step(self):
        self.hour += 1
        now = T0 + self.hour * HOUR
        pm_core_tick(self.desk, "1h", now)
        if self.rules.shadows.enabled:
            follow_shadows(self.desk, "1h", now)
            if self.twice:
                before = self.uow.log.head
                follow_shadows(self.desk, "1h", now)
                assert self.uow.log.head == before
        if self.learn and self.hour % 5 == 0:
            run_aggregator(self.desk, now)
        settle_orders(self.desk, now)

    def walk(self, commits=frozenset(), crashes=frozenset()):
        crashes = set(crashes)
        while self.hour < self.hours:
            self.step()
            if self.hour in crashes:
                crashes.discard(self.hour)
                self.crash()
            elif self.hour in commits:
                self.commit()
        self.commit()
        return self

    @property
    def log(self) -> list[Strand]:
        return list(self.uow.log.read(0))

    @property
    def told(self) -> list[Strand]:
        return list(self.uow.log.read(0, ["shadows_closed"]))


@contextmanager
def walked(script, *args, **how) -> Iterator[Walk]:
    commits, crashes = how.pop("commits", frozenset()), how.pop("crashes", frozenset())
    walk = Walk(script, *args, **how)
    try:
        yield walk.walk(commits, crashes)
    finally:
        walk.close()


def check_twin(shadow: Shadow, mark: float) -> None:
    """The ledger identity to the last digit, and every sum of the ledger from the twin's own fills."""
    ledger, actions = shadow.twin.ledger, shadow.twin.actions
    held = unrealised(ledger, mark)
    assert ledger.realised + held == held + ledger.cost + ledger.extracted - ledger.invested
    bought = [a for a in actions if a.decision_type in ("entry", "add")]
    sold = [a for a in actions if a.decision_type not in ("entry", "add")]
    assert ledger.invested == sum((gross(a.quantity, a.price) + usd(a.fee_usd) for a in bought), ZERO)
    assert ledger.extracted == sum((gross(a.quantity, a.price) - usd(a.fee_usd) for a in sold), ZERO)
    left = sum((a.quantity for a in bought), ZERO) - sum((a.quantity for a in sold), ZERO)
    assert left >= ledger.quantity >= 0
    assert ledger.quantity == left or is_dust(replace(ledger, quantity=left), sold[-1].price)
    assert ledger.cost >= 0
    assert ledger.invested - ledger.extracted <= RULES.shadows.stake_usd * D("1.1")
    assert actions[0].rule in (5, 8)


@settings(max_examples=40)
@given(scripts)
def test_the_ledger_of_every_twin_adds_up_after_every_bar(script):
    walk = Walk(script)
    try:
        while walk.hour < walk.hours:
            walk.step()
            for shadow in walk.uow.shadows.values():
                check_twin(shadow, walk.market.mark(shadow.symbol, T0 + walk.hour * HOUR) or 100.0)
    finally:
        walk.close()


@settings(max_examples=40)
@given(scripts)
def test_each_window_has_at_most_one_outcome_and_none_without_a_window(script):
    """A shadow is of a window that was told, ends with its attempt, and is nowhere else."""
    with walked(script) as walk:
        windows = {s.payload.window_id: s for s in walk.log if s.kind == "uptrend_buy_window"}
        ended = [o.window_id for s in walk.told for o in s.payload.windows]
        running = [s.window_id for s in walk.uow.shadows.values()]
        assert len(ended + running) == len(set(ended + running))
        assert set(ended + running) <= set(windows)
        for strand in walk.told:
            assert isinstance(strand.payload, ShadowsClosed)
            for outcome in strand.payload.windows:
                told = windows[outcome.window_id]
                assert told.position_id == strand.position_id
                assert outcome.entry_ts <= told.ts_event <= outcome.exit_ts <= strand.ts_event
                assert -3.0 <= outcome.rr <= 10.0
                assert set(outcome.values) == set(outcome.margins)
                assert not outcome.flag_on or all(u >= 0 for u in outcome.margins.values())
                assert outcome.flag_on or all(-1 <= u < 0 for u in outcome.margins.values())


@settings(max_examples=40)
@given(scripts, places, places, st.booleans())
def test_commits_crashes_and_repeated_calls_change_nothing(script, commits, crashes, twice):
    """The whole log, hashes included, is that of one clean walk."""
    with walked(script) as clean, walked(script, commits=commits, crashes=crashes, twice=twice) as other:
        assert other.log == clean.log
        assert list(other.uow.shadows.values()) == list(clean.uow.shadows.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_database_tells_the_same_after_a_crash_at_every_hour(tmp_path, seed):
    """SQLite, committed every third hour, and a power cut after each hour: the same log as in memory without any."""
    script = dice_script(Random(seed), 40)
    everywhere = frozenset(range(1, 40))
    with walked(script) as clean:
        told = clean.told
        assert told
        thirds = frozenset(range(0, 40, 3))
        store = SqlStore(f"sqlite:///{tmp_path}/book.db")
        with walked(script, store, commits=thirds, crashes=everywhere, twice=True) as other:
            assert other.log == clean.log
            assert list(other.uow.shadows.values()) == list(clean.uow.shadows.values())


@settings(max_examples=25)
@given(scripts)
def test_a_rebuild_equals(script):
    """Outcomes of shadows are folded from the log like any other strand, and what learning makes of them too."""
    with walked(script, learn=True) as walk, walk.store.reader() as stored:
        assert rebuild(stored, walk.rules, LearningConfig()).differences == ()


@settings(max_examples=25)
@given(scripts)
def test_shadows_change_no_other_strand(script):
    """With and without shadows the rest of the log is the same, but for its numbering."""
    without = replace(RULES, shadows=ShadowRules(enabled=False))
    with walked(script) as one, walked(script, rules=without) as two:
        rest = [replace(s, seq=0, hash="") for s in one.log if s.kind != "shadows_closed"]
        assert rest == [replace(s, seq=0, hash="") for s in two.log]
        assert not two.told


@settings(max_examples=25)
@given(scripts)
def test_bars_that_mean_nothing_to_a_shadow_may_be_left_out(script):
    """Led over every bar there is, each ends the same, and stands the same on the way."""

    def every(stage: Stage, timeframe: str, now: int) -> Iterator[tuple[MarketReading, list[Shadow]]]:
        for symbol in SYMBOLS:
            reading = stage._market.reading(symbol, timeframe, now)
            found: dict[str, list[Shadow]] = {}
            for shadow in stage._uow.shadows.values():
                if shadow.symbol == symbol:
                    found.setdefault(shadow.position_id, []).append(shadow)
            for shadows in found.values() if reading is not None else ():
                yield reading, shadows

    with walked(script) as few, mock.patch.object(Stage, "due", every), walked(script) as all_of_them:
        assert all_of_them.log == few.log
        twins = [[s.twin for s in walk.uow.shadows.values()] for walk in (few, all_of_them)]
        assert twins[0] == twins[1]


def dice_script(dice: Random, hours: int) -> list[Any]:
    """A market by dice, which goes on more often than back."""
    moves, prices = ["same", "same", "on", "on", "back"], [100.0, 101.25, 96.5, 94.0, 110.1]
    flavours = ["buy", "buy", "buy", *FLAVOURS]
    return [tuple((dice.choice(moves), dice.choice(prices), dice.choice(flavours)) for _ in SYMBOLS)
            for _ in range(hours)]  # fmt: skip


def test_the_random_markets_reach_the_interesting_places():
    """The laws above are not empty: fixed markets end attempts of both kinds, taken, blocked and just missed, with
    trims and rebuys in them, and several chances of one attempt."""
    kinds, rules, sizes, entered = set(), set(), set(), set()
    for seed in range(25):
        with walked(dice_script(Random(seed), 45)) as walk:
            for strand in walk.told:
                sizes.add(min(3, len(strand.payload.windows)))
                for o in strand.payload.windows:
                    kinds.add((o.episode_type, o.flag_on))
                    entered.add((o.entered, bool(o.blocked_by)))
            rules |= {a.rule for s in walk.uow.shadows.values() for a in s.twin.actions}
    assert {("s1_entry", True), ("s3_retest", True)} <= kinds
    assert {(True, False), (False, True)} <= entered
    assert {1, 2, 3} & sizes == {1, 2, 3}
    assert {3, 5, 8} <= rules

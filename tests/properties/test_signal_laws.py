"""Laws of the signal side: however messages are delivered, the book ends the same, and the log alone rebuilds it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.feeds.signals import TableResolver
from edgebook.adapters.memory import MemoryStore
from edgebook.desk import Desk
from edgebook.domain.decay import HOUR
from edgebook.domain.regime import Regime
from edgebook.domain.strands import CuratorRegistered, DecisionLowcap
from edgebook.jobs import register_curators
from edgebook.learning.config import LearningConfig
from edgebook.ports import TokenInfo
from edgebook.runtime.replay import rebuild
from edgebook.runtime.system import System
from edgebook.trading.intents import intent_of
from edgebook.trading.rules import TradingRules

NOW = 1_704_067_200_000_000
RULES = TradingRules(timeframes=("1h", "4h"))
TOKENS = {s: TokenInfo(s, s[:3], "exchange", 3e6) for s in ("KEYUSDT", "CATUSDT")}
ANN = CuratorRegistered("ann", "Ann", True, "active", 0.8, ("twitter:ann",), (), "")
BOB = CuratorRegistered("bob", "Bob", False, "active", 0.8, ("telegram:bob",), (), "")
INTENTS = (
    "new_discovery", "research_positive", "other_positive", "profit_taking", "sell", "mocking_negative", "mention_only",
)  # fmt: skip


class QuietMarket:
    """A market where every bar is known and nothing happens."""

    def regime(self, timeframe: str, cap_class: str, now: int) -> Regime:
        return Regime(now, 0.5, 0.5, (("macro_phase", "Good"), ("A_mode", "normal")), "snapshot", {})

    def contiguous_bars(self, symbol: str, timeframe: str, now: int, max_hole: int) -> int:
        return 333


def line(number: int, minute: int, who: str, symbol: str, intent: str) -> str:
    """One message; its number makes its id, on one of two platforms, so everything else follows from its id."""
    token = {"symbol": symbol} if number % 2 else {"ticker": f"${symbol[:3]}"}
    said: dict[str, Any] = {
        "message_id": f"m{number}", "platform": ("jsonl", "twitter")[number % 2], "curator": who, "token": token,
        "ts": f"2023-12-31T{20 + minute // 60:02}:{minute % 60:02}:00Z", "intent": intent, "mapping_confidence": 0.95,
    }  # fmt: skip
    return json.dumps(said)


messages = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from(["ann", "twitter:@Ann", "telegram:bob", "bob", "zoe", "twitter:zoe"]),
        st.sampled_from(sorted(TOKENS)),
        st.sampled_from(INTENTS),
    ),
    min_size=1,
    max_size=9,
).map(lambda found: [line(number, *said) for number, said in enumerate(found)])


@st.composite
def deliveries(draw):
    """Messages, and two ways of delivering them: batches in any order, any message repeated any number of times."""
    lines = draw(messages)
    ways = []
    for _ in range(2):
        repeated = [*lines, *draw(st.lists(st.sampled_from(lines), max_size=6))]
        shuffled = draw(st.permutations(repeated))
        cuts = sorted(draw(st.sets(st.integers(1, len(shuffled)), max_size=3)))
        ways.append([shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)])
    return lines, ways


def delivered(batches, check=None):
    """The book after these deliveries at one moment: rows by table and key without their places in the log."""
    store = MemoryStore()
    with store.writer() as uow:
        desk = Desk(
            uow, QuietMarket(), PaperBroker(), TOKENS, RULES, LearningConfig(),
            resolver=TableResolver(TOKENS, RULES.dm.chains),
        )  # fmt: skip
        register_curators(desk, (ANN, BOB), NOW)
        system = System(desk, SimpleNamespace(start=NOW, live=False), strict=True)
        receipts = [receipt for batch in batches for receipt in system.take(batch)]
        uow.commit()
        if check is not None:
            check(desk)
        found = {
            "positions": {p.id: replace(p, last_seq=0) for p in uow.positions.values()},
            **{
                name: {row.key: row for row in getattr(uow, name).values()}
                for name in ("decisions", "curators", "intents", "dead_letters")
            },
            "strands": {s.id: _said(s.payload) for s in uow.log.read(0, ["social_lowcap", "decision_lowcap"])},
        }
        return found, receipts, uow.log.head


def _said(payload):
    """A payload without the positions a decision reached: those that had not heard a newer message by then."""
    return replace(payload, position_ids=()) if isinstance(payload, DecisionLowcap) else payload


@settings(max_examples=60, deadline=None)
@given(deliveries())
def test_any_order_and_repetition_of_deliveries_gives_the_same_book(case):
    """Positions with their decisions, decisions, curators and intents do not know how the messages came."""
    lines, (one, other) = case
    book, receipts, _ = delivered(one)
    assert delivered(other)[0] == book
    assert sum(r.status == "accepted" for r in receipts) == len(lines)
    assert {r.status for r in receipts} <= {"accepted", "known"}
    assert not book["dead_letters"]


@settings(max_examples=40, deadline=None)
@given(messages, st.randoms(use_true_random=False))
def test_one_delivery_has_one_log_however_it_is_shuffled(lines, dice):
    """To the last hash."""
    shuffled = [*lines, *lines[:2]]
    dice.shuffle(shuffled)
    assert delivered([shuffled])[2] == delivered([lines])[2]


@settings(max_examples=40, deadline=None)
@given(messages)
def test_the_log_alone_rebuilds_the_book(lines):
    """Curators with what the registry says of them, intents, decisions and positions follow from the strands."""

    def check(desk):
        found = rebuild(desk.uow, RULES, LearningConfig())
        assert found.differences == ()
        assert found.rows["intents"] == len(desk.uow.intents) > 0
        assert desk.uow.curators.get("ann").name == "Ann"

    delivered([lines], check)


@settings(max_examples=40, deadline=None)
@given(messages)
def test_every_mention_is_kept_and_every_one_is_decided_once(lines):
    """One strand and one decision each; candidates alone can be approved; who is disabled is always rejected."""

    def check(desk):
        signals = list(desk.uow.log.read(0, ["social_lowcap"]))
        decided = {s.causation_id: s.payload for s in desk.uow.log.read(0, ["decision_lowcap"])}
        assert len(signals) == len(lines)
        assert set(decided) == {s.id for s in signals}
        for signal in signals:
            asked = "dm_candidate" in signal.tags and signal.payload.curator != "bob"
            assert (decided[signal.id].action == "approve") is asked
            assert signal.payload.curator in ("ann", "bob", "zoe", "twitter:zoe")

    delivered([lines], check)


@settings(max_examples=40, deadline=None)
@given(messages, st.integers(0, 600))
def test_intent_terms_stay_within_their_cap_and_fade(lines, hours):
    """Each within +-.40 at any time, and nothing is left after twenty days."""

    def check(desk):
        for row in desk.uow.intents.values():
            a, e = intent_of(row, desk.uow.curators.get, NOW + hours * HOUR)
            assert abs(a) <= 0.40
            assert abs(e) <= 0.40
            assert intent_of(row, desk.uow.curators.get, NOW + 500 * HOUR) == (0.0, 0.0)

    delivered([lines], check)


def test_of_two_contents_of_one_message_in_one_delivery_the_first_stays():
    """Same id, other words: what was given first is accepted, the other is refused; repetitions change nothing."""
    first, other = line(1, 5, "ann", "KEYUSDT", "profit_taking"), line(1, 5, "ann", "KEYUSDT", "new_discovery")
    book, receipts, head = delivered([[first, first, other, first]])
    assert [r.status for r in receipts] == ["accepted", "known", "refused", "known"]
    assert len(book["dead_letters"]) == 1
    assert head == delivered([[first]])[2]
    assert [r.status for r in delivered([[other, first]])[1]] == ["accepted", "refused"]


def test_a_conflicting_delivery_never_overwrites():
    """Later, under the same id with other words: refused, and everything is as it was but for the dead letter."""
    first, other = line(1, 5, "ann", "KEYUSDT", "profit_taking"), line(1, 5, "ann", "KEYUSDT", "new_discovery")
    plain, _, head = delivered([[first]])
    book, receipts, after = delivered([[first], [other], [first]])
    assert [r.status for r in receipts] == ["accepted", "refused", "known"]
    assert after == head
    assert {k: v for k, v in book.items() if k != "dead_letters"} == {
        k: v for k, v in plain.items() if k != "dead_letters"
    }

"""However the evidence on gates is delivered, its sums are those of one clean pass: duplicates, another order, and a
crash at any strand, through the real aggregator and its watermark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chances import SCOPE, attempt, chance, episode

from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.desk import Desk
from edgebook.domain.decay import HOUR
from edgebook.domain.levers import GATE_LEVERS
from edgebook.domain.pattern import EPISODE_PATTERN
from edgebook.domain.strands import Strand
from edgebook.jobs import run_aggregator
from edgebook.learning.config import LearningConfig
from edgebook.ports import MarketReader, Store
from edgebook.trading.rules import TradingRules

STRANDS = 24


def evidence(seed: int) -> list[Strand]:
    """Attempts as they end: the episode of each, and what its chances were worth, in the order of the log."""
    draw, found = Random(seed), []
    for i in range(STRANDS // 2):
        kind = draw.choice(sorted(EPISODE_PATTERN))
        ts = (i + 1) * HOUR
        margins = {name: draw.uniform(-1.2, 1.2) for name in GATE_LEVERS[kind]}
        outcome = draw.choice(("success", "failure", "missed", "correct_skip"))
        found.append(episode(f"episode-{i}", outcome, margins, kind, ts))
        chances = [
            chance(margins, kind, values={name: draw.gauss(0, 1.3) for name in margins},
                   scope={**SCOPE, "macro_phase": draw.choice(("Good", "Dip"))})
            for _ in range(draw.randint(1, 3))
        ]  # fmt: skip
        found.append(attempt(f"shadows-{i}", chances, ts))
    return found


class Reader:
    """A process that reads evidence: strands come in, the aggregator runs, commits are kept."""

    def __init__(self, store: Store) -> None:
        self.store, self.slot = store, 0
        self.open()

    def open(self) -> None:
        self._writer = self.store.writer()
        self.uow = self._writer.__enter__()
        self.desk = Desk(self.uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())

    def close(self) -> None:
        self._writer.__exit__(None, None, None)

    def crash(self) -> None:
        """Nothing since the last commit has been."""
        self.close()
        self.open()

    def take(self, strands: Sequence[Strand]) -> None:
        self.desk.record(strands)

    def learn(self) -> None:
        self.slot += HOUR
        run_aggregator(self.desk, self.slot)

    def tuning(self) -> dict[str, Any]:
        """What was learned of gates, by row."""
        return {row.key: row.stats["tuning"] for row in self.uow.stats.values()}


def clean(strands: Sequence[Strand]) -> dict[str, Any]:
    """One pass, one run, no trouble."""
    reader = Reader(MemoryStore())
    reader.take(strands)
    reader.learn()
    found = reader.tuning()
    reader.close()
    assert len(found) > 4
    return found


def flat(block: Any, path: str = "") -> dict[str, float]:
    """Every number of a block, by its place."""
    if isinstance(block, Mapping):
        return {k: v for name, part in block.items() for k, v in flat(part, f"{path}.{name}").items()}
    if isinstance(block, list | tuple):
        return {k: v for i, part in enumerate(block) for k, v in flat(part, f"{path}.{i}").items()}
    return {path: block}


@settings(max_examples=25)
@given(st.integers(0, 5), st.lists(st.integers(0, STRANDS), max_size=6), st.lists(st.integers(0, STRANDS), max_size=6))
def test_parts_and_duplicates_are_the_clean_pass_to_the_last_digit(seed, parts, again):
    """Delivered in any parts, the job run after each and once more, and parts delivered again later: equal blocks."""
    strands = evidence(seed)
    reader = Reader(MemoryStore())
    for start, end in zip([0, *sorted(parts)], [*sorted(parts), STRANDS], strict=True):
        reader.take(strands[start:end])
        reader.learn()
        reader.learn()
        reader.take([s for i in again for s in strands[max(0, i - 3) : i] if i <= end])
    reader.learn()
    found = reader.tuning()
    reader.close()
    assert found == clean(strands)


@settings(max_examples=25)
@given(st.integers(0, 5), st.randoms(use_true_random=False), st.integers(1, 7))
def test_another_order_is_the_clean_pass_up_to_rounding(seed, dice, size):
    """Any order, in parts of any size, each strand up to three times: counts are equal, sums to 1e-9."""
    strands = evidence(seed)
    mixed = strands * 3
    dice.shuffle(mixed)
    reader = Reader(MemoryStore())
    for start in range(0, len(mixed), size):
        reader.take(mixed[start : start + size])
        reader.learn()
    found = flat(reader.tuning())
    reader.close()
    wanted = flat(clean(strands))
    assert set(found) == set(wanted)
    assert all(found[k] == wanted[k] for k in wanted if isinstance(wanted[k], int))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("where", ["memory", "sqlite"])
@pytest.mark.parametrize("kept", ["before", "after the strand", "after the job"])
def test_a_crash_at_any_strand_is_the_clean_pass(tmp_path, where, kept):
    """The power fails at each strand in turn, with nothing, the strand, or the job committed; they come again."""
    strands = evidence(1)
    store = MemoryStore() if where == "memory" else SqlStore(f"sqlite:///{tmp_path}/book.db")
    reader = Reader(store)
    for i in range(STRANDS):
        reader.take(strands[i : i + 1])
        if kept == "after the strand":
            reader.uow.commit()
        reader.learn()
        if kept == "after the job":
            reader.uow.commit()
        reader.crash()
        reader.take(strands[max(0, i - 4) : i + 1])
        reader.learn()
        reader.uow.commit()
    found = reader.tuning()
    reader.close()
    assert found == clean(strands)


def test_the_comparison_can_fail():
    """One strand less, or one more, is another block."""
    strands = evidence(2)
    assert clean(strands[:-1]) != clean(strands)
    assert clean(strands[1:]) != clean(strands)

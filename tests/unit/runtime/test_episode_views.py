"""Votes, groups, moves and gates in force, on rows written by hand."""

from __future__ import annotations

import pytest

from edgebook.adapters.memory import MemoryStore
from edgebook.domain.decay import HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import ConfigVersion, StatRow, Watermark
from edgebook.domain.pattern import S1_ENTRY
from edgebook.domain.protection import Block, Protection
from edgebook.domain.scope import PM_SCHEMA, make_scope, scope_hash
from edgebook.domain.strands import EpisodeSummary, LeverEvidence, Strand, WindowOutcome
from edgebook.learning.config import LearningConfig
from edgebook.learning.marginal import best_move
from edgebook.overrides.record import Override, dump_documents
from edgebook.runtime.episodes import Episode, find_episode, vote_of
from edgebook.runtime.gate_views import bands_of, gates_view, lever_view

T0 = 400_000 * HOUR
NONE = [0] * 10


def evidence(u, *, sole=False, confidence=0.5):
    """What a window says about ``ts_min`` at this margin."""
    return LeverEvidence("ts_min", 0.6 + u / 10, 0.6, u / 10, u, min(1.0, abs(u)), confidence, "hold", sole)


def judged(one, *, entered=False, outcome="failure", blocked=(), partial=False):
    """The vote of an S1 window with one piece of evidence, and why there is none."""
    window = WindowOutcome("w", "signal", T0, T0 + HOUR, entered, outcome, blocked, {}, (one,))
    episode = Episode("e", "A", "1h", "p", "s1_entry", outcome, entered, partial, T0, T0 + HOUR, 1, (window,))
    return vote_of(episode, window, one)


def test_a_bought_window_votes_where_the_gate_passed():
    """Weight: nearness 1 - .2, times confidence .5."""
    assert judged(evidence(0.2), entered=True) == (pytest.approx(0.4), "")


def test_a_skipped_window_votes_where_the_gate_alone_failed():
    """The same on the other side; a second failed check silences it."""
    assert judged(evidence(-0.2, sole=True), outcome="missed") == (pytest.approx(0.4), "")
    assert judged(evidence(-0.2), outcome="missed") == (None, "not the sole blocker")


@pytest.mark.parametrize(
    ("one", "given", "why"),
    [
        (evidence(1.5), {"entered": True}, "far away"),
        (evidence(-1.0, sole=True), {}, "far away"),
        (evidence(-0.2), {"entered": True}, "taken below the gate"),
        (evidence(0.2), {}, "it had passed"),
        (evidence(-0.2, sole=True), {"blocked": ("s1_used",)}, "blocked by a rule"),
        (evidence(-0.2, sole=True), {"outcome": "void"}, "void"),
        (evidence(-0.2, sole=True), {"outcome": ""}, "no outcome yet"),
        (evidence(-0.2, sole=True), {"partial": True}, "its beginning was not seen"),
    ],
)
def test_a_window_that_casts_no_vote_says_why(one, given, why):
    """One reason, the first that applies."""
    assert judged(one, **given) == (None, why)


# ---------------------------------------------------------------- ids


def store_of(*idents):
    """A store with one closed episode per id."""
    store = MemoryStore()
    summary = EpisodeSummary("s1_entry", "missed", False, False, T0, T0 + HOUR, 1, *S1_ENTRY, ())
    with store.writer() as uow:
        uow.log.append([Strand(f"s{i}", summary, T0, T0, episode_id=ident) for i, ident in enumerate(idents)])
        uow.commit()
    return store


def test_an_id_is_found_by_its_beginning_if_only_one_begins_so():
    """Two that share it are named, so that one can be chosen."""
    with store_of("abcd-1", "abcd-2", "efgh-1").reader() as uow:
        assert find_episode(uow, "efgh").id == "efgh-1"
        assert find_episode(uow, "abcd-2").id == "abcd-2"
        with pytest.raises(InputError, match=r"2 episodes .* 'abcd': abcd-1, abcd-2; give more"):
            find_episode(uow, "abcd")


# ---------------------------------------------------------------- gates


def marginal(n, y, y2):
    """Bands that are empty but for the two beside the base."""
    sums = {part: [*NONE[:4], *two, *NONE[6:]] for part, two in (("n", n), ("y", y), ("y2", y2))}
    return {**sums, "inside": [60, 0.0, 60.0]}


def test_a_move_that_stands_is_shown_with_its_target():
    """60 chances of 1 R each just below the base, of 60 attempts: loosen by one band, a fifth of the cap."""
    found = lever_view("ts_min", marginal((60, 0), (60.0, 0.0), (60.0, 0.0)))
    assert (found["move"], found["gain_r"], found["why_not"]) == (-1, 60.0, "")
    assert found["target"] == pytest.approx(0.60 - 0.2 * 0.10)
    band = found["bands"][4]
    assert (band["from"], band["to"], band["n"], band["mean_r"]) == (-0.2, 0.0, 60, 1.0)
    assert band["se_r"] == pytest.approx((2.0 * 60.0) ** 0.5 / 60)


def test_a_gate_where_lowering_tightens_moves_the_other_way():
    """The halo is loosened by raising it."""
    found = lever_view("halo", marginal((60, 0), (60.0, 0.0), (60.0, 0.0)))
    assert found["target"] == pytest.approx(1.0 + 0.2 * 0.20)


@pytest.mark.parametrize(
    ("bands", "why"),
    [
        (marginal((4, 0), (8.0, 0.0), (16.0, 0.0)), "too few: -1 would flip 4 chances, 10 are needed"),
        (marginal((40, 0), (4.0, 0.0), (80.0, 0.0)), "does not stand: -1 would gain 4.00 R"),
        (marginal((40, 40), (-4.0, 4.0), (8.0, 8.0)), "no move would gain"),
        (bands_of(None, "ts_min"), "no chances near it"),
    ],
)
def test_a_gate_that_stays_says_why(bands, why):
    """And the estimate of learning makes no move either."""
    found = lever_view("ts_min", bands)
    assert found["move"] is None
    assert found["why_not"].startswith(why)
    assert best_move(bands, LearningConfig()) is None


def book(*, off=False, hours=60):
    """A store with tuned S1 gates: everywhere ts_min .55, in 4h another .05 less; bands that ask for the first."""
    store = MemoryStore()
    scope = make_scope(PM_SCHEMA, {"timeframe": "4h"})
    overrides = [
        Override("a", "pm_tuning", *S1_ENTRY, (), {"ts_min": 0.55}, 1e15, T0),
        Override("b", "pm_tuning", *S1_ENTRY, scope, {"ts_min": 0.55}, 1e15, T0),
    ]
    block = {"outcomes": {"missed": 60}, "payoff": {}, "last_ts": T0}
    block["levers"] = {"ts_min": {"marginal": marginal((60, 0), (60.0, 0.0), (60.0, 0.0))}}
    with store.writer() as uow:
        uow.stats.put(StatRow("pm", *S1_ENTRY, 0, scope_hash(()), {}, 0, {"tuning": {"s1_entry": block}}, T0, T0))
        uow.config_versions.put(ConfigVersion(1, T0, *dump_documents(overrides), ""))
        uow.watermarks.put(Watermark("clock", 0, T0 + hours * HOUR))
        if off:
            switch = Block("kill_switch", T0, 0, "s")
            uow.protections.put(Protection("channel|tuning", blocks=(switch,)))
        uow.commit()
    return store


def test_gates_in_force_are_given_per_scope_an_override_names():
    """The narrower slice adds to the wider one; the other key is at base."""
    with book().reader() as uow:
        s1, s3 = gates_view(uow)["keys"]
    gates = [(row["scope"], row["gates"]["ts_min"], row["moved"]) for row in s1["in_force"]]
    assert gates == [({}, pytest.approx(0.55), ["ts_min"]), ({"timeframe": "4h"}, pytest.approx(0.50), ["ts_min"])]
    assert [(row["scope"], row["moved"]) for row in s3["in_force"]] == [({}, [])]
    assert s1["shifts"] == [
        {"scope": {}, "lever": "ts_min", "shift": pytest.approx(-0.02), "target": pytest.approx(0.58)}
    ]
    assert s3["shifts"] == []


def test_an_override_that_has_moved_nothing_yet_is_at_base():
    """In its first hour a gate has not taken a step."""
    with book(hours=0).reader() as uow:
        s1, _ = gates_view(uow)["keys"]
    assert [(row["gates"]["ts_min"], row["moved"]) for row in s1["in_force"]] == [(0.60, [])] * 2


def test_a_kill_switch_on_tuning_shows_gates_at_base():
    """What is in force counts, not what the documents ask for."""
    with book(off=True).reader() as uow:
        s1, _ = gates_view(uow)["keys"]
    assert {row["gates"]["ts_min"] for row in s1["in_force"]} == {0.60}
    assert {tuple(row["moved"]) for row in s1["in_force"]} == {()}

"""LONG: thirty simulated days on a market with good and bad days, in which all three channels come to move decisions;
then the log is verified and everything is rebuilt from it."""

from __future__ import annotations

from edgebook.domain.decay import DAY
from edgebook.flow.check import Flow, every, exactly, scenario, that
from edgebook.flow.scenarios.learned import LOOSER, allocation_acts, gate_acts, learnt_gate, saw_gate, size_acts
from edgebook.flow.scenarios.markets import Habits, Planted, Truth, planted, shuffled, turns
from edgebook.flow.story import Story

_DAYS = 30
#: On good days gates should be a cap looser, on bad ones not, or tighter; small tokens and Ann's calls win.
_TRUTH = Truth(
    {("good", "S1"): -1.0, ("bad", "S1"): 1.0, ("good", "S3"): -1.0, ("bad", "S3"): 0.0},
    inside=0.8,
    outside=0.1,
    classes={"micro": 0.2, "big": -0.2},
    curators={"ann": 0.15, "bob": -0.15, "cay": 0.0},
)
_TOKENS = {f"T{i:02d}USDT": ("micro", "mid", "big")[i % 3] for i in range(24)}
_DRIVERS = ("btc", "alt", "bucket:micro", "bucket:mid", "bucket:big")


def _market() -> Planted:
    story = Story(_DAYS, history_days=16)
    days = shuffled(7, _DAYS)
    turns(story, days, _DRIVERS)
    return planted(story, 7, _TRUTH, _TOKENS, habits={"1h": Habits(rest=(2, 5))}, days=days)


@scenario("LONG", "thirty days: every channel comes to move decisions, the log verifies and rebuilds")
def long_run(flow: Flow) -> None:
    """A month, told to the system day by day."""
    market = _market()
    story = market.market.story
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        for day in range(_DAYS):
            flow.inject(system, *market.calls(day))
            system.pass_until(story.start + (day + 1) * DAY)
        flow.about(f"t00usdt-{_DAYS - 1}")
        _month(flow)
        allocation_acts(flow, "ann", "2m-5m", 1)
        allocation_acts(flow, "bob", "50m-500m", -1)
        size_acts(flow, "micro", 1, mode="aggressive")
        size_acts(flow, "big", -1, mode="patient")
        gate_acts(flow, "ts_min", LOOSER, learnt_gate(flow, "ts_min", LOOSER, "aggressive"), mode="aggressive")
        saw_gate(flow, "ts_min", mode="aggressive")
        _growth(flow, story)
        system.stop()
        for words in (("verify",), ("rebuild", "--check")):
            done = system.call(*words)
            told = (done.out or done.err).strip()
            flow.note("replay", f"edgebook {' '.join(words)}", "exit code 0", done.code == 0, f"{done.code}: {told}")


def _month(flow: Flow) -> None:
    """Everything ran, all month."""
    flow.check(
        "scheduler",
        "SELECT name, count(*), sum(CASE WHEN status = 'ok' THEN 0 ELSE 1 END) FROM job_runs GROUP BY name"
        " ORDER BY name",
        every("without a failure", lambda _name, runs, failed: runs > 0 and failed == 0, 6),
    )
    flow.check("dead letters", "SELECT count(*) FROM dead_letters", exactly(0))
    flow.check(
        "log",
        "SELECT count(*), max(seq) FROM ad_strands",
        that("seq without a gap", lambda f: f[0][0] == f[0][1] > 10_000),
    )
    flow.check(
        "closure",
        "SELECT (SELECT count(*) FROM ad_strands WHERE kind = 'position_closed'), (SELECT count(*) FROM trades)",
        that("as many trades as closures, 500 or more", lambda f: f[0][0] == f[0][1] >= 500),
    )
    flow.check(
        "ledger",
        "SELECT count(*) FROM ad_strands WHERE kind = 'position_closed' AND abs($num(content, summary.extracted_usd)"
        " - $num(content, summary.invested_usd) - $num(content, summary.pnl_usd)) > 0.01",
        exactly(0),
    )


def _growth(flow: Flow, story: Story) -> None:
    """What learning moves grows from nothing."""
    week = f"(s.ts_event - {story.start}) / {7 * DAY}"
    for stage, of in (
        ("runtime (dm)", "s.kind = 'decision_lowcap' AND $num(s.content, alloc_mult) <> 1"),
        ("runtime (strength)", "s.kind = 'pm_action' AND s.content LIKE '%\"lever\":\"size_mult\"%'"),
        ("runtime (tuning)", "s.kind = 'pm_action' AND s.content LIKE '%\"lever\":\"ts_min\"%'"),
    ):
        flow.check(
            stage,
            f"SELECT sum(CASE WHEN {week} < 1 THEN 1 ELSE 0 END), sum(CASE WHEN {week} >= 3 THEN 1 ELSE 0 END)"
            f" FROM ad_strands s WHERE {of}",
            that(
                "more moved after three weeks than in the first, 20 or more",
                lambda f: f[0][1] > f[0][0] and f[0][1] >= 20,
            ),
        )

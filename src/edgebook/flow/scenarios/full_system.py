"""F7, the full system of mission 6.2: three cap classes on all four timeframes, until learning has turned round and the
next actions show it."""

from __future__ import annotations

from edgebook.domain.decay import DAY
from edgebook.flow.check import Flow, every, exactly, scenario, that
from edgebook.flow.scenarios.learned import (
    LOOSER,
    allocation_acts,
    applied,
    gate_acts,
    learnt_gate,
    saw_gate,
    size_acts,
)
from edgebook.flow.scenarios.markets import Habits, Planted, Truth, planted
from edgebook.flow.story import Story

_DAYS = 7
_TIMEFRAMES = ("1m", "15m", "1h", "4h")
_HABITS = {"1m": Habits(rest=(120, 180)), "15m": Habits(rest=(4, 12)), "1h": Habits(), "4h": Habits(rest=(1, 2))}
#: Small tokens win and large ones lose, Ann calls winners and Bob losers, and the true gates are looser than the base.
_TRUTH = Truth(
    {("", "S1"): -1.0, ("", "S3"): -1.0},
    inside=0.65,
    outside=0.1,
    classes={"micro": 0.25, "large": -0.25},
    curators={"ann": 0.15, "bob": -0.15, "cay": 0.0},
)
_TOKENS = {f"{cap[:3].upper()}{i}USDT": cap for i in range(4) for cap in ("micro", "mid", "large")}
_OUTCOMES = (
    ("s1_entry", "success"),
    ("s1_entry", "failure"),
    ("s1_entry", "missed"),
    ("s3_retest", "success"),
    ("s3_retest", "failure"),
)


def _market() -> Planted:
    return planted(Story(_DAYS, base="1m"), 4, _TRUTH, _TOKENS, timeframes=_TIMEFRAMES, habits=_HABITS)


@scenario("F7", "the full system: cap classes and timeframes together, learning, and actions that show it")
def full_system(flow: Flow) -> None:
    """A week of twelve tokens on 1m, 15m, 1h and 4h, each called once a day."""
    market = _market()
    story = market.market.story
    with flow.system(story, starting_cash_usd=10_000_000, exposure_skew=True) as system:
        for day in range(_DAYS):
            flow.inject(system, *market.calls(day))
            system.pass_until(story.start + (day + 1) * DAY)
        flow.about("mic0usdt-0")
        _positions(flow)
        for timeframe in _TIMEFRAMES:
            _happened(flow, timeframe)
        _apart(flow)
        for timeframe in _TIMEFRAMES:
            _counted(flow, timeframe)
        _learnt(flow)
        flow.about(f"mic0usdt-{_DAYS - 1}")
        allocation_acts(flow, "ann", "2m-5m", 1)
        allocation_acts(flow, "bob", "500m-1b", -1)
        size_acts(flow, "micro", 1)
        size_acts(flow, "large", -1)
        for lever in ("ts_min", "dx_min"):
            gate_acts(flow, lever, LOOSER, learnt_gate(flow, lever, LOOSER))
            saw_gate(flow, lever)
        for timeframe in _TIMEFRAMES:
            _moved(flow, timeframe)
        _skews(flow)


def _positions(flow: Flow) -> None:
    """Every token on every timeframe, and trades in each corner."""
    flow.check(
        "DM fan-out",
        "SELECT symbol, count(DISTINCT timeframe) FROM positions GROUP BY symbol ORDER BY symbol",
        every("on four timeframes", lambda _, count: count == 4, len(_TOKENS)),
    )
    flow.check(
        "ledger",
        "SELECT cap_class, timeframe, count(*) FROM positions WHERE trades_closed > 0 GROUP BY cap_class, timeframe"
        " ORDER BY cap_class, timeframe",
        that("trades in all 12 of 3 cap classes and 4 timeframes", lambda found: len(found) == 12),
    )


def _happened(flow: Flow, timeframe: str) -> None:
    """Everything of F1, and each way an episode can end, on one timeframe."""
    flow.check(
        "episode close",
        "SELECT $text(s.content, episode_type), $text(w.value, outcome), count(*) FROM ad_strands s,"
        " $each(s.content, windows, w) WHERE s.kind = 'uptrend_episode_summary' AND s.timeframe = :timeframe"
        " GROUP BY $text(s.content, episode_type), $text(w.value, outcome) ORDER BY 1, 2",
        that(
            f"{timeframe}: S1 success, failure and missed, S3 success and failure",
            lambda found: {(episode, outcome) for episode, outcome, _ in found} >= set(_OUTCOMES),
        ),
        timeframe=timeframe,
    )
    flow.check(
        "window log",
        "SELECT max($len(content, samples)), count(*) FROM ad_strands WHERE kind = 'uptrend_buy_window'"
        " AND timeframe = :timeframe",
        that(f"{timeframe}: windows of at most 12 samples", lambda f: f[0][1] > 0 and f[0][0] <= 12),
        timeframe=timeframe,
    )
    flow.check(
        "executor",
        "SELECT DISTINCT $text(content, decision_type) FROM ad_strands WHERE kind = 'order_filled'"
        " AND timeframe = :timeframe ORDER BY 1",
        that(
            f"{timeframe}: entries, adds, trims, exits and emergency exits",
            lambda f: {kind for (kind,) in f} >= {"entry", "add", "trim", "exit", "emergency_exit"},
        ),
        timeframe=timeframe,
    )
    flow.check(
        "closure",
        "SELECT count(*), count(DISTINCT trade_id) FROM ad_strands WHERE kind = 'position_closed'"
        " AND timeframe = :timeframe",
        that(f"{timeframe}: one closure per trade", lambda f: f[0][0] == f[0][1] > 0),
        timeframe=timeframe,
    )


def _apart(flow: Flow) -> None:
    """No timeframe touches the tokens of another."""
    flow.check(
        "ledger",
        "SELECT trade_id FROM ad_strands WHERE trade_id <> '' GROUP BY trade_id"
        " HAVING count(DISTINCT position_id) > 1 OR count(DISTINCT timeframe) > 1",
        that("no trade of two positions or timeframes", lambda f: not f),
    )
    flow.check(
        "ledger",
        "SELECT p.symbol, p.timeframe, $num(p.content, ledger.quantity), sum($num(s.content, quantity)"
        " * CASE WHEN $text(s.content, side) = 'buy' THEN 1 ELSE -1 END) FROM positions p"
        " JOIN ad_strands s ON s.position_id = p.key WHERE s.kind = 'order_filled'"
        " GROUP BY p.symbol, p.timeframe, p.content ORDER BY p.symbol, p.timeframe",
        every("holding what its own fills add up to", lambda _s, _t, held, sum_: abs(held - sum_) < 1e-4, 12),
    )


def _counted(flow: Flow, timeframe: str) -> None:
    """Its trades stand in the statistics under its own name."""
    flow.check(
        "aggregator",
        "SELECT s.n, (SELECT count(*) FROM learning_observations o WHERE o.pattern_key = s.pattern_key"
        " AND o.action_category = s.action_category AND $text(o.scope, timeframe) = :timeframe),"
        " $num(s.stats, tuning.s1_entry.levers.ts_min.count) FROM pattern_scope_stats s"
        " WHERE s.pattern_key LIKE '%uptrend.S1.buy_flag' AND s.scope_mask = 128"
        " AND $text(s.scope_values, timeframe) = :timeframe",
        that(
            f"{timeframe}: as many trades as units of evidence, and evidence on TS",
            lambda f: f[0][0] == f[0][1] > 0 and f[0][2] > 0,
        ),
        timeframe=timeframe,
    )


def _learnt(flow: Flow) -> None:
    """Lessons of each channel, on several clusters, and overrides of them."""
    flow.check(
        "lesson builder",
        "SELECT lesson_type, count(DISTINCT scope_values) FROM learning_lessons WHERE status IN ('active', 'candidate')"
        " GROUP BY lesson_type ORDER BY lesson_type",
        that(
            "all three channels, several scopes of the first two",
            lambda f: [row[0] for row in f] == ["dm_alloc", "pm_strength", "pm_tuning"] and f[0][1] > 1 and f[1][1] > 1,
        ),
    )
    flow.check(
        "materializer",
        "SELECT (SELECT $len(config_data, alloc_overrides) FROM learning_configs WHERE module_id = 'dm'),"
        " $len(config_data, pattern_strength_overrides), $len(config_data, pattern_overrides) FROM learning_configs"
        " WHERE module_id = 'pm'",
        that("overrides of all three channels", lambda f: all(count > 0 for count in f[0])),
    )
    flow.check(
        "scheduler",
        "SELECT name, sum(CASE WHEN status = 'ok' THEN 0 ELSE 1 END) FROM job_runs GROUP BY name ORDER BY name",
        every("without a failure", lambda _name, failed: failed == 0, 6),
    )
    flow.check("dead letters", "SELECT count(*) FROM dead_letters", exactly(0))


def _moved(flow: Flow, timeframe: str) -> None:
    """The first window of a timeframe stood at the base gate, its last one does not; sizes moved too."""
    windows = flow.check(
        "runtime (tuning)",
        "SELECT id, $num(content, thresholds_effective.ts_min) FROM ad_strands WHERE kind = 'uptrend_buy_window'"
        " AND $text(content, episode_type) = 's1_entry' AND timeframe = :timeframe AND arm NOT LIKE '%tuning%'"
        " ORDER BY seq",
        that(
            f"{timeframe}: ts_min at .6 in the first window, below in the last",
            lambda f: f[0][1] == 0.6 and f[-1][1] < 0.6 - 1e-9,
        ),
        timeframe=timeframe,
    )
    flow.saw(f"ts_min of windows, {timeframe}", windows[0], windows[-1])
    actions = flow.check(
        "runtime (strength)",
        "SELECT s.id, $num(n.value, applied) FROM ad_strands s, $each(s.content, nudges, n)"
        " WHERE s.kind = 'pm_action' AND s.timeframe = :timeframe AND $text(n.value, lever) = 'size_mult'"
        " ORDER BY s.seq DESC LIMIT 12",
        every(f"of {timeframe} with a size_mult that is not 1", lambda _, value: abs(value - 1.0) > 0.005),
        timeframe=timeframe,
    )
    (first,) = flow.ask(
        "SELECT id FROM ad_strands WHERE kind = 'pm_action' AND timeframe = :timeframe"
        " AND $text(content, decision_type) = 'entry' ORDER BY seq LIMIT 1",
        timeframe=timeframe,
    )
    flow.saw(f"size_mult, {timeframe}", (first[0], applied(flow, str(first[0]), "size_mult")), actions[0])


def _skews(flow: Flow) -> None:
    """Buys shrink for what the book already holds of their kind, and say so."""
    flow.check(
        "runtime (strength)",
        "SELECT min($num(content, reasons.exposure_skew)), max($num(content, reasons.exposure_skew)),"
        " count(*) - count($num(content, reasons.exposure_skew))"
        " FROM ad_strands WHERE kind = 'pm_action' AND $text(content, side) = 'buy'",
        that(
            "a skew of .33 to 1 on every buy, below 1 somewhere",
            lambda f: 0.33 <= f[0][0] < 1.0 >= f[0][1] and f[0][2] == 0,
        ),
    )

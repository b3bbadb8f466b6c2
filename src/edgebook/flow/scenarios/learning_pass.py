"""F2, the learning pass of mission 6.1: from closed trades to statistics, lessons, overrides and the next packet."""

from __future__ import annotations

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.levers import LEVERS
from edgebook.flow.check import Flow, every, exactly, scenario, that
from edgebook.flow.running import Running
from edgebook.flow.scenarios.learned import LOOSER, allocation_acts, gate_acts, learnt_gate, saw_gate, size_acts
from edgebook.flow.scenarios.markets import Planted, Truth, planted
from edgebook.flow.story import Story

_DAYS = 9
#: Ann calls winners and bob losers; small tokens win and big ones lose; the true gates are looser than the base.
_TRUTH = Truth(
    {("", "S1"): -1.0, ("", "S3"): -1.0},
    classes={"micro": 0.2, "big": -0.2},
    curators={"ann": 0.2, "bob": -0.2, "cay": 0.0},
)
_TOKENS = {f"T{i:02d}USDT": ("micro", "mid", "big")[i % 3] for i in range(24)}
#: Bits of scope_mask (domain.scope): bucket, A_mode, both, and neither.
_MASKS = (0, 64, 256, 320)
#: What the aggregator has read.
_READ = "seq <= (SELECT w.seq FROM watermarks w WHERE w.key = 'pattern_scope_aggregator')"
_GATES = {name for name, row in LEVERS.items() if row.lesson_type == "pm_tuning"}


@scenario("F2", "the learning pass: aggregator, lessons of all three channels, overrides, the next packet")
def learning_pass(flow: Flow) -> None:
    """Nine days of a market with something to find in each channel, asked stage by stage."""
    story = Story(_DAYS, history_days=16)
    market = planted(story, 3, _TRUTH, _TOKENS)
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        _day(flow, system, market, 0)
        flow.about("t00usdt-0")
        _aggregates(flow)
        for day in range(1, _DAYS):
            _day(flow, system, market, day)
        flow.about(f"t00usdt-{_DAYS - 1}")
        _aggregates(flow)
        _builds(flow)
        _materializes(flow)
        allocation_acts(flow, "ann", "2m-5m", 1)
        allocation_acts(flow, "bob", "50m-500m", -1)
        size_acts(flow, "micro", 1)
        size_acts(flow, "big", -1)
        for lever in ("ts_min", "dx_min"):
            gate_acts(flow, lever, LOOSER, learnt_gate(flow, lever, LOOSER))
            saw_gate(flow, lever)


def _day(flow: Flow, system: Running, market: Planted, day: int) -> None:
    flow.inject(system, *market.calls(day))
    system.pass_until(market.market.story.start + (day + 1) * DAY - HOUR)


def _aggregates(flow: Flow) -> None:
    """Trades, units of evidence and statistics agree, subset by subset; nothing leaks between modules."""
    flow.check(
        "aggregator",
        "SELECT count(*), sum(CASE WHEN status = 'ok' THEN 0 ELSE 1 END), min(slot % 300000000), max(slot % 300000000)"
        " FROM job_runs WHERE name = 'pattern_scope_aggregator'",
        that(
            "runs at 2 minutes past every fifth, all ok",
            lambda f: f[0][0] > 0 and f[0][1:] == (0, 120_000_000, 120_000_000),
        ),
    )
    flow.check(
        "aggregator",
        "SELECT (SELECT max(slot) FROM job_runs WHERE name = 'pattern_scope_aggregator'),"
        " (SELECT max(ts_recorded) FROM ad_strands WHERE kind = 'position_closed')",
        that("its last run within the hour before or after the last close", lambda f: abs(f[0][0] - f[0][1]) <= HOUR),
    )
    flow.check(
        "aggregator",
        f"SELECT (SELECT count(*) FROM ad_strands WHERE kind = 'position_closed' AND {_READ}),"
        " (SELECT count(DISTINCT unit_id) FROM learning_observations WHERE module = 'pm')",
        that("every closed trade, once", lambda f: f[0][0] == f[0][1] > 0),
    )
    flow.check(
        "aggregator",
        "SELECT (SELECT count(DISTINCT $text(content, decision_id)) FROM ad_strands WHERE kind = 'position_closed'"
        f" AND $flag(content, first_under_decision) AND {_READ}),"
        " (SELECT count(*) FROM learning_observations WHERE module = 'dm')",
        that("every decision with a closed first trade, once", lambda f: f[0][0] == f[0][1] > 0),
    )
    flow.check(
        "aggregator",
        "SELECT s.pattern_key, s.action_category, s.n, (SELECT count(DISTINCT o.unit_id) FROM learning_observations o"
        " WHERE o.pattern_key = s.pattern_key AND o.action_category = s.action_category) FROM pattern_scope_stats s"
        " WHERE s.scope_mask = 0 ORDER BY s.pattern_key, s.action_category",
        every("n = 1 per trade, key and category", lambda _key, _category, n, units: n == units, 5),
    )
    _subsets(flow)
    flow.check(
        "aggregator",
        "SELECT $num(stats, tuning.s1_entry.levers.ts_min.count), $num(stats, edge_raw) FROM pattern_scope_stats"
        " WHERE scope_mask = 0 AND pattern_key LIKE '%uptrend.S1.buy_flag'",
        that("stats.tuning and edge_raw are there", lambda f: f[0][0] > 0 and f[0][1] is not None),
    )
    flow.check(
        "aggregator",
        "SELECT s.module, p.key FROM pattern_scope_stats s, $pairs(s.scope_values, ., p)"
        " WHERE (s.module = 'pm' AND p.key IN ('curator', 'chain', 'mcap_bucket', 'intent', 'mapping_confidence'))"
        " OR (s.module = 'dm' AND p.key IN ('bucket', 'timeframe', 'A_mode', 'E_mode', 'market_family'))",
        that("no dim of the other module", lambda f: not f),
    )


def _subsets(flow: Flow) -> None:
    """Statistics of each scope subset of bucket and A mode are those of the trades under it."""
    key = "module=pm|pattern_key=uptrend.S1.buy_flag"
    masks = ", ".join(map(str, _MASKS))
    flow.check(
        "aggregator",
        f"SELECT DISTINCT scope_mask FROM pattern_scope_stats WHERE pattern_key = :key AND scope_mask IN ({masks})"
        " ORDER BY scope_mask",
        that("neither, bucket, A_mode, both", lambda f: [mask for (mask,) in f] == list(_MASKS)),
        key=key,
    )
    flow.check(
        "aggregator",
        "SELECT $text(s.scope_values, bucket), $text(s.scope_values, A_mode), s.n, (SELECT count(*)"
        " FROM learning_observations o WHERE o.pattern_key = s.pattern_key AND o.action_category = s.action_category"
        " AND $text(o.scope, bucket) = coalesce($text(s.scope_values, bucket), $text(o.scope, bucket))"
        " AND $text(o.scope, A_mode) = coalesce($text(s.scope_values, A_mode), $text(o.scope, A_mode)))"
        f" FROM pattern_scope_stats s WHERE s.pattern_key = :key AND s.scope_mask IN ({masks})"
        " ORDER BY s.scope_mask, s.scope_values",
        every("n = its own trades", lambda _bucket, _mode, n, units: n == units, 4),
        key=key,
    )


def _builds(flow: Flow) -> None:
    """Lessons of every channel, each in its own module and with its own levers."""
    flow.check(
        "lesson builder",
        "SELECT key, n FROM learning_fits WHERE acts AND (key LIKE '%allocation.allocation|allocation'"
        " OR key LIKE '%S1.buy_flag|entry') ORDER BY key",
        every("a family that acts, on 20 trades or more", lambda _, n: n >= 20, 2),
    )
    flow.check(
        "lesson builder",
        "SELECT DISTINCT lesson_type, module FROM learning_lessons WHERE status <> 'deprecated' ORDER BY lesson_type",
        exactly(("dm_alloc", "dm"), ("pm_strength", "pm"), ("pm_tuning", "pm")),
    )
    flow.check(
        "lesson builder",
        "SELECT DISTINCT p.key FROM learning_lessons l, $pairs(l.effect, execution_levers.signal_thresholds, p)"
        " WHERE l.lesson_type = 'pm_tuning'",
        every("a gate of the lever table", lambda key: key in _GATES),
    )
    flow.check(
        "lesson builder",
        "SELECT name, count(*), sum(CASE WHEN status = 'ok' THEN 0 ELSE 1 END) FROM job_runs"
        " WHERE name LIKE 'lesson_builder%' GROUP BY name ORDER BY name",
        every("ok in every run", lambda _name, count, failed: count > 0 and failed == 0, 2),
    )


def _materializes(flow: Flow) -> None:
    """Fresh overrides of every channel, all from lessons, under the newest version."""
    flow.check(
        "materializer",
        "SELECT (SELECT $len(config_data, alloc_overrides) FROM learning_configs WHERE module_id = 'dm'),"
        " $len(config_data, pattern_strength_overrides), $len(config_data, pattern_overrides) FROM learning_configs"
        " WHERE module_id = 'pm'",
        that("overrides of all three channels", lambda f: all(count > 0 for count in f[0])),
    )
    flow.check(
        "materializer",
        "SELECT c.module_id, c.config_version, (SELECT max(version) FROM learning_config_versions),"
        " (SELECT count(*) FROM ad_strands WHERE kind = 'config_changed'), c.updated_at % 3600000000"
        " FROM learning_configs c ORDER BY c.module_id",
        every(
            "the newest of all versions, written in a slot at 10 minutes past",
            lambda _, version, newest, told, minute: version == newest == told > 1 and minute == 600_000_000,
            2,
        ),
    )
    for module, name in (("dm", "alloc_overrides"), ("pm", "pattern_strength_overrides"), ("pm", "pattern_overrides")):
        flow.check(
            "materializer",
            f"SELECT $text(o.value, lesson.id), l.status FROM learning_configs c, $each(c.config_data, {name}, o)"
            f" LEFT JOIN learning_lessons l ON l.key = $text(o.value, lesson.id) WHERE c.module_id = '{module}'",
            every("of a lesson that stands", lambda _, status: status in ("active", "candidate")),
        )

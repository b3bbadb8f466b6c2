"""F12: every decision and every action says what it was made of, and nothing that it has to say is empty."""

from __future__ import annotations

from edgebook.domain.decay import HOUR
from edgebook.domain.levers import LEVERS
from edgebook.flow.check import Flow, every, none, scenario, that
from edgebook.flow.scenarios.few_days import SETTINGS, live, market_of
from edgebook.flow.story import Story, signal

#: Fields of an action that always have a value.
SAID = (
    "decision_type", "rule", "flag", "state", "pattern_key", "action_category", "side", "size_frac", "base_size_frac",
    "a_base", "e_base", "a_value", "e_value", "price", "atr", "client_id", "reasons.a_regime", "reasons.e_regime",
    "reasons.intent_a", "reasons.intent_e", "reasons.bar_volume_usd", "reasons.liquidity_usd", "reasons.expires_ts",
)  # fmt: skip
#: The same of a decision.
DECIDED = (
    "source_strand_id", "curator_id", "symbol", "chain", "contract", "action", "allocation_pct", "base_allocation_pct",
    "coefficient_mult", "static_mult", "alloc_mult", "curator_score", "pattern_key", "action_category",
    "entry_context.curator", "entry_context.chain", "entry_context.intent", "entry_context.mapping_confidence",
)  # fmt: skip
#: Days of a market that teaches.
DAYS = 5
GATES = (
    "age", "curator_score", "intent_buy", "known_token", "liquidity", "market_cap", "not_already_holding",
    "portfolio_capacity", "supported_chain", "volume",
)  # fmt: skip
ACTION = "FROM ad_strands s WHERE s.kind = 'pm_action'"
DECISION = "FROM ad_strands s WHERE s.kind = 'decision_lowcap'"
_PLAIN = none().meaning("no skew, as the option is off")
_GATED = none().meaning("none without every gate's threshold")
_NONE = none().meaning("none with an empty field")
#: Kinds of action that the story leads to, with what they sell or buy.
KINDS = (("add", "buy"), ("emergency_exit", "sell"), ("entry", "buy"), ("exit", "sell"), ("trim", "sell"))


def _story() -> tuple[Story, int]:
    """Two tokens on two timeframes through every kind of action; and when the last bar has closed."""
    story, last = Story(6.0), 0
    for symbol in ("AAAUSDT", "BBBUSDT"):
        story.token(symbol, mcap_usd=2_000_000)
        for timeframe, after in (("1h", 2.0), ("4h", 6.0)):
            tale = story.tale(symbol, timeframe, after)
            tale.state("S1").chance().state("S2").calm().state("S3").trim().calm(4).dip().calm()
            if timeframe == "1h":
                tale.emergency(99).calm().dip(0.9, price=100).calm(2)
            tale.state("S0", 101 if timeframe == "4h" else 100)
            last = max(last, tale.last)
    return story, last


@scenario("F12", "telemetry: no action and no decision without its levers, version, pattern, scope and regime")
def telemetry(flow: Flow) -> None:
    """Every strand of every kind of action is asked, none picked out."""
    story, last = _story()
    market = {"mcap_usd": 2_000_000, "vol24h_usd": 300_000, "liquidity_usd": 90_000, "age_days": 5}
    with flow.system(story) as system:
        flow.inject(
            system,
            signal("said-A", "AAAUSDT", market=market),
            signal("said-B", "BBBUSDT"),
            signal("said-no", "BBBUSDT", intent="sell"),
        )
        system.pass_until(last + HOUR)
        flow.about("said-no")
        _decisions(flow)
        flow.about("said-A")
        _actions(flow)
        _levers(flow)
        _origins(flow)
        _trades(flow)
    teaching = market_of(DAYS)
    with flow.system(teaching.market.story, **SETTINGS) as system:
        live(flow, system, teaching, DAYS)
        _empty(flow)
        _origins(flow)
        _learnt(flow)


def _empty(flow: Flow) -> None:
    """No decision and no action without what it always has."""
    flow.check("telemetry", f"SELECT s.id {DECISION} AND {_missing(DECIDED)}", _NONE)
    flow.check(
        "telemetry",
        f"SELECT s.id {DECISION} AND (s.scope = '{{}}' OR s.regime_snapshot_id = '' OR s.module <> 'dm'"
        " OR s.config_version IS NULL OR s.arm IS NULL)",
        none().meaning("none without scope, regime, module, version or arm"),
    )
    flow.check("telemetry", f"SELECT s.id {ACTION} AND {_missing(SAID)}", _NONE)
    flow.check(
        "telemetry",
        f"SELECT s.id {ACTION} AND (s.scope = '{{}}' OR s.regime_snapshot_id = '' OR s.module <> 'pm'"
        " OR s.position_id = '' OR s.timeframe = '' OR s.config_version IS NULL OR s.arm IS NULL)",
        none().meaning("none without scope, regime, module, position, timeframe, version or arm"),
    )


def _learnt(flow: Flow) -> None:
    """Where overrides acted: each lever with base and applied value, the lessons that moved it, and the version."""
    flow.check(
        "telemetry",
        "SELECT s.kind, count(*) FROM ad_strands s, $each(s.content, nudges, n) WHERE s.kind IN ('pm_action',"
        " 'decision_lowcap') AND $num(n.value, applied) <> $num(n.value, base) GROUP BY s.kind ORDER BY s.kind",
        that("decisions and actions whose numbers were moved", lambda f: len(f) == 2 and min(n for _, n in f) > 5),
    )
    flow.check(
        "telemetry",
        "SELECT s.config_version, $text(n.value, lever), $num(n.value, base), $num(n.value, applied)"
        " FROM ad_strands s, $each(s.content, nudges, n)"
        " WHERE s.kind IN ('pm_action', 'decision_lowcap')",
        every(
            "under a version, of a known lever, from its base to a value within its bounds",
            lambda version, lever, base, applied: (
                version > 0 and LEVERS[lever].lo <= applied <= LEVERS[lever].hi and base == LEVERS[lever].base
            ),
            20,
        ),
    )
    flow.check(
        "telemetry",
        "SELECT $text(n.value, lever), count(DISTINCT $text(m.value, lesson_id)), count(l.key) - count(*)"
        " FROM ad_strands s, $each(s.content, nudges, n), $each(n.value, matched, m) LEFT JOIN learning_lessons l"
        " ON l.key = $text(m.value, lesson_id) WHERE s.kind IN ('pm_action', 'decision_lowcap')"
        " GROUP BY 1 ORDER BY 1",
        every("with the lessons that moved it, each of them there", lambda _, lessons, lost: lessons and not lost, 2),
    )
    flow.check(
        "telemetry",
        "SELECT s.id FROM ad_strands s WHERE s.kind IN ('pm_action', 'decision_lowcap') AND s.config_version > 0"
        " AND NOT EXISTS (SELECT 1 FROM learning_config_versions v WHERE v.version = s.config_version)",
        none().meaning("none under a version that is not kept"),
    )


def _missing(fields: tuple[str, ...]) -> str:
    """A condition: one of the fields has no value, or an empty one."""
    return "(" + " OR ".join(f"coalesce($text(s.content, {name}), '') = ''" for name in fields) + ")"


def _decisions(flow: Flow) -> None:
    flow.check(
        "DM",
        f"SELECT $text(s.content, action), $text(s.content, reasoning) {DECISION} ORDER BY s.seq",
        that(
            "two approved, one rejected with the reason",
            lambda f: [a for a, _ in f] == ["approve", "approve", "reject"] and "intent_buy" in f[2][1],
        ),
    )
    _empty(flow)
    flow.check(
        "telemetry",
        "SELECT $text(g.value, name), $text(g.value, detail) FROM ad_strands s, $each(s.content, gates, g)"
        " WHERE s.kind = 'decision_lowcap'",
        that(
            "every gate on all three, each with a detail",
            lambda f: sorted(name for name, _ in f) == sorted(GATES * 3) and all(detail for _, detail in f),
        ),
    )
    flow.check(
        "telemetry",
        "SELECT $num(s.content, allocation_pct), $num(s.content, base_allocation_pct),"
        " $num(s.content, coefficient_mult), $num(s.content, static_mult), $num(s.content, alloc_mult)"
        f" {DECISION} AND $text(s.content, action) = 'approve'",
        every(
            "base times its multipliers, within .1 and 20",
            lambda pct, base, coefficient, static, alloc: (
                abs(pct - min(20.0, max(0.1, base * coefficient * static * alloc))) < 1e-9
            ),
            2,
        ),
    )


def _actions(flow: Flow) -> None:
    """What happened, so that what follows is asked of every kind of action"""
    flow.check(
        "PM plan",
        f"SELECT DISTINCT $text(s.content, decision_type), $text(s.content, side) {ACTION} ORDER BY 1, 2",
        that(", ".join(kind for kind, _ in KINDS), lambda f: tuple(tuple(row) for row in f) == KINDS),
    )
    flow.check(
        "telemetry",
        f"SELECT $num(s.content, notional_usd), $num(s.content, quantity), $text(s.content, side) {ACTION}",
        every(
            "a buy of USD or a sale of tokens, above 0",
            lambda usd, tokens, side: (usd or 0) > 0 and tokens is None if side == "buy" else (tokens or 0) > 0,
            10,
        ),
    )
    flow.check(
        "telemetry",
        f"SELECT s.timeframe, s.ts_event, s.ts_recorded {ACTION}",
        every(
            "made at the close of a bar of its timeframe",
            lambda tf, at, recorded: at == recorded and at % ({"1h": 1, "4h": 4}[tf] * HOUR) == 0,
            10,
        ),
    )
    flow.check(
        "telemetry",
        f"SELECT s.id {ACTION} AND $num(s.content, rule) IN (5, 7, 8) AND $text(s.content, window_id) = ''",
        none().meaning("no buy of a gate rule without its window"),
    )
    flow.check("telemetry", f"SELECT s.id {ACTION} AND $text(s.content, reasons.exposure_skew) IS NOT NULL", _PLAIN)


def _levers(flow: Flow) -> None:
    """Multipliers and gates: base and applied value, also where nothing was learnt."""
    gates = tuple(f"thresholds_effective.{name}" for name, row in LEVERS.items() if row.lesson_type == "pm_tuning")
    flow.check("telemetry", f"SELECT s.id {ACTION} AND {_missing(gates)}", _GATED)
    flow.check(
        "telemetry",
        f"SELECT $num(s.content, a_base), $num(s.content, a_value), $num(s.content, e_base), $num(s.content, e_value),"
        f" $len(s.content, nudges) {ACTION}",
        every(
            "with A and E from 0 to 1, and its nudges, none as nothing was learnt: A and E are used as they are",
            lambda a, used_a, e, used_e, nudges: 0 <= a <= 1 and 0 <= e <= 1 and (a, e, 0) == (used_a, used_e, nudges),
            10,
        ),
    )


def _origins(flow: Flow) -> None:
    """Where each comes from, and under which regime."""
    flow.check(
        "telemetry",
        f"SELECT s.id {ACTION} AND NOT EXISTS (SELECT 1 FROM ad_strands d JOIN ad_strands n ON n.id = d.causation_id"
        " WHERE d.id = s.causation_id AND d.kind = 'decision_lowcap' AND n.kind = 'social_lowcap'"
        " AND n.id = s.correlation_id)",
        none().meaning("none that does not lead back to its decision and packet"),
    )
    flow.check(
        "telemetry",
        "SELECT s.id FROM ad_strands s WHERE s.kind IN ('pm_action', 'decision_lowcap') AND NOT EXISTS"
        " (SELECT 1 FROM regime_snapshots r WHERE r.key = s.regime_snapshot_id)",
        none().meaning("none whose regime is not kept"),
    )
    flow.check(
        "telemetry",
        f"SELECT s.id {ACTION} AND NOT EXISTS (SELECT 1 FROM ad_strands f WHERE f.causation_id = s.id"
        " AND f.kind IN ('order_filled', 'order_rejected', 'order_expired'))",
        none().meaning("none without what became of its order"),
    )


def _trades(flow: Flow) -> None:
    """A closed trade carries the same of each of its actions, as learning reads it."""
    flow.check(
        "telemetry",
        "SELECT $text(a.value, pattern_key), $text(a.value, action_category), $num(a.value, size_mult),"
        " $num(a.value, aggression_mult), $num(a.value, config_version), $text(a.value, arm)"
        " FROM ad_strands s, $each(s.content, actions, a) WHERE s.kind = 'position_closed'",
        every(
            "with pattern, category, multipliers of 1, version and arm",
            lambda pattern, category, size, aggression, version, arm: (
                bool(pattern and category)
                and (size, aggression) == (1.0, 1.0)
                and version is not None
                and arm is not None
            ),
            10,
        ),
    )
    flow.check(
        "telemetry",
        "SELECT a.seq, count(*) FROM ad_strands a JOIN ad_strands s ON s.kind = 'position_closed'"
        " AND s.trade_id = a.trade_id WHERE a.kind = 'order_filled' GROUP BY a.seq HAVING count(*) > 1",
        none().meaning("no fill in two trades"),
    )
    flow.check(
        "telemetry",
        "SELECT c.trade_id, $len(c.content, actions), count(f.id) FROM ad_strands c JOIN ad_strands f"
        " ON f.trade_id = c.trade_id AND f.kind = 'order_filled' WHERE c.kind = 'position_closed'"
        " GROUP BY c.trade_id, c.content",
        every("as many actions as fills", lambda _, actions, fills: actions == fills > 1, 4),
    )

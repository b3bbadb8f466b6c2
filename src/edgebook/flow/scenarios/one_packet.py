"""F1, the data-collection pass of mission 6.1: one signal, and everything that follows from it on 1h."""

from __future__ import annotations

from edgebook.domain.decay import HOUR
from edgebook.flow.check import Flow, every, exactly, none, rows, scenario, some, that
from edgebook.flow.story import Story, signal

#: Dims that no decision of the DM may know of, and such as no action of the PM may.
ONLY_PM = ("A_mode", "E_mode", "timeframe", "market_family", "bucket")
ONLY_DM = ("curator", "chain", "mcap_bucket", "vol_bucket", "age_bucket", "intent", "mapping_confidence")

_OF = "position_id = (SELECT key FROM positions WHERE symbol = 'AAAUSDT' AND timeframe = '1h')"


def _story() -> tuple[Story, dict[str, int]]:
    """S0, S1, S2, S3, a trim, a DX buy, an emergency exit, S0; and when each has closed."""
    story, seen = Story(3.0), {}
    tale = story.tale(story.token("AAAUSDT", mcap_usd=2_000_000), "1h", 3)
    tale.state("S1").chance(0.7)
    seen["entry"] = tale.last
    tale.calm().state("S2", 104).calm().state("S3", 106).calm()
    seen["trend"] = tale.last
    tale.trim(110)
    seen["trim"] = tale.last
    tale.calm(4).dip(0.9, price=105).calm()
    seen["add"] = tale.last
    tale.calm(3).trim(112).calm().emergency(103).calm()
    seen["emergency"] = tale.last
    tale.calm(2).state("S0", 104)
    seen["closed"] = tale.last
    return story, seen


@scenario("F1", "one signal on 1h: S0, S1, S2, S3, trim, DX buy, emergency exit, S0, statistics")
def one_packet(flow: Flow) -> None:
    """Every stage from the signal to the statistics, each asked as soon as it can be there."""
    story, seen = _story()
    with flow.system(story) as system:
        (packet,) = flow.inject(system, signal("one-1", "AAAUSDT"))
        flow.about("one-1")
        _arrives(flow, packet)
        system.pass_until(seen["entry"])
        _enters(flow, packet)
        system.pass_until(seen["trend"])
        _trends(flow)
        system.pass_until(seen["trim"])
        _trims(flow)
        system.pass_until(seen["add"])
        _adds(flow)
        system.pass_until(seen["emergency"])
        _flees(flow)
        system.pass_until(seen["closed"])
        _closes(flow)
        system.pass_until(seen["closed"] + HOUR)
        _learns(flow)


def _arrives(flow: Flow, packet: str) -> None:
    flow.check(
        "ingest",
        "SELECT tags FROM ad_strands WHERE kind = 'social_lowcap' AND id = :packet",
        that("1 row tagged dm_candidate", lambda found: len(found) == 1 and "dm_candidate" in found[0][0]),
        packet=packet,
    )
    flow.check(
        "DM",
        "SELECT $text(content, action), $text(content, action_category), module FROM ad_strands"
        " WHERE kind = 'decision_lowcap' AND causation_id = :packet",
        exactly(("approve", "allocation", "dm")),
        packet=packet,
    )
    flow.check(
        "DM",
        "SELECT p.key FROM ad_strands s, $pairs(s.content, entry_context, p) WHERE s.kind = 'decision_lowcap'"
        " AND s.causation_id = :packet",
        every("no dim of the PM", lambda key: key not in ("macro_phase", "A_mode", "E_mode", "timeframe")),
        packet=packet,
    )
    flow.check(
        "DM",
        "SELECT p.key FROM ad_strands s, $pairs(s.scope, ., p) WHERE s.kind = 'decision_lowcap'"
        " AND s.causation_id = :packet",
        every("a dim of the DM", lambda key: key not in ONLY_PM, least=5),
        packet=packet,
    )
    flow.check(
        "DM fan-out",
        "SELECT timeframe, status FROM positions WHERE symbol = 'AAAUSDT' ORDER BY timeframe",
        exactly(("1h", "watchlist"), ("4h", "watchlist")),
    )
    flow.check(
        "DM fan-out",
        "SELECT d.allocation_pct - sum(p.allocation_pct) FROM positions p, decisions d WHERE d.symbol = p.symbol"
        " GROUP BY d.allocation_pct",
        that("0 to 1e-6: the shares of all positions are the decision's", lambda found: abs(found[0][0]) < 1e-6),
    )


def _enters(flow: Flow, packet: str) -> None:
    flow.check(
        "episode open",
        "SELECT $text(content, from_state), $text(content, to_state) FROM ad_strands"
        f" WHERE kind = 'uptrend_stage_transition' AND {_OF}",
        exactly(("S0", "S1")),
    )
    flow.check(
        "episode open",
        "SELECT $text(m.content, episodes.0.episode_type), $text(m.content, episodes.0.window.started_at) IS NOT NULL"
        " FROM pm_memory m JOIN positions p ON p.key = m.key WHERE p.symbol = 'AAAUSDT' AND p.timeframe = '1h'",
        that("an episode s1_entry with a window open", lambda f: len(f) == 1 and f[0][0] == "s1_entry" and f[0][1]),
    )
    flow.check(
        "PM plan",
        "SELECT $text(content, decision_type), $text(content, side), $text(content, pattern_key),"
        f" $text(content, action_category) FROM ad_strands WHERE kind = 'pm_action' AND {_OF}",
        exactly(("entry", "buy", "module=pm|pattern_key=uptrend.S1.buy_flag", "entry")),
    )
    flow.check(
        "PM plan",
        f"SELECT d.key FROM ad_strands s, $pairs(s.scope, ., d) WHERE s.kind = 'pm_action' AND s.{_OF}",
        every("a dim of the PM", lambda key: key not in ONLY_DM, least=3),
    )
    flow.check(
        "telemetry",
        "SELECT DISTINCT kind FROM ad_strands WHERE symbol = 'AAAUSDT' AND correlation_id <> :packet",
        none().meaning("every strand of the token names the packet"),
        packet=packet,
    )
    flow.check(
        "executor",
        "SELECT f.kind FROM ad_strands f JOIN ad_strands a ON f.causation_id = a.id WHERE a.kind = 'pm_action'"
        f" AND a.{_OF}",
        exactly("order_filled"),
    )
    flow.check(
        "ledger",
        "SELECT status, trade_id, ledger_quantity FROM positions WHERE symbol = 'AAAUSDT' AND timeframe = '1h'",
        that(
            "active, with a trade and tokens",
            lambda found: found[0][0] == "active" and found[0][1] and float(found[0][2]) > 0,
        ),
    )
    flow.check(
        "ledger",
        "SELECT a.cash_usd, p.ledger_cost FROM accounts a, positions p WHERE p.symbol = 'AAAUSDT'"
        " AND p.timeframe = '1h'",
        that("cash and cost are the 100000 of before", lambda f: float(f[0][0]) + float(f[0][1]) == 100_000),
    )


def _trends(flow: Flow) -> None:
    flow.check(
        "windows",
        "SELECT $text(content, episode_type), $flag(content, entered), $len(content, samples) FROM ad_strands"
        f" WHERE kind = 'uptrend_buy_window' AND {_OF}",
        that("one S1 window, entered, 1 to 12 samples", lambda f: len(f) == 1 and f[0][1] and 1 <= f[0][2] <= 12),
    )
    flow.check(
        "transitions",
        f"SELECT count(*) FROM ad_strands WHERE kind = 'uptrend_stage_transition' AND {_OF}",
        exactly(3),
    )
    flow.check(
        "episode close",
        "SELECT $text(content, episode_type), $text(content, outcome) FROM ad_strands"
        f" WHERE kind = 'uptrend_episode_summary' AND {_OF}",
        exactly(("s1_entry", "success")),
    )


def _trims(flow: Flow) -> None:
    flow.check(
        "PM trim",
        f"SELECT $text(content, side), $num(content, rule) FROM ad_strands WHERE kind = 'pm_action' AND {_OF}"
        " AND $text(content, decision_type) = 'trim'",
        exactly(("sell", 3.0)),
    )
    flow.check(
        "PM trim",
        "SELECT $num(p.content, pool.basis), $num(f.content, quantity) * $num(f.content, price)"
        " - $num(f.content, fee_usd) FROM positions p JOIN ad_strands f ON f.position_id = p.key"
        " WHERE p.symbol = 'AAAUSDT' AND p.timeframe = '1h' AND f.kind = 'order_filled'"
        " AND $text(f.content, decision_type) = 'trim'",
        that(
            "a pool of the trim's net proceeds", lambda f: len(f) == 1 and f[0][0] > 0 and abs(f[0][0] - f[0][1]) < 1e-5
        ),
    )


def _adds(flow: Flow) -> None:
    flow.check(
        "PM S3",
        "SELECT a.trade_id = p.trade_id, $text(a.content, action_category) FROM ad_strands a JOIN positions p"
        f" ON p.key = a.position_id WHERE a.kind = 'pm_action' AND a.{_OF}"
        " AND $text(a.content, decision_type) = 'add'",
        that("one add under the same trade", lambda f: len(f) == 1 and f[0][0] and f[0][1] == "add"),
    )
    flow.check(
        "windows",
        "SELECT $flag(content, entered) FROM ad_strands WHERE kind = 'uptrend_buy_window'"
        f" AND $text(content, episode_type) = 's3_retest' AND {_OF}",
        that("one S3 window, entered", lambda found: len(found) == 1 and found[0][0]),
    )


def _flees(flow: Flow) -> None:
    flow.check(
        "exit",
        f"SELECT $text(content, side) FROM ad_strands WHERE kind = 'pm_action' AND {_OF}"
        " AND $text(content, decision_type) = 'emergency_exit'",
        exactly("sell"),
    )
    flow.check(
        "exit",
        "SELECT status, ledger_quantity, $num(content, emergency.exit_value) FROM positions"
        " WHERE symbol = 'AAAUSDT' AND timeframe = '1h'",
        that(
            "still active, no tokens, the exit's value kept",
            lambda f: f[0][0] == "active" and float(f[0][1]) == 0 and f[0][2] > 0,
        ),
    )


def _closes(flow: Flow) -> None:
    flow.check(
        "closure",
        "SELECT status, trade_id, trades_closed FROM positions WHERE symbol = 'AAAUSDT' AND timeframe = '1h'",
        exactly(("watchlist", "", 1)),
    )
    flow.check("closure", f"SELECT id FROM ad_strands WHERE kind = 'position_closed' AND {_OF}", rows(1))
    flow.check(
        "closure",
        "SELECT $text(a.value, decision_type) FROM ad_strands s, $each(s.content, actions, a)"
        f" WHERE s.kind = 'position_closed' AND s.{_OF}",
        that(
            "every action that was filled, the closing one included",
            lambda found: {"entry", "trim", "add", "emergency_exit"} <= {kind for (kind,) in found},
        ),
    )
    flow.check(
        "ledger",
        "SELECT $num(content, summary.extracted_usd) - $num(content, summary.invested_usd)"
        " - $num(content, summary.pnl_usd) FROM ad_strands"
        f" WHERE kind = 'position_closed' AND {_OF}",
        that("0: pnl is what came out less what went in", lambda found: abs(found[0][0]) < 0.01),
    )
    flow.check(
        "ledger",
        "SELECT a.cash_usd, t.pnl_usd FROM accounts a, trades t WHERE t.symbol = 'AAAUSDT'",
        that("cash is 100000 and the pnl", lambda f: abs(float(f[0][0]) - 100_000 - float(f[0][1])) < 0.01),
    )
    flow.check(
        "episode close",
        "SELECT $text(content, outcome) FROM ad_strands WHERE kind = 'uptrend_episode_summary'"
        f" AND $text(content, episode_type) = 's3_retest' AND {_OF}",
        exactly("success"),
    )


def _learns(flow: Flow) -> None:
    flow.check(
        "aggregator",
        "SELECT DISTINCT o.module FROM learning_observations o ORDER BY o.module",
        exactly("dm", "pm"),
    )
    flow.check(
        "aggregator",
        "SELECT module, pattern_key, action_category FROM pattern_scope_stats WHERE scope_mask = 0 AND n > 0"
        " AND module = 'pm'",
        some(2),
    )
    flow.check(
        "aggregator",
        "SELECT r.module, v.key FROM pattern_scope_stats r, $pairs(r.scope_values, ., v) WHERE r.scope_mask > 0",
        that(
            "rows of DM and PM, neither with a dim of the other",
            lambda found: (
                {module for module, _ in found} == {"dm", "pm"}
                and not any(dim in (ONLY_DM if module == "pm" else ONLY_PM) for module, dim in found)
            ),
        ),
    )
    flow.check("dead letters", "SELECT stage, reason FROM dead_letters", none().meaning("nothing was refused"))

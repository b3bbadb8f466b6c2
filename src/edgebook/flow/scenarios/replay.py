"""F13: the same packets twice, the log refolded, packets that say little, and some that are none."""

from __future__ import annotations

import json
from typing import Any

from edgebook.domain.decay import HOUR
from edgebook.flow.book import Rows
from edgebook.flow.check import Flow, every, exactly, none, same, scenario, some, that
from edgebook.flow.running import Running
from edgebook.flow.scenarios.few_days import SETTINGS, live, market_of
from edgebook.flow.story import Story, signal

#: Days of a market that teaches, run twice.
DAYS = 4
#: Tokens, each with one trade on the first day; more than the 20 trades from which a lesson could be thought of.
TRADES = 24
_EACH = exactly(TRADES).meaning("one per packet")
#: What a second run has to end with: the log's head, what was learnt from it, and what is in force.
LEARNT = {
    "aggregator": "SELECT key, n, stats FROM pattern_scope_stats ORDER BY key",
    "lesson builder": "SELECT key, status, lesson_strength FROM learning_lessons ORDER BY key",
    "config": "SELECT version, in_force_from, content_hash FROM learning_config_versions ORDER BY version",
    "materializer": "SELECT module_id, config_version, config_data FROM learning_configs ORDER BY module_id",
    "log": "SELECT seq, hash FROM ad_strands ORDER BY seq DESC LIMIT 1",
}


def _story() -> tuple[Story, int]:
    """Twenty-four trades of one day that all win; and when the last has closed."""
    story, last = Story(2.0), 0
    for number in range(TRADES):
        tale = story.tale(story.token(f"D{number:02d}USDT"), "1h", 2 + number % 8)
        tale.state("S1").chance().state("S2", 104).state("S3", 106).state("S0", 108 + number % 3)
        last = max(last, tale.last)
    return story, last


def _packets() -> list[str]:
    """One packet per token: every second one says nothing of the market."""
    market = {"mcap_usd": 2_000_000, "vol24h_usd": 300_000, "liquidity_usd": 90_000, "age_days": 5}
    found = []
    for number in range(TRADES):
        change: dict[str, Any] = {} if number % 2 else {"market": market}
        found.append(signal(f"day-{number}", f"D{number:02d}USDT", **change))
    return found


@scenario("F13", "replay: refolded and run twice the same; little evidence, broken packets and none do no harm")
def replay(flow: Flow) -> None:
    """Days of learning, twice; one day of luck; a system that was told nothing."""
    market = market_of(DAYS)
    with flow.system(market.market.story, **SETTINGS) as system:
        live(flow, system, market, DAYS)
        _learnt(flow)
        first = {stage: flow.ask(query) for stage, query in LEARNT.items()}
        _refolds(flow, system, first["log"])
    with flow.system(market.market.story, **SETTINGS) as system:
        live(flow, system, market, DAYS)
        _stands(flow, first, "what the first run ended with")
    story, closed = _story()
    with flow.system(story) as system:
        _arrives(flow, system)
        system.pass_until(closed + 2 * HOUR)
        _learns_little(flow)
        before = {stage: flow.ask(query) for stage, query in LEARNT.items()}
        system.pass_until(closed + 5 * HOUR)
        _stands(flow, before, "as three hours before, as there was nothing new to read")
    _nothing(flow)


def _learnt(flow: Flow) -> None:
    """There is something to be the same."""
    flow.check("aggregator", "SELECT count(*) FROM pattern_scope_stats", that("over 1000", lambda f: f[0][0] > 1_000))
    flow.check("lesson builder", "SELECT key FROM learning_lessons", some(5).meaning("lessons"))
    flow.check("materializer", "SELECT version FROM learning_config_versions", some(5).meaning("versions"))


def _arrives(flow: Flow, system: Running) -> None:
    """Good packets around three that are none."""
    flow.about("day-0")
    good = _packets()
    broken = ["{half a packet", json.dumps({"id": "no-token", "ts": "2024-01-01T00:00:00Z"}), signal("who", "NOUSDT")]
    answer = system.inject(*good[:12], *broken, *good[12:])
    flow.packets += [f"day-{number}" for number in range(TRADES)]
    told = ", ".join(f"line {one['line']}: {one['reason']}" for one in answer["refusals"])
    flow.note(
        "ingest",
        "answer of the ingress to 24 packets with 3 broken ones among them",
        "24 accepted, lines 13 to 15 refused with a reason each",
        (answer["accepted"], [one["line"] for one in answer["refusals"]]) == (TRADES, [13, 14, 15])
        and all(one["reason"] for one in answer["refusals"]),
        f"{answer['accepted']} accepted, {answer['refused']} refused: {told}",
    )
    flow.check(
        "dead letters",
        "SELECT stage, reason FROM dead_letters ORDER BY row_no",
        that(
            "3 rows of stage ingest, each with its reason",
            lambda f: len(f) == 3 and all(s == "ingest" and r for s, r in f),
        ),
    )
    flow.about("day-23")
    flow.check("DM", "SELECT count(*) FROM ad_strands WHERE kind = 'decision_lowcap'", _EACH)
    flow.about("day-1")
    _scopes(flow, "D01USDT", False)
    flow.about("day-0")
    _scopes(flow, "D00USDT", True)


def _scopes(flow: Flow, symbol: str, told: bool) -> None:
    """Dims of the market are in a decision's scope where a packet gave them, and nowhere else."""
    dims = ("mcap_bucket", "vol_bucket", "age_bucket", "mcap_vol_ratio_bucket")
    flow.check(
        "DM scope",
        "SELECT scope FROM ad_strands WHERE kind = 'decision_lowcap' AND symbol = :symbol",
        every(
            f"{'with all' if told else 'with none'} of {', '.join(dims)}, and no other dim unknown",
            lambda scope: (
                all((f'"{dim}"' in scope) == told for dim in dims)
                and "nknown" not in scope.replace('_phase":"Unknown"', "")
            ),
        ),
        symbol=symbol,
    )


def _learns_little(flow: Flow) -> None:
    """Twenty-four winning trades of one day are one day's luck."""
    flow.about("day-0")
    flow.check("closure", "SELECT count(*) FROM trades", _EACH)
    flow.check(
        "evidence",
        "SELECT action_category, count(DISTINCT unit_id), count(DISTINCT day) FROM learning_observations"
        " WHERE module = 'pm' AND action_category = 'entry' GROUP BY action_category",
        exactly(("entry", TRADES, 1)).meaning("one unit per trade, all of one day"),
    )
    flow.check(
        "aggregator",
        "SELECT n FROM pattern_scope_stats WHERE module = 'pm' AND scope_mask = 0 AND action_category = 'entry'",
        _EACH,
    )
    flow.check(
        "aggregator",
        "SELECT pattern_key FROM pattern_scope_stats WHERE scope_values LIKE '%nknown%'"
        " AND scope_values NOT LIKE '%_phase%'",
        none().meaning("no slice of a value that nobody gave"),
    )
    for name in ("lesson_builder_pm", "lesson_builder_dm"):
        flow.check(
            "lesson builder",
            "SELECT status, error FROM job_runs WHERE name = :name",
            every("ok", lambda status, error: status == "ok" and not error),
            name=name,
        )
    flow.check(
        "lesson builder", "SELECT key FROM learning_lessons WHERE status = 'active'", none().meaning("no active lesson")
    )
    flow.check("materializer", "SELECT version FROM learning_config_versions", none().meaning("nothing in force"))


def _refolds(flow: Flow, system: Running, head: Rows) -> None:
    """Both checks a user can make of a database, while the system runs."""
    code, out, err = system.call("verify", "--json")
    found = json.loads(out or "{}")
    flow.note(
        "log",
        "edgebook verify --json",
        f"exit code 0, intact, {head[0][0]} strands up to {head[0][1]}",
        (code, found.get("intact"), found.get("strands"), found.get("log_head")) == (0, True, *head[0]),
        f"exit code {code}: {out.strip() or err}",
    )
    code, out, err = system.call("rebuild", "--check", "--json")
    found = json.loads(out or "{}")
    rows = found.get("rows", {})
    flow.note(
        "replay",
        "edgebook rebuild --check --json",
        "exit code 0, equal: statistics, lessons, configs and every other table follow from the log alone",
        (code, found.get("equal"), found.get("log_head")) == (0, True, head[0][1])
        and min(rows.get(name, 0) for name in ("stats", "lessons", "configs", "config_versions")) > 0,
        f"exit code {code}: {out.strip()[:600] or err}",
    )


def _stands(flow: Flow, before: dict[str, Rows], words: str) -> None:
    """The tables are as they were, to the last digit."""
    for stage, query in LEARNT.items():
        flow.check(stage, query, same(words, before[stage]))


def _nothing(flow: Flow) -> None:
    """A system to which nobody says anything: its jobs run, find nothing, and say so."""
    story = Story(1.0)
    story.token("AAAUSDT")
    with flow.system(story) as system:
        flow.about("")
        system.pass_until(story.start + 2 * HOUR)
        flow.check("scheduler", "SELECT DISTINCT name FROM job_runs ORDER BY name", some(4).meaning("jobs ran"))
        flow.check(
            "scheduler",
            "SELECT name, status, error, counts FROM job_runs ORDER BY name",
            every(
                "ok, with counts that are all 0",
                lambda _, status, error, counts: status == "ok" and not error and not any(json.loads(counts).values()),
                4,
            ),
        )
        flow.check("log", "SELECT kind FROM ad_strands", none().meaning("nothing was written"))

"""F15: the process is killed at many points and started again; one order, one booking, one close, one effect per slot.

An undisturbed run is the measure: whatever happens to the process, the log ends with the same hash.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import EdgebookError
from edgebook.flow.book import Rows
from edgebook.flow.check import Flow, exactly, none, same, scenario, that
from edgebook.flow.running import Running, SystemDiedError
from edgebook.flow.story import Story, iso, signal

MINUTE = HOUR // 60
TOKENS = tuple(f"K{number}USDT" for number in range(4))
#: Packets of one burst about tokens that were asked for already.
BURST = 50
RESTART_SECONDS, REFUSAL_SECONDS = 20.0, 60.0
#: What a disturbed run has to end with, to the last digit; asked in the order in which things happen.
SAME = {
    "DM": "SELECT key, content FROM decisions ORDER BY key",
    "executor": "SELECT key, status, content FROM orders ORDER BY key",
    "ledger": "SELECT key, ledger_quantity, ledger_cost, ledger_realised, content FROM positions ORDER BY key",
    "closure": "SELECT key, pnl_usd, content FROM trades ORDER BY key",
    "evidence": "SELECT key, y, content FROM learning_observations ORDER BY key",
    "aggregator": "SELECT key, n, stats FROM pattern_scope_stats ORDER BY key",
    "reconcile": "SELECT seq, hash FROM ad_strands ORDER BY seq DESC LIMIT 1",
}
_EACH = exactly(len(TOKENS)).meaning("one per packet")
_ENTERED = exactly(1).meaning("one entry")
_CLOSED = exactly(1).meaning("one close")
_OPEN = exactly("planned").meaning("the order waits for a bar to open")
_FIRST = "symbol = 'K0USDT' AND timeframe = '1m'"
_ACTIONS = "SELECT count(*) FROM ad_strands WHERE kind = 'pm_action' AND symbol = 'K0USDT' AND timeframe = '1m'"


def _story() -> tuple[Story, dict[str, int]]:
    """Four tokens with a trade each on 1m and on 15m; the first one's entry finds no open, as one bar is missing."""
    story, seen = Story(1.0, base="1m", history_days=4.0), {}
    for number, symbol in enumerate(TOKENS):
        story.token(symbol, mcap_usd=2_000_000)
        tale = story.tale(symbol, "1m", 0.5 + 0.75 * number)
        tale.state("S1").chance()
        if not number:
            seen["planned"] = tale.last
            story.line(symbol=symbol, missing=[iso(tale.last), iso(tale.last + MINUTE)])
            tale.calm(1)
        tale.calm(5).state("S2", 104).calm().state("S3", 106).calm(2).trim(110)
        if not number:
            seen["trimmed"] = tale.last
        tale.calm(4).dip(0.9, price=105).calm(2).state("S0", 108)
        if not number:
            seen["closed"] = tale.last
        slow = story.tale(symbol, "15m", 6.0 + number)
        slow.state("S1", 108).chance().calm().state("S2", 111).state("S3", 113).calm().trim(115).calm(2).state(
            "S0", 114
        )
    return story, seen


def _packets() -> list[str]:
    return [signal(f"kill-{symbol}", symbol) for symbol in TOKENS]


def _burst() -> list[str]:
    """Fifty messages about the same four tokens, in one delivery."""
    return [
        signal(f"burst-{number}", TOKENS[number % len(TOKENS)], curator=f"c{number % 7}") for number in range(BURST)
    ]


@scenario("F15", "killed at many points and started again: one order, one booking, one close; one writer; a burst")
def crash(flow: Flow) -> None:
    """First undisturbed, then with kills; both hear the same packets at the same times."""
    story, seen = _story()
    flow.about(f"kill-{TOKENS[0]}")
    with flow.system(story, timeframes="1m,15m") as system:
        flow.inject(system, *_packets())
        system.pass_until(seen["planned"])
        flow.inject(system, *_burst())
        system.pass_until(story.end)
        calm = {stage: flow.ask(query) for stage, query in SAME.items()}
    with flow.system(story, timeframes="1m,15m", commit_every_strands=3) as system:
        flow.inject(system, *_packets())
        flow.check("ingest", "SELECT count(*) FROM ad_strands WHERE kind = 'social_lowcap'", _EACH)
        flow.check("DM", "SELECT count(*) FROM ad_strands WHERE kind = 'decision_lowcap'", _EACH)
        system.pass_until(seen["planned"])
        _between_order_and_fill(flow, system, seen)
        _after_the_trim(flow, system, seen)
        _before_learning(flow, system, seen)
        _anywhere(flow, system, story, int(calm["reconcile"][0][0]))
        _once(flow)
        _as_undisturbed(flow, calm)


def _again(system: Running) -> None:
    """Kill it and start it again; a database server may need a moment to see that its client is gone."""
    system.kill()
    deadline = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            system.start()
        except SystemDiedError as death:
            if "already has a writer" not in str(death) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _between_order_and_fill(flow: Flow, system: Running, seen: dict[str, int]) -> None:
    """The order is written down and no bar has opened yet; then a burst; killed; then the bar opens."""
    flow.check("PM plan", f"{_ACTIONS} AND $text(content, decision_type) = 'entry'", _ENTERED)
    flow.check("executor", f"SELECT status FROM orders WHERE {_FIRST}", _OPEN)
    head = flow.ask("SELECT count(*) FROM ad_strands")
    told = system.inject(*_burst())
    flow.packets += [f"burst-{number}" for number in range(BURST)]
    flow.note(
        "ingest",
        "fifty packets in one delivery while an order is open",
        "50 accepted",
        told["accepted"] == BURST,
        f"{told['accepted']} accepted",
    )
    _known(flow, system, "the same delivery once more", _burst())
    flow.check(
        "DM",
        "SELECT kind, count(DISTINCT causation_id), count(*) FROM ad_strands WHERE seq > :seq"
        " AND kind = 'decision_lowcap' GROUP BY kind",
        exactly(("decision_lowcap", BURST, BURST)).meaning("one decision for each packet of the burst"),
        seq=head[0][0],
    )
    _again(system)
    flow.check("reconcile", f"SELECT status FROM orders WHERE {_FIRST}", _OPEN)
    _known(flow, system, "fifty packets and the first four, delivered again after the restart", _packets() + _burst())
    system.pass_until(seen["planned"] + MINUTE)
    flow.check(
        "executor",
        "SELECT count(*), max(f.ts_event) - max(a.ts_event)"
        " FROM ad_strands f JOIN ad_strands a ON a.id = f.causation_id"
        " WHERE f.kind = 'order_filled' AND a.symbol = 'K0USDT' AND a.timeframe = '1m'",
        exactly((1, MINUTE)).meaning("one fill, a minute after the plan"),
    )
    flow.check("reconcile", f"{_ACTIONS} AND $text(content, decision_type) = 'entry'", _ENTERED)


def _known(flow: Flow, system: Running, words: str, lines: list[str]) -> None:
    """A delivery of packets that are all there already changes nothing."""
    head = flow.ask(SAME["reconcile"])
    answer = system.inject(*lines)
    flow.note(
        "ingest",
        words,
        f"0 accepted, {len(lines)} known",
        (answer["accepted"], answer["known"]) == (0, len(lines)),
        f"{answer['accepted']} accepted, {answer['known']} known",
    )
    flow.check("ingest", SAME["reconcile"], same("the head of the log as before", head))


def _after_the_trim(flow: Flow, system: Running, seen: dict[str, int]) -> None:
    """Killed right after a sale: cash, tokens and pool are those of one sale."""
    system.pass_until(seen["trimmed"])
    wanted = flow.ask(f"SELECT ledger_quantity, $text(content, pool.basis) FROM positions WHERE {_FIRST}")
    cash = flow.ask("SELECT cash_usd FROM accounts")
    _again(system)
    flow.check(
        "ledger",
        f"SELECT ledger_quantity, $text(content, pool.basis) FROM positions WHERE {_FIRST}",
        that("as before the kill, with a pool", lambda f: f == wanted and float(f[0][1]) > 0),
    )
    flow.check("ledger", "SELECT cash_usd FROM accounts", same("cash as before the kill", cash))


def _before_learning(flow: Flow, system: Running, seen: dict[str, int]) -> None:
    """Killed between a close and the aggregator's next slot."""
    system.pass_until(seen["closed"])
    flow.check(
        "closure",
        "SELECT s.seq FROM ad_strands s WHERE s.kind = 'position_closed' AND NOT EXISTS"
        " (SELECT 1 FROM watermarks w WHERE w.key = 'pattern_scope_aggregator' AND w.seq >= s.seq)",
        that("one close that the aggregator has not read", lambda f: len(f) == 1),
    )
    _again(system)
    flow.check("closure", "SELECT count(*) FROM ad_strands WHERE kind = 'position_closed'", _CLOSED)
    system.pass_until(seen["closed"] + 10 * MINUTE)
    flow.check(
        "evidence",
        "SELECT DISTINCT o.module, o.action_category FROM learning_observations o WHERE o.module = 'pm'"
        " ORDER BY o.action_category",
        that("evidence of the one trade, its entry included", lambda f: ("pm", "entry") in [tuple(r) for r in f]),
    )
    flow.check(
        "aggregator",
        "SELECT max(n) FROM pattern_scope_stats WHERE module = 'pm' AND action_category = 'entry'",
        exactly(1).meaning("counted once"),
    )


def _anywhere(flow: Flow, system: Running, story: Story, last: int) -> None:
    """Killed in the middle of a pass of time, when the log is two fifths and four fifths through what is left."""
    begun = int(flow.ask("SELECT max(seq) FROM ad_strands")[0][0])
    found = []
    for share in (0.4, 0.8):
        _cut(flow, system, story.end, begun + round(share * (last - begun)))
        found.append(int(flow.ask("SELECT max(seq) FROM ad_strands")[0][0]))
        _again(system)
    flow.note(
        "reconcile",
        "SIGKILL twice while time passes",
        f"at least once in the middle, before strand {last}",
        min(found) < last,
        f"strands in the log when it was dead: {', '.join(map(str, found))} of {last}",
    )
    _refused(flow, system)
    system.pass_until(story.end)


def _cut(flow: Flow, system: Running, until: int, seq: int) -> None:
    """Let time pass, and kill the process once the log holds ``seq`` strands or time has passed."""
    thread = threading.Thread(target=_quietly, args=(lambda: system.pass_until(until),), daemon=True)
    thread.start()
    while thread.is_alive() and int(flow.ask("SELECT max(seq) FROM ad_strands")[0][0]) < seq:
        time.sleep(0.001)
    system.kill()
    thread.join()


def _quietly(work: Callable[[], object]) -> None:
    """Work whose end is not awaited: the other side is killed meanwhile."""
    with contextlib.suppress(EdgebookError, SystemDiedError):
        work()


def _refused(flow: Flow, system: Running) -> None:
    """A second system on the same database does not start, and changes nothing."""
    head = flow.ask(SAME["reconcile"])
    feed = system.command[system.command.index("--feed") + 1]
    code, out, err = system.call("run", "--feed", feed, "--plain", "--held", seconds=REFUSAL_SECONDS)
    flow.note(
        "one writer",
        "edgebook run on the same database while the system runs",
        "an exit code other than 0, and the reason: there is a writer already",
        code not in (None, 0) and "already has a writer" in err + out,
        f"exit code {code}: ... {(err or out)[max(0, (err or out).find('already has')) :][:200]}",
    )
    flow.check("one writer", SAME["reconcile"], same("the head of the log as before", head))


def _once(flow: Flow) -> None:
    """Nothing happened twice."""
    flow.check(
        "executor",
        "SELECT a.id, count(*) FROM ad_strands a JOIN ad_strands f ON f.causation_id = a.id"
        " WHERE a.kind = 'pm_action' AND f.kind IN ('order_filled', 'order_rejected', 'order_expired')"
        " GROUP BY a.id HAVING count(*) > 1",
        none().meaning("no order was settled twice"),
    )
    flow.check(
        "PM plan",
        "SELECT position_id, ts_event, count(*) FROM ad_strands WHERE kind = 'pm_action'"
        " GROUP BY position_id, ts_event HAVING count(*) > 1",
        none().meaning("no position acted twice on one bar"),
    )
    flow.check(
        "closure",
        "SELECT s.trade_id, count(*) FROM ad_strands s WHERE s.kind = 'position_closed' GROUP BY s.trade_id"
        " HAVING count(*) > 1",
        none().meaning("no trade was closed twice"),
    )
    flow.check(
        "closure",
        "SELECT timeframe, count(*) FROM trades GROUP BY timeframe ORDER BY timeframe",
        exactly(("15m", len(TOKENS)), ("1m", len(TOKENS))).meaning("every trade that was to be"),
    )
    flow.check(
        "aggregator",
        "SELECT o.module, o.pattern_key, o.action_category, o.unit_id FROM learning_observations o"
        " GROUP BY o.module, o.pattern_key, o.action_category, o.unit_id HAVING count(*) > 1",
        none().meaning("no trade is evidence twice"),
    )
    flow.check(
        "scheduler",
        "SELECT name, slot, count(*) FROM job_runs GROUP BY name, slot HAVING count(*) > 1 ORDER BY name, slot",
        none().meaning("no slot of a job ran twice"),
    )


def _as_undisturbed(flow: Flow, calm: dict[str, Rows]) -> None:
    for stage, query in SAME.items():
        flow.check(stage, query, same("as in the undisturbed run", calm[stage]))

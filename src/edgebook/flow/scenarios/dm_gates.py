"""F3: every gate of the decision maker, one packet each (trading.md 1.5; decisions 40, 41)."""

from __future__ import annotations

from typing import Any

from edgebook.domain.timeframe import micros
from edgebook.flow.check import Flow, exactly, none, scenario, that
from edgebook.flow.running import Running
from edgebook.flow.story import START, Story, signal

#: Every decision evaluates and logs all of these.
GATES = (
    "supported_chain", "curator_score", "intent_buy", "known_token", "not_already_holding", "portfolio_capacity",
    "market_cap", "liquidity", "volume", "age",
)  # fmt: skip
_REGISTRY = """
[[curators]]
id = "ann"
[[curators]]
id = "top"
base_weight = 0.8
handles = { twitter = "top_calls" }
[[curators]]
id = "low"
base_weight = 0.05
[[curators]]
id = "off"
enabled = false
[[curators]]
id = "sus"
status = "suspended"
"""


def _story() -> tuple[Story, dict[str, int]]:
    """Minute bars, so that all four timeframes have a position; AAAUSDT is bought on 1m, held, and closed."""
    story, seen = Story(1.0, base="1m", history_days=1.0), {}
    for symbol in ("REJUSDT", "OKUSDT", "TOPUSDT", "NEWUSDT", "FULLUSDT"):
        story.token(symbol)
    story.token("TRONUSDT", chain="tron")
    tale = story.tale(story.token("AAAUSDT"), "1m", 0.1)
    tale.state("S1").chance().calm()
    seen["held"] = tale.last
    tale.calm(5).state("S0", 101).calm()
    seen["closed"] = tale.last
    return story, seen


@scenario("F3", "DM gates: who is turned away and why, who passes with a note, and what a second word changes")
def dm_gates(flow: Flow) -> None:
    """Rejections first, then passes, then a token that is signalled again while it is held."""
    story, seen = _story()
    (flow.folder / "curators.toml").write_text(_REGISTRY, encoding="utf-8")
    with flow.system(story, curators="../curators.toml", max_active=1) as system:
        system.pass_until(START + micros("1m"))
        _registers(flow)
        _turns_away(flow, system)
        _unknown_token(flow, system)
        _lets_pass(flow, system)
        _twice(flow, system)
        first = _sent(flow, system, "gate-held-1", "AAAUSDT")
        system.pass_until(seen["held"])
        _again(flow, system, first, seen["held"])
        _capacity(flow, system, seen["held"])
        second = flow.strand_of("gate-held-2")
        system.pass_until(seen["closed"])
        _taken_up(flow, first, second)


def _registers(flow: Flow) -> None:
    flow.check(
        "registry",
        "SELECT key, status, $flag(content, enabled), score FROM curators ORDER BY key",
        exactly(
            ("ann", "active", True, 0.6), ("low", "active", True, 0.05), ("off", "active", False, 0.6),
            ("sus", "suspended", True, 0.6), ("top", "active", True, 0.8),
        ),
    )  # fmt: skip


def _sent(flow: Flow, system: Running, ident: str, symbol: str, at: int = START, **said: Any) -> str:
    """Inject a packet and speak of it from now on; the signal's strand id."""
    (strand,) = flow.inject(system, signal(ident, symbol, at, **said))
    flow.about(ident)
    return strand


def _arrived(flow: Flow, strand: str, intent: str = "new_discovery", *, candidate: bool = True) -> None:
    words = f"1 row, {intent}, {'tagged' if candidate else 'not tagged'} dm_candidate"
    flow.check(
        "ingest",
        "SELECT $text(content, intent), tags FROM ad_strands WHERE kind = 'social_lowcap' AND id = :strand",
        that(words, lambda f: len(f) == 1 and f[0][0] == intent and ("dm_candidate" in f[0][1]) == candidate),
        strand=strand,
    )
    flow.check(
        "DM",
        "SELECT $text(g.value, name) FROM ad_strands s, $each(s.content, gates, g)"
        " WHERE s.kind = 'decision_lowcap' AND s.causation_id = :strand",
        that(f"one decision with all {len(GATES)} gates", lambda f: sorted(n for (n,) in f) == sorted(GATES)),
        strand=strand,
    )


def _gate(flow: Flow, strand: str, name: str, passed: bool | None, detail: str) -> None:
    flow.check(
        f"DM gate {name}",
        "SELECT $flag(g.value, passed), $text(g.value, detail) FROM ad_strands s, $each(s.content, gates, g)"
        " WHERE s.kind = 'decision_lowcap' AND s.causation_id = :strand AND $text(g.value, name) = :gate",
        exactly((passed, detail)),
        strand=strand,
        gate=name,
    )


def _rejected(flow: Flow, strand: str, gate: str) -> None:
    flow.check(
        "DM decision",
        "SELECT $text(content, action), $num(content, allocation_pct), $text(content, reasoning), $text(content,"
        " pattern_key) FROM ad_strands WHERE kind = 'decision_lowcap' AND causation_id = :strand",
        that(
            f"reject, 0 %, only {gate} named as the reason, with the pattern key",
            lambda f: (
                len(f) == 1
                and f[0][:2] == ("reject", 0.0)
                and f[0][2].startswith(f"{gate}: ")
                and not any(f"; {other}: " in f[0][2] for other in GATES)
                and f[0][3] == "module=dm|pattern_key=dm_pattern.allocation.allocation"
            ),
        ),
        strand=strand,
    )


def _turns_away(flow: Flow, system: Running) -> None:
    """One packet per gate that can say no, all about one token; it never gets a position."""
    tron = {"symbol": "TRONUSDT", "chain": "tron"}
    chains = "base, bsc, ethereum, exchange, solana"
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("chain", "supported_chain", f"tron is not one of {chains}", {"token": tron}),
        ("low", "curator_score", "active, score 0.0500, needs 0.1", {"curator": "low"}),
        ("off", "curator_score", "curator is disabled", {"curator": "off"}),
        ("suspended", "curator_score", "curator is suspended", {"curator": "sus"}),
        ("mention", "intent_buy", "intent mention_only does not ask for a buy", {"intent": "mention_only"}),
        ("mock", "intent_buy", "intent mock does not ask for a buy", {"intent": "mocking_negative"}),
        ("cap", "market_cap", "9000 USD is below the floor of 10000", {"market": {"mcap_usd": 9_000}}),
        ("liquidity", "liquidity", "4000 USD is below the floor of 5000", {"market": {"liquidity_usd": 4_000}}),
    ]
    intents = {"mention": "mention_only", "mock": "mock"}
    for ident, gate, detail, said in cases:
        strand = _sent(flow, system, f"gate-{ident}", "REJUSDT", **said)
        no_candidate = gate in ("supported_chain", "intent_buy")
        _arrived(flow, strand, intents.get(ident, "new_discovery"), candidate=not no_candidate)
        _gate(flow, strand, gate, False, detail)
        _rejected(flow, strand, gate)
    nothing = none().meaning("nothing stands for a packet that was turned away")
    flow.check("DM fan-out", "SELECT key FROM positions WHERE symbol IN ('REJUSDT', 'TRONUSDT') ORDER BY key", nothing)
    flow.check("DM fan-out", "SELECT key FROM decisions ORDER BY key", nothing)


def _unknown_token(flow: Flow, system: Running) -> None:
    """A token that is in no table is refused before there is anything to decide."""
    _sent(flow, system, "gate-nobody", "NOBODYUSDT")
    flow.check(
        "ingest",
        "SELECT stage, reason FROM dead_letters",
        that("a dead letter of the ingest that names the token", lambda f: len(f) == 1 and "NOBODYUSDT" in f[0][1]),
    )
    flow.check("ingest", "SELECT id FROM ad_strands WHERE symbol = 'NOBODYUSDT'", none().meaning("no signal of it"))


def _approved(flow: Flow, strand: str, curator: str, base_pct: float) -> None:
    flow.check(
        "DM decision",
        "SELECT $text(content, action), $text(content, curator_id), $num(content, base_allocation_pct),"
        " $num(content, allocation_pct), $num(content, base_allocation_pct) * $num(content, coefficient_mult)"
        " * $num(content, static_mult) * $num(content, alloc_mult) FROM ad_strands"
        " WHERE kind = 'decision_lowcap' AND causation_id = :strand",
        that(
            f"approve, for {curator}, base {base_pct:g} %, allocation the product of base and multipliers",
            lambda f: (
                len(f) == 1
                and f[0][:2] == ("approve", curator)
                and abs(f[0][2] - base_pct) < 1e-9
                and abs(f[0][3] - f[0][4]) < 1e-9
            ),
        ),
        strand=strand,
    )


def _four_rows(flow: Flow, symbol: str) -> None:
    """Of a day of minute bars, 333 are there on 1m alone: the others sleep."""
    flow.check(
        "DM fan-out",
        "SELECT timeframe, status FROM positions WHERE symbol = :symbol ORDER BY timeframe",
        exactly(("15m", "dormant"), ("1h", "dormant"), ("1m", "watchlist"), ("4h", "dormant")),
        symbol=symbol,
    )


def _lets_pass(flow: Flow, system: Running) -> None:
    """A stranger passes on trial, a handle is its curator, thin markets pass with a note, absent data as not known."""
    strand = _sent(flow, system, "gate-stranger", "NEWUSDT", curator="somebody")
    _arrived(flow, strand)
    _gate(flow, strand, "curator_score", True, "unregistered: testing, score 0.6000, needs 0.1")
    _gate(flow, strand, "liquidity", None, "liquidity unknown, not evaluated")
    _approved(flow, strand, "somebody", 6.0)
    _four_rows(flow, "NEWUSDT")
    strand = _sent(flow, system, "gate-handle", "TOPUSDT", curator="Twitter:@Top_Calls")
    _arrived(flow, strand)
    _gate(flow, strand, "curator_score", True, "active, score 0.8000, needs 0.1")
    _approved(flow, strand, "top", 15.0)
    thin = {"mcap_usd": 2e6, "liquidity_usd": 10_000, "vol24h_usd": 50_000, "age_days": 5}
    strand = _sent(flow, system, "gate-note", "OKUSDT", market=thin)
    _arrived(flow, strand)
    _gate(flow, strand, "supported_chain", True, "exchange is one of base, bsc, ethereum, exchange, solana")
    _gate(flow, strand, "intent_buy", True, "intent new_discovery asks for a buy")
    _gate(flow, strand, "known_token", True, "OKUSDT is in the token table")
    _gate(flow, strand, "not_already_holding", True, "not held")
    _gate(flow, strand, "portfolio_capacity", True, "0 active positions")
    _gate(flow, strand, "market_cap", True, "2e+06 USD")
    _gate(flow, strand, "liquidity", True, "10000 USD, note: below 20000")
    _gate(flow, strand, "volume", True, "50000 USD, note: below 100000")
    _gate(flow, strand, "age", True, "5 days")
    _approved(flow, strand, "ann", 6.0)


def _twice(flow: Flow, system: Running) -> None:
    """The same message again is known; another text under its id is refused."""
    flow.about("gate-note")
    thin = {"mcap_usd": 2e6, "liquidity_usd": 10_000, "vol24h_usd": 50_000, "age_days": 5}
    same, other = signal("gate-note", "OKUSDT", market=thin), signal("gate-note", "OKUSDT")
    answer = system.inject(same, same, other)
    told = f"accepted {answer['accepted']}, known {answer['known']}, refused {answer['refused']}"
    wanted = "accepted 0, known 2, refused 1"
    flow.note("ingest", "the message twice more, and once with other content", wanted, told == wanted, told)
    flow.check(
        "ingest",
        "SELECT s.kind, count(*) FROM ad_strands s WHERE s.symbol = 'OKUSDT' AND s.kind IN ('social_lowcap',"
        " 'decision_lowcap') GROUP BY s.kind ORDER BY s.kind",
        exactly(("decision_lowcap", 1), ("social_lowcap", 1)),
    )
    flow.check(
        "ingest",
        "SELECT count(*) FROM dead_letters WHERE reason LIKE '%delivered before%'",
        exactly(1),
    )


def _again(flow: Flow, system: Running, first: str, at: int) -> None:
    """Another curator names the token while 1m holds it: approved, no new row, 1m keeps its decision for now."""
    _arrived(flow, first)
    _four_rows_of_held(flow)
    strand = _sent(flow, system, "gate-held-2", "AAAUSDT", at, curator="top")
    _arrived(flow, strand)
    _gate(flow, strand, "not_already_holding", True, "held on 1m: the decision waits for those")
    _approved(flow, strand, "top", 15.0)
    _four_rows_of_held(flow)
    flow.check(
        "DM fan-out",
        "SELECT p.timeframe, d.causation_id = :first, d.causation_id = :second, w.causation_id = :second"
        " FROM positions p JOIN ad_strands d ON d.id = p.decision_id"
        " LEFT JOIN ad_strands w ON w.id = p.pending_decision_id WHERE p.symbol = 'AAAUSDT' ORDER BY p.timeframe",
        exactly(("15m", False, True, None), ("1h", False, True, None), ("1m", True, False, True),
                ("4h", False, True, None)),
        first=first,
        second=strand,
    )  # fmt: skip


def _four_rows_of_held(flow: Flow) -> None:
    flow.check(
        "DM fan-out",
        "SELECT timeframe, status FROM positions WHERE symbol = 'AAAUSDT' ORDER BY timeframe",
        exactly(("15m", "dormant"), ("1h", "dormant"), ("1m", "active"), ("4h", "dormant")),
    )


def _capacity(flow: Flow, system: Running, at: int) -> None:
    """One open trade is as many as the setting wants: the next token passes with a warning."""
    strand = _sent(flow, system, "gate-full", "FULLUSDT", at)
    _arrived(flow, strand)
    _gate(flow, strand, "portfolio_capacity", True, "1 active positions, warning: 1 or more")
    _approved(flow, strand, "ann", 6.0)
    _four_rows(flow, "FULLUSDT")


def _taken_up(flow: Flow, first: str, second: str) -> None:
    """The trade closes for the curator it was opened under, and the decision that waited is taken up."""
    flow.about("gate-held-1")
    flow.check(
        "closure",
        "SELECT $text(s.content, curator_id), d.causation_id = :first FROM ad_strands s JOIN ad_strands d"
        " ON d.id = $text(s.content, decision_id) WHERE s.kind = 'position_closed' AND s.symbol = 'AAAUSDT'",
        exactly(("ann", True)),
        first=first,
    )
    flow.about("gate-held-2")
    flow.check(
        "DM pending",
        "SELECT d.causation_id = :second, p.pending_decision_id, p.status FROM positions p JOIN ad_strands d"
        " ON d.id = p.decision_id WHERE p.symbol = 'AAAUSDT' AND p.timeframe = '1m'",
        exactly((True, "", "watchlist")),
        second=second,
    )
    flow.check(
        "curators",
        "SELECT key, signals, trades FROM curators WHERE key IN ('ann', 'top') ORDER BY key",
        that("the trade counts for ann, none for top", lambda f: [row[2] for row in f] == [1, 0]),
    )

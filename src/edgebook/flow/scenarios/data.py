"""F14: what becomes of bars: rolled up, listed late, missing, and read by the engine itself without looking ahead."""

from __future__ import annotations

import itertools
import json
from typing import Any

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.timeframe import micros
from edgebook.flow.check import Expected, Flow, every, exactly, rows, same, scenario, some, that
from edgebook.flow.running import Running
from edgebook.flow.scenarios.walks import unscripted
from edgebook.flow.story import START, Story, iso, signal

MINUTE, QUARTER = HOUR // 60, HOUR // 4
FOUR = ("1m", "15m", "1h", "4h")
#: Bars a position needs before it is watched.
ENOUGH = 333
VOLUME, PRICE = 1e6, 100.0
#: When the late tokens have their 333rd bar, hours after the start.
READY = 8.0
#: When the last buy of a gate up to a day was planned; what was written down up to then; what was measured on its bar.
_LAST_BUY = (
    "SELECT max(ts_event) FROM ad_strands WHERE kind = 'pm_action' AND $text(content, window_id) <> ''"
    " AND ts_event <= :day"
)
_UP_TO = "SELECT seq, hash FROM ad_strands WHERE ts_recorded <= :cut ORDER BY seq"
_SAMPLED = (
    "SELECT s.symbol, m.value FROM ad_strands s, $each(s.content, samples, m) WHERE s.kind = 'uptrend_buy_window'"
    " AND $num(m.value, ts) = :cut ORDER BY s.symbol"
)
WILD = ("WILDUSDT", "ROAMUSDT", "STRAYUSDT")


def _story() -> tuple[Story, dict[str, int]]:
    """Minutes of tokens that are old, new, and with holes; and when what is asked of them can be there."""
    story, seen = Story(1.0, base="1m", history_days=60.0), {}
    old = story.token("OLDUSDT", price=PRICE, volume=VOLUME)
    for timeframe, after in (("1m", 0.5), ("15m", 1.0), ("1h", 2.0), ("4h", 8.0)):
        seen[timeframe] = story.tale(old, timeframe, after).state("S1").chance().last
    for timeframe in FOUR:
        first = START + round(READY * HOUR) - ENOUGH * micros(timeframe)
        story.token(f"LATE{timeframe.upper()}", price=PRICE, first=iso(first))
    story.token("TORN", price=PRICE, first=iso(START + round((READY - 2) * HOUR) - ENOUGH * MINUTE))
    seen["torn"] = START + round((READY - 3) * HOUR)
    _hole(story, "TORN", seen["torn"], 34)
    _holes(story, seen)
    return story, seen


def _hole(story: Story, symbol: str, begin: int, minutes: int) -> None:
    story.line(symbol=symbol, missing=[iso(begin), iso(begin + minutes * MINUTE)])


def _holes(story: Story, seen: dict[str, int]) -> None:
    """On 15m: a chance on a bar with 7 of 15 minutes, one on a bar with 8; an episode across five missing bars."""
    gaps = story.tale(story.token("GAPUSDT", price=PRICE, volume=VOLUME), "15m", 1.0).state("S1")
    _hole(story, "GAPUSDT", gaps.last, 8)
    seen["partial"] = gaps.chance().last
    _hole(story, "GAPUSDT", gaps.last, 7)
    seen["whole"] = gaps.chance().last
    void = story.tale(story.token("VOIDUSDT", price=PRICE), "15m", 1.0).state("S1").chance(0.5)
    _hole(story, "VOIDUSDT", void.last, 5 * 15)
    seen["void"] = void.calm(5).bar(ts_score=0.5).last


@scenario("F14", "data: roll-ups, late tokens, holes; the engine's own numbers, and nothing of tomorrow in them")
def data(flow: Flow) -> None:
    """Bars of minutes become all timeframes; then walks that nobody scripted."""
    story, seen = _story()
    with flow.system(story) as system:
        late = [f"LATE{timeframe.upper()}" for timeframe in FOUR]
        flow.inject(system, *(signal(f"data-{s}", s) for s in ("OLDUSDT", "GAPUSDT", "VOIDUSDT", "TORN", *late)))
        _watched(flow)
        _rolled(flow, system, seen)
        _torn_bars(flow, seen)
        _wakes(flow, system, seen)
    _by_itself(flow)


def _watched(flow: Flow) -> None:
    flow.about("data-OLDUSDT")
    flow.check(
        "roll-up",
        "SELECT timeframe, status FROM positions WHERE symbol = 'OLDUSDT' ORDER BY timeframe",
        exactly(*((tf, "watchlist") for tf in sorted(FOUR))).meaning("333 bars on every timeframe"),
    )
    flow.about("data-LATE4H")
    flow.check(
        "roll-up",
        "SELECT timeframe, status FROM positions WHERE symbol = 'LATE4H' ORDER BY timeframe",
        exactly(("15m", "watchlist"), ("1h", "watchlist"), ("1m", "watchlist"), ("4h", "dormant")).meaning(
            "too few bars on 4h alone"
        ),
    )
    flow.about("data-LATE1M")
    flow.check(
        "roll-up",
        "SELECT DISTINCT status FROM positions WHERE symbol = 'LATE1M'",
        exactly("dormant").meaning("too few bars on any timeframe"),
    )


def _rolled(flow: Flow, system: Running, seen: dict[str, int]) -> None:
    """One entry per timeframe, on the close of a bar of all its minutes."""
    system.pass_until(max(seen[tf] for tf in FOUR))
    flow.about("data-OLDUSDT")
    for timeframe in FOUR:
        minutes = micros(timeframe) // MINUTE
        flow.check(
            "roll-up",
            "SELECT ts_event, $text(content, decision_type), $num(content, reasons.bar_volume_usd) FROM ad_strands"
            " WHERE kind = 'pm_action' AND symbol = 'OLDUSDT' AND timeframe = :timeframe",
            exactly((seen[timeframe], "entry", minutes * VOLUME * PRICE)).meaning(
                f"an entry at {iso(seen[timeframe])} on a bar with the volume of {minutes} minutes"
            ),
            timeframe=timeframe,
        )


def _torn_bars(flow: Flow, seen: dict[str, int]) -> None:
    flow.about("data-GAPUSDT")
    flow.check(
        "roll-up",
        "SELECT ts_event, $num(content, reasons.bar_volume_usd) FROM ad_strands WHERE kind = 'pm_action'"
        " AND symbol = 'GAPUSDT' AND timeframe = '15m' ORDER BY seq",
        that(
            f"none on the bar of 7 minutes ({seen['partial']}), one on that of 8 ({seen['whole']}), with their volume",
            lambda f: [tuple(row) for row in f] == [(seen["whole"], 8 * VOLUME * PRICE)],
        ),
    )
    flow.about("data-VOIDUSDT")
    flow.check(
        "engine void rule",
        "SELECT $text(content, episode_type), $text(content, outcome), ts_event FROM ad_strands"
        " WHERE kind = 'uptrend_episode_summary' AND symbol = 'VOIDUSDT' AND timeframe = '15m'",
        exactly(("s1_entry", "void", seen["void"])).meaning("closed as void on the first bar after the hole"),
    )


def _wakes(flow: Flow, system: Running, seen: dict[str, int]) -> None:
    """Each late position wakes at the first count after its 333rd bar, and not before; a long hole starts anew."""
    ready = START + round(READY * HOUR)
    woken = (
        "SELECT ts_event FROM ad_strands WHERE kind = 'position_status' AND symbol = :symbol AND timeframe = :timeframe"
        " AND $text(content, previous) = 'dormant' AND $text(content, status) = 'watchlist'"
    )
    system.pass_until(ready + HOUR)
    for timeframe in FOUR:
        flow.about(f"data-LATE{timeframe.upper()}")
        flow.check(
            "dormant to watchlist",
            woken,
            exactly(_count(ready)).meaning(f"at the first count after bar {ENOUGH}, {iso(_count(ready))}"),
            symbol=f"LATE{timeframe.upper()}",
            timeframe=timeframe,
        )
    flow.about("data-TORN")
    again = seen["torn"] + (34 + ENOUGH) * MINUTE
    flow.check("dormant to watchlist", woken, _torn(_count(again)), symbol="TORN", timeframe="1m")


def _torn(at: int) -> Expected:
    return exactly(at).meaning(f"at {iso(at)}, as a hole of 34 bars began the count anew")


def _count(at: int) -> int:
    """When bars are counted next: seven minutes past an hour."""
    return -(-(at - 7 * MINUTE) // HOUR) * HOUR + 7 * MINUTE


def _wild(days: float, bends_at: int | None = None) -> tuple[Story, dict[str, dict[int, float]]]:
    """Tokens that nobody scripted, on hours; twenty days of history in which nothing moves."""
    story = Story(days, base="1h", history_days=20.0)
    return story, {symbol: unscripted(story, symbol, 7, bends_at) for symbol in WILD}


def _by_itself(flow: Flow) -> None:
    """The engine reads for itself, twice: to the end, and with another future from the bar of an action on."""
    story, closes = _wild(60.0)
    packets = [signal(f"wild-{symbol}", symbol) for symbol in WILD]
    with flow.system(story, timeframes="1h") as system:
        flow.about("wild-WILDUSDT")
        flow.inject(system, *packets)
        system.pass_until(story.end)
        _measured(flow, closes)
        cut = int(flow.check("PM plan", _LAST_BUY, every("the bar of a buy", bool), day=START + 50 * DAY)[0][0])
        before, sampled = flow.ask(_UP_TO, cut=cut), flow.ask(_SAMPLED, cut=cut)
        head = flow.ask("SELECT hash FROM ad_strands ORDER BY seq DESC LIMIT 1")
    with flow.system(_wild(60.0, cut)[0], timeframes="1h") as system:
        flow.inject(system, *packets)
        system.pass_until(story.end)
        flow.check(
            "causality",
            _UP_TO,
            same(f"the same strands up to {iso(cut)}, whatever comes after: levels, scores, actions", before),
            cut=cut,
        )
        flow.check(
            "causality",
            _SAMPLED,
            that(f"the same scores of the bar that closed at {iso(cut)}", lambda f: f and f == sampled),
            cut=cut,
        )
        flow.check(
            "causality",
            "SELECT hash FROM ad_strands ORDER BY seq DESC LIMIT 1",
            that("another log in the end, as the future was another", lambda f: f != head),
        )


def _measured(flow: Flow, closes: dict[str, dict[int, float]]) -> None:
    """Averages and ATR as they follow from the closes, scores in their ranges."""
    flow.check(
        "engine",
        "SELECT DISTINCT $text(content, to_state) FROM ad_strands WHERE kind = 'uptrend_stage_transition' ORDER BY 1",
        exactly("S0", "S1", "S2", "S3").meaning("the engine by itself goes through"),
    )
    flow.check(
        "PM plan",
        "SELECT DISTINCT $text(content, side) FROM ad_strands WHERE kind = 'pm_action'",
        rows(2).meaning("buys and sales"),
    )
    flow.check("closure", "SELECT key FROM trades", some(3).meaning("trades closed"))
    flow.check(
        "engine",
        "SELECT s.symbol, m.value FROM ad_strands s, $each(s.content, samples, m) WHERE s.kind = 'uptrend_buy_window'",
        every(
            "with EMA60, EMA144, EMA333 and ATR as they follow from the closes, TS and other scores from 0 to 1",
            lambda symbol, sample: _fits(closes[symbol], sample if isinstance(sample, dict) else json.loads(sample)),
            20,
        ),
    )


def _fits(closes: dict[int, float], sample: dict[str, Any]) -> bool:
    """Whether a sample's numbers are those of the closes up to it."""
    known = [PRICE, *(close for at, close in closes.items() if at <= sample["ts"])]
    values = sample["values"]
    for length in (60, 144, 333):
        if f"ema{length}" in values:
            average = PRICE
            for close in known:
                average += 2.0 / (length + 1) * (close - average)
            if abs(values[f"ema{length}"] - average) > 1e-6 * average:
                return False
    true_range, atr = [abs(b - a) for a, b in itertools.pairwise(known)], 0.0
    for move in true_range:
        atr += (move - atr) / 14.0
    if abs(values["atr"] - atr) > 1e-6 * atr:
        return False
    scores = (values[name] for name in ("ts_score", "ts_with_boost", "dx_score", "edx_score") if name in values)
    return known[-1] == sample["price"] and all(0 <= score <= 1 for score in scores)

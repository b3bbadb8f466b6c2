"""F10, the phase model and the rank of cap buckets (trading.md 3.2, 3.8): phases come from prices, through the system.

The phases themselves are the system's own; what A and E must be under them is worked out here from the tables.
"""

from __future__ import annotations

import math
import random

from edgebook.domain.decay import DAY, HOUR
from edgebook.flow.check import Flow, every, that
from edgebook.flow.scenarios.walks import Mood, walk
from edgebook.flow.story import START, Story, iso, signal

#: A and E by meso phase, and what each macro phase makes of them.
MESO = {
    "Dip": (0.2, 0.8), "Double-Dip": (0.4, 0.7), "Oh-Shit": (0.9, 0.8), "Recover": (1.0, 0.5), "Good": (0.5, 0.3),
    "Euphoria": (0.4, 0.5), "Unknown": (0.5, 0.5),
}  # fmt: skip
MACRO = {
    "Dip": (0.6, 1.4), "Double-Dip": (0.8, 1.2), "Oh-Shit": (1.2, 0.8), "Recover": (1.3, 1.0), "Good": (1.1, 1.1),
    "Euphoria": (1.0, 1.4), "Unknown": (1.0, 1.0),
}  # fmt: skip
RANKS = (0.12, 0.06, 0.02, -0.02, -0.06, -0.12)
AGES = ((6.0, 1.15), (12.0, 1.10), (72.0, 1.05))
CAPS = ((1e5, 1.15), (5e5, 1.10), (1e6, 1.05))
CAP = {"BTC": 1e12, "MIC": 2e6, "MID": 2e7}
DAYS, CROWD = 60, 17
#: Market caps and ages, in days, that packets name; None where a packet says nothing.
SAID = ((50_000, 0.1), (300_000, 0.4), (800_000, 1.0), (2_000_000, 30.0), (20_000_000, None))
#: Pairs of a meso and a macro phase that one story drives through, of the 36 there are.
PAIRS = 20
#: Calm, then moves that no phase takes for an ordinary one; the classes differ by an eighth of that.
BURSTS = Mood((0.02, 0.0, -0.02), (12, 130), 0.0003)
APART = Mood(tuple(drift / 8.0 for drift in BURSTS.drifts), BURSTS.stretch, BURSTS.noise)
_FACTS = (
    "$text(r.content, content.meso_phase), $text(r.content, content.macro_phase), $num(r.content, content.a_base),"
    " $num(r.content, content.e_base), $num(r.content, content.bucket_multiplier)"
)
_PROBED = (
    " FROM ad_strands s JOIN regime_snapshots r ON r.key = s.regime_snapshot_id"
    " WHERE s.kind = 'uptrend_stage_transition' AND s.symbol = :symbol ORDER BY s.seq"
)


def _closes(seed: int) -> dict[str, list[float]]:
    """BTC on its own way, the others together on another; hourly closes of each."""
    bars = DAYS * 24
    found = {"BTCUSDT": list(walk(random.Random(seed), bars, BURSTS))}
    others = list(walk(random.Random(seed + 50), bars, BURSTS))
    for number, symbol in enumerate(f"{name}{n}" for n in range(3) for name in ("MICRO", "MID")):
        own = walk(random.Random(seed + 1 + number), bars, APART)
        found[symbol] = [round(a * b / 100.0, 4) for a, b in zip(others, own, strict=True)]
    return found


def _story(seed: int) -> tuple[Story, int]:
    """BTC and two cap classes of three tokens each; and when a crowd of seventeen begins to enter."""
    story = Story(DAYS)
    for symbol, closes in _closes(seed).items():
        story.token(symbol, mcap_usd=CAP[symbol[:3]])
        for i, close in enumerate(closes, start=1):
            story.line(symbol=symbol, ts=iso(START + i * HOUR), price=close)
        if symbol.endswith("0"):
            tale = story.tale(symbol, "1h", 1.0)
            while tale.at < story.end - HOUR:
                tale.bar("S1").bar("S2")
    for number in range(CROWD):
        tale = story.tale(story.token(f"X{number:02d}USDT"), "1h", (DAYS - 2) * 24.0 + 2 + number)
        tale.state("S1").chance()
    return story, START + (DAYS - 2) * DAY


def phases(flow: Flow) -> None:
    """The same market under the phase model: two probes, and a crowd that enters one by one."""
    story, begin = _story(1300)
    with flow.system(story, appetite_model="phases", timeframes="1h") as system:
        flow.inject(system, *(signal(f"phase-{symbol}", symbol) for symbol in ("MICRO0", "MID0")))
        system.pass_until(begin)
        market = [{k: v for k, v in (("mcap_usd", cap), ("age_days", age)) if v is not None} for cap, age in SAID]
        flow.inject(
            system,
            *(signal(f"crowd-{n}", f"X{n:02d}USDT", begin, market=market[n % len(SAID)]) for n in range(CROWD)),
        )
        system.pass_until(begin + (CROWD + 4) * HOUR)
        for symbol in ("MICRO0", "MID0"):
            flow.about(f"phase-{symbol}")
            _phased(flow, symbol)
            _ranked(flow, symbol)
        flow.about(f"crowd-{CROWD - 1}")
        _crowded(flow, begin)


def _phased(flow: Flow, symbol: str) -> None:
    flow.check(
        "regime",
        f"SELECT DISTINCT {_FACTS.split(', $num')[0]}{_PROBED.replace(' ORDER BY s.seq', ' ORDER BY 1, 2')}",
        that(
            f"at least {PAIRS} pairs of known meso and macro phases",
            lambda f: len({(a, b) for a, b in f if "Unknown" not in (a, b)}) >= PAIRS,
        ),
        symbol=symbol,
    )

    def fits(meso: str, macro: str, a: float, e: float, multiplier: float) -> bool:
        wanted = [MESO[meso][part] * MACRO[macro][part] for part in (0, 1)]
        return _near(a, wanted[0] * multiplier) and _near(e, wanted[1] / max(multiplier, 0.2))

    flow.check(
        "regime",
        f"SELECT {_FACTS}{_PROBED}",
        every("meso policy times macro factors times the bucket's multiplier, within 0 and 1", fits, 1_000),
        symbol=symbol,
    )


def _near(found: float, wanted: float) -> bool:
    """Whether a value is the wanted one cut to 0 and 1; multipliers are written down with six digits."""
    return abs(found - min(1.0, max(0.0, wanted))) < 1e-5


def _ranked(flow: Flow, symbol: str) -> None:
    """``clip(1 + rank + .4 slope, .7, 1.3)`` of the token's bucket; exactly 1 where its phase is not sure."""
    own = "mid" if symbol.startswith("MID") else "micro"

    def fits(ranks: str, slope: float, sure: float, multiplier: float) -> bool:
        names = [name for name in (ranks or "").split(",") if name]
        if own not in names or sure < 0.4:
            return bool(multiplier == 1.0)
        return abs(multiplier - min(1.3, max(0.7, 1 + RANKS[names.index(own)] + 0.4 * slope))) < 1e-5

    query = (
        f"SELECT $text(r.content, content.bucket_rank), $num(r.content, content.bucket_{own}_slope),"
        f" $num(r.content, content.bucket_{own}_confidence), $num(r.content, content.bucket_multiplier){_PROBED}"
    )
    flow.check(
        "bucket rank",
        query,
        every("the multiplier of its rank, slope and confidence", fits, 1_000),
        symbol=symbol,
    )
    flow.check(
        "bucket rank",
        query,
        that(
            "first and second place, sure and unsure",
            lambda f: (
                {ranks.split(",").index(own) for ranks, *_ in f if own in (ranks or "").split(",")} == {0, 1}
                and {bool(sure < 0.4) for _, _, sure, _ in f if sure is not None} == {True, False}
            ),
        ),
        symbol=symbol,
    )


def _crowded(flow: Flow, begin: int) -> None:
    """What the model asks of book and token: open trades, cut pressure, age and cap."""
    query = (
        f"SELECT {_FACTS}, $num(s.content, reasons.active_trades), $num(s.content, reasons.cut_pressure),"
        " $num(s.content, reasons.token_age_hours), $num(s.content, reasons.token_mcap_usd),"
        " $num(s.content, reasons.intent_a), $num(s.content, reasons.intent_e), $num(s.content, a_base),"
        " $num(s.content, e_base) FROM ad_strands s JOIN regime_snapshots r ON r.key = s.regime_snapshot_id"
        " WHERE s.kind = 'pm_action' AND s.symbol LIKE 'X%' ORDER BY s.seq"
    )
    flow.check(
        "exposure",
        query,
        that(
            "one entry after the other: 0 to 16 open trades, so 5, 9 and 15 among them",
            lambda f: [row[5] for row in f] == list(range(CROWD)),
        ),
    )
    told = {f"X{n:02d}USDT": SAID[n % len(SAID)] for n in range(CROWD)}

    def known(symbol: str, at: int, age: float | None, cap: float | None) -> bool:
        days = told[symbol][1]
        grown = None if days is None else days * 24.0 + (at - begin) / HOUR
        return cap == told[symbol][0] and (
            age is None if grown is None else age is not None and abs(age - grown) < 1e-9
        )

    flow.check(
        "exposure",
        "SELECT s.symbol, s.ts_event, $num(s.content, reasons.token_age_hours), $num(s.content, reasons.token_mcap_usd)"
        " FROM ad_strands s WHERE s.kind = 'pm_action' AND s.symbol LIKE 'X%' ORDER BY s.seq",
        every("with the cap its packet named, and the age, grown since; none where none was named", known, CROWD),
    )
    flow.check(
        "exposure",
        query,
        every(
            "with cut pressure from 0 to 1, and A and E as the model makes them",
            lambda *row: 0 <= row[6] <= 1 and _near(row[11], _wanted(row)[0]) and _near(row[12], _wanted(row)[1]),
            CROWD,
        ),
    )


def _wanted(row: tuple[float, ...]) -> tuple[float, float]:
    """A and E of one entry, before the clamp."""
    meso, macro, _, _, multiplier, active, cut, age, cap, intent_a, intent_e, _, _ = row
    over = active - 9
    rooms = (math.exp(-0.1 * over), math.exp(0.1 * over)) if over > 0 else (1 - 0.05 * over, 1 + 0.05 * over)
    a, e = (MESO[str(meso)][part] * MACRO[str(macro)][part] for part in (0, 1))
    boost = _boost(AGES, age) * _boost(CAPS, cap)
    a = (a * (1 - 0.33 * cut) * rooms[0] + intent_a) * boost * multiplier
    e = (e * (1 + 0.33 * cut) * rooms[1] + intent_e) * boost / max(multiplier, 0.2)
    return a, e


def _boost(table: tuple[tuple[float, float], ...], value: float | None) -> float:
    return 1.0 if value is None else next((factor for below, factor in table if value < below), 1.0)

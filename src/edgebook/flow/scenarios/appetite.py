"""F10, the driver model: how drivers, states, flags and what curators want become A and E (trading.md 3.2).

Drivers are scripted by name and go through the system's own regime; what A and E must be is worked out here from the
tables of trading.md 3.2. A probe, a token that changes its state on every bar, leaves a snapshot of each bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgebook.domain.decay import DAY, HOUR
from edgebook.flow.check import Expected, Flow, every, exactly, scenario, that
from edgebook.flow.scenarios.phases import phases
from edgebook.flow.story import START, Story, Tale, iso, signal

QUARTER = HOUR // 4
STEPS = {"15m": QUARTER, "1h": HOUR, "1d": DAY}
WEIGHTS = {"btc": 1.0, "alt": 1.5, "bucket:micro": 3.0, "btcd": -1.0, "usdtd": -3.0}
RISK, DOMINANCES = ("btc", "alt", "bucket:micro"), ("btcd", "usdtd")
#: Horizon weight times execution multiplier, by timeframe of the trade and of the driver's bars (15m: micro).
H = {
    "15m": {"1d": 0.5 * 0.15, "1h": 0.4 * 0.55, "15m": 0.1 * 0.30},
    "1h": {"1d": 0.5 * 0.30, "1h": 0.4 * 0.55, "15m": 0.1 * 0.15},
    "4h": {"1d": 0.5 * 0.55, "1h": 0.4 * 0.40, "15m": 0.1 * 0.05},
}
#: What a state, and a flag or a fall on its bar, adds to A and E.
ADDS = {
    "S0": (-0.30, 0.30), "S1": (0.25, -0.15), "S2": (0.10, 0.05), "S3": (0.20, -0.05),
    "S1 buy": (0.45, -0.25), "S2 buy": (0.20, 0.00), "S2 trim": (-0.10, 0.30),
    "S3 buy": (0.25, -0.10), "S3 first dip": (0.35, -0.15), "S3 trim": (-0.05, 0.25),
    "S1 to S0": (-0.70, 0.70), "S2 to S0": (-0.65, 0.65), "S3 to S0": (-0.80, 0.80),
}  # fmt: skip
#: Every row of the state table, as BTC goes through them, one bar each.
ROWS = (
    "S1", "S1 buy", "S1 to S0", "S1", "S2", "S2 buy", "S2 trim", "S2 to S0", "S1", "S2", "S3", "S3 buy", "S3 first dip",
    "S3 trim", "S3 to S0", "S0",
)  # fmt: skip
SNAPSHOTS = (
    "SELECT s.ts_event, $num(r.content, content.a_base), $num(r.content, content.e_base),"
    " $num(r.content, content.bucket_multiplier) FROM ad_strands s JOIN regime_snapshots r"
    " ON r.key = s.regime_snapshot_id WHERE s.kind = 'uptrend_stage_transition' AND s.symbol = :symbol"
    " AND s.timeframe = :timeframe ORDER BY s.seq"
)


@dataclass(slots=True)
class Drivers:
    """What was scripted of the drivers: by driver and timeframe of its bars, (close of a bar, row) in order."""

    story: Story
    told: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)

    def tell(self, driver: str, timeframe: str, row: str, at: int) -> int:
        """What a driver shows on the bar that closes at ``at``, or first after it; when that is."""
        step = STEPS[timeframe]
        tale = Tale(self.story, driver, timeframe, -(-at // step) * step, 100.0)
        self.told.setdefault((driver, timeframe), []).append((tale.at, row))
        _show(tale, row)
        return tale.last

    def appetite(self, now: int, timeframe: str) -> tuple[float, float]:
        """A and E before clamping, for trades on ``timeframe``; a flag and a fall are over on the next bar."""
        found = [0.5, 0.5]
        for (driver, horizon), rows in self.told.items():
            step = STEPS[horizon]
            at, row = max(((at, row) for at, row in rows if at <= now), default=(0, "S0"))
            if now >= at + step:
                row = row[-2:] if " to " in row else row[:2]
            for part in (0, 1):
                found[part] += WEIGHTS[driver] * H[timeframe][horizon] * ADDS[row][part]
        return found[0], found[1]


def _show(tale: Tale, row: str) -> None:
    """The bar of a driver's index, whose price is always 100."""
    more = row[3:]
    if row == "S1 buy":
        tale.chance()
    elif row == "S2 buy":
        tale.retest()
    elif row == "S3 buy":
        tale.dip()
    elif more == "trim":
        tale.trim()
    elif more == "first dip":
        tale.first_dip()
    else:
        tale.state(row[-2:])


def clamp(value: float) -> float:
    """Within 0 and 1."""
    return min(1.0, max(0.0, value))


@scenario("F10", "A and E: check values, every row of the state table, intents, bucket rank, the phase model")
def appetite(flow: Flow) -> None:
    """Nothing known, one row after the other, all for and all against, and then phases."""
    _neutral(flow)
    _rows(flow)
    _extremes(flow)
    phases(flow)


def _neutral(flow: Flow) -> None:
    """A market of which nothing is known yet."""
    story = Story(1.0, history_days=1.0)
    story.line(token="NEWUSDT")
    with flow.system(story) as system:
        flow.about("calm-1")
        flow.inject(system, signal("calm-1", "NEWUSDT"))
        flow.check(
            "regime",
            "SELECT $num(r.content, content.a_base), $num(r.content, content.e_base) FROM ad_strands s"
            " JOIN regime_snapshots r ON r.key = s.regime_snapshot_id WHERE s.kind = 'decision_lowcap'",
            exactly((0.5, 0.5)).meaning("A and E are neutral"),
        )


def _probe(story: Story, symbol: str, timeframe: str, until: int) -> None:
    """A token that is asked about on every bar, as it changes its state on each."""
    tale = story.tale(story.token(symbol, mcap_usd=2_000_000), timeframe, 1.0)
    while tale.at <= until:
        tale.state("S1").state("S2")
    tale.calm()


def _rows(flow: Flow) -> None:
    """BTC through every row; then the check value that the design gives for 1h and 4h; then intents."""
    story = Story(5.0)
    drivers = Drivers(story)
    late = iso(START - 5 * DAY)  # too few bars to be read: what is not scripted of them says nothing
    for symbol in ("BTCUSDT", "SOLUSDT"):
        story.line(token=symbol, first=late)
    story.line(dominance="USDT.D", price=5, first=late)
    at = START + 2 * HOUR
    for row in ROWS:
        at = drivers.tell("btc", "1h", row, at) + HOUR
    known = START + 4 * DAY
    for day, row in enumerate(("S1", "S2", "S3"), start=1):
        drivers.tell("usdtd", "1d", row, START + day * DAY)
        drivers.tell("bucket:micro", "1h", row, START + 3 * DAY + day * HOUR)
    drivers.tell("btc", "1h", "S1", known - 2 * HOUR)
    for symbol, timeframe in (("PROBE1", "1h"), ("PROBE4", "4h")):
        _probe(story, symbol, timeframe, story.end - DAY + 8 * HOUR)
    for symbol in ("HOTUSDT", "MOCKEDUSDT"):
        story.tale(story.token(symbol, mcap_usd=2_000_000), "1h", 3.0).state("S1").chance()
    with flow.system(story, timeframes="1h,4h") as system:
        flow.inject(system, *(signal(f"ask-{symbol}", symbol) for symbol in ("PROBE1", "PROBE4")))
        flow.inject(system, *_said("HOTUSDT", "new_discovery"), *_said("MOCKEDUSDT", "mock"))
        system.pass_until(START + DAY)
        _intents(flow)
        system.pass_until(known + 4 * HOUR)
        flow.about("ask-PROBE1")
        _follows(flow, drivers, "PROBE1", "1h", 60)
        _follows(flow, drivers, "PROBE4", "4h", 15)
        for symbol, timeframe, wanted in (("PROBE1", "1h", (0.597, 0.4565)), ("PROBE4", "4h", (0.471, 0.4932))):
            flow.check("regime", SNAPSHOTS, _at(known, wanted), symbol=symbol, timeframe=timeframe)


def _at(known: int, wanted: tuple[float, float]) -> Expected:
    """The check value that the design gives, to four digits."""
    return that(
        f"A {wanted[0]} and E {wanted[1]} at {iso(known)}: BTC 1h S1, bucket 1h S3, USDT.D 1d S3",
        lambda f: [(round(a, 4), round(e, 4)) for at, a, e, _ in f if at == known] == [wanted],
    )


def _follows(flow: Flow, drivers: Drivers, symbol: str, timeframe: str, least: int) -> None:
    """Every snapshot holds what the tables of trading.md make of the drivers, times the bucket's multiplier."""

    def fits(at: int, a: float, e: float, multiplier: float) -> bool:
        sums = drivers.appetite(at, timeframe)
        wanted = clamp(clamp(sums[0]) * multiplier), clamp(clamp(sums[1]) / max(multiplier, 0.2))
        return abs(a - wanted[0]) < 1e-9 and abs(e - wanted[1]) < 1e-9

    flow.check(
        "regime",
        SNAPSHOTS,
        every(f"what the state table makes of the drivers for trades on {timeframe}", fits, least),
        symbol=symbol,
        timeframe=timeframe,
    )


def _said(symbol: str, intent: str) -> list[str]:
    """One that asks for a buy, then a dozen people who all want the same of a token."""
    told = [signal(f"{symbol}-first", symbol)]
    return told + [signal(f"{symbol}-{n}", symbol, intent=intent, curator=f"c{n}") for n in range(12)]


def _intents(flow: Flow) -> None:
    """Enough voices make a channel 1: hi_buy adds .25 and takes .10; mock takes .30 and adds no more than .40."""
    query = (
        "SELECT $num(content, reasons.intent_a), $num(content, reasons.intent_e), $num(content, a_base),"
        " $num(content, e_base), $num(content, reasons.a_regime), $num(content, reasons.e_regime), ts_event"
        " FROM ad_strands WHERE kind = 'pm_action' AND symbol = :symbol"
    )
    flow.about("HOTUSDT-first")
    flow.check(
        "intents",
        query,
        every(
            "+.25 and -.10, on top of the market's A and E",
            lambda a, e, a_base, e_base, a_market, e_market, _: (
                (round(a, 9), round(e, 9)) == (0.25, -0.10)
                and abs(a_base - clamp(a_market + a)) < 1e-9
                and abs(e_base - clamp(e_market + e)) < 1e-9
            ),
        ),
        symbol="HOTUSDT",
    )
    flow.about("MOCKEDUSDT-first")

    def mocked(a: float, e: float, *rest: float) -> bool:
        first = 0.6 * 2 ** (-(rest[4] - START) / HOUR / 72.0) / 2.0  # the one buy, of a curator with score .6
        return math.isclose(a, -0.30 + 0.25 * first, abs_tol=1e-9) and math.isclose(e, 0.40, abs_tol=1e-9)

    flow.check(
        "intents", query, every("-.30 and the one buy's share, and +.40, where .50 is cut", mocked), symbol="MOCKEDUSDT"
    )


def _extremes(flow: Flow) -> None:
    """All drivers on all horizons: all for it is A 1 and E 0, all against it A 0 and E 1."""
    story = Story(8.0, base="15m")
    drivers = Drivers(story)
    for name in ("BTC.D", "USDT.D"):
        story.line(dominance=name, price=50)
    for symbol, timeframe in (("PROBE15", "15m"), ("PROBE1", "1h"), ("PROBE4", "4h")):
        _probe(story, symbol, timeframe, story.end - DAY)
    for driver in WEIGHTS:
        first = 1 if driver in RISK else 4
        for horizon, step in STEPS.items():
            for n, row in enumerate(("S1", "S2", "S3")):
                drivers.tell(driver, horizon, row, START + first * DAY + n * step)
            if driver in RISK:
                drivers.tell(driver, horizon, "S3 to S0", START + 4 * DAY)
    good, bad = START + 3 * DAY + 4 * HOUR, START + 6 * DAY + 4 * HOUR
    with flow.system(story, timeframes="15m,1h,4h") as system:
        flow.inject(system, *(signal(f"all-{symbol}", symbol) for symbol in ("PROBE15", "PROBE1", "PROBE4")))
        flow.about("all-PROBE1")
        system.pass_until(bad + 4 * HOUR)
        for symbol, timeframe in (("PROBE15", "15m"), ("PROBE1", "1h"), ("PROBE4", "4h")):
            _follows(flow, drivers, symbol, timeframe, 30)
        sums = [tuple(round(x, 4) for x in drivers.appetite(at, "1h")) for at in (good, bad)]
        flow.check(
            "regime",
            SNAPSHOTS,
            that(
                f"A 1, E 0 at {iso(good)} and A 0, E 1 at {iso(bad)}: {sums} before clamping",
                lambda f: (
                    [(a, e) for at, a, e, _ in f if at in (good, bad)] == [(1.0, 0.0), (0.0, 1.0)]
                    and sums[0] == (1.3855, -0.0679)
                ),
            ),
            symbol="PROBE1",
            timeframe="1h",
        )

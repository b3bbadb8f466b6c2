"""F5: gates that learning has moved flip flags, both ways, and go back to their base when the lesson is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.levers import LEVERS
from edgebook.flow.book import Rows
from edgebook.flow.check import Flow, exactly, none, scenario, some, that
from edgebook.flow.running import Running
from edgebook.flow.scenarios.learned import LOOSER, TIGHTER, gate_acts, learnt_gate, saw_gate
from edgebook.flow.scenarios.markets import Chance, Habits, Market, Truth, planted, turns
from edgebook.flow.story import START, Story, Tale, signal

#: Days of learning; then a good and a bad day with all lessons, a bad one without those of bad days, a good one after
#: everything was taken back.
_LEARNT = 12
_DAYS = ("good", "bad") * 6 + ("good", "bad", "bad", "good")
_HALO_DAYS, _OTHER_DAYS = 7, 6
Bars = Callable[[Tale], Tale]
_TRUTH = Truth(
    {("good", "S1"): -1.0, ("good", "S3"): -1.0, ("bad", "S1"): 1.0, ("bad", "S3"): 1.0}, inside=0.95, outside=0.05
)
_ENTRIES = {f"LOW{i:02d}USDT": "micro" for i in range(24)}
_DIPS = {f"DIP{i:02d}USDT": "micro" for i in range(24)}


@dataclass(frozen=True)
class _Probe:
    """A token that offers the same chance on some days: in S1 with this TS, or in S3 with this DX (TS 0)."""

    symbol: str
    days: tuple[int, ...]
    ts: float = 0.0
    dx: float = 0.0

    @property
    def lever(self) -> str:
        """The gate it stands near."""
        return "ts_min" if self.ts else "dx_min"


#: Just inside the base gate on bad days, just outside on good ones.
_INSIDE = (_Probe("PASSUSDT", (1, 13, 14), ts=0.62), _Probe("DIVEUSDT", (1, 13, 14), dx=0.62))
_OUTSIDE = (_Probe("EDGEUSDT", (0, 12, 15), ts=0.58), _Probe("SHOWUSDT", (0, 12, 15), dx=0.58))
_PROBES = (*_INSIDE, *_OUTSIDE)


def _story() -> Story:
    story = Story(len(_DAYS), history_days=16)
    turns(story, _DAYS, ("btc", "alt", "bucket:micro"))
    until = story.start + _LEARNT * DAY
    planted(story, 5, _TRUTH, _ENTRIES, habits={"1h": Habits(entries=(-1.0, 1.3), dips=None)}, days=_DAYS, until=until)
    planted(
        story, 5, _TRUTH, _DIPS, habits={"1h": Habits(entries=(1.1, 1.4), dips=(-1.0, 1.3))}, days=_DAYS, until=until
    )
    for probe in _PROBES:
        tale = story.tale(story.token(probe.symbol, mcap_usd=2_000_000), "1h", 3)
        for day in probe.days:
            tale.until(story.start + day * DAY + 4 * HOUR).state("S1", 100)
            if probe.ts:
                tale.chance(probe.ts).calm().state("S0", 99.5)
            else:
                tale.state("S2", 102).state("S3", 102).dip(probe.dx).calm().state("S0", 102)
    return story


@scenario("F5", "tuning flips: learned gates let in and shut out, in each regime, and go back to base")
def tuning_flips(flow: Flow) -> None:
    """The same chance before learning, with it, without the lessons of its regime, and after everything is taken back;
    then a lesson that its own evidence ends."""
    story = _story()
    tokens = [*_ENTRIES, *_DIPS, *(probe.symbol for probe in _PROBES)]
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        flow.inject(system, *(signal(symbol.lower(), symbol) for symbol in tokens))
        system.pass_until(story.start + _LEARNT * DAY)
        for probe in _PROBES:
            _probed(flow, story, probe, 0, "base gate", 0, probe in _INSIDE)
        _learnt(flow)
        system.pass_until(story.start + (_LEARNT + 2) * DAY)
        for probe in _PROBES:
            looser = probe in _OUTSIDE
            _probed(flow, story, probe, 1, "learned gate", LOOSER if looser else TIGHTER, looser)
        _evidence(flow)
        _muted(flow, system)
        system.pass_until(story.start + (_LEARNT + 3) * DAY)
        for probe in _INSIDE:
            _probed(flow, story, probe, 2, "without the lessons of bad days", None, True)
        answer = system.steer("revert", "0", "nothing learnt any more")
        flow.note("steering", "POST /config revert 0", "a new version", bool(answer["changed"]), str(answer))
        system.pass_until(story.end)
        for probe in _OUTSIDE:
            _probed(flow, story, probe, 2, "reverted: back to base", 0, False)
    _outlived(flow)
    for lever, habits, bars in _OTHERS:
        _other(flow, lever, habits, bars)


def _probed(flow: Flow, story: Story, probe: _Probe, nth: int, what: str, way: int | None, bought: bool) -> None:
    """The nth time a probe offers its chance: threshold, flag under base and learned gate, action."""
    flow.about(probe.symbol.lower())
    row = LEVERS[probe.lever]
    first = story.start + probe.days[nth] * DAY
    asked = {"symbol": probe.symbol, "first": first, "last": first + DAY}
    where = {0: "at", LOOSER: "below", TIGHTER: "above", None: "not above"}[way]
    of = "symbol = :symbol AND ts_event > :first AND ts_event <= :last"
    flow.check(
        "gate resolution",
        f"SELECT $num(content, thresholds_effective.{probe.lever}) FROM ad_strands WHERE kind = 'uptrend_buy_window'"
        f" AND {of}",
        that(f"{what}: {probe.lever} {where} {row.base:g}", lambda f: len(f) == 1 and _there(f[0][0] - row.base, way)),
        **asked,
    )
    flow.check(
        "engine",
        "SELECT $flag(content, samples.0.flag_base), $flag(content, samples.0.flag_on) FROM ad_strands"
        f" WHERE kind = 'uptrend_buy_window' AND {of}",
        that(
            f"base flag {'up' if probe in _INSIDE else 'down'}, flag {'up' if bought else 'down'}",
            lambda f: len(f) == 1 and bool(f[0][0]) == (probe in _INSIDE) and bool(f[0][1]) == bought,
        ),
        **asked,
    )
    state = "S1" if probe.ts else "S3"
    flow.check(
        "PM",
        "SELECT $text(content, state), $text(content, side) FROM ad_strands WHERE kind = 'pm_action'"
        f" AND $text(content, side) = 'buy' AND {of}",
        exactly((state, "buy")) if bought else none(),
        **asked,
    )


def _there(moved: float, way: int | None) -> bool:
    """Whether a gate is where it should be: at its base (0), moved past the probe, or not above (None)."""
    return moved <= 1e-9 if way is None else abs(moved) < 1e-9 if way == 0 else moved * way > 0.02


def _learnt(flow: Flow) -> None:
    """Lessons and overrides, and what they did to the crowd."""
    for lever, crowd in (("ts_min", "low00usdt"), ("dx_min", "dip00usdt")):
        flow.about(crowd)
        for way, mode in ((LOOSER, "aggressive"), (TIGHTER, "patient")):
            gate_acts(flow, lever, way, learnt_gate(flow, lever, way, mode), mode=mode)


def _evidence(flow: Flow) -> None:
    for lever in ("ts_min", "dx_min"):
        for mode in ("aggressive", "patient"):
            saw_gate(flow, lever, mode=mode)


def _muted(flow: Flow, system: Running) -> None:
    """The operator mutes what was learnt of bad days alone."""
    lessons = flow.check(
        "lesson builder",
        "SELECT key FROM learning_lessons WHERE lesson_type = 'pm_tuning' AND status = 'active'"
        " AND ($num(effect, execution_levers.signal_thresholds.ts_min) > .6"
        " OR $num(effect, execution_levers.signal_thresholds.dx_min) > .6) ORDER BY key",
        some(2),
    )
    for (lesson,) in lessons:
        answer = system.steer("mute", str(lesson), "bad days are as good as others")
        flow.note("steering", f"POST /config mute {lesson}", "a new version", bool(answer["changed"]), str(answer))


def _outlived(flow: Flow) -> None:
    """Halo: at first whatever is a little further from EMA60 wins, later only small tokens do: the lesson about all
    tokens is taken back, and one about small tokens stays."""
    story, turn = Story(_HALO_DAYS, history_days=16), START + 36 * HOUR
    market = Market(story, 9)

    def odds(chance: Chance) -> float:
        wide = chance.at < turn or chance.symbol.startswith("HAM")
        return 0.95 if chance.u > (-1.0 if wide else 0.0) else 0.03

    crowd = [f"HAM{i:02d}USDT" for i in range(8)] + [f"HAB{i:02d}USDT" for i in range(20)]
    for symbol in crowd:
        story.token(symbol, mcap_usd=2_000_000 if symbol.startswith("HAM") else 200_000_000)
        market.live(symbol, ("1h",), odds, {"1h": Habits(entries=(-1.0, 1.0), dips=None, lever="halo")})
    for symbol, mcap in (("WIDEUSDT", 200_000_000), ("TINYUSDT", 2_000_000)):
        tale = story.tale(story.token(symbol, mcap_usd=mcap), "1h", 3)
        for hour in (4, 32, 24 * _HALO_DAYS - 8):
            tale.until(START + hour * HOUR).state("S1", 100).bar(ts_score=0.9, ema60=98.9).calm().state("S0", 99.5)
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        flow.inject(system, *(signal(symbol.lower(), symbol) for symbol in [*crowd, "WIDEUSDT", "TINYUSDT"]))
        flow.about("wideusdt")
        system.pass_until(START + 38 * HOUR)
        lesson = learnt_gate(flow, "halo", LOOSER)
        _windows(flow, "WIDEUSDT", "halo", "with a lesson in force", (False, True))
        system.pass_until(story.end)
        _taken_back(flow, lesson)
        _windows(flow, "WIDEUSDT", "halo", "the lesson taken back", (False, True, False))
        flow.about("tinyusdt")
        _windows(flow, "TINYUSDT", "halo", "with one of its own", (False, True, True))


def _other(flow: Flow, lever: str, habits: Habits, probe: Bars) -> None:
    """A gate on its own: chances up to a cap outside it win; the same probe before learning and after."""
    story = Story(_OTHER_DAYS, history_days=16)
    last = story.end - DAY
    market = Market(story, 9, until=last)
    crowd = [f"ALL{i:02d}USDT" for i in range(12)]
    for symbol in crowd:
        story.token(symbol, mcap_usd=2_000_000)
        market.live(symbol, ("1h",), lambda chance: 0.95 if chance.u > -1.0 else 0.03, {"1h": habits})
    tale = story.tale(story.token("PROBEUSDT", mcap_usd=2_000_000), "1h", 3)
    for at in (story.start, last):
        probe(tale.until(at + 4 * HOUR).state("S1", 100)).calm().state("S0", 99.5)
    with flow.system(story, timeframes="1h", starting_cash_usd=10_000_000) as system:
        flow.inject(system, *(signal(symbol.lower(), symbol) for symbol in [*crowd, "PROBEUSDT"]))
        flow.about("probeusdt")
        system.pass_until(story.end)
        learnt_gate(flow, lever, LOOSER)
        _windows(flow, "PROBEUSDT", lever, "with a lesson in force", (False, True))


def _leaning(tale: Tale) -> Tale:
    """An S1 bar at EMA60, which falls a little."""
    return tale.bar(ts_score=0.9, ema60=100, ema60_slope=-0.0005, ema144_slope=-0.0005)


def _sagging(tale: Tale) -> Tale:
    """A cheap dip under slow averages that fall a little."""
    return tale.state("S2", 102).state("S3", 102).dip(0.95, ema250_slope=-0.0003, ema333_slope=-0.0003)


def _fading(tale: Tale) -> Tale:
    """A dip that would be cheap enough but for what EDX asks more."""
    return tale.state("S2", 102).state("S3", 102).dip(0.69, edx_suppression=0.1)


#: The gates that are left: how tokens live near them, and a probe just outside each.
_OTHERS: tuple[tuple[str, Habits, Bars], ...] = (
    ("slope_min", Habits(entries=(-1.6, 1.0), dips=None, lever="slope_min"), _leaning),
    ("slow_slope_min", Habits(entries=(1.1, 1.4), dips=(-1.6, 1.0), dip_lever="slow_slope_min"), _sagging),
    ("edx_supp_mult", Habits(entries=(1.1, 1.4), dips=(-1.6, 1.0), dip_lever="edx_supp_mult"), _fading),
)


def _taken_back(flow: Flow, lesson: str) -> None:
    """A lesson whose evidence has gone is deprecated, and no override is left of it."""
    flow.check(
        "lesson builder",
        "SELECT status FROM learning_lessons WHERE key = :lesson",
        exactly("deprecated"),
        lesson=lesson,
    )
    flow.check(
        "materializer",
        "SELECT $text(o.value, lesson.id) FROM learning_configs c, $each(c.config_data, pattern_overrides, o)"
        " WHERE c.module_id = 'pm' AND $text(o.value, lesson.id) = :lesson",
        none().meaning("no override of it is left"),
        lesson=lesson,
    )


def _windows(flow: Flow, symbol: str, lever: str, when: str, looser: tuple[bool, ...]) -> None:
    """By window of a probe just outside the base gate: whether the gate in force was looser, and it was entered."""
    row = LEVERS[lever]
    of = "FROM ad_strands WHERE kind = 'uptrend_buy_window' AND symbol = :symbol ORDER BY seq"

    def as_told(found: Rows) -> bool:
        moves = [(row.base - float(value)) * row.polarity / row.cap for _, value in found]
        return len(moves) == len(looser) and all(
            move > 0.25 if moved else move == 0.0 for move, moved in zip(moves, looser, strict=True)
        )

    windows = flow.check(
        "gate resolution",
        f"SELECT id, $num(content, thresholds_effective.{lever}) {of}",
        that(f"{when}: {lever} by window {', '.join('looser' if one else 'base' for one in looser)}", as_told),
        symbol=symbol,
    )
    flow.check(
        "PM",
        f"SELECT $flag(content, entered) {of}",
        that(
            f"{when}: entered by window {', '.join('yes' if one else 'no' for one in looser)}",
            lambda f: tuple(bool(v) for (v,) in f) == looser,
        ),
        symbol=symbol,
    )
    flow.saw(f"{lever} of windows, {symbol}", windows[0 if looser[-1] else 1], windows[-1], when)

"""Add appetite A and exit assertiveness E from what the drivers say (trading.md 3.2, the driver model).

Drivers are indices run through the same engine as everything else: BTC, ALT, the token's own cap bucket, and the two
dominances where a feed has them. Each is read on three horizons; a reading holds until the next bar of its horizon.
What curators lately want of a token is added inside the same sums (`leaning`), by the tick: it is the token's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from edgebook.domain.reading import DriverReading
from edgebook.domain.regime import Regime
from edgebook.domain.timeframe import nearest
from edgebook.domain.values import replace
from edgebook.market.appetite_models import Exposure, exposed

#: Weight of each driver; a dominance rising is bad for everything else, hence negative.
DRIVER_WEIGHTS: Mapping[str, float] = {"btc": 1.0, "alt": 1.5, "bucket": 3.0, "btcd": -1.0, "usdtd": -3.0}
#: Horizons, slowest first.
HORIZONS: tuple[str, ...] = ("macro", "meso", "micro")

_HORIZON_WEIGHTS = {"macro": 0.50, "meso": 0.40, "micro": 0.10}
_EXECUTION = {
    "1m": {"macro": 0.05, "meso": 0.35, "micro": 0.60},
    "15m": {"macro": 0.15, "meso": 0.55, "micro": 0.30},
    "1h": {"macro": 0.30, "meso": 0.55, "micro": 0.15},
    "4h": {"macro": 0.55, "meso": 0.40, "micro": 0.05},
}
_NORMALISED_SUM = 0.385

Pair = tuple[float, float]
_NOTHING: Pair = (0.0, 0.0)
_STATE: Mapping[str, Pair] = {"S0": (-0.30, 0.30), "S1": (0.25, -0.15), "S2": (0.10, 0.05), "S3": (0.20, -0.05)}
_BUY: Mapping[str, Pair] = {"S1": (0.20, -0.10), "S2": (0.10, -0.05), "S3": (0.05, -0.05)}
_FIRST_DIP: Pair = (0.15, -0.10)
_TRIM: Mapping[str, Pair] = {"S2": (-0.20, 0.25), "S3": (-0.25, 0.30)}
_FALL: Mapping[str, Pair] = {"S1": (-0.40, 0.40), "S2": (-0.35, 0.35), "S3": (-0.50, 0.50)}
#: What one unit of each intent channel adds to (A, E) (trading.md 3.2); the sum of each is clipped to +-.40.
INTENT_TERMS: Mapping[str, Pair] = {
    "hi_buy": (0.25, -0.10),
    "med_buy": (0.15, -0.05),
    "profit": (-0.15, 0.15),
    "sell": (-0.25, 0.35),
    "mock": (-0.30, 0.50),
}
INTENT_CAP = 0.40
_RANK_ADJUSTMENT = (0.12, 0.06, 0.02, -0.02, -0.06, -0.12)
_MIN_CONFIDENCE = 0.4


def driver_delta(reading: DriverReading) -> Pair:
    """What one driver reading adds to (A, E) before weights (trading.md 3.2, state table).

    State terms hold while the state does; flag and fall terms act on the bar they appear on, which is the driver's
    current bar. S4 and unknown states add nothing.

    >>> driver_delta(DriverReading("btc", "meso", 0, "S1", "S1", False, True, False, False, ""))
    (0.45, -0.25)
    """
    return _delta(
        reading.state,
        reading.buy_signal if reading.state == "S1" else reading.buy_flag,
        reading.first_dip,
        reading.trim_flag,
        reading.fell_to_s0_from,
    )


@lru_cache(maxsize=1024)
def _delta(state: str, buy: bool, first_dip: bool, trim_flag: bool, fell_from: str) -> Pair:
    terms = [_STATE.get(state, _NOTHING)]
    if buy:
        terms.append(_BUY.get(state, _NOTHING))
    if first_dip and state == "S3":
        terms.append(_FIRST_DIP)
    if trim_flag:
        terms.append(_TRIM.get(state, _NOTHING))
    if fell_from:
        terms.append(_FALL.get(fell_from, _NOTHING))
    return sum(a for a, _ in terms), sum(e for _, e in terms)


def horizon_weights(timeframe: str, *, normalise: bool = False) -> dict[str, float]:
    """Weight of each horizon for trades on ``timeframe``: horizon weight times execution multiplier (trading.md 3.2).

    A timeframe without its own row uses the nearest one (decisions 44). ``normalise`` scales the row to a sum of .385.

    >>> {k: round(v, 4) for k, v in horizon_weights("1h").items()}
    {'macro': 0.15, 'meso': 0.22, 'micro': 0.015}
    """
    return dict(_horizon_items(timeframe, normalise))


@lru_cache(maxsize=64)
def _horizon_items(timeframe: str, normalise: bool) -> tuple[tuple[str, float], ...]:
    row = _EXECUTION[nearest(timeframe, _EXECUTION)]
    weights = {horizon: _HORIZON_WEIGHTS[horizon] * row[horizon] for horizon in HORIZONS}
    scale = _NORMALISED_SUM / sum(weights.values()) if normalise else 1.0
    return tuple((horizon, weight * scale) for horizon, weight in weights.items())


def raw_appetite(readings: Iterable[DriverReading], timeframe: str, *, normalise: bool = False) -> Pair:
    """(A, E) of the market before clamping: .5 plus the weighted driver terms (trading.md 3.2).

    Args:
        readings: one per driver and horizon; whatever is missing adds nothing.
        timeframe: the timeframe of the trade.
        normalise: scale horizon weights to the same sum on every timeframe.
    """
    horizons = horizon_weights(timeframe, normalise=normalise)
    a, e = 0.5, 0.5
    for reading in readings:
        weight = DRIVER_WEIGHTS[reading.driver] * horizons[reading.horizon]
        delta_a, delta_e = driver_delta(reading)
        a += weight * delta_a
        e += weight * delta_e
    return a, e


def intent_terms(scores: Mapping[str, float]) -> Pair:
    """What the intent metrics of a token add to (A, E), each clipped to +-.40 (trading.md 3.2).

    Args:
        scores: per channel in [0, 1]; a channel that is not there has none.

    >>> intent_terms({"hi_buy": 1.0}), intent_terms({"mock": 1.0}), intent_terms({})
    ((0.25, -0.1), (-0.3, 0.4), (0.0, 0.0))
    """
    terms = [(score, *INTENT_TERMS[channel]) for channel, score in scores.items()]
    return capped((sum((s * a for s, a, _ in terms), 0.0), sum((s * e for s, _, e in terms), 0.0)))


def capped(intent: Pair) -> Pair:
    """Intent terms, each within +-.40."""
    a, e = intent
    return min(INTENT_CAP, max(-INTENT_CAP, a)), min(INTENT_CAP, max(-INTENT_CAP, e))


def bounded(sums: Pair, multiplier: float) -> Pair:
    """(A, E) in [0, 1] from the sums of their terms: clamp, ``A b, E / max(b, .2)``, clamp again (trading.md 3.2).

    >>> bounded((1.25, -0.25), 0.5)
    (0.5, 0.0)
    """
    a, e = sums
    return _clamp01(_clamp01(a) * multiplier), _clamp01(_clamp01(e) / max(multiplier, 0.2))


def leaning(regime: Regime, intent: Pair, exposure: Exposure | None = None) -> Regime:
    """``regime`` for one token: its intent terms join the drivers' inside A and E, and the modes follow.

    The snapshot stays the market's own, so that its id and content do not depend on who speaks of which token, nor on
    the book: where the phase model asks for that (`exposure`), it joins here too.

    >>> market = Regime(0, 0.5, 0.5, (("A_mode", "normal"), ("E_mode", "normal")), "id", {})
    >>> found = leaning(market, (0.25, -0.2))
    >>> found.a_base, found.e_base, found.scope
    (0.75, 0.3, (('A_mode', 'aggressive'), ('E_mode', 'patient')))
    """
    if intent == _NOTHING and exposure is None:
        return regime
    lean_a, lean_e = capped(intent)
    if exposure is not None and regime.a_sum is not None and regime.e_sum is not None:
        a, e = exposed((regime.a_sum, regime.e_sum), exposure, (lean_a, lean_e), regime.multiplier)
    elif regime.a_sum is None or regime.e_sum is None:
        a, e = _clamp01(regime.a_base + lean_a), _clamp01(regime.e_base + lean_e)
    else:
        a, e = bounded((regime.a_sum + lean_a, regime.e_sum + lean_e), regime.multiplier)
    modes = {"A_mode": mode(a), "E_mode": mode(e)}
    scope = tuple((dim, modes.get(dim, value)) for dim, value in regime.scope)
    return replace(regime, a_base=a, e_base=e, scope=scope)


def bucket_multiplier(rank: int | None, slope: float, confidence: float) -> float:
    """How much the token's cap bucket scales A (and, inversely, E): in [.7, 1.3] (trading.md 3.2).

    ``b = clip(1 + rank_adj + .4 slope, .7, 1.3)``; exactly 1 without a rank or with confidence below .4.

    Args:
        rank: 1 (strongest) to 6, or None when the bucket is not ranked.
        slope: log move of the bucket's smoothed index over its slope window.
        confidence: of the bucket's phase, in [0, 1].

    >>> round(bucket_multiplier(1, 0.1, 0.9), 4), bucket_multiplier(1, 0.1, 0.3)
    (1.16, 1.0)
    """
    if rank is None or confidence < _MIN_CONFIDENCE:
        return 1.0
    adjustment = _RANK_ADJUSTMENT[min(rank, len(_RANK_ADJUSTMENT)) - 1]
    return min(1.3, max(0.7, 1.0 + adjustment + 0.4 * slope))


def mode(value: float) -> str:
    """Scope value of A or E: patient below .33, normal below .67, else aggressive (learning.md 2).

    >>> mode(0.32), mode(0.33), mode(0.67)
    ('patient', 'normal', 'aggressive')
    """
    return "patient" if value < 0.33 else "normal" if value < 0.67 else "aggressive"


def _clamp01(value: float) -> float:
    return min(1.0, max(0.0, value))

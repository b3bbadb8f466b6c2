"""The simulated market's script: what each token is about to do, minute by minute, before noise.

A token lives in cycles: decline, base, attempt, and then either a run or a fall back. Each cycle's kind and fate are
drawn when its base begins, so that an able curator can know them. Two layers of the same script, one fifteen times
slower, are added up: fast cycles for the 1 m positions, slow ones for 15 m and above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebook.kernels import kernel

Floats = NDArray[np.float64]

DAY_MINUTES = 1440
#: Phases of a cycle.
DECLINE, BASE, ATTEMPT, RUN, FALL = range(5)
#: Kinds of attempt.
POP, GRIND, FAKE = range(3)
KINDS: tuple[str, ...] = ("pop", "grind", "fake")
#: Draws a script may use in a day; more would start over from the first.
DRAWS = 512
#: Slots of the carried state.
_PHASE, _LEFT, _DRIFT, _NOISE, _KIND, _FATE, _LEVEL, _LEG, _LEG_DRIFT = range(9)
#: Slots of `ClassTruth.table`: three shares, three odds, reach.
_ODDS, _REACH = 3, 6
_EVENTS_PER_DAY = 128
#: Per kind of attempt: (drift, noise share) of push, pullback and second push, and the minutes of all three. A pop is
#: wide-ranging and leaves its averages steep; a grind creeps up in narrow bars, its averages all but flat.
_PLANS = np.array(
    [
        [0.80, 2.4, 0.0, 2.2, 0.40, 1.8, 50.0],
        [0.08, 0.30, 0.015, 0.28, 0.015, 0.28, 90.0],
        [0.48, 1.0, -0.22, 0.9, 0.32, 1.0, 56.0],
    ]
)
#: Per kind of attempt: minutes of its base (least, spread), drift and noise share. Bases lean down, so that an engine
#: seldom sees a start before the attempt begins.
_BASES = np.array(
    [
        [15.0, 10.0, -0.15, 2.0],
        [30.0, 20.0, -0.06, 0.4],
        [30.0, 20.0, -0.06, 0.6],
    ]
)


@dataclass(frozen=True, slots=True)
class ClassTruth:
    """What is true of one cap class.

    Attributes:
        name: cap class.
        sigma: noise of one minute as a log return; drifts are in its units.
        usd_per_minute: usual traded volume.
        mix: share of attempts that are pops, grinds and fake-outs.
        odds: chance that an attempt of each kind becomes a run.
        reach: how far runs go, relative to 1.
        home: log distance of the level prices are pulled to above the first price; makes up for the drift of mix, odds
            and reach, so that caps stay in their class.
    """

    name: str
    sigma: float
    usd_per_minute: float
    mix: tuple[float, float, float]
    odds: tuple[float, float, float]
    reach: float
    home: float = 0.0

    def table(self) -> Floats:
        """The numbers the kernel needs: mix, odds, reach."""
        return np.array([*self.mix, *self.odds, self.reach])


def fresh_state(phase_minutes: float) -> Floats:
    """State before the first minute: a decline of ``phase_minutes``."""
    state = np.zeros(9)
    state[_LEFT], state[_DRIFT], state[_NOISE] = phase_minutes, -0.1, 1.0
    return state


def play_day(state: Floats, draws: Floats, truth: Floats, stretch: float) -> tuple[Floats, Floats, Floats, Floats]:
    """One day of script from ``state`` (changed in place).

    Args:
        state: carried from the day before.
        draws: `DRAWS` uniform numbers of this day.
        truth: `ClassTruth.table`.
        stretch: 1 for the fast layer; s makes every phase s times longer and drifts smaller by sqrt(s).

    Returns:
        per minute: drift (in sigmas), noise share, phase; and the events: one row (minute, minutes to the attempt,
        kind, fate) per base that began and (minute, -1, kind, 1) per run that began.
    """
    drift, noise, phase = np.empty(DAY_MINUTES), np.empty(DAY_MINUTES), np.empty(DAY_MINUTES)
    events = np.zeros((_EVENTS_PER_DAY, 4))
    count = _play(state, draws, truth, stretch, drift, noise, phase, events)
    return drift, noise, phase, events[:count]


@kernel
def _play(
    state: Floats,
    draws: Floats,
    truth: Floats,
    stretch: float,
    drift: Floats,
    noise: Floats,
    phase: Floats,
    events: Floats,
) -> int:
    used, count = 0, 0
    shrink = 1.0 / np.sqrt(stretch)
    for t in range(len(drift)):
        if state[_LEFT] <= 0.0:
            begun = _next_phase(state, draws, used, truth, stretch, state[_LEVEL] * shrink)
            used += 3
            if begun and count < len(events):
                ahead = state[_LEFT] if state[_PHASE] == BASE else -1.0
                events[count] = np.array([t, ahead, state[_KIND], state[_FATE]])
                count += 1
        if state[_PHASE] == ATTEMPT:
            kind = int(state[_KIND])
            leg = 0 if state[_LEFT] > 0.7 * state[_LEG] else (2 if state[_LEFT] > 0.3 * state[_LEG] else 4)
            state[_DRIFT], state[_NOISE] = _PLANS[kind, leg], _PLANS[kind, leg + 1]
        elif state[_PHASE] == RUN:
            if state[_LEG] <= 0.0:
                _next_leg(state, draws[used % DRAWS], truth[_REACH], stretch)
                used += 1
            state[_LEG] -= 1.0
            state[_DRIFT] = state[_LEG_DRIFT]
        pull = state[_PHASE] == RUN or state[_PHASE] == BASE
        home = min(0.16, max(-0.10, -0.0016 * state[_LEVEL] * shrink)) if pull else 0.0
        drift[t] = (state[_DRIFT] + home) * shrink
        noise[t] = state[_NOISE]
        phase[t] = state[_PHASE]
        state[_LEFT] -= 1.0
        state[_LEVEL] += drift[t]
    return count


@kernel
def _next_phase(state: Floats, draws: Floats, used: int, truth: Floats, stretch: float, level: float) -> bool:
    """Begin the phase after the one that ended; True if it is one that curators may know of (a base or a run).

    ``level`` is how far the script has brought the price, in sigmas of its layer: far below home runs last longer and
    declines are flatter, far above the other way round, so that no token drifts away for ever.
    """
    u0, u1, u2 = draws[used % DRAWS], draws[(used + 1) % DRAWS], draws[(used + 2) % DRAWS]
    before = int(state[_PHASE])
    if before == DECLINE:
        kind = POP if u0 < truth[0] else (GRIND if u0 < truth[0] + truth[1] else FAKE)
        state[_PHASE], state[_LEFT] = BASE, (_BASES[kind, 0] + _BASES[kind, 1] * u1) * stretch
        state[_DRIFT], state[_NOISE] = _BASES[kind, 2], _BASES[kind, 3]
        state[_KIND], state[_FATE] = kind, 1.0 if u2 < truth[_ODDS + kind] else 0.0
        return True
    if before == BASE:
        minutes = _PLANS[int(state[_KIND]), 6] * (0.85 + 0.3 * u0) * stretch
        state[_PHASE], state[_LEFT], state[_LEG] = ATTEMPT, minutes, minutes
        return False
    if before == ATTEMPT and state[_FATE] > 0.5:
        far = min(1.0, max(-0.3, -0.008 * level))
        state[_PHASE], state[_LEFT] = RUN, (100.0 + 100.0 * u0) * (1.0 + far) * stretch
        state[_NOISE], state[_LEG], state[_LEG_DRIFT] = 0.9, 0.0, -1.0
        return True
    if before == ATTEMPT:
        state[_PHASE], state[_LEFT] = FALL, (32.0 + 26.0 * u0) * stretch
        state[_DRIFT], state[_NOISE] = -0.34, 1.0
        return False
    minutes = (90.0 + 50.0 * u0) if before == RUN else (20.0 + 30.0 * u0)
    state[_PHASE], state[_LEFT] = DECLINE, minutes * stretch
    state[_DRIFT], state[_NOISE] = -0.20 - min(0.10, max(-0.08, 0.002 * level)), 1.0
    return False


@kernel
def _next_leg(state: Floats, draw: float, reach: float, stretch: float) -> None:
    """Runs go up in legs of about 48 minutes with pullbacks of about 23: the retests of the slow EMAs."""
    if state[_LEG_DRIFT] > 0.0:
        state[_LEG], state[_LEG_DRIFT] = (16.0 + 14.0 * draw) * stretch, -0.24
    else:
        state[_LEG], state[_LEG_DRIFT] = (36.0 + 24.0 * draw) * stretch, 0.24 * reach

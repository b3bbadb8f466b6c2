"""Half-life decay: the one formula that learning and overrides share."""

from __future__ import annotations

HOUR = 3_600_000_000
DAY = 24 * HOUR


def decay(age_hours: float, half_life_hours: float) -> float:
    """Weight ``2 ** (-age / half_life)`` of evidence ``age_hours`` old, in (0, 1] (learning.md 7).

    A non-positive age weighs 1 (evidence is never from the future); a non-positive half-life is an error of the caller.

    >>> decay(720, 720)
    0.5
    >>> decay(-1, 720)
    1.0
    """
    if half_life_hours <= 0:
        raise ValueError(f"half-life must be positive, was {half_life_hours}")
    return 1.0 if age_hours <= 0 else 2.0 ** (-age_hours / half_life_hours)

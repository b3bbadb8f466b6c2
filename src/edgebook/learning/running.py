"""Running statistics of outcomes as a small mergeable value (style.md habit 4; learning.md 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """Plain sums over observations, so that merging is addition and any order or partition gives the same value.

    Attributes:
        n: observations.
        sum_y: sum of rr (R).
        sum_y2: sum of squared rr.
        n_win: observations with rr above 0.
        sum_roi: sum of returns on invested money (fractions).
        pnl_usd: sum of realised profit.
        sum_hold_days: sum of holding times.
        sum_time_efficiency: sum of time efficiencies in (0, 1].
    """

    n: int = 0
    sum_y: float = 0.0
    sum_y2: float = 0.0
    n_win: int = 0
    sum_roi: float = 0.0
    pnl_usd: float = 0.0
    sum_hold_days: float = 0.0
    sum_time_efficiency: float = 0.0

    @classmethod
    def one(
        cls, y: float, *, roi: float = 0.0, pnl_usd: float = 0.0, hold_days: float = 0.0, time_efficiency: float = 0.0
    ) -> Moments:
        """The moments of a single observation."""
        return cls(1, y, y * y, int(y > 0), roi, pnl_usd, hold_days, time_efficiency)

    @classmethod
    def of(cls, values: Iterable[float]) -> Moments:
        """The moments of plain outcomes.

        >>> Moments.of([1.0, 3.0]).mean, Moments.of([1.0, 3.0]).variance
        (2.0, 1.0)
        """
        total = cls()
        for value in values:
            total = total.merge(cls.one(value))
        return total

    def merge(self, other: Moments) -> Moments:
        """Both together.

        >>> Moments.of([1.0]).merge(Moments.of([3.0])) == Moments.of([1.0, 3.0])
        True
        """
        return self._combine(other, 1)

    def minus(self, other: Moments) -> Moments:
        """This without ``other``, which must be part of it (a replaced contribution, or the complement of a slice)."""
        return self._combine(other, -1)

    def _combine(self, other: Moments, sign: int) -> Moments:
        return Moments(
            self.n + sign * other.n,
            self.sum_y + sign * other.sum_y,
            self.sum_y2 + sign * other.sum_y2,
            self.n_win + sign * other.n_win,
            self.sum_roi + sign * other.sum_roi,
            self.pnl_usd + sign * other.pnl_usd,
            self.sum_hold_days + sign * other.sum_hold_days,
            self.sum_time_efficiency + sign * other.sum_time_efficiency,
        )

    @property
    def mean(self) -> float:
        """Mean rr; 0 of nothing."""
        return self.sum_y / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """``max(0, sum_y2/n - mean**2)``: the population variance, 0 of nothing (learning.md 3)."""
        return max(0.0, self.sum_y2 / self.n - self.mean**2) if self.n else 0.0

    @property
    def win_rate(self) -> float:
        """Share of observations above 0; 0 of nothing."""
        return self.n_win / self.n if self.n else 0.0

    @property
    def avg_roi(self) -> float:
        """Mean return on invested money; 0 of nothing."""
        return self.sum_roi / self.n if self.n else 0.0

    @property
    def avg_hold_days(self) -> float:
        """Mean holding time in days; 0 of nothing."""
        return self.sum_hold_days / self.n if self.n else 0.0

    @property
    def time_efficiency(self) -> float | None:
        """Mean time efficiency; None of nothing."""
        return self.sum_time_efficiency / self.n if self.n else None

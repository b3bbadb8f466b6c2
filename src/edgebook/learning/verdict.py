"""What the evidence on one gate says, and whether it is clear of noise however often it is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgebook.domain.scope import ScopeItems
from edgebook.learning.config import DEFAULT, LearningConfig


@dataclass(frozen=True, slots=True)
class Score:
    """What is said about one gate in one slice; ``score`` > 0 tightens.

    Attributes:
        score: strength, in votes per vote or in R per window flipped.
        support: how much evidence it rests on, in votes or windows.
        gap: the sum that must be clear of zero; variance: its own.
        shift: target less base, in natural units at 1h.
    """

    score: float
    support: float
    gap: float
    variance: float
    shift: float


Shifts = Mapping[ScopeItems, Mapping[str, tuple[float, Score]]]
"""Per slice and lever: what it adds to its parents' shift, natural units at 1h, and why."""
NO_SHIFTS: Shifts = {}


def stands(
    gap: float, variance: float, config: LearningConfig = DEFAULT, tests: float = 1, prior: float | None = None
) -> bool:
    """Whether ``gap`` is clear of zero however often it is looked at (normal-mixture boundary; learning.md 9.2).

    ``gap**2 >= (V + v0) * ln((V + v0) / (v0 * alpha**2))`` with alpha shared among ``tests``. ``v0`` (``prior``, else
    that of votes) is the variance at which it is most easily crossed.

    >>> stands(13.0, 20.0), stands(13.1, 20.0)
    (False, True)
    """
    v0 = config.tuning_boundary_votes if prior is None else prior
    alpha = config.tuning_alpha / tests
    return gap * gap >= (variance + v0) * math.log((variance + v0) / (v0 * alpha * alpha))

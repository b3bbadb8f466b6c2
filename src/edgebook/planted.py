"""What a judge of learning quality calls: trades and contexts of a planted stream, through the public way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebook.api import learn
from edgebook.domain.decay import HOUR

#: Hour 0 of a stream, 1989: whole weeks after 1970, so that days and weeks stay where they are, and no learning lies so
#: near 1970 that the version it makes would be in force from before.
_START = 1_000 * 7 * 24
_TIMES = ("opened_at", "closed_at")


def policy(history: Mapping[str, Any], contexts: Mapping[str, Any], at: float) -> NDArray[np.float64]:
    """Size multipliers in [.5, 1.5] for ``contexts``, learnt afresh from ``history``.

    Args:
        history: columns ``trade_id``, ``opened_at``, ``closed_at`` (hours), ``rr`` and one per dim.
        contexts: dim columns.
        at: hour of the decision; trades that closed later do not count.
    """
    trades = {name: _moments(values) if name in _TIMES else values for name, values in history.items()}
    when = _moments(np.array([at]))[0]
    return learn(trades, tuple(contexts), at=when).advise(contexts, at=when).multiplier


def _moments(hours: Any) -> NDArray[np.datetime64]:
    """Hours of a stream as timestamps.

    >>> _moments(np.array([0.5]))
    array(['1989-03-02T00:30:00.000000'], dtype='datetime64[us]')
    """
    made: NDArray[np.datetime64] = np.rint((np.asarray(hours, dtype=float) + _START) * HOUR).astype("datetime64[us]")
    return made

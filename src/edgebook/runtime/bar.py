"""One recorded bar as the engine sees it: the complete payload, with the whole history before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgebook.domain.errors import InputError
from edgebook.engine.columns import advance, reading
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.engine.payload import payload
from edgebook.runtime.chart.facts import moment_text, read_bars


def explain_bar(path: Path, at: int, timeframe: str | None = None) -> dict[str, Any]:
    """The payload of the last bar of a file that had closed at ``at``, under base gates.

    Args:
        path: one ``SYMBOL-<timeframe>.parquet``; every bar before ``at`` is taken into account, none after it.
        at: microseconds UTC.
        timeframe: coarser timeframe to build first.

    Raises:
        InputError: the file cannot be read, or no bar had closed by then.
    """
    seen = read_bars(path, timeframe).window_before(at, 1 << 62)
    if not len(seen):
        raise InputError(f"{path}: no bar had closed at {moment_text(at)}")
    columns, _ = advance(None, seen)
    last = len(columns) - 1
    now, before = reading(columns, last), reading(columns, last - 1) if last else None
    earlier = (before, evaluate(before, BASE_GATES)) if before is not None else None
    return payload(now, evaluate(now, BASE_GATES), earlier)

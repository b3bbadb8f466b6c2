"""Write docs/engine_on_real_bars.md: the engine, its constants and the system's switches, measured on recorded bars.

    python tools/engine_on_real_bars.py [--data DIR] [--out docs] [--quick]

DIR holds one folder per data set (``SYMBOL-<timeframe>.parquet``, see `edgebook.adapters.feeds.parquet`) and
``signals/<set>/signals.jsonl`` for the sets that are walked. The page and its plots are written anew; ``--quick`` takes
three symbols of each set and leaves out the backtests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from calibration import policies, sections, trend
from calibration.measure import measure_all
from calibration.page import Timing, attempt_section, page
from calibration.plots import draw_all

from edgebook.domain.errors import EdgebookError, InputError

REPO = Path(__file__).resolve().parents[1]
PAGE, IMAGES = "engine_on_real_bars.md", Path("img") / "engine"
QUICK_SYMBOLS = 3


def main(given: Sequence[str] | None = None) -> int:
    """Run the whole measurement; 0 on success, 2 with one line for bad input."""
    arguments = parse(given)
    try:
        path = write(arguments.data, arguments.out, quick=arguments.quick)
    except EdgebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=REPO.parent / "shared" / "data", help="folder of data sets (../shared/data)"
    )
    parser.add_argument("--out", type=Path, default=REPO / "docs", help="folder the page is written to (docs)")
    parser.add_argument("--quick", action="store_true", help="three symbols of each set, no backtests")
    return parser.parse_args(given)


def write(data: Path, out: Path, *, quick: bool) -> Path:
    """Measure the sets below ``data`` and write the page and its plots below ``out``; returns the page's path.

    Raises:
        InputError: there is no such folder, or no bars in it.
        EdgebookError: a set cannot be read, or a backtest fails.
    """
    if not data.is_dir():
        raise InputError(f"--data {data}: no such folder; give one that holds folders of SYMBOL-<timeframe>.parquet")
    began = time.perf_counter()
    sets = measure_all(data, say, QUICK_SYMBOLS if quick else None)
    if not sets:
        raise InputError(f"--data {data}: no folder in it holds bar files SYMBOL-<timeframe>.parquet")
    measured = time.perf_counter()
    walks = None if quick else policies.walk_all(data, say)
    found = policies.compare(walks) if walks else []
    parts = [
        *(make(sets) for make in (sections.data_sets, sections.states, sections.scores, sections.flags)),
        *(make(sets) for make in (sections.gates, trend.edx, trend.ladder)),
        policies.section(walks, found),
        attempt_section(),
    ]
    drawn = draw_all(sets, found, out / IMAGES)
    ended = time.perf_counter()
    timing = Timing(measured - began, walks.seconds if walks else 0.0, ended - began, time.process_time())
    path = out / PAGE
    path.write_text(page(parts, drawn, timing, sum(m.bars for m in sets), quick=quick), encoding="utf-8")
    return path


def say(what: str) -> None:
    """Progress, to the terminal."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

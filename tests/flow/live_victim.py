"""A live run to be killed: follows the exchange at a URL by that exchange's clock and says a line a beat.

Arguments: the database's address, the exchange's, its symbols (comma-separated).
"""

from __future__ import annotations

import queue
import sys
from pathlib import Path


def main(url: str, venue_url: str, symbols: str) -> None:
    """Run until killed, or until standard input is closed."""
    repo = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repo), str(repo / "src")]
    from tests.exchange_world import SECRETS
    from tests.flow import live_world

    from edgebook.adapters.sql import SqlStore
    from edgebook.adapters.venue import connect
    from edgebook.runtime import bootstrap, live
    from edgebook.runtime.scheduler import run_live
    from edgebook.runtime.settings import Settings

    settings = Settings(
        db=url, feed="ccxt:binance", symbols=symbols, timeframes=live_world.TF, broker="live", live_books="main",
        venue_url=venue_url,
    )  # fmt: skip
    clock, store = connect("binance", url=venue_url), SqlStore(url)
    end, start = live.open_venue(
        settings, bootstrap.clock_of(store), secrets=SECRETS.get, now=clock.time,
        monotonic=lambda: clock.time() / live_world.SECOND,
    )  # fmt: skip
    with bootstrap.system(store, settings, bootstrap.exchange_feed(settings, end, start)) as system:

        def watch(*_: object) -> bool:
            sys.stdout.write(f"{len(system.desk.orders)}\n")
            sys.stdout.flush()
            return bool(sys.stdin.readline())

        system.take(Path(url.removeprefix("sqlite:///")).with_suffix(".jsonl").read_text().splitlines())
        run_live(system, end, None, queue.SimpleQueue(), watch, pace_seconds=0.0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])

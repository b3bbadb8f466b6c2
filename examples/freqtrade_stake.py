"""A freqtrade strategy whose stakes follow what its own closed trades have taught.

    edgebook import freqtrade tradesv3.sqlite --out trades.parquet
    edgebook learn trades.parquet --dims base,timeframe,enter_tag,side --out overrides.json

Put this file beside your strategy and the mixin before freqtrade's class::

    class MyStrategy(AdvisedStake, IStrategy):
        edgebook_file = "user_data/overrides.json"

Learn again whenever you like: a changed file is read at the next trade. Called as a script, it shows what the stake of
one trade would be: ``python examples/freqtrade_stake.py overrides.json ETH/USDT my_tag``.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebook import Overrides

logger = logging.getLogger(__name__)


class AdvisedStake:
    """Mixin of a freqtrade strategy: ``custom_stake_amount`` by the advice of ``edgebook_file``."""

    edgebook_file = "user_data/overrides.json"

    _learnt: Overrides | None = None
    _seen: tuple[int, int] | None = None

    def custom_stake_amount(
        self,
        pair: str,
        current_time: datetime,
        current_rate: float,
        proposed_stake: float,
        min_stake: float | None,
        max_stake: float,
        leverage: float,
        entry_tag: str | None,
        side: str,
        **kwargs: Any,
    ) -> float:
        """``proposed_stake`` times the multiplier of this trade, within what the exchange and the wallet allow.

        A trade before the lessons were learnt (a backtest over the trades that taught them) gets the stake proposed:
        anything else would look ahead.
        """
        learnt = self.current_overrides()
        if learnt is None or int(current_time.timestamp() * 1_000_000) < learnt.learnt.learnt_at:
            return proposed_stake
        context = self.edgebook_context(pair, entry_tag, side)
        advice = learnt.advise({dim: context[dim] for dim in learnt.dims}, at=current_time)
        multiplier = float(advice.multiplier[0])
        if multiplier != 1.0:
            logger.info("edgebook: %s stake x%.3f: %s", pair, multiplier, advice.because[0])
        return max(min_stake or 0.0, min(proposed_stake * multiplier, max_stake))

    def edgebook_context(self, pair: str, entry_tag: str | None, side: str) -> dict[str, str | None]:
        """The dims of ``edgebook import freqtrade``, as they are now. Override it to add dims of your own."""
        base, _, rest = pair.partition("/")
        return {
            "base": base,
            "quote": rest.partition(":")[0],
            "timeframe": getattr(self, "timeframe", None),
            "strategy": type(self).__name__,
            "enter_tag": entry_tag,
            "side": side,
        }

    def current_overrides(self) -> Overrides | None:
        """What the file holds now; None while there is none. A file that cannot be read leaves the last good one."""
        path = Path(self.edgebook_file)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return self._learnt
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._learnt = Overrides.load(path)
            except Exception as error:  # noqa: BLE001  (a bad file must not stop a bot that has trades open)
                logger.warning("edgebook: %s is not used: %s", path, error)
        return self._learnt


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("give the overrides file, a pair and perhaps an enter tag")
    strategy, (file, pair) = AdvisedStake(), sys.argv[1:3]
    strategy.edgebook_file, tag = file, sys.argv[3] if len(sys.argv) == 4 else None
    stake = strategy.custom_stake_amount(pair, datetime.now(UTC), 0.0, 100.0, None, 1e9, 1.0, tag, "long")
    print(f"{pair}: a stake of 100 becomes {stake:.2f}" if strategy.current_overrides() else f"{file} is not there")

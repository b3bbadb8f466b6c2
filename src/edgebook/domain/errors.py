"""The error tree. Every error says what was wrong and carries the packet it happened to.

EdgebookError
├── InputError         bad input from outside: a file, a row, an argument, a database from a newer schema (exit code 2)
├── StrandError        a strand that cannot be read, written or believed
├── MarketDataError    bars that are missing, unsorted, off grid or impossible
├── EngineError        the engine was asked for what it cannot know
├── TradingError       a decision, position or ledger rule was broken
├── LearningError      statistics or lessons that contradict their own law
├── OverrideError      an override record or lever outside its table
└── PortError          the database, a feed or a broker did not do what its port promises
"""

from __future__ import annotations


class EdgebookError(Exception):
    """Something in edgebook went wrong.

    Args:
        message: one line: what was wrong, where, and what would be right.
        stage: the stage of the loop it happened at, e.g. ``"ingest"``.
        correlation_id: id of the social signal whose packet it happened to, if any.
    """

    def __init__(self, message: str, *, stage: str = "", correlation_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage
        self.correlation_id = correlation_id


class InputError(EdgebookError):
    """Input from outside was refused; commands exit with code 2."""


class StrandError(EdgebookError):
    """A strand could not be read, written or believed."""


class MarketDataError(EdgebookError):
    """Bars are missing, unsorted, off grid or impossible."""


class EngineError(EdgebookError):
    """The engine was asked for something it cannot know."""


class TradingError(EdgebookError):
    """A decision, position or ledger rule was broken."""


class LearningError(EdgebookError):
    """Statistics or lessons contradict their own law."""


class OverrideError(EdgebookError):
    """An override record or a lever is outside its table."""


class PortError(EdgebookError):
    """A database, feed or broker did not keep its port's promise."""

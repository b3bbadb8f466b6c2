"""The two checks of a database: refold every projection from the log, and verify the hash chain."""

from __future__ import annotations

from typing import Any

from edgebook.adapters.log import verify
from edgebook.runtime import bootstrap
from edgebook.runtime.replay import rebuild
from edgebook.runtime.settings import Settings


def check_rebuild(settings: Settings) -> dict[str, Any]:
    """Rebuild and compare; ``equal`` says whether everything followed from the log."""
    with bootstrap.open_store(settings.db).reader() as stored:
        rules, learning = bootstrap.trading_rules(settings, settings.timeframes), bootstrap.learning_rules(settings)
        found = rebuild(stored, rules, learning)
    return {
        "equal": found.equal,
        "strands": found.strands,
        "rows": dict(found.rows),
        "differences": list(found.differences),
        "log_head": found.head,
    }


def check_chain(url: str) -> dict[str, Any]:
    """Recompute the hash chain from the stored rows."""
    found = verify(bootstrap.open_store(url))
    return {
        "intact": not found.problems,
        "strands": found.count,
        "log_head": found.head,
        "problems": list(found.problems),
    }

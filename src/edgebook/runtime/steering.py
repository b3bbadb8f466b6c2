"""An operator's act on what was learnt: handed to the running system, or done on a database at rest."""

from __future__ import annotations

from typing import Any, cast

from edgebook import jobs
from edgebook.adapters.brokers.paper import PaperBroker
from edgebook.desk import Desk
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Watermark
from edgebook.domain.steering import check_words
from edgebook.learning.config import LearningConfig
from edgebook.ports import MarketReader, Store
from edgebook.runtime.bootstrap import clock_of, open_store
from edgebook.runtime.ingress import is_running, post_steer
from edgebook.trading.rules import TradingRules


def steer_config(db_url: str, act: str, target: str, who: str, why: str) -> dict[str, Any]:
    """Do ``act`` (`domain.steering`) on ``target``, through the running system where there is one.

    Returns:
        ``changed``, the whole id or number of the ``target``, and the ``config_version`` in force now.

    Raises:
        InputError: no such database, lesson or version, or it cannot be done now.
        PortError: somebody writes to the database whom the ingress does not reach.
    """
    if not who:
        raise InputError("an act on what was learnt needs a name: give --who")
    check_words(target=target, who=who, why=why)
    if is_running(db_url):
        return post_steer(db_url, act, target, who, why)
    return steer_at_rest(open_store(db_url), act, target, who, why)


def steer_at_rest(store: Store, act: str, target: str, who: str, why: str) -> dict[str, Any]:
    """Do it under the writer's lock, at the time where the book stands; all of it is committed or nothing.

    Raises:
        InputError: no such database, lesson or version, or nothing has run on it yet.
        PortError: somebody else is writing to it.
    """
    with store.reader():
        """A database that is missing is told of, not made."""
    if clock_of(store) is None:
        raise InputError("nothing has run on this database yet, so nothing was learnt", stage="steering")
    with store.writer() as uow:
        clock = uow.watermarks.get("clock")
        now = clock.at if clock is not None else 0
        desk = Desk(uow, cast(MarketReader, None), PaperBroker(), {}, TradingRules(), LearningConfig())
        found = jobs.steer_config(desk, act, target, who, why, now)
        if found.result is not None:
            uow.watermarks.put(Watermark("clock", uow.log.head[0], now))
            uow.commit()
        changed, version = found.result is not None, desk.history.current_version
    return {"changed": changed, "target": found.target, "config_version": version}

"""Positions in the real system: paused and resumed by an operator, archived for want of signals, woken by one; and what
a partial fill leaves is completed or given up (trading.md 2, 4.3)."""

from __future__ import annotations

from unittest import mock

import pytest
from tests.flow import world
from tests.flow.test_protections import running, wait_for

from edgebook import desk as desk_module
from edgebook.adapters.brokers.paper import PaperBroker, PaperCosts
from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY
from edgebook.domain.errors import InputError
from edgebook.domain.reading import MOVE
from edgebook.runtime import bootstrap, ingress
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.market import Tape
from edgebook.runtime.replay import rebuild
from edgebook.runtime.scheduler import run_simulated

ACTIONS = (
    "SELECT seq FROM ad_strands WHERE kind = 'pm_action' AND json_extract(content, '$.side') = ? AND seq > ?"
    " AND position_id = ?"
)
BUYS = ACTIONS.split(" AND position_id")[0]
TURNED = "SELECT seq FROM ad_strands WHERE kind = 'position_status' AND position_id = ? AND content LIKE ?"


def rebuilt(uow, settings):
    """Tables that a rebuild finds different."""
    return rebuild(uow, trading_rules(settings, ["1m"]), world.EAGER).differences


# ------------------------------------------------------------------ an operator


def test_a_position_paused_in_a_running_system_buys_nothing_until_it_is_resumed(tmp_path):
    """F: every position paused over HTTP while some hold: they sell and do not buy, after a restart neither; resumed,
    they buy again; the log folds to the same book."""
    path = tmp_path / "book.db"
    url = f"sqlite:///{path}"
    with running(url):
        wait_for(path, BUYS, "buy", 0)
        ids = [ident for (ident,) in world.ask(path, "SELECT key FROM positions WHERE status != 'dormant'")]
        for ident in ids:
            assert ingress.post_move(url, ident, "pause") == {"changed": True, "status": "paused"}
        assert ingress.post_move(url, ids[0], "pause") == {"changed": False, "status": "paused"}
        seq = max(wait_for(path, TURNED, ident, '%"operator"%')[-1][0] for ident in ids)
        wait_for(path, BUYS, "sell", seq)
    with running(url):
        wait_for(path, "SELECT seq FROM ad_strands WHERE kind = 'uptrend_buy_window' AND content LIKE '%\"paused\"%'")
        assert [row for ident in ids for row in world.ask(path, ACTIONS, "buy", seq, ident)] == []
        for ident in ids:
            assert ingress.post_move(url, ident, "resume")["status"] in ("watchlist", "active", "closing")
        back = max(wait_for(path, TURNED, ident, '%"previous":"paused"%')[-1][0] for ident in ids)
        wait_for(path, BUYS, "buy", back)
    with SqlStore(url).reader() as uow:
        assert rebuilt(uow, world.settings_for(url)) == ()
        assert {s.correlation_id != "" for s in uow.log.read(0, ["position_status"])} == {True}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "POST /position takes"),
        (b'{"id": 1, "do": "pause"}', "POST /position takes"),
        (b'{"id": "x", "do": "sell"}', "do is one of pause, resume, archive"),
        (b'{"id": "x", "do": "pause"}', "no position 'x' in this book"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_in_one_line_and_changes_nothing(tmp_path, body, said):
    """Over HTTP: 400 with what would be right."""
    path = tmp_path / "book.db"
    url = f"sqlite:///{path}"
    with running(url), pytest.raises(InputError, match=said):
        ingress._send(ingress.address_file(url), "/position", body)
    assert world.ask(path, "SELECT 1 FROM ad_strands WHERE content LIKE '%operator%'") == []


# ------------------------------------------------------------------ for want of signals


def test_flat_positions_are_archived_after_some_quiet_days_and_woken_by_a_decision(tmp_path):
    """With an hour as the limit: archived ones are not ticked until a decision wakes them; interrupted or not, one log;
    a rebuild agrees. By default none is ever archived."""
    url = f"sqlite:///{tmp_path}/book.db"
    settings = world.settings_for(url, archive_days=1 / 24)
    head = world.run_days(SqlStore(url), 4.0, settings=settings)
    with SqlStore(url).reader() as uow:
        asleep, woken = set(), 0
        for strand in uow.log.read(0):
            if strand.kind == "position_status":
                woken += strand.payload.reason == "woken"
                (asleep.add if strand.payload.status == "archived" else asleep.discard)(strand.position_id)
            elif strand.kind != "trade_counterfactual":
                assert strand.position_id not in asleep
        assert woken > 0
        assert rebuilt(uow, settings) == ()
    assert verify(SqlStore(url)).problems == ()
    other = MemoryStore()
    for days in (1.5, 4.0):
        with world.opened(other, settings, world.sim_feed()) as system:
            run_simulated(system, system.tape.start + int(days * DAY))
            system.commit()
            last = system.desk.uow.log.head[1]
    assert last == head


def test_by_default_nothing_is_archived(flow):
    """No strand says so."""
    rows = world.ask(flow.path, "SELECT 1 FROM ad_strands WHERE kind = 'position_status' AND content LIKE '%archived%'")
    assert rows == []


# ------------------------------------------------------------------ partial fills


def thin(settings, tokens, rules):
    """A paper broker whose venue takes a fiftieth of what the limits allow: nearly every order fills in part."""
    return PaperBroker(PaperCosts(symbols={s: t.chain for s, t in tokens.items()}, participation=0.001))


@pytest.fixture(scope="module")
def thinly(tmp_path_factory):
    """Three days on a thin venue."""
    url = f"sqlite:///{tmp_path_factory.mktemp('thin')}/book.db"
    with mock.patch.object(bootstrap, "paper_broker", thin):
        head = world.run_days(SqlStore(url), 3.0, settings=world.settings_for(url))
    with SqlStore(url).reader() as uow:
        yield uow, head, url


def test_every_partial_fill_is_completed_on_the_next_bar_or_given_up_in_the_log(thinly):
    """F4: of each partial buy and trim the next word on its position is a completion within a bar, a lapse, or an exit;
    both of the first two occur, the pattern of a rest is that of its first, and the log folds to the same book."""
    uow, _, url = thinly
    acts, pending, seen = {}, {}, {"completed": 0, "lapsed": 0, "left": 0}
    for strand in uow.log.read(0):
        payload = strand.payload
        if strand.kind == "pm_action":
            acts[strand.id] = strand
            first = pending.pop(strand.position_id, None)
            completes = payload.reasons.get("completes")
            assert completes is None or completes == first
            if first:
                seen["completed" if completes else "left"] += 1
                before = acts[first].payload
                assert completes is None or strand.ts_event <= before.reasons["complete_by"]
                assert completes is None or payload.pattern_key == before.pattern_key
                assert completes or payload.rule <= 3
        elif (
            strand.kind == "order_filled"
            and payload.partial
            and "complete_by" in acts[payload.action_id].payload.reasons
        ):
            pending[strand.position_id] = payload.action_id
        elif strand.kind == "position_status" and payload.reason == "completion_lapsed":
            assert pending.pop(strand.position_id)
            seen["lapsed"] += 1
    assert seen["completed"] > 5
    assert seen["lapsed"] > 5
    assert rebuilt(uow, world.settings_for(url)) == ()


def test_ticking_every_bar_completes_the_same(thinly, monkeypatch):
    """A rest is looked at on the next bar whether or not anything else happens there."""
    _, head, url = thinly

    def every_bar(self, timeframe, now):
        return [(symbol, MOVE) for symbol in self.symbols]

    monkeypatch.setattr(Tape, "due", every_bar)
    monkeypatch.setattr(desk_module, "awake", lambda *_: True)
    with mock.patch.object(bootstrap, "paper_broker", thin):
        assert world.run_days(MemoryStore(), 3.0, settings=world.settings_for(url)) == head

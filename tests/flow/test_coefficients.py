"""Coefficients in the real system: each decision's are those of what had closed by then, and the log alone tells."""

from __future__ import annotations

import math
import shutil
import sqlite3
from types import SimpleNamespace

import pytest
from tests.flow import world

from edgebook.adapters.sql import SqlStore
from edgebook.domain.decay import DAY
from edgebook.runtime import views
from edgebook.runtime.bootstrap import trading_rules
from edgebook.runtime.replay import rebuild

DIMS = (
    "curator", "chain", "mcap_bucket", "vol_bucket", "age_bucket", "intent", "mapping_confidence",
    "mcap_vol_ratio_bucket",
)  # fmt: skip


def settings(url: str, **change):
    """The small world with every coefficient on."""
    return world.settings_for(url, **{"dm_coefficients": "all", **change})


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    """Four days with every coefficient on, in a database file."""
    path = tmp_path_factory.mktemp("weighed") / "book.db"
    url = f"sqlite:///{path}"
    world.run_days(SqlStore(url), 4.0, settings=settings(url))
    with SqlStore(url).reader() as uow:
        yield SimpleNamespace(path=path, url=url, uow=uow, strands=list(uow.log.read(0)))


def evidence(closes, now, **where):
    """(n, mean rr) of the first trades among ``closes`` whose context is as given, each decayed to ``now``."""
    found = []
    for strand in closes:
        said = strand.payload
        if all(said.entry_context.get(dim) == value for dim, value in where.items()):
            share = said.allocation_pct / said.entry_context["allocation_pct"]
            found.append((share * 2.0 ** (-(now - strand.ts_event) / DAY / 60), said.summary.rr))
    n = math.fsum(weight for weight, _ in found)
    return n, math.fsum(weight * rr for weight, rr in found) / n if n else 0.0


def expected(closes, now, scope):
    """Log weight per dimension and pair, from all closes anew."""
    mean, effects = evidence(closes, now)[1], {}
    for dim in DIMS:
        if dim in scope:
            n, own = evidence(closes, now, **{dim: scope[dim]})
            effects[dim] = n / (n + 20) * (own - mean)
    pair = {dim: scope[dim] for dim in ("curator", "mcap_bucket")}
    n, own = evidence(closes, now, **pair)
    effects["pair"] = n / (n + 20) * (own - mean - math.fsum(effects[dim] for dim in pair))
    return {dim: min(math.log(2), max(-math.log(2), 0.4 * effect)) for dim, effect in effects.items()}


def test_a_decision_is_weighed_by_what_had_closed_before_it_and_nothing_later(weighed):
    """Every decision's parts are those of a count made anew over the closes that stand before it in the log; nothing
    closed after the decision is in one."""
    closes, moved = [], 0
    for strand in weighed.strands:
        if strand.kind == "position_closed" and strand.payload.first_under_decision:
            closes.append(strand)
        if strand.kind != "decision_lowcap":
            continue
        assert all(close.ts_event <= strand.ts_event for close in closes)
        told = {part.dim: math.log(part.learned) for part in strand.payload.coefficients if part.dim != "timeframe"}
        assert told == pytest.approx(expected(closes, strand.ts_event, strand.scope), abs=1e-9)
        moved += any(abs(value) > 0.01 for value in told.values())
    assert len(closes) > 20
    assert moved > 5, "no decision was weighed, so this run could not tell a lawful coefficient from a dead one"


def test_the_allocation_is_the_product_of_what_is_told(weighed):
    """base * coefficient * static * alloc_mult, and the coefficient is the product of the parts, less what alloc_mult
    says already."""
    for strand in weighed.strands:
        said = strand.payload
        if strand.kind != "decision_lowcap" or said.action != "approve":
            continue
        product = said.base_allocation_pct * said.coefficient_mult * said.static_mult * said.alloc_mult
        assert said.allocation_pct == pytest.approx(min(20.0, max(0.1, product)))
        own = math.fsum(math.log(part.learned) for part in said.coefficients if part.dim != "timeframe")
        assert abs(math.log(said.coefficient_mult)) <= abs(own) + 1e-9


def test_a_weighed_log_refolds_to_the_same_rows(weighed):
    """rebuild --check: equal, also when it is read with coefficients off: the fold does not ask the settings."""
    for change in ({}, {"dm_coefficients": "off"}):
        found = rebuild(weighed.uow, trading_rules(settings(weighed.url, **change), ["1m"]), world.EAGER)
        assert found.differences == ()
        assert found.rows["coefficients"] > 10


def test_a_database_from_before_there_were_coefficients_gets_its_rows(weighed, tmp_path):
    """They are folded from the log when a writer opens it, and then equal what they were."""
    path = tmp_path / "old.db"
    shutil.copy(weighed.path, path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("DELETE FROM dm_coefficients").rowcount > 0
    connection.close()
    with world.opened(SqlStore(f"sqlite:///{path}"), settings(f"sqlite:///{path}"), world.sim_feed()) as system:
        system.commit()

    with SqlStore(f"sqlite:///{path}").reader() as uow:
        assert list(uow.coefficients.values()) == list(weighed.uow.coefficients.values())


def test_explain_tells_the_parts_of_a_decision(weighed):
    """Each dimension with its value, evidence and weight; another kind of strand has none."""
    last = [s for s in weighed.strands if s.kind == "decision_lowcap"][-1]
    told = views.explain(weighed.uow, last.id)
    assert told["numbers"]["coefficient_mult"] == last.payload.coefficient_mult
    assert told["numbers"]["static_mult"] == last.payload.static_mult
    parts = {part["dim"]: part for part in told["coefficients"]}
    assert parts["curator"]["value"] == last.scope["curator"]
    assert parts["curator"]["n"] > 0
    action = next(s for s in weighed.strands if s.kind == "pm_action")
    assert views.explain(weighed.uow, action.id)["coefficients"] == []

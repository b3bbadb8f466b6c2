"""The page of rules, gates and limits: nothing of the code is missing on it, and its counts are those of the log."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import Counter
from unittest import mock

import pytest

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain.decay import DAY
from edgebook.domain.protection import REASONS
from edgebook.domain.strands import DecisionLowcap, OrderFilled, PmAction
from edgebook.runtime import backtest, bootstrap
from edgebook.runtime.settings import load_settings
from edgebook.trading import actions, tick
from edgebook.trading.decision import approval_gates
from edgebook.trading.risk import limit_buy
from edgebook.trading.rules import DecisionRules


@pytest.fixture(scope="module")
def script(repo):
    """The script as a module."""
    with mock.patch.object(sys, "path", [str(repo / "tools"), *sys.path]):
        return importlib.import_module("rules_on_real_bars")


@pytest.fixture(scope="module")
def quick(script, tmp_path_factory):
    """The finished quick run: its page as text, and the one run that was counted."""
    out = tmp_path_factory.mktemp("docs")
    with mock.patch.object(script, "page", wraps=script.page) as page:
        assert script.main(["--quick", "--out", str(out)]) == 0
    (run,) = page.call_args.args[0]
    return (out / "rules_on_real_bars.md").read_text(encoding="utf-8"), run


@pytest.fixture(scope="module")
def plain(script, tmp_path_factory):
    """The same backtest without counting: its report, and its strands."""
    url = f"sqlite:///{tmp_path_factory.mktemp('db')}/plain.db"
    settings = load_settings(
        None, seed=script.QUICK_SEED, sim_tokens=script.QUICK_TOKENS, timeframes="1m,15m", db=url
    )  # fmt: skip
    source = SimSource(script.QUICK_SEED, script.QUICK_TOKENS, prehistory=script.QUICK_PREHISTORY_DAYS)
    feed = bootstrap.Feed(source, start=source.start, chunk_days=1)
    store = bootstrap.open_store(url, durable=False)
    report = backtest.backtest(store, settings, feed, backtest.Span(end=source.start + script.QUICK_DAYS * DAY))
    with store.reader() as uow:
        return report, list(uow.log.read(0))


def rows(page, kind):
    """Cells by first cell of the table whose first heading is ``kind``."""
    lines = page.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {kind} | what it is |"))
    found = {}
    for line in lines[at + 2 :]:
        if not line.startswith("| "):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        found[name] = cells
    return found


def counts(cells):
    """The counts of a row, as whole numbers."""
    return [int(number.replace(",", "")) for number in cells[1].split(" / ")]


def gate_names():
    """Names of all gates, asked of `approval_gates` with nothing known."""
    absent = dict.fromkeys(inspect.signature(approval_gates).parameters)
    signal = mock.Mock(chain="", intent="", symbol="", liquidity_usd=None, vol24h_usd=None, age_days=None)
    return [
        gate.name for gate in approval_gates(**(absent | {"signal": signal, "holding": (), "rules": DecisionRules()}))
    ]


def test_everything_of_the_code_has_a_row(quick):
    """Rules 1 to 9, every gate, every limit and every protection, asked of the code here and not by the script."""
    page, _ = quick
    assert set(rows(page, "rule")) == {str(rule) for rule in actions._SPECS} >= {str(rule) for rule in range(1, 10)}
    assert len(gate_names()) > 5
    assert set(rows(page, "gate")) == set(gate_names())
    limits = set(re.findall(r'"([a-z_]+)"', inspect.getsource(limit_buy).rpartition('"""')[2]))
    assert len(limits) > 5
    assert set(rows(page, "limit")) == limits
    assert set(rows(page, "protection")) == set(REASONS)
    assert set(rows(page, "reason")) >= {"order_open", "no_attempt", "min_notional", "s1_used", "order_failed"}


def test_every_row_names_tests_that_exist(quick, repo):
    """At least two a row, each a function of the file it is said to be in."""
    page, _ = quick
    source = (repo / "tests" / "unit" / "trading" / "test_rule_table.py").read_text(encoding="utf-8")
    for kind in ("rule", "gate", "limit", "reason", "protection"):
        for name, cells in rows(page, kind).items():
            named = re.findall(r"`test_rule_table\.py::(\w+)\[(\w+)\]`", cells[-1])
            assert len(named) >= 2, (kind, name)
            assert {case for _, case in named} == {name}
            assert all(f"def {test}(" in source for test, _ in named)


def test_what_never_acted_is_explained(quick):
    """One sentence for each row without a count, and none for the others."""
    page, _ = quick
    silent = set(re.findall(r"^- \*\*(\w+)\*\* never acted\. \S.+\.$", page, flags=re.MULTILINE))
    dead = {name for name, cells in rows(page, "rule").items() if not counts(cells)[2]}
    dead |= {name for name, cells in rows(page, "gate").items() if not any(counts(cells)[1:3])}
    dead |= {name for name, cells in rows(page, "protection").items() if not any(counts(cells))}
    assert dead <= silent
    assert "4" in dead, "rule 4 is behind a switch that is off"
    alive = {name for name, cells in rows(page, "rule").items() if counts(cells)[2]}
    assert alive >= {"1", "2", "3", "5", "6"}
    assert not alive & silent


def test_counting_changes_nothing_and_counts_what_is_in_the_log(quick, plain):
    """The same log head as without wrappers; rules planned and filled, cuts and gates equal a second count."""
    page, run = quick
    report, log = plain
    assert run.report["log_head"] == report["log_head"]
    said = [strand.payload for strand in log]
    planned = Counter(p.rule for p in said if isinstance(p, PmAction) and not p.reasons.get("completes"))
    assert {rule: counts(cells)[2] for rule, cells in rows(page, "rule").items() if counts(cells)[2]} == {
        str(rule): n for rule, n in planned.items()
    }
    orders = sum(n for key, n in run.n.items() if key.startswith("order|") and "|filled" in key)
    assert orders == sum(isinstance(p, OrderFilled) for p in said) > 100
    cuts = Counter(cap for p in said if isinstance(p, PmAction) for cap in p.caps)
    assert {name: counts(cells)[0] for name, cells in rows(page, "limit").items() if counts(cells)[0]} == cuts
    refused = Counter(g.name for p in said if isinstance(p, DecisionLowcap) for g in p.gates if g.passed is False)
    assert {name: counts(cells)[2] for name, cells in rows(page, "gate").items() if counts(cells)[2]} == refused


def test_every_bar_with_needs_met_is_accounted_for(quick):
    """Needs met = skipped + planned + behind another rule, for each rule."""
    page, run = quick
    for rule, cells in rows(page, "rule").items():
        met, skipped, planned, _ = counts(cells)
        behind = sum(n for key, n in run.n.items() if re.fullmatch(rf"(behind|lost)\|\d\|{rule}", key))
        assert met == skipped + planned + behind, rule


def test_no_wrapper_is_left_behind(script, quick):
    """After a run the planner is the one of the code again."""
    assert inspect.getmodule(vars(tick)[script.planner()]).__name__.startswith("edgebook.trading")
    assert actions.limit_buy is limit_buy


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("rule", "10", lambda script: mock.patch.dict(actions._SPECS, {10: actions._SPECS[9]})),
        ("limit", "made_up", lambda script: mock.patch.object(script, "limit_names", return_value=("made_up",))),
        ("reason", "made_up", lambda script: mock.patch.object(script, "reasons", return_value=("made_up",))),
        ("protection", "made_up", lambda script: mock.patch.object(script, "REASONS", ("made_up",))),
    ],
)
def test_a_new_part_of_the_code_without_tests_stops_the_script(script, kind, name, change, tmp_path, capsys):
    """Before any backtest: exit code 2, one line with its kind and name, no page."""
    with change(script):
        assert script.main(["--quick", "--out", str(tmp_path)]) == 2
    assert re.fullmatch(rf"error: {kind} '{name}' of the code has 0 tests in .+\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "name"), [("gate", "made_up"), ("rule", "10"), ("protection", "made_up")])
def test_a_new_part_of_the_code_without_a_description_is_an_error(script, kind, name):
    """One line that says where to write what it is."""
    with pytest.raises(script.InputError, match=rf"{kind} '{name}' of the code has no row: say in"):
        script.word(kind, name)


def test_missing_sets_are_refused_in_one_line(script, tmp_path, capsys):
    """Exit code 2, and one line that names what is missing."""
    assert script.main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert re.fullmatch(r"error: .*nowhere.*\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())

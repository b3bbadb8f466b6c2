"""Write docs/rules_on_real_bars.md: every rule, gate, limit and reason to do nothing, its tests, how often it acted.

    python tools/rules_on_real_bars.py [--data DIR] [--out docs] [--quick]

DIR holds the folders of bars named in `WALKS` and ``signals/<folder>/signals.jsonl``. What there is to list is read
from the code, the counts from the strands of one backtest per folder. What leaves no strand (skips, rules whose needs
were met behind another, room left under a limit) is counted by wrappers around the planner and `limit_buy`. A part of
the code without a description, or without tests both ways, is an error. ``--quick`` walks a few days of a simulated
market instead.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import math
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from calibration.text import Section, count, listed, plural, table

from edgebook.adapters.feeds.sim import SimSource
from edgebook.domain import strands as said_by
from edgebook.domain.decay import DAY
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.protection import REASONS, ProtectionChanged
from edgebook.domain.reading import EXIT_REASONS
from edgebook.runtime import backtest as runner
from edgebook.runtime import bootstrap
from edgebook.runtime.settings import Settings, load_settings
from edgebook.trading import actions, protections, tick
from edgebook.trading.risk import BookView, limit_buy
from edgebook.trading.rules import RiskRules
from edgebook.trading.terms import CUTS

REPO = Path(__file__).resolve().parents[1]
PAGE, TABLE = "rules_on_real_bars.md", Path("tests/unit/trading/test_rule_table.py")
#: The test of rules against each other.
FIRST_WINS = "test_rule_table.py::test_of_the_rules_that_match_the_first_wins"
DRIVERS = "binance_spot_1h_majors"
#: Name, folder of bars and signals, timeframes.
WALKS = (
    ("coins 2021-23", "binance_spot_1h_2021_2023", "1h,4h"),
    ("coins 2025q1", "binance_spot_5m_2025q1", "5m,15m,1h,4h"),
)
#: What is walked with ``--quick``.
QUICK_SEED, QUICK_TOKENS, QUICK_PREHISTORY_DAYS, QUICK_DAYS = 2, 6, 5, 3

# ---------------------------------------------------------------- what there is, in the code


def needs() -> dict[int, Callable[[actions.Situation, Any], bool]]:
    """Per rule number whether its needs are met: the functions of `actions` whose docstring begins ``Rule N:``."""

    def asked(function: Callable[..., Any]) -> Callable[[actions.Situation, Any], bool]:
        names = tuple(inspect.signature(function).parameters)
        return lambda s, pm: function(*(pm if name == "rules" else getattr(s, name) for name in names))

    said = ((f, re.match(r"Rule (\d+):", inspect.getdoc(f) or "")) for _, f in inspect.getmembers(actions, callable))
    found = {int(match[1]): asked(function) for function, match in said if match}
    if set(found) != set(actions._SPECS):
        raise InputError(f"actions has rules {sorted(actions._SPECS)}, but functions 'Rule N: ...' for {sorted(found)}")
    return dict(sorted(found.items()))


def planner() -> str:
    """Name of the function that `tick` asks for the action of a bar."""
    functions = inspect.getmembers(tick, inspect.isfunction)
    return next(name for name, f in functions if f.__annotations__.get("return") == "PlannedAction | Skip")


def limit_names() -> tuple[str, ...]:
    """Names of all limits, in order: each is overdrawn by an order in a book that has spent more than it has."""
    spent = BookView(Decimal(1), Decimal(-9), Decimal(9), Decimal(9), Decimal(9), Decimal(9))
    return limit_buy(Decimal(1), spent, Decimal(-1), -1.0, RiskRules()).caps


@cache
def reasons(*, windows: bool) -> tuple[str, ...]:
    """Names of what a skip gives as its reasons, or what a window is blocked by; without limits and protections.

    In the code of trading they are the strings in ``Skip(...)`` and those added to ``refusals``, or those added to
    ``blocks`` and given as ``failed``.
    """
    modules = (sys.modules[name] for name in sorted(sys.modules) if name.startswith("edgebook.trading."))
    trees = [ast.parse(inspect.getsource(module)) for module in modules]
    helpers = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    wanted = {"blocks.append", "blocks", "failed"} if windows else {"refusals.append", "refusals", "Skip"}
    parts: list[ast.AST] = []
    for node in (node for tree in trees for node in ast.walk(tree)):
        name = getattr(node, {ast.Call: "func", ast.AugAssign: "target", ast.keyword: "arg"}.get(type(node), ""), None)
        if (ast.unparse(name) if isinstance(name, ast.AST) else name) in wanted:
            parts += [node, *(helpers[n.id] for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in helpers)]
    compared = {id(n) for tree in trees for c in ast.walk(tree) if isinstance(c, ast.Compare) for n in ast.walk(c)}
    said = [getattr(n, "value", None) for part in parts for n in ast.walk(part) if id(n) not in compared]
    return tuple(dict.fromkeys(s for s in said if isinstance(s, str) and re.fullmatch(r"[a-z0-9_]+", s)))


@cache
def tests() -> tuple[str, ...]:
    """Every test of the file that holds the table, as pytest names it; the case of a test is the name of its row.

    Raises:
        InputError: pytest cannot read the file.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=--import-mode=importlib", str(TABLE)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"pytest cannot list the tests of {TABLE}: {(done.stderr or done.stdout).strip()[-200:]}")
    return tuple(line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line)


def tests_of(kind: str, name: str) -> list[str]:
    """The tests that reach a row: of its kind, with its case.

    Raises:
        InputError: there are not two, one that shows it acts and one that shows it does not.
    """
    found = [f"`{test}`" for test in tests() if kind in test.partition("::")[2] and test.endswith(f"[{name}]")]
    if len(found) < 2:
        raise InputError(f"{kind} {name!r} of the code has {len(found)} tests in {TABLE}: it needs one both ways")
    return found


# ---------------------------------------------------------------- counted in one backtest


@dataclass(slots=True)
class Run:
    """One backtest and what was counted in it.

    Attributes:
        report: what the backtest says of itself.
        n: how often, by words with ``|`` between. Of bars: ``asked`` (a position for its action), ``met|RULE``,
            ``skipped|RULE``, ``skip|RULE|REASON``; ``behind|RULE|OTHER`` and ``lost|RULE|OTHER`` (RULE came first and
            was planned, or skipped, and the needs of OTHER were met too); ``some``, ``several``, ``exiting``,
            ``gave_way``, ``wrong`` (needs were met: any, of several, but none may act, those of a trim too small that
            gave way, and otherwise not the lowest came first). Bars for the rest of a partial fill are only asked. Of
            strands: ``order|RULE|OUTCOME``, ``cut|LIMIT``, ``gate|NAME|VERDICT``, ``window|REASON``,
            ``on|PROTECTION``, ``closed|REASON``.
        rebuys: emergency exits that rule 4 could have bought back but for its switch.
        seen: numbers by name, of signals, decisions and orders, and of how near each buy came to each limit.
        chains: chains of the signals.
    """

    name: str
    settings: Settings
    report: dict[str, Any] = field(default_factory=dict)
    n: Counter[str] = field(default_factory=Counter)
    rebuys: set[tuple[str, Decimal]] = field(default_factory=set)
    seen: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    chains: set[str] = field(default_factory=set)
    _rule_of: dict[str, str] = field(default_factory=dict)

    def total(self, pattern: str) -> int:
        """Sum of the counts whose words match, ``*`` standing for anything."""
        return sum(n for words, n in self.n.items() if fnmatchcase(words, pattern))

    def planning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The planner, with what matched and what was skipped counted."""
        asked = needs()

        def plan(s: actions.Situation) -> Any:
            planned, pm = original(s), s.rules.pm
            rest = getattr(planned, "completes", bool(planned.reasons) and not planned.rule)
            met = [] if rest else [rule for rule, ask in asked.items() if ask(s, pm)]
            self.n.update(["asked", *(f"met|{rule}" for rule in met)])
            if isinstance(planned, actions.Skip) and planned.reasons:
                self.n.update([f"skipped|{planned.rule}", *(f"skip|{planned.rule}|{why}" for why in planned.reasons)])
            if met:
                self._order(actions.first_match(s), met, "lost" if isinstance(planned, actions.Skip) else "behind")
            if 4 not in met and asked[4](s, replace(pm, reclaim_enabled=True)):
                self.rebuys.add((s.position.trade_id, s.position.emergency.exit_value))
            return planned

        return plan

    def _order(self, first: int, met: Sequence[int], fate: str) -> None:
        gave_way = met[0] == 3 and met[1:2] == [first]
        wrong = first not in (0, met[0]) and not gave_way
        told = {"some": True, "several": len(met) > 1, "exiting": not first, "gave_way": gave_way, "wrong": wrong}
        self.n.update(what for what, true in told.items() if true)
        self.n.update(f"{fate}|{first}|{other}" for other in met if first and other != first)

    def limiting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`limit_buy`, with how near the orders come to each limit remembered."""

        def limit(wanted: Decimal, book: BookView, allowance: Decimal, volume: float, rules: RiskRules) -> Any:
            self.note(
                allocation=wanted / allowance if allowance > 0 else None,
                cash_reserve=(book.free_cash - wanted) / book.nav,
                exposure=(book.open_cost_total + wanted) / book.nav,
                per_token=(book.open_cost_token + wanted) / book.nav,
                participation=float(wanted) / volume if volume > 0 else None,
                min_notional=wanted,
            )
            return original(wanted, book, allowance, volume, rules)

        return limit

    def take(self, strand: said_by.Strand) -> None:
        """Count one strand of the log."""
        match strand.payload:
            case said_by.SocialLowcap() as said:
                self.chains.add(said.chain)
                self.note(market_cap=said.mcap_usd, liquidity=said.liquidity_usd, volume=said.vol24h_usd)
            case said_by.DecisionLowcap() as said:
                self.note(curator_score=said.curator_score)
                self.n.update(f"gate|{gate.name}|{_verdict(gate)}" for gate in said.gates)
                self.note(active=next((float(n[1]) for g in said.gates if (n := _ACTIVE.match(g.detail))), None))
            case said_by.PmAction() as said:
                rule = self._rule_of[strand.id] = ("rest of " if said.reasons.get("completes") else "") + str(said.rule)
                self.n.update([f"order|{rule}|planned", *(f"cut|{name}" for name in said.caps)])
                self.note(trim=float(said.quantity or 0) * said.price if rule == "3" else None)
            case said_by.OrderFilled() as said:
                self.n[f"order|{self._rule_of[said.action_id]}|filled{' in part' * said.partial}"] += 1
                self.note(slippage=said.slippage_bps)
            case said_by.OrderRejected() | said_by.OrderExpired() as said:
                became = f"{said.kind.removeprefix('order_')}: {re.sub('[0-9.]*[0-9]', 'N', said.reason)}"
                self.n[f"order|{self._rule_of[said.action_id]}|{became}"] += 1
            case said_by.PositionClosed() as said:
                self.n[f"closed|{said.exit_reason}"] += 1
            case said_by.BuyWindow() as said:
                self.n.update(f"window|{reason}" for reason in said.blocked_by)
            case ProtectionChanged() as said:
                self.n[f"on|{said.reason}"] += said.on

    def note(self, **numbers: float | Decimal | None) -> None:
        """Keep some numbers, where they are known."""
        for name, value in numbers.items():
            if value is not None:
                self.seen[name].append(float(value))


#: How the gate on capacity tells the number of positions.
_ACTIVE = re.compile(r"(\d+) active positions")


def _verdict(gate: said_by.GateResult) -> str:
    remark = re.search(r"note:|warning|^held on", gate.detail)
    return {None: "not evaluated", False: "failed", True: "noted" if remark else "passed"}[gate.passed]


@contextmanager
def in_place_of(name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Let every module of trading that calls the function ``name`` call ``make`` of it for a while."""
    modules = [module for key, module in sys.modules.items() if key.startswith("edgebook.trading.")]
    homes = [module for module in modules if inspect.isfunction(vars(module).get(name))]
    made = make(getattr(homes[0], name))
    with ExitStack() as stack:
        for home in homes:
            stack.enter_context(mock.patch.object(home, name, made))
        yield


def walk(name: str, settings: Settings, feed: bootstrap.Feed, end: int | None = None) -> Run:
    """One backtest in a database that is thrown away, counted."""
    run, store = Run(name, settings), bootstrap.open_store(settings.db, durable=False)
    with in_place_of(planner(), run.planning), in_place_of("limit_buy", run.limiting):
        run.report = runner.backtest(store, settings, feed, runner.Span(end=end))
    with store.reader() as uow:
        for strand in uow.log.read(0, list(run.report["strands"])):
            run.take(strand)
    print(f"{name}: {run.n['asked']:,} bars asked in {run.report['wall_s']:.0f} s", file=sys.stderr, flush=True)
    return run


def walk_all(data: Path, scratch: str, *, quick: bool) -> Iterator[Run]:
    """Every backtest of the page: the recorded sets, or a few days of the simulated market.

    Raises:
        InputError: a folder of bars or a file of signals is missing.
    """
    url = f"sqlite:///{scratch}/backtest"
    if quick:
        source = SimSource(QUICK_SEED, QUICK_TOKENS, prehistory=QUICK_PREHISTORY_DAYS)
        settings = load_settings(None, seed=QUICK_SEED, sim_tokens=QUICK_TOKENS, timeframes="1m,15m", db=f"{url}.db")
        feed = bootstrap.Feed(source, start=source.start, chunk_days=1)
        yield walk("simulated", settings, feed, source.start + QUICK_DAYS * DAY)
        return
    for name, folder, timeframes in WALKS:
        settings = load_settings(None, timeframes=timeframes, db=f"{url}-{folder}.db", feed=f"parquet:{data / folder}")
        signals = data / "signals" / folder / "signals.jsonl"
        yield walk(name, settings, bootstrap.parquet_feed(data / folder, signals, data / DRIVERS))


# ---------------------------------------------------------------- in words

#: What each part of the code is, by kind and name; rules and protections have tables in docstrings of the code. Of a
#: kind alone: what is to be known of its counts.
WHAT: Mapping[str, str] = {
    "rule": "*Needs met*: bars on which it could have acted, first or not. *Filled*: also in part.",
    "gate": "Decisions by what the gate said; *noted* is passed with a remark.",
    "limit": "*Cut*: orders planned smaller. *Nothing left*: buys skipped; each limit on the way is counted.",
    "reason": "*Skips*: bars on which a rule could not be carried out. *Windows*: entry windows `blocked_by` it.",
    "protection": "*On*: how often it went on; skips and windows as above.",
    "exit": "*Trades*: closed for this reason.",
    "exit s1_to_s0_bearish_order": "the trend failed before EMA333 was left behind",
    "exit all_emas_below_333": "the trend of an S3 is over",
    "exit fast_band_at_bottom": "the fast averages lie below all slower ones",
    "exit attempt_over": "the attempt is over, and the engine names no reason on the bar of the exit",
    "exit disaster_stop": "a close `disaster_stop_atr` ATRs below the average cost",
    "exit time_stop": "`max_bars_in_attempt` bars since the first fill",
    "exit emergency": "`emergency_timeout_bars` bars since an emergency exit, and nothing bought back",
    "gate supported_chain": "refuses chains nobody trades",
    "gate curator_score": "refuses a curator whose score is too low, or who is not followed",
    "gate intent_buy": "refuses a message that asks for no buy",
    "gate known_token": "refuses a token that the token table does not hold",
    "gate not_already_holding": "refuses nothing; notes trades that the decision has to wait for",
    "gate portfolio_capacity": "refuses nothing; warns where many positions have a trade open",
    "gate market_cap": "refuses below a floor",
    "gate liquidity": "refuses below a floor, notes thin liquidity",
    "gate volume": "refuses nothing; notes thin trading",
    "gate age": "refuses nothing; tells the age",
    "limit allocation": "what the position may still spend of its share",
    "limit cash_reserve": "share of the book that stays cash",
    "limit exposure": "cost of all that is held",
    "limit per_token": "cost of one token on all its timeframes",
    "limit participation": "share of what was traded on the decision bar",
    "limit min_notional": "smallest order",
    "reason order_open": "an order of the position still waits",
    "reason no_attempt": "the start of the running attempt was not seen",
    "reason paused": "an operator has paused the position",
    "reason canary": "the token is not on the list of those that may be bought",
    "reason not_trading": "the position is neither watched nor active",
    "reason min_notional": "a trim, or the rest of one, would be worth less than the smallest order",
    "reason episode_block": "the last attempt was entered here and lost, and no S3 has been seen since",
    "reason s1_used": "the attempt's one S1 entry is used",
    "reason not_armed": "no arming is left for rule 8, or for rule 5 under `after_breakout`",
    "reason no_pool": "there are no trim proceeds to spend in S3",
    "reason dx_spacing": "the price is above the next rung",
    "reason flat_required": "tokens are held, and `pool_only` lets rule 8 buy only when flat",
    "reason order_failed": "the window's order was refused or expired",
}
#: Why it never acted, by kind and name or by kind alone; made of `facts`.
WHY: Mapping[str, str] = {
    "rule": "Its needs were met on no bar on which a position was asked.",
    "rule 4": "Its switch `reclaim` is {reclaim_enabled}; on, it could have bought back {rebuys} emergency exits.",
    "gate supported_chain": "Every signal is of chain {chains}, which is traded.",
    "gate curator_score": "The lowest score was {least[curator_score]:.2f}, and {min_curator_score} is enough.",
    "gate known_token": "Such a message is refused before it is a signal: this is a second lock behind that one.",
    "gate portfolio_capacity": "It warns from {warn_positions} on; {most[active]:.0f} had a trade open at most.",
    "gate market_cap": "The least was {least[market_cap]:,.0f} USD; the floor is {floor_mcap_usd:,.0f}.",
    "gate liquidity": "Not told on {liquidity} decisions; the floor is {floor_liquidity_usd:,.0f} USD.",
    "gate volume": "The least was {least[volume]:,.0f} USD a day; below {note_volume_usd:,.0f} would be noted.",
    "gate age": "It has no threshold; it told the age on {aged} decisions.",
    "limit allocation": "A buy asked for {most[allocation]:.1%} of it at most; only one from proceeds can ask for all.",
    "limit cash_reserve": "A buy left {least[cash_reserve]:.1%} at least; {cash_reserve:.0%} have to stay.",
    "limit exposure": "With a buy it was {most[exposure]:.1%} of the book at most; the limit is {max_exposure:.0%}.",
    "limit per_token": "With a buy it was {most[per_token]:.1%} of the book at most; the limit is {per_token:.0%}.",
    "limit participation": "A buy was {most[participation]:.1%} of it at most; the limit is {participation:.0%}.",
    "limit min_notional": "The smallest was {least[min_notional]:.2f} USD; the limit is {min_notional_usd}.",
    "reason order_open": "An order is settled at the open of the next bar, before its position is asked again.",
    "reason paused": "A backtest has no operator.",
    "reason canary": "The list is empty: every token may be bought.",
    "reason not_trading": "Of the others only closing ones are asked, and those want no buy: this is a second lock.",
    "reason min_notional": "The smallest was worth {least[trim]:.2f} USD; the limit is {min_notional_usd}.",
    "reason flat_required": "`pool_only` is {pool_only}.",
    "reason episode_block": "Its switch `episode_block` is {episode_block}.",
    "reason order_failed": "No buy was refused and none expired.",
    "exit": "No trade was held or open when the engine named it.",
    "exit fast_band_at_bottom": "Its switch `global_exit` is {global_exit}.",
    "exit attempt_over": "On the bar of every exit the engine named a reason.",
    "exit disaster_stop": "It is off: `disaster_stop_atr` is {disaster_stop_atr}.",
    "exit time_stop": "It is off: `max_bars_in_attempt` is {max_bars_in_attempt}.",
    "exit emergency": "It is off: `emergency_timeout_bars` is {emergency_timeout_bars}.",
    "protection": "It is off: the setting is {setting}.",
    "protection kill_switch": "A backtest has no operator.",
}


def word(kind: str, name: str) -> str:
    """What a part of the code is.

    Raises:
        InputError: it is new and nobody has said what it is.
    """
    module = {"rule": actions, "protection": protections}.get(kind)
    if module is None and f"{kind} {name}" in WHAT:
        return WHAT[f"{kind} {name}"]
    rows = re.findall(r"^\| *`*(\w+)`* *\| *(.+?) *\| *(.+?) *\|$", inspect.getdoc(module) or "", re.MULTILINE)
    for row, first, second in rows:
        if row == name:
            return f"{first}: {second}" if kind == "rule" else f"goes on: {first}; lifts: {second}"
    where = f"the table of {module.__name__}" if module else f"WHAT of {Path(__file__).name}"
    raise InputError(f"{kind} {name!r} of the code has no row: say in {where} what it is")


def why(kind: str, name: str, runs: Sequence[Run]) -> str:
    """The sentence on a part that never acted."""
    template = WHY.get(f"{kind} {name}") or WHY.get(kind, "The counts do not say why: look into it.")
    found = facts(runs)
    return f"- **{name}** never acted. {template.format(**found, setting=found.get(f'protection_{name}'))}"


def facts(runs: Sequence[Run]) -> dict[str, Any]:
    """What the sentences of `WHY` are made of: settings, counts per run, extremes over all runs."""
    rules = bootstrap.trading_rules(runs[0].settings, ())
    settings = {f.name: getattr(part, f.name) for part in (rules.dm, rules.risk, rules.pm) for f in fields(part)}
    settings |= {f"protection_{f.name}": getattr(rules.protections, f.name) for f in fields(rules.protections)}
    settings["global_exit"] = runs[0].settings.global_exit
    counted = {"aged": "gate|age|passed"}
    counted |= {"liquidity": "gate|liquidity|not evaluated"}
    seen = {name: [value for other in runs for value in other.seen[name]] for run in runs for name in run.seen}
    return {
        **settings,
        **{name: listed(f"{run.n[key]:,} ({run.name})" for run in runs) for name, key in counted.items()},
        "least": defaultdict(lambda: math.nan, {name: min(values) for name, values in seen.items()}),
        "most": defaultdict(lambda: math.nan, {name: max(values) for name, values in seen.items()}),
        "rebuys": listed(f"{len(run.rebuys):,} ({run.name})" for run in runs),
        "chains": listed(sorted(set().union(*(run.chains for run in runs)))),
    }


# ---------------------------------------------------------------- the page

OPENING = """\
# Rules, gates and limits on real bars

Each rule, gate, limit and protection, and each other reason to do nothing: what it is, the tests that show it acting
and not acting, and how often it acted in backtests of the whole system. `python tools/rules_on_real_bars.py` writes
this page anew: rows from the code, counts from the strands and from wrappers around the two functions whose silence
leaves no strand, tests as pytest lists them in `tests/unit/trading/`. A row without tests both ways is an error.
"""
WARNING = "**A quick run on a few days of the simulated market, not on real bars. Not for conclusions.**\n"

#: Per kind the title of its section and the columns of its table: a heading, and what is counted under it, in the words
#: of `Run.total`, with ``{}`` for the name of the row.
LISTINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "rule": (
        "Rules",
        {"needs met": "met|{}", "skipped": "skipped|{}", "planned": "order|{}|planned", "filled": "order|{}|filled*"},
    ),
    "exit": ("Reasons of closed trades", {"trades": "closed|{}"}),
    "gate": ("Approval gates", {v: f"gate|{{}}|{v}" for v in ("passed", "noted", "failed", "not evaluated")}),
    "limit": ("Limits of a buy", {"cut": "cut|{}", "nothing left": "skip|*|caps.{}"}),
    "reason": ("Other reasons to do nothing", {"skips": "skip|*|{}", "windows": "window|{}"}),
    "protection": (
        "Protections",
        {"on": "on|{}", "skips": "skip|*|protection.{}", "windows": "window|protection.{}"},
    ),
}
#: Headings under which a count means that a row has acted.
ACTS = {"planned", "trades", "noted", "failed", "cut", "nothing left", "skips", "windows", "on"}


def listing(kind: str, runs: Sequence[Run]) -> Section:
    """The section of a kind: a row per name, and a sentence on each that never acted."""
    title, columns = LISTINGS[kind]
    rows: list[tuple[str, ...]] = []
    acted: dict[str, bool] = {}
    for name in names(kind, runs):
        counts = [{head: run.total(key.format(name)) for head, key in columns.items()} for run in runs]
        shown = (" / ".join(map(count, one.values())) for one in counts)
        rows.append((name, word(kind, name), *shown, "<br>".join(tests_of(kind, name))))
        acted[name] = any(one[head] for one in counts for head in ACTS & columns.keys())
    never = [name for name in acted if not acted[name]]
    head = (kind, "what it is", *(run.name for run in runs), "tests")
    silent = "\n".join(why(kind, name, runs) for name in never)
    body = f"{WHAT[kind]} Columns: {' / '.join(columns)}.\n\n{table(head, rows, len(head))}\n\n{silent}"
    found = f"{title}: {listed([name for name in acted if acted[name]])} acted; {listed(never)} never did."
    return Section(title, body, (found,))


def names(kind: str, runs: Sequence[Run]) -> list[str]:
    """Names of a kind: those in the code, then others that a run has met."""
    met = [words.split("|") for run in runs for words in run.n]
    if kind == "gate":
        return list(dict.fromkeys(word[1] for word in met if word[0] == "gate"))
    if kind == "reason":
        other = (word[-1] for word in met if word[0] in ("skip", "window") and "." not in word[-1])
        return list(dict.fromkeys((*reasons(windows=False), *reasons(windows=True), *other)))
    if kind == "exit":
        other = (word[1] for word in met if word[0] == "closed")
        return list(dict.fromkeys((*EXIT_REASONS[1:], "attempt_over", *CUTS, "emergency", *other)))
    return {"rule": list(map(str, sorted(actions._SPECS))), "limit": list(limit_names())}.get(kind, list(REASONS))


def together(runs: Sequence[Run]) -> Section:
    """Bars on which the needs of more than one rule were met, and which of them acted."""
    pairs = sorted({words.partition("|")[2] for run in runs for words in run.n if re.match("behind|lost", words)})
    rows = [
        (*pair.split("|"), *(f"{run.n[f'behind|{pair}']:,} / {run.n[f'lost|{pair}']:,}" for run in runs))
        for pair in pairs
    ]
    n = {
        what: sum(run.total(what) for run in runs)
        for what in ("some", "several", "exiting", "gave_way", "wrong", "lost|*")
    }
    order = f"**not the lowest number came first on {n['wrong']:,}**" if n["wrong"] else "the lowest number came first"
    order += f", but for {n['gave_way']:,} on which a trim too small to be ordered gave way" if n["gave_way"] else ""
    found = f"The needs of some rule were met on {n['some']:,} bars, those of several on {n['several']:,}: {order}."
    found += f" On {n['lost|*']:,} of those the first could not be carried out: nothing was done."
    text = (
        f"{found} On {n['exiting']:,} bars the needs of a buy were met during an exit: then no rule acts. Columns: the "
        "first was planned / the first was skipped.\n\n"
        + table(("first", "needs met too", *(run.name for run in runs)), rows, 2)
        + f"\n\nOn every combination of needs: `{FIRST_WINS}`."
    )
    if FIRST_WINS not in tests():
        raise InputError(f"there is no test {FIRST_WINS}: write it, or name another")
    return Section("One action a bar: which rule comes first", text, (found,))


def orders(runs: Sequence[Run]) -> Section:
    """What became of the orders, by rule."""
    found = [words.split("|")[1:] for run in runs for words in run.n if words.startswith("order|")]
    rules, outcomes = (sorted({one[i] for one in found}) for i in (0, 1))
    rows = [
        (run.name, outcome, *(count(run.n[f"order|{rule}|{outcome}"]) for rule in rules))
        for run in runs
        for outcome in outcomes
    ]
    slipped = max((value for run in runs for value in run.seen["slippage"]), default=0.0)
    chosen = runs[0].settings
    most = bootstrap.paper_broker(chosen, {}, bootstrap.trading_rules(chosen, ())).costs.max_slippage_bps
    text = f"By rule. The largest slippage of a fill was {slipped:.0f} bps; beyond {most:.0f} an order is rejected.\n\n"
    return Section("What became of the orders", text + table(("set", "what became of it", *rules), rows, 2))


def walked(runs: Sequence[Run]) -> Section:
    """The backtests that the counts are of."""
    head = ("name here", "bars", "timeframes", "bars walked", "signals", "trades closed", "asked", "seconds")
    rows = [
        (
            run.name,
            f"`{Path(run.settings.feed.rpartition(':')[2]).name}`",
            ", ".join(run.settings.timeframes),
            *(count(run.report[key]) for key in ("bars", "signals")),
            *map(count, (run.report["trades"]["n"], run.n["asked"], run.report["wall_s"])),
        )
        for run in runs
    ]
    text = (
        f"Default settings, signals of `signals/<bars>/signals.jsonl`, regime drivers of `{DRIVERS}`. *Asked*: bars on "
        f"which a position was asked for an action; others can mean nothing to it.\n\n{table(head, rows, 3)}"
    )
    return Section("The backtests", text)


def page(runs: Sequence[Run], seconds: float, *, quick: bool) -> str:
    """The whole page as Markdown."""
    rules, *others = (listing(kind, runs) for kind in LISTINGS)
    sections = [walked(runs), rules, together(runs), *others, orders(runs)]
    findings = [f"- {sentence}" for section in sections for sentence in section.findings]
    took = f"This run took {plural(round(seconds), 'second')}.\n"
    parts = [OPENING, took, *([WARNING] if quick else []), "## What was found\n", "\n".join(findings) + "\n"]
    parts += [f"## {i}. {section.title}\n\n{section.body}\n" for i, section in enumerate(sections, start=1)]
    return "\n".join(parts).rstrip() + "\n"


def write(data: Path, out: Path, quick: bool) -> Path:
    """Run the backtests and write the page below ``out``; returns its path.

    Raises:
        InputError: a test or a set is missing, or the code has a part the page does not know.
    """
    began = time.perf_counter()
    for kind in LISTINGS:
        for name in names(kind, ()):
            tests_of(kind, name)
            word(kind, name)
    with tempfile.TemporaryDirectory(prefix="edgebook-") as scratch:
        runs = list(walk_all(data, scratch, quick=quick))
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(page(runs, time.perf_counter() - began, quick=quick), encoding="utf-8")
    return out / PAGE


def main(given: Sequence[str] | None = None) -> int:
    """Write the page; 0 on success, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data", help="folder of recorded sets")
    parser.add_argument("--out", type=Path, default=REPO / "docs", help="folder the page is written to (docs)")
    parser.add_argument("--quick", action="store_true", help="a few days of the simulated market instead")
    try:
        print(write(**vars(parser.parse_args(given))))
    except EdgebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The rooms of the house and who may enter: imports, cycles, clocks, sizes, docstrings, swallowed errors.

Each rule is a function from parsed files to violations, run once over the source tree and once over small planted trees
that break it, so that a rule which sees nothing is itself a red test.
"""

from __future__ import annotations

import ast
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = "edgebook"
MAX_FILE_LINES = 400  # code lines: without blanks, comments, docstrings
MAX_BODY_LINES = 60  # the same measure, of one function's body


class Row(NamedTuple):
    """What one room may import: rooms or modules of the package, and third-party packages."""

    own: tuple[str, ...] = ()
    third: tuple[str, ...] = ()


CORE = (
    "projections",
    "stage",
    "desk",
    "domain",
    "market",
    "overrides",
    "engine",
    "trading",
    "learning",
    "ports",
    "jobs",
)
TABLE: dict[str, Row] = {
    "domain": Row(),
    # How numeric kernels are compiled, and where compiled code is kept.
    "kernels": Row((), ("numba",)),
    "market": Row(("domain", "kernels"), ("numpy",)),
    "overrides": Row(("domain",), ("numpy",)),
    "engine": Row(("domain", "market", "kernels"), ("numpy",)),
    "trading": Row(("domain", "market", "engine", "overrides")),
    "learning": Row(("domain", "overrides.record", "kernels"), ("numpy", "scipy")),
    "ports": Row(("domain", "learning.sheet", "market.bars", "overrides.record")),
    # The fold from strand to rows, the workbench of a job, and the jobs: the loop on one page.
    "projections": Row(("domain", "trading", "ports")),
    "stage": Row(("domain", "trading", "ports")),
    "desk": Row(("domain", "trading", "learning", "overrides", "ports", "projections", "stage")),
    "jobs": Row(("domain", "market", "trading", "learning", "overrides", "ports", "desk")),
    "adapters": Row(
        ("domain", "market.bars", "overrides.record", "learning.lattice", "learning.sheet", "ports", "kernels"),
        # tables and migrations, files, the canonical encoder, the log, arrays of bars; clients of feeds, brokers, Spark
        # of a feed, and the simulator's kernels
        (
            "sqlalchemy",
            "alembic",
            "psycopg",
            "duckdb",
            "orjson",
            "structlog",
            "numpy",
            "ccxt",
            "apprise",
            "pyspark",
        ),
    ),
    "runtime": Row(
        (*CORE, "adapters", "api"),
        # schedule, settings, the log; arrays handed from engine to the batch reader of a backtest; its plots
        ("pydantic", "pydantic_settings", "structlog", "numpy", "matplotlib"),
    ),
    # The library: lessons from anyone's trades, without the running system.
    "api": Row(("domain", "learning", "overrides", "adapters"), ("numpy",)),
    "planted": Row(("api", "domain", "learning", "overrides", "adapters"), ("numpy",)),
    "__init__": Row(("api", "domain", "learning", "overrides", "adapters")),
    # The flow campaign looks from outside: the ingress, the address of a database, and SQL; bars for a user's commands
    # are written as the Parquet files a recorder leaves.
    "flow": Row(
        ("domain.decay", "domain.errors", "domain.levers", "domain.timeframe", "runtime.ingress", "adapters.database"),
        ("sqlalchemy", "duckdb"),
    ),
    "web": Row(("runtime", "ports", "domain"), ("fastapi", "nicegui", "starlette", "uvicorn")),
    "cli": Row(("runtime", "flow", "ports", "domain", "api", "__init__"), ("typer", "rich")),
    "__main__": Row(("cli",)),
    "run_social_trading": Row(("runtime", "ports", "domain", "cli")),
}
# Time, ids and randomness are arguments everywhere else.
RIM = {"adapters", "runtime", "flow", "web", "cli", "__main__", "run_social_trading"}
FORBIDDEN_IN_CORE = (
    "time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    "random", "secrets", "numpy.random", "uuid.uuid1", "uuid.uuid4", "os.urandom",
    "os.environ", "os.environb", "os.getenv", "os.getpid",
    "socket", "subprocess", "threading", "asyncio", "sqlite3", "urllib", "http",
)  # fmt: skip


# ------------------------------------------------------------------ reading the tree


@dataclass(frozen=True)
class Source:
    """One parsed file: its dotted module name and where to find it."""

    module: str
    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str:
        """``edgebook.market.bars`` is of room ``market``; ``edgebook`` itself of room ``__init__``."""
        if self.module == PACKAGE:
            return "__init__"
        return self.module.split(".")[1] if self.module.startswith(PACKAGE + ".") else self.module

    @property
    def is_migration(self) -> bool:
        return ".adapters.migrations." in f".{self.module}."

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """Numbers of the lines that hold code: no blank, no comment, no docstring."""
        silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in silent:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body and ast.get_docstring(node, clean=False) is not None else None
                if first is not None:
                    lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        return frozenset(lines)


def read_tree(root: Path) -> list[Source]:
    """Every module under ``root/src/edgebook``, and the root script if it is there."""
    sources = []
    for path in sorted((root / "src" / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / "src").with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources.append(Source(module, str(path.relative_to(root)), path.read_text(encoding="utf-8")))
    script = root / "run_social_trading.py"
    if script.is_file():
        sources.append(Source("run_social_trading", script.name, script.read_text(encoding="utf-8")))
    return sources


class Import(NamedTuple):
    """One imported name, resolved to a module as far as the tree tells."""

    target: str
    line: int


def imports_of(source: Source, modules: set[str]) -> Iterator[Import]:
    """Every import of a file wherever it stands: a late or a type-only import couples two rooms just the same."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(source, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield Import(name if name in modules else base, node.lineno)


def absolute_base(source: Source, node: ast.ImportFrom) -> str:
    """``from ..x import y`` in ``edgebook.a.b`` is ``edgebook.x``."""
    if node.level == 0:
        return node.module or ""
    package = source.module if source.path.endswith("__init__.py") else source.module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


# ------------------------------------------------------------------ the rules


def wrong_imports(sources: list[Source]) -> Iterator[str]:
    """Imports that the table does not list, and rooms that it does not know."""
    modules = {source.module for source in sources}
    for source in sources:
        row = TABLE.get(source.room)
        if row is None:
            yield f"{source.path}:1 room {source.room!r} is not in the table of permitted imports"
            continue
        for target, line in imports_of(source, modules):
            if not permitted(target, source.room, row):
                allowed = f"rooms {', '.join(row.own) or 'none'}; third party {', '.join(row.third) or 'none'}"
                yield f"{source.path}:{line} imports {target}; allowed for {source.room}: {allowed}"


def permitted(target: str, room: str, row: Row) -> bool:
    """Whether a file of ``room`` may import ``target``."""
    top, _, inner = target.partition(".")
    if top == PACKAGE:
        inner = inner or "__init__"
        return any(inner == own or inner.startswith(own + ".") for own in (*row.own, room))
    return top in sys.stdlib_module_names or top in row.third


def cycles(sources: list[Source]) -> Iterator[str]:
    """Groups of modules that import each other, by Tarjan's strongly connected components."""
    graph = import_graph(sources)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            cut = stack.index(node)
            found.append(stack[cut:])
            del stack[cut:]

    for module in graph:
        if module not in index:
            visit(module)
    for group in found:
        if len(group) > 1 or group[0] in graph[group[0]]:
            yield "import cycle: " + " -> ".join([*group, group[0]])


def import_graph(sources: list[Source]) -> dict[str, set[str]]:
    """Module to the modules of the tree that it imports."""
    modules = {source.module for source in sources}
    return {source.module: {i.target for i in imports_of(source, modules) if i.target in modules} for source in sources}


def halves_that_meet(sources: list[Source]) -> Iterator[str]:
    """Ways, however long, from trading to learning or back: the two meet only in strands and override records."""
    graph = import_graph(sources)
    rooms = {source.module: source.room for source in sources}
    for here, there in (("trading", "learning"), ("learning", "trading")):
        for start in (module for module, room in rooms.items() if room == here):
            way = {start: start}
            queue = [start]
            for module in queue:
                for target in graph[module] - way.keys():
                    way[target] = f"{way[module]} -> {target}"
                    queue.append(target)
            yield from (f"{here} reaches {there}: {way[m]}" for m in way if rooms[m] == there)


def hidden_inputs(sources: list[Source]) -> Iterator[str]:
    """Clocks, random numbers, environment and I/O outside the rim, under whatever alias they were imported."""
    for source in sources:
        if source.room in RIM:
            continue
        uses = dotted_uses(source.tree, imported_names(source.tree))
        hits = {(line, f) for name, line in uses for f in FORBIDDEN_IN_CORE if name == f or name.startswith(f + ".")}
        for line, name in sorted(hits):
            yield f"{source.path}:{line} uses {name}; outside {', '.join(sorted(RIM))} it has to be an argument"
        for node, inside_hash in builtin_hash_calls(source.tree):
            if not inside_hash:
                yield f"{source.path}:{node.lineno} calls hash(), which differs from process to process; use a digest"


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name to the dotted thing it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted_uses(tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Imports and attribute chains, written out in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Attribute):
            parts: list[str] = []
            head: ast.expr = node
            while isinstance(head, ast.Attribute):
                parts.append(head.attr)
                head = head.value
            if isinstance(head, ast.Name) and head.id in names:
                yield ".".join([names[head.id], *reversed(parts)]), node.lineno


def builtin_hash_calls(tree: ast.AST, inside_hash: bool = False) -> Iterator[tuple[ast.Call, bool]]:
    """Calls of the builtin ``hash`` and whether they stand in a ``__hash__``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            yield node, inside_hash
        inner = inside_hash or (isinstance(node, ast.FunctionDef) and node.name == "__hash__")
        yield from builtin_hash_calls(node, inner)


def too_large(sources: list[Source]) -> Iterator[str]:
    """Files and functions beyond the size budget; a migration's functions are a frozen record and exempt."""
    for source in sources:
        size = len(source.code_lines)
        if size > MAX_FILE_LINES:
            yield f"{source.path}:1 has {size} code lines; at most {MAX_FILE_LINES}"
        if source.is_migration:
            continue
        for function in functions(source.tree):
            body = range(function.body[0].lineno, (function.end_lineno or 0) + 1)
            lines = len(source.code_lines.intersection(body))
            if lines > MAX_BODY_LINES:
                where = f"{source.path}:{function.lineno} body of {function.name}"
                yield f"{where} has {lines} code lines; at most {MAX_BODY_LINES}"


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function of a file, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Functions and methods that others may call: no leading underscore on them or on the classes around them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def unexplained(sources: list[Source]) -> Iterator[str]:
    """Public functions without a docstring or with an unannotated parameter or return."""
    for source in sources:
        if source.is_migration:
            continue
        for function in public_functions(source.tree):
            where = f"{source.path}:{function.lineno} {function.name}"
            if ast.get_docstring(function) is None and not is_overload(function):
                yield f"{where} has no docstring"
            if function.returns is None:
                yield f"{where} does not annotate what it returns"
            every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            every += [a for a in (function.args.vararg, function.args.kwarg) if a is not None]
            for argument in every:
                if argument.annotation is None and argument.arg not in ("self", "cls"):
                    yield f"{where} does not annotate {argument.arg}"


def is_overload(function: Function) -> bool:
    """Whether the function is a type-only signature."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in function.decorator_list)


def swallowed(sources: list[Source]) -> Iterator[str]:
    """Handlers that catch everything and do nothing."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and is_blind(node.type) and all(map(does_nothing, node.body)):
                yield f"{source.path}:{node.lineno} swallows every error: record it where it can be seen"
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("suppress")
                and any(map(is_blind, node.args))
            ):
                yield f"{source.path}:{node.lineno} suppresses every error: record it where it can be seen"


def is_blind(caught: ast.expr | None) -> bool:
    """Whether a handler of this type catches all there is."""
    if isinstance(caught, ast.Tuple):
        return any(map(is_blind, caught.elts))
    return caught is None or ast.unparse(caught) in ("Exception", "BaseException")


def does_nothing(statement: ast.stmt) -> bool:
    """``pass``, ``...``, a bare string, ``continue``."""
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


RULES: tuple[Callable[[list[Source]], Iterable[str]], ...] = (
    wrong_imports, cycles, halves_that_meet, hidden_inputs, too_large, unexplained, swallowed,
)  # fmt: skip


# ------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return read_tree(REPO)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_tree_keeps_the_rule(rule, sources):
    """No file of the package breaks the rule; violations are listed as file:line and what would be right."""
    violations = list(rule(sources))

    assert not violations, "\n" + "\n".join(violations)


def test_the_package_was_found(sources):
    """The rules look at the real tree, not at an empty list."""
    assert {"edgebook", "edgebook.__main__"} <= {source.module for source in sources}


def planted(root: Path, files: dict[str, str]) -> list[Source]:
    """A tree with the given files under src/edgebook."""
    for name, text in files.items():
        path = root / "src" / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return read_tree(root)


BREACHES = [
    (
        wrong_imports,
        {"trading/a.py": "import numpy"},
        "trading/a.py:1 imports numpy; allowed for trading: rooms domain, market",
    ),
    (
        wrong_imports,
        {"learning/a.py": "from edgebook.overrides import match", "overrides/match.py": ""},
        "edgebook.overrides.match",
    ),
    (
        wrong_imports,
        {"domain/a.py": "def f():\n    from edgebook.market import bars"},
        "a.py:2 imports edgebook.market",
    ),
    (wrong_imports, {"domain/a.py": "from ..market.bars import Bar"}, "imports edgebook.market.bars"),
    (wrong_imports, {"runtime/a.py": "import edgebook.cli"}, "imports edgebook.cli"),
    (wrong_imports, {"helpers/a.py": ""}, "room 'helpers' is not in the table"),
    (
        cycles,
        {"domain/a.py": "from edgebook.domain import b", "domain/b.py": "import edgebook.domain.a"},
        "import cycle: ",
    ),
    (
        halves_that_meet,
        {"trading/a.py": "import edgebook.domain.b", "domain/b.py": "import edgebook.learning.c", "learning/c.py": ""},
        "trading reaches learning: edgebook.trading.a -> edgebook.domain.b -> edgebook.learning.c",
    ),
    (
        hidden_inputs,
        {"jobs.py": "from datetime import datetime as d\nx = d.now()"},
        "jobs.py:2 uses datetime.datetime.now",
    ),
    (hidden_inputs, {"market/a.py": "import numpy as np\nx = np.random.rand()"}, "market/a.py:2 uses numpy.random"),
    (hidden_inputs, {"engine/a.py": "from time import time"}, "engine/a.py:1 uses time;"),
    (hidden_inputs, {"domain/a.py": "import os\nx = os.environ['HOME']"}, "uses os.environ"),
    (hidden_inputs, {"domain/a.py": "from uuid import uuid4"}, "uses uuid.uuid4"),
    (hidden_inputs, {"domain/a.py": "x = hash('a')"}, "a.py:1 calls hash()"),
    (too_large, {"domain/a.py": "x = 1\n" * 401}, "has 401 code lines; at most 400"),
    (too_large, {"domain/a.py": "def f():\n" + "    x = 1\n" * 61}, "body of f has 61 code lines; at most 60"),
    (unexplained, {"domain/a.py": "def f() -> None:\n    x = 1"}, "a.py:1 f has no docstring"),
    (unexplained, {"domain/a.py": "class C:\n    def f(self, a) -> None:\n        '''d'''"}, "f does not annotate a"),
    (unexplained, {"domain/a.py": "def f(a: int):\n    '''d'''"}, "f does not annotate what it returns"),
    (swallowed, {"domain/a.py": "try:\n    x = 1\nexcept Exception:\n    pass"}, "a.py:3 swallows every error"),
    (
        swallowed,
        {"domain/a.py": "try:\n    x = 1\nexcept (ValueError, BaseException):\n    ..."},
        "swallows every error",
    ),
    (
        swallowed,
        {"domain/a.py": "import contextlib\nwith contextlib.suppress(Exception):\n    x = 1"},
        "suppresses every error",
    ),
]


@pytest.mark.parametrize(
    ("rule", "files", "complaint"), BREACHES, ids=[f"{b[0].__name__}-{b[2][:40]}" for b in BREACHES]
)
def test_a_breach_is_seen(rule, files, complaint, tmp_path):
    """Each rule reports a planted breach, and says where it stands."""
    violations = list(rule(planted(tmp_path, files)))

    assert len(violations) == 1
    assert complaint in violations[0]


KEPT = {
    "__init__.py": "from edgebook import api",
    "api.py": "import numpy\nfrom edgebook.learning import lessons",
    "domain/words.py": """
        '''Text.'''
        from datetime import datetime, timezone
        import uuid

        class _Hidden:
            def f(self, a):
                return a

        def day(ts: int) -> str:
            '''A docstring
            of many
            lines.'''
            # and a comment
            return str(datetime.fromtimestamp(ts, timezone.utc)) + str(uuid.uuid5(uuid.NAMESPACE_OID, 'a'))

        class Key:
            def __hash__(self) -> int:
                return hash(('a',))

        try:
            x = 1
        except ValueError:
            pass
    """,
    "overrides/record.py": "from edgebook.domain.words import day",
    "learning/lessons.py": "import scipy.stats\nfrom edgebook.learning import edge",
    "learning/edge.py": "from edgebook.overrides import record",
    "adapters/clock.py": "import time\nimport os\nx = time.time(), os.environ",
    "cli.py": "from edgebook import __version__\nimport typer\nfrom edgebook.runtime import settings",
    "runtime/settings.py": "import pydantic_settings, edgebook.adapters.clock",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_allowed_passes(rule, tmp_path):
    """A tree that keeps to the table gives no violation, so the rules do not cry wolf."""
    assert list(rule(planted(tmp_path, KEPT))) == []


def test_code_lines_leave_out_blanks_comments_and_docstrings(tmp_path):
    """The size budget counts code, never explanation: import, class, def and return are the four lines here."""
    text = (
        '"""Doc."""\n\nimport os  # why\n\n\nclass A:\n    """Doc\n\n    more."""\n\n'
        "    def f(self):\n        # note\n        return os\n"
    )
    (source,) = planted(tmp_path, {"domain/a.py": text})

    assert source.code_lines == {3, 6, 11, 13}

"""Eyes on a database: questions in SQL that both databases understand, asked read-only, while the system runs.

JSON columns are asked through six words, written into the query and expanded for each database, so that what a
transcript shows can be pasted into ``sqlite3`` or ``psql``:

- ``$text(content, summary.rr)`` and ``$num(...)`` and ``$flag(...)``: one value as text, number, truth;
- ``$len(content, actions)``: how many elements an array has;
- ``$each(content, nudges, n)``: a table ``n`` with a column ``value``, one row per element, for the FROM clause;
- ``$pairs(content, levers, p)``: the same of an object, with the columns ``key`` and ``value``.

A path is names and numbers between dots; ``.`` alone is the whole column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from edgebook.adapters.database import open_engine, parse_address
from edgebook.domain.errors import PortError

Rows = list[tuple[Any, ...]]

_WORD = re.compile(r"\$(text|num|flag|len|each|pairs)\(([^()]+)\)")
_VALUE = re.compile(r":([a-z_]+)\b")


def _lite(path: str) -> str:
    steps = (f"[{step}]" if step.isdigit() else f".{step}" for step in path.split(".") if step)
    return "'$" + "".join(steps) + "'"


def _post(column: str, path: str, arrow: str = "#>>") -> str:
    return f"({column}::jsonb {arrow} '{{{path.strip('.').replace('.', ',')}}}')"


_SQLITE: dict[str, Callable[..., str]] = {
    "text": lambda c, p: f"json_extract({c}, {_lite(p)})",
    "num": lambda c, p: f"CAST(json_extract({c}, {_lite(p)}) AS REAL)",
    "flag": lambda c, p: f"(json_extract({c}, {_lite(p)}) = 1)",
    "len": lambda c, p: f"json_array_length({c}, {_lite(p)})",
    "each": lambda c, p, name: f"json_each({c}, {_lite(p)}) AS {name}",
    "pairs": lambda c, p, name: f"json_each({c}, {_lite(p)}) AS {name}",
}
_POSTGRESQL: dict[str, Callable[..., str]] = {
    "text": _post,
    "num": lambda c, p: f"{_post(c, p)}::float8",
    "flag": lambda c, p: f"{_post(c, p)}::boolean",
    "len": lambda c, p: f"jsonb_array_length({_post(c, p, '#>')})",
    "each": lambda c, p, name: f"jsonb_array_elements({_post(c, p, '#>')}) AS {name}(value)",
    "pairs": lambda c, p, name: f"jsonb_each({_post(c, p, '#>')}) AS {name}(key, value)",
}


def expanded(query: str, dialect: str) -> str:
    """A query with its JSON words spelt out for ``sqlite`` or ``postgresql``.

    >>> expanded("SELECT $num(content, summary.rr) FROM ad_strands", "sqlite")
    "SELECT CAST(json_extract(content, '$.summary.rr') AS REAL) FROM ad_strands"
    >>> expanded("SELECT $text(s.content, actions.0.rule) FROM ad_strands s", "postgresql")
    "SELECT (s.content::jsonb #>> '{actions,0,rule}') FROM ad_strands s"
    """
    words = _SQLITE if dialect == "sqlite" else _POSTGRESQL
    return _WORD.sub(lambda m: words[m[1]](*(part.strip() for part in m[2].split(","))), query)


def spelt(query: str, dialect: str, values: Mapping[str, Any]) -> str:
    """The query as a person would type it: words expanded, values written in, on one line.

    >>> spelt("SELECT id FROM ad_strands WHERE kind = :kind", "sqlite", {"kind": "pm_action"})
    "SELECT id FROM ad_strands WHERE kind = 'pm_action'"
    """

    def literal(match: re.Match[str]) -> str:
        value = values.get(match[1], match[0])
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) and match[1] in values else str(value)

    return _VALUE.sub(literal, expanded(" ".join(query.split()), dialect).replace("::", "\0")).replace("\0", "::")


class Book:
    """One database, read-only; every question sees the newest commit.

    Raises:
        PortError: (on asking) the database cannot be read, or the query is wrong.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = parse_address(url)
        self.dialect = self._address.dialect

    def ask(self, query: str, **values: Any) -> Rows:
        """The rows of a query."""
        wanted = text(expanded(query, self.dialect).replace("::", r"\:\:"))
        try:
            with open_engine(self._address, read_only=True).connect() as connection:
                return [tuple(row) for row in connection.execute(wanted, values).fetchall()]
        except DBAPIError as error:
            raise PortError(f"{self._address.label}: {error.orig}: {expanded(query, self.dialect)}") from error

    def spelt(self, query: str, **values: Any) -> str:
        """The query as a person would type it."""
        return spelt(query, self.dialect, values)

"""Questions in SQL that both databases understand, asked by somebody who cannot write."""

from __future__ import annotations

import json
import sqlite3

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from edgebook.adapters.database import open_engine, parse_address
from edgebook.domain.errors import PortError
from edgebook.flow.book import Book, expanded, spelt

CONTENT = {
    "name": "it's",
    "rr": 1.5,
    "none": None,
    "on": True,
    "off": False,
    "summary": {"pnl": "12.25", "deep": {"n": 3}},
    "actions": [{"kind": "entry", "n": 1}, {"kind": "exit", "n": 2}],
    "words": ["a", "b"],
    "levers": {"ts_min": 0.6, "halo": 1.0},
}


def put(url, *documents):
    """Rows of the table meta whose content is these documents; keys are k0, k1 ..."""
    engine = open_engine(parse_address(url), read_only=False)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM meta"))
        for i, document in enumerate(documents):
            row = {"k": f"k{i}", "n": i, "c": json.dumps(document)}
            connection.execute(text("INSERT INTO meta (key, row_no, value, content) VALUES (:k, :n, '', :c)"), row)
    engine.dispose()


def typed(url, query):
    """The rows of a query as a person at sqlite3 or psql gets them."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            return [tuple(row) for row in connection.execute(query)]
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("SELECT $text(content, name) FROM meta", [("it's",)]),
        ("SELECT $text(content, summary.pnl) FROM meta", [("12.25",)]),
        ("SELECT $text(content, words.1) FROM meta", [("b",)]),
        ("SELECT $text(content, nowhere), $text(content, none) FROM meta", [(None, None)]),
        ("SELECT $num(content, rr), $num(content, summary.deep.n) FROM meta", [(1.5, 3.0)]),
        ("SELECT $num(content, summary.pnl) FROM meta", [(12.25,)]),
        ("SELECT $flag(content, on), $flag(content, off) FROM meta", [(True, False)]),
        ("SELECT $len(content, actions), $len(content, words) FROM meta", [(2, 2)]),
        ("SELECT $text(a.value, kind) FROM meta, $each(content, actions, a) ORDER BY $num(a.value, n)",
         [("entry",), ("exit",)]),
        ("SELECT p.key FROM meta, $pairs(content, levers, p) ORDER BY p.key", [("halo",), ("ts_min",)]),
        ("SELECT count(*) FROM meta, $pairs(content, ., p)", [(len(CONTENT),)]),
        ("SELECT key FROM meta WHERE $flag(content, on) AND $text(content, name) = :name", [("k0",)]),
        ("SELECT $num(content, rr) FROM meta WHERE $num(content, rr) > 1 AND NOT $flag(content, off)", [(1.5,)]),
    ],
)  # fmt: skip
def test_a_word_means_the_same_on_both_databases(url, query, wanted):
    """The answer of each, and the same when the query is typed as a transcript shows it."""
    put(url, CONTENT)
    book = Book(url)

    found = book.ask(query, name="it's") if ":name" in query else book.ask(query)

    assert found == wanted
    assert typed(url, book.spelt(query, name="it's")) == wanted


_VALUES = (
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text("ab'%:é", max_size=4)
)
_NAMES = st.sampled_from(["a", "b", "c"])
_DOCUMENTS = st.dictionaries(
    _NAMES, _VALUES | st.lists(_VALUES, max_size=3) | st.dictionaries(_NAMES, _VALUES, max_size=3)
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    documents=st.lists(_DOCUMENTS, min_size=1, max_size=4), path=st.lists(_NAMES | st.just("0"), min_size=1, max_size=2)
)
def test_paths_find_what_a_plain_walk_finds(url, documents, path):
    """Numbers, texts and arrays at any path; what is not there is NULL."""
    put(url, *documents)
    book, dotted = Book(url), ".".join(path)
    found = [_walk(document, path) for document in documents]
    numbers = [None if isinstance(v, str | bool | list | dict | None) else float(v) for v in found]
    keys = {i: f"k{i}" for i in range(len(documents))}
    with_number = [keys[i] for i, v in enumerate(numbers) if v is not None]
    with_text = [keys[i] for i, v in enumerate(found) if isinstance(v, str)]
    with_list = [keys[i] for i, v in enumerate(found) if isinstance(v, list)]

    for i, key in enumerate(with_number):
        rows = book.ask(f"SELECT $num(content, {dotted}) FROM meta WHERE key = :key", key=key)
        assert rows == [(pytest.approx([n for n in numbers if n is not None][i]),)]
    for key in with_text:
        rows = book.ask(f"SELECT $text(content, {dotted}) FROM meta WHERE key = :key", key=key)
        assert rows == [(found[int(key[1:])],)]
    for key in with_list:
        rows = book.ask(f"SELECT $len(content, {dotted}) FROM meta WHERE key = :key", key=key)
        each = f"SELECT count(*) FROM meta, $each(content, {dotted}, e) WHERE meta.key = :key"
        assert rows == book.ask(each, key=key) == [(len(found[int(key[1:])]),)]
    absent = book.ask(f"SELECT count(*) FROM meta WHERE $text(content, {dotted}) IS NULL")
    assert absent == [(sum(v is None for v in found),)]


def _walk(document, path):
    """The value at a path, None where there is none."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


# ---------------------------------------------------------------- asking


def test_every_question_sees_the_newest_commit(url):
    """Nothing is kept between two questions."""
    put(url, CONTENT)
    book = Book(url)
    assert book.ask("SELECT count(*) FROM meta") == [(1,)]
    put(url, CONTENT, CONTENT)
    assert book.ask("SELECT count(*) FROM meta") == [(2,)]


def test_a_book_cannot_be_written_in(url):
    """It looks on; nothing of a run is its doing."""
    put(url, CONTENT)
    with pytest.raises(PortError):
        Book(url).ask("INSERT INTO meta (key, row_no, value, content) VALUES ('x', 9, '', '{}') RETURNING key")
    assert Book(url).ask("SELECT count(*) FROM meta") == [(1,)]


def test_a_wrong_query_is_told_with_the_database_and_the_query(url):
    """Never an empty answer."""
    with pytest.raises(PortError, match=r"(?s)nosuch.*SELECT nosuch FROM meta"):
        Book(url).ask("SELECT nosuch FROM meta")


def test_values_are_written_into_the_query_as_literals():
    """Quotes are doubled; what is no value stays, casts too."""
    said = spelt("SELECT $num(c, a)\n FROM t WHERE x = :x AND n > :n AND y = :y", "postgresql", {"x": "o'b", "n": 3})

    assert said == "SELECT (c::jsonb #>> '{a}')::float8 FROM t WHERE x = 'o''b' AND n > 3 AND y = :y"


def test_a_word_that_is_none_stays_as_it_is():
    """Only the five are expanded, and each may stand several times."""
    assert expanded("SELECT $sum(a), '$5'", "sqlite") == "SELECT $sum(a), '$5'"
    assert (
        expanded("$len(c, a) + $len(c, b.0)", "sqlite")
        == "json_array_length(c, '$.a') + json_array_length(c, '$.b[0]')"
    )

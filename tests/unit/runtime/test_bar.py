"""One bar explained: the last that had closed, with its history and without its future."""

from __future__ import annotations

import json

import duckdb
import pytest
from tests.unit.engine.test_columns import market

from edgebook.domain.errors import InputError
from edgebook.engine.columns import advance, reading
from edgebook.engine.gates import BASE_GATES, evaluate
from edgebook.engine.payload import payload
from edgebook.runtime.bar import explain_bar


@pytest.fixture(scope="module")
def bars():
    """Hours of a market that visits every state."""
    return market(11)


@pytest.fixture(scope="module")
def path(bars, tmp_path_factory):
    """The same hours as a file."""
    target = tmp_path_factory.mktemp("bars") / "X-1h.parquet"
    columns = {"timestamp": bars.ts_open} | {n: getattr(bars, n) for n in ("open", "high", "low", "close", "volume")}
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE b (timestamp BIGINT, open DOUBLE, high DOUBLE, low DOUBLE, close DOUBLE, "
                           "volume DOUBLE)")  # fmt: skip
        connection.executemany("INSERT INTO b VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute(f"COPY (SELECT * REPLACE (make_timestamp(timestamp) AS timestamp) FROM b) TO '{target}'")
    return target


@pytest.mark.parametrize("index", [0, 1, 400, 1500, 2599])
def test_a_bar_is_explained_as_the_whole_series_would(bars, path, index):
    """The payload of the bar itself, although later bars are in the file."""
    columns, _ = advance(None, bars)
    now = reading(columns, index)
    before = reading(columns, index - 1) if index else None
    earlier = (before, evaluate(before, BASE_GATES)) if before else None
    wanted = payload(now, evaluate(now, BASE_GATES), earlier)
    assert json.dumps(explain_bar(path, int(bars.close_ts[index]))) == json.dumps(wanted)


def test_between_two_closes_it_is_the_bar_that_has_closed(bars, path):
    """A bar that is still open is not seen."""
    assert explain_bar(path, int(bars.close_ts[500]) + 3_599_999_999)["bar_index"] == 500


def test_before_the_first_close_there_is_nothing_to_say(bars, path):
    """One line that names the file and the moment."""
    with pytest.raises(InputError, match=r"X-1h\.parquet: no bar had closed at "):
        explain_bar(path, int(bars.close_ts[0]) - 1)

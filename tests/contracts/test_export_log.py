"""What ``edgebook export`` leaves in a folder: every row of the period once, whole files, a manifest that is true."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.examples import every_kind, strand
from tests.contracts.units import DAY, START, random_units

from edgebook.adapters import export_log as module
from edgebook.adapters.codec import COLUMNS
from edgebook.adapters.export_log import DIMS, WHOLE_DIMS, day_number, day_text, export_log
from edgebook.adapters.sql import SqlStore
from edgebook.adapters.tables import REVISION
from edgebook.domain.errors import InputError
from edgebook.domain.evidence import Observation
from edgebook.domain.scope import DM_SCHEMA, PM_SCHEMA
from edgebook.runtime.export import export_book

UNITS = random_units(300)
STRANDS = [*every_kind(), *(strand(n, ts_event=(START + n % 5) * DAY + n) for n in range(100, 160))]


def fill(url, strands=STRANDS, units=UNITS):
    with SqlStore(url).writer() as uow:
        uow.log.append(strands)
        for unit in units:
            uow.observations.put(unit)
        uow.commit()
    return url


@pytest.fixture
def book(url):
    """A database with strands of several days and units of evidence."""
    return fill(url)


@pytest.fixture
def sqlite_book(sqlite_url):
    return fill(sqlite_url)


def table(out, name):
    """Rows of one dataset as dicts, the partition's day among them as ``_day``."""
    found = duckdb.sql(
        f"SELECT * EXCLUDE (day), CAST(day AS VARCHAR) AS _day FROM"
        f" read_parquet('{out}/{name}/*/part-0.parquet', hive_partitioning = true)"
    )
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def stored(url):
    with SqlStore(url).shelf() as shelf:
        return [dict(zip(COLUMNS, row, strict=True)) for row in shelf.stored()]


def span(first, end, seq):
    return {"from": day_text(first), "to": day_text(end), "seq": seq}


def files(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.parquet")}


# ---------------------------------------------------------------- what is written


def test_every_strand_is_there_once_with_every_column(book, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)  # many chunks

    export_log(book, tmp_path / "out")

    found = sorted(table(tmp_path / "out", "strands"), key=lambda row: row["seq"])
    assert [day_number(row.pop("_day")) for row in found] == [row["ts_event"] // DAY for row in found]
    assert found == stored(book)


def test_every_unit_of_evidence_is_there_once_with_its_scope_as_columns(book, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)

    export_log(book, tmp_path / "out")

    found = {
        (row["module"], row["action_category"], row["unit_id"]): row for row in table(tmp_path / "out", "observations")
    }
    assert len(found) == len(UNITS)
    for unit in UNITS:
        row = found[unit.module, unit.action_category, unit.unit_id]
        assert day_number(row.pop("_day")) == row.pop("entry_day") == unit.day
        assert {dim: row.pop(f"dim_{dim}") for dim in DIMS} == {dim: unit.scope.get(dim) for dim in DIMS}
        assert row == {name: getattr(unit, name) for name in row}


def test_no_field_and_no_dim_is_forgotten(book, tmp_path):
    export_log(book, tmp_path / "out")

    row = table(tmp_path / "out", "observations")[0]
    fields = {field.name for field in dataclasses.fields(Observation)} - {"scope", "parts", "day"}
    assert fields | {"entry_day", "_day"} | {f"dim_{d}" for d in (*PM_SCHEMA.dims, *DM_SCHEMA.dims)} == set(row)
    assert set(DIMS) >= WHOLE_DIMS


def test_the_manifest_counts_what_is_there(book, tmp_path):
    done = export_log(book, tmp_path / "out")

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    head = stored(book)[-1]
    assert manifest == done.manifest
    assert (manifest["seq"], manifest["log_head"], manifest["schema"]) == (head["seq"], head["hash"], REVISION)
    for name in ("strands", "observations"):
        rows = table(tmp_path / "out", name)
        told = manifest["datasets"][name]
        assert told["rows"] == done.rows[name] == len(rows)
        by_day = {day: sum(row["_day"] == day for row in rows) for day in {row["_day"] for row in rows}}
        assert {day: one["rows"] for day, one in told["days"].items()} == by_day
        assert {one["seq"] for one in told["days"].values()} == {head["seq"]}


def test_an_empty_book_gives_a_manifest_of_nothing(url, tmp_path):
    fill(url, strands=[], units=[])

    manifest = export_log(url, tmp_path / "new" / "out").manifest

    assert (manifest["seq"], manifest["covered"]) == (0, [])
    assert [one["rows"] for one in manifest["datasets"].values()] == [0, 0]


def test_a_value_that_its_column_cannot_hold_is_named(sqlite_url, tmp_path):
    odd = dataclasses.replace(UNITS[0], module="pm", scope={"bucket_rank_position": "first"})
    fill(sqlite_url, units=[odd])

    with pytest.raises(InputError, match=r"unit-0: bucket_rank_position is 'first', a column of a whole number"):
        export_log(sqlite_url, tmp_path / "out")


# ---------------------------------------------------------------- periods and runs


def test_a_period_has_whole_days_and_leaves_its_end_out(book, tmp_path):
    done = export_log(book, tmp_path / "out", START + 1, START + 3)

    for name in ("strands", "observations"):
        days = {day_number(row["_day"]) for row in table(tmp_path / "out", name)}
        assert days == {START + 1, START + 2}
    assert done.rows["observations"] == sum(START + 1 <= unit.day < START + 3 for unit in UNITS)
    assert done.manifest["covered"] == [span(START + 1, START + 3, len(STRANDS))]


def test_periods_add_up_to_the_whole(sqlite_book, tmp_path):
    export_log(sqlite_book, tmp_path / "whole")
    export_log(sqlite_book, tmp_path / "out", START + 2, START + 4)
    apart = export_log(sqlite_book, tmp_path / "out", None, START).manifest
    for first, end in ((START, START + 2), (START + 4, None), (START + 3, START + 9)):
        export_log(sqlite_book, tmp_path / "out", first, end)

    assert len(apart["covered"]) == 2
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    whole, parts = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("whole", "out"))
    assert parts["covered"] == whole["covered"]
    assert parts["datasets"] == whole["datasets"]


def test_a_day_is_complete_only_as_of_the_strand_it_was_exported_at(book, tmp_path):
    out, seq = tmp_path / "out", len(STRANDS)
    first = export_log(book, out).manifest
    ran_on = [strand(n, ts_event=(START + n % 8) * DAY + n) for n in range(1000, 1040)]
    fill(book, strands=ran_on, units=[])

    ahead = export_log(book, out, day_number("2030-01-01"), day_number("2030-02-01")).manifest

    assert ahead["seq"] == seq + 40
    assert ahead["covered"] == first["covered"]
    assert {one["seq"] for one in ahead["covered"]} == {seq}
    assert ahead["datasets"] == first["datasets"]

    start, end = (day_number(first["covered"][0][name]) for name in ("from", "to"))
    middle = export_log(book, out, START + 1, START + 3).manifest
    assert middle["covered"] == [
        span(start, START + 1, seq),
        span(START + 1, START + 3, seq + 40),
        span(START + 3, end, seq),
    ]
    for one in middle["covered"]:
        days = range(day_number(one["from"]), day_number(one["to"]))
        held = sorted(row["seq"] for row in table(out, "strands") if row["ts_event"] // DAY in days)
        assert held == sorted(
            row["seq"] for row in stored(book) if row["ts_event"] // DAY in days and row["seq"] <= one["seq"]
        )

    whole = export_log(book, out).manifest
    assert whole["covered"] == [span(start, max(end, START + 8), seq + 40)]


_DAYS = st.none() | st.integers(0, 12)
_PERIODS = st.tuples(_DAYS, _DAYS).filter(lambda period: None in period or period[0] < period[1])


@given(st.lists(st.tuples(_PERIODS, st.integers(0, 3)), max_size=8))
def test_the_covered_spans_are_those_of_a_walk_over_every_day(runs):
    """Each run writes a period when the log, from day 2 on, has grown by some days; the oracle is one seq per day."""
    days: dict[int, int] = {}
    manifest, end = None, 3
    for seq, ((first, last), grown) in enumerate(runs, 1):
        end += grown
        for day in range(-5, 40):
            if (first is None or day >= first) and (last is None or day < last):
                days.pop(day, None)
                if 2 <= day < end:
                    days[day] = seq
        manifest = {"covered": module._covered(manifest, module._Period(first, last), module._Head(seq, "", 2, end))}
        spans = [(day_number(one["from"]), day_number(one["to"]), one["seq"]) for one in manifest["covered"]]
        assert [(day, n) for a, b, n in spans for day in range(a, b)] == sorted(days.items())
        assert all(a[1] < b[0] or a[2] != b[2] for a, b in itertools.pairwise(spans))


def test_a_second_run_changes_nothing_and_a_later_one_adds(book, tmp_path):
    out = tmp_path / "out"
    export_log(book, out)
    before = files(out)
    export_log(book, out)
    assert files(out) == before

    changed = dataclasses.replace(UNITS[0], y=1.25)
    fill(book, strands=[strand(999, ts_event=(START + 1) * DAY)], units=[changed])
    export_log(book, out)

    assert max(row["seq"] for row in table(out, "strands")) == len(STRANDS) + 1
    assert [row["y"] for row in table(out, "observations") if row["unit_id"] == changed.unit_id] == [1.25]
    assert len(table(out, "observations")) == len(UNITS)


def test_a_day_that_has_no_rows_any_more_goes(sqlite_book, tmp_path):
    moved = dataclasses.replace(UNITS[0], day=START + 1000, opened_at=(START + 1000) * DAY)
    fill(sqlite_book, strands=[], units=[moved])
    out = tmp_path / "out"
    export_log(sqlite_book, out)
    fill(sqlite_book, strands=[], units=[UNITS[0]])

    done = export_log(sqlite_book, out)

    assert done.removed == {"strands": 0, "observations": 1}
    assert len(table(out, "observations")) == len(UNITS)
    assert day_text(START + 1000) not in done.manifest["datasets"]["observations"]["days"]


def test_a_run_that_ends_midway_leaves_whole_files_and_the_next_one_mends(sqlite_book, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_log(sqlite_book, out)
    changed = [dataclasses.replace(unit, y=unit.y + 1) for unit in UNITS]
    fill(sqlite_book, strands=[], units=changed)
    place, calls = module._place, []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) > 12:
            raise KeyboardInterrupt
        place(*arguments)

    monkeypatch.setattr(module, "_place", stop)
    with pytest.raises(KeyboardInterrupt):
        export_log(sqlite_book, out)
    assert len(table(out, "observations")) == len(UNITS)
    assert not (out / ".export.staging").exists()
    monkeypatch.undo()

    (out / ".export.staging").mkdir()  # as a killed process leaves it
    (out / ".export.staging" / "part-0.parquet").write_bytes(b"half")
    export_log(sqlite_book, out)

    assert sorted(row["y"] for row in table(out, "observations")) == sorted(unit.y for unit in changed)
    assert not (out / ".export.staging").exists()


def test_the_database_is_read_while_its_writer_works(book, tmp_path):
    with SqlStore(book).writer() as uow:
        uow.log.append([strand(999)])
        done = export_log(book, tmp_path / "out")  # what is not committed is not there
        uow.commit()

    assert done.rows["strands"] == len(STRANDS)


# ---------------------------------------------------------------- what is refused


def test_a_folder_of_something_else_is_refused_and_left_alone(sqlite_book, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match="holds files that are no export"):
        export_log(sqlite_book, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_the_export_of_another_book_is_refused(sqlite_book, tmp_path):
    other = fill(f"sqlite:///{tmp_path / 'other.db'}", strands=STRANDS[1:])
    export_log(other, tmp_path / "out")
    before = files(tmp_path / "out")

    with pytest.raises(InputError, match="another book"):
        export_log(sqlite_book, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_an_export_of_an_older_schema_is_refused(sqlite_book, tmp_path):
    export_log(sqlite_book, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "0001"}))

    with pytest.raises(InputError, match="schema 0001; this release writes"):
        export_log(sqlite_book, tmp_path / "out")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}'])
def test_a_broken_manifest_is_refused(sqlite_book, tmp_path, text):
    export_log(sqlite_book, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(text)

    with pytest.raises(InputError, match="not the manifest of an export"):
        export_log(sqlite_book, tmp_path / "out")


def test_two_exports_into_one_folder_are_refused(sqlite_book, tmp_path):
    export_log(sqlite_book, tmp_path / "out")
    handle = os.open(tmp_path / "out" / ".export.lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match="another export is writing"):
            export_log(sqlite_book, tmp_path / "out")
    finally:
        os.close(handle)


def test_a_folder_that_cannot_be_made_is_told(sqlite_book, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="cannot write into"):
        export_log(sqlite_book, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("period", "said"),
    [((5 * DAY, 5 * DAY), "is empty"), ((DAY + 1, None), "--from must be a day"), ((None, 7), "--to must be a day")],
)
def test_periods_are_whole_days(sqlite_book, tmp_path, period, said):
    with pytest.raises(InputError, match=said):
        export_book(sqlite_book, tmp_path / "out", *period)
    assert not (tmp_path / "out").exists()


def test_a_database_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no such database"):
        export_log(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""What every store promises, run on memory, SQLite and PostgreSQL alike (ports.UnitOfWork, StrandLog, Table, Store)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from tests.contracts.examples import NOON, ROWS, every_kind, strand

from edgebook.adapters import log as log_module
from edgebook.adapters.codec import GENESIS
from edgebook.adapters.log import verify
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.tables import SPECS, TABLES
from edgebook.domain.errors import PortError, StrandError
from edgebook.domain.evidence import StatRow, Watermark
from edgebook.domain.strands import PAYLOADS


def stat(number: int, family: str = "trend", n: int = 1) -> StatRow:
    return StatRow("pm", family, "entry", 1, f"{number:04d}", {"timeframe": "1h"}, n, {"sum": n * 0.5}, 1, 2)


def strands(count: int, start: int = 1) -> list:
    return [strand(number) for number in range(start, start + count)]


# ---------------------------------------------------------------- the log


def test_append_numbers_without_gaps_and_chains_hashes(store):
    """seq counts from 1 across commits; every strand carries the hash of the chain; the head is the last one's."""
    with store.writer() as uow:
        assert uow.log.head == (0, GENESIS)
        first = uow.log.append(strands(3))
        uow.commit()
        second = uow.log.append(strands(2, start=4))
        assert [s.seq for s in [*first, *second]] == [1, 2, 3, 4, 5]
        assert len({s.hash for s in [*first, *second]}) == 5
        assert uow.log.head == (5, second[-1].hash)
        uow.commit()
    with store.reader() as uow:
        assert uow.log.head == (5, second[-1].hash)
        assert list(uow.log.read(0)) == [*first, *second]


def test_a_strand_delivered_twice_is_written_once(store):
    """The same id with the same content returns the stored strand: in one call, one transaction, a later life."""
    with store.writer() as uow:
        one, again = uow.log.append([strand(1), strand(1)])
        assert one == again
        assert uow.log.append([strand(1)]) == [one]
        uow.commit()
    with store.writer() as uow:
        later = replace(strand(1), ts_recorded=NOON + 999)  # a redelivery is recorded later: still the same fact
        assert uow.log.append([later, strand(2)])[0] == one
        uow.commit()
        assert uow.log.head[0] == 2


@pytest.mark.parametrize("reopened", [False, True])
def test_the_same_id_with_other_content_is_refused(store, reopened):
    """Two facts cannot share an id; the error names what differs, and nothing of that append stays."""
    with store.writer() as uow:
        uow.log.append([strand(1)])
        uow.commit()
        if not reopened:
            refuse_other_content(uow)
    if reopened:
        with store.writer() as uow:
            refuse_other_content(uow)


def refuse_other_content(uow):
    other = replace(strand(1), symbol="BTCUSDT", payload=replace(strand(1).payload, price=9.0))
    with pytest.raises(StrandError, match=r"seq 1\) with other symbol, payload.price") as caught:
        uow.log.append([strand(2), other])
    assert caught.value.correlation_id == other.correlation_id
    assert uow.log.head[0] == 1
    assert uow.log.get(strand(2).id) is None
    assert uow.log.append([strand(2)])[0].seq == 2


def test_whole_numbers_in_number_fields_are_the_same_fact_after_a_reload(store):
    """1 and 1.0 are one price: JSON writes them differently, yet a redelivery after a restart is no contradiction."""
    whole = replace(strand(1), payload=replace(strand(1).payload, price=1))
    with store.writer() as uow:
        uow.log.append([whole])
        uow.commit()
    with store.writer() as uow:
        assert uow.log.append([whole])[0].seq == 1
    assert verify(store).ok


def test_read_gives_order_kinds_and_limit(store):
    """read starts after a seq, keeps order, filters kinds, stops at the limit, and includes the uncommitted."""
    mixed = every_kind() + strands(20, start=100)
    with store.writer() as uow:
        uow.log.append(mixed[:10])
        uow.commit()
        uow.log.append(mixed[10:])
        assert [s.id for s in uow.log.read(0)] == [s.id for s in mixed]
        assert [s.seq for s in uow.log.read(30)] == list(range(31, len(mixed) + 1))
        assert [s.seq for s in uow.log.read(3, limit=4)] == [4, 5, 6, 7]
        assert list(uow.log.read(3, limit=0)) == []
        filled = [s.seq for s in uow.log.read(0, kinds=["order_filled", "pm_action"], limit=5)]
        assert filled == [n for n, s in enumerate(mixed, 1) if s.kind in ("order_filled", "pm_action")][:5]
        assert list(uow.log.read(0, kinds=[])) == []
        assert list(uow.log.read(10_000)) == []
        uow.commit()
    with store.reader() as uow:
        assert [s.seq for s in uow.log.read(0, kinds=iter(["pm_action"]))] == [
            n for n, s in enumerate(mixed, 1) if s.kind == "pm_action"
        ]
        assert [s.seq for s in uow.log.read(30, limit=3)] == [31, 32, 33]


def test_read_ends_at_the_head_of_its_call(store):
    """A job may append while it reads: it does not meet its own strands."""
    with store.writer() as uow:
        uow.log.append(strands(3))
        seen = []
        for one in uow.log.read(0):
            seen.append(one.seq)
            uow.log.append([strand(one.seq + 100)])
            uow.commit()
        assert seen == [1, 2, 3]
        assert uow.log.head[0] == 6


def test_get_and_find(store):
    """get finds by id; find by packet, position and trade, all given conditions together, in order of seq."""
    with store.writer() as uow:
        uow.log.append(strands(10))
        uow.commit()
        uow.log.append(strands(10, start=11))
        check_find(uow.log)
        uow.commit()
    with store.reader() as uow:
        check_find(uow.log)
    with store.writer() as uow:
        check_find(uow.log)
        uow.log.append([strand(22)])
        assert [s.seq for s in uow.log.find(position_id="pos-1")] == [1, 4, 7, 10, 13, 16, 19, 21]


def check_find(log):
    assert log.get(strand(7).id).seq == 7
    assert log.get("nobody") is None
    assert [s.seq for s in log.find(position_id="pos-1")] == [1, 4, 7, 10, 13, 16, 19]
    assert [s.seq for s in log.find(correlation_id="sig-3", position_id="pos-1")] == [7, 19]
    assert [s.seq for s in log.find(trade_id="trade-0")] == [5, 10, 15, 20]
    assert list(log.find(trade_id="trade-9")) == []
    with pytest.raises(PortError, match="find needs"):
        log.find()


def test_counts_per_kind(store):
    """counts are per kind, ascending, and follow append, rollback, commit and reopening."""
    with store.writer() as uow:
        assert uow.log.counts() == {}
        uow.log.append(every_kind())
        uow.commit()
        uow.log.append(strands(5, start=50))
        assert uow.log.counts()["order_filled"] == 6
        uow.rollback()
        assert uow.log.counts() == dict.fromkeys(sorted(PAYLOADS), 1)
        assert list(uow.log.counts()) == sorted(PAYLOADS)
    with store.reader() as uow:
        assert uow.log.counts() == dict.fromkeys(sorted(PAYLOADS), 1)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_every_kind_round_trips(store, kind):
    """A strand of every kind comes back equal from another life, field by field."""
    sent = strand(1, kind)
    with store.writer() as uow:
        stored = uow.log.append([sent])[0]
        uow.commit()
    assert replace(stored, seq=0, hash="") == sent
    with store.reader() as uow:
        assert uow.log.get(sent.id) == stored


def test_the_chain_is_the_same_in_every_store(store):
    """The head is a function of the facts alone: the same on every database, whatever the grouping into commits."""
    with store.writer() as uow:
        for one in every_kind():
            uow.log.append([one])
            uow.commit()
    twin = MemoryStore()
    with twin.writer() as uow:
        uow.log.append([replace(s, ts_recorded=s.ts_recorded + 5) for s in every_kind()])
        uow.commit()
        expected = uow.log.head
    with store.reader() as uow:
        assert uow.log.head == expected
    report = verify(store)
    assert (report.count, report.head, report.problems) == (len(PAYLOADS), expected[1], ())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"price": float("nan")}, r"\(order_filled\): price is nan"),
        ({"price": float("-inf")}, "price is -inf"),
        ({"quantity": Decimal("NaN")}, "quantity is NaN"),
        ({"side": "b\0y"}, "side is text with a NUL character"),
        ({"side": "\ud800"}, "side is text with half a surrogate pair"),
        ({"rule": 2**64}, "rule is 18446744073709551616: whole numbers must fit into 64 bits"),
        ({"side": object()}, r"side is a builtins\.object"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(store, change, complaint):
    """NaN, infinities, NUL characters and the like are refused at append by the field's path; the log goes on."""
    bad = replace(strand(1), payload=replace(strand(1).payload, **change))
    with store.writer() as uow:
        with pytest.raises(StrandError, match=complaint):
            uow.log.append([strand(2), bad])
        assert uow.log.head == (0, GENESIS)
        assert uow.log.append([strand(3)])[0].seq == 1
        uow.commit()
    assert verify(store).ok


def test_old_strands_leave_memory_and_are_still_there(store, monkeypatch):
    """Beyond the strands kept in memory everything still answers: get, find, read, dedupe."""
    monkeypatch.setattr(log_module, "KEEP", 4)
    with store.writer() as uow:
        for number in range(1, 21):
            uow.log.append([strand(number)])
            uow.commit()
        assert [s.seq for s in uow.log.read(0)] == list(range(1, 21))
        assert [s.seq for s in uow.log.read(2, kinds=["order_filled"], limit=16)] == list(range(3, 19))
        check_find(uow.log)
        assert uow.log.append([strand(1), strand(20), strand(21)])[2].seq == 21
        assert [s.seq for s in uow.log.read(0)] == list(range(1, 22))
        uow.rollback()
        check_find(uow.log)
    assert verify(store).count == 20


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("name", SPECS)
def test_every_table_round_trips_its_row(store, name):
    """A row of every table comes back equal from another life, and can be replaced and deleted."""
    assert name in ROWS, f"table {name} has no example row: add one to tests/contracts/examples.py"
    row = ROWS[name]
    with store.writer() as uow:
        getattr(uow, name).put(row)
        assert getattr(uow, name).get(row.key) == row
        uow.commit()
    with store.reader() as uow:
        assert getattr(uow, name).get(row.key) == row
        assert list(getattr(uow, name).values()) == [row]
        assert len(getattr(uow, name)) == 1
    with store.writer() as uow:
        assert getattr(uow, name).get(row.key) == row
        getattr(uow, name).delete(row.key)
        assert getattr(uow, name).get(row.key) is None
        uow.commit()
    with store.reader() as uow:
        assert len(getattr(uow, name)) == 0


def test_the_last_put_of_a_key_wins(store):
    """put inserts or replaces by key; a replaced row keeps its place in the order."""
    with store.writer() as uow:
        for number in (3, 1, 2):
            uow.stats.put(stat(number))
        uow.stats.put(stat(3, n=9))
        uow.commit()
        uow.stats.put(stat(1, n=5))
        uow.commit()
    with store.reader() as uow:
        assert [(r.scope_hash, r.n) for r in uow.stats.values()] == [("0003", 9), ("0001", 5), ("0002", 1)]


def test_values_by_prefix_in_order_of_first_insertion(store):
    """values(prefix) is by key prefix, wherever the prefix ends; a key deleted and put again goes to the end."""
    with store.writer() as uow:
        for number in (2, 1, 3):
            for family in ("b", "a", "ab"):
                uow.stats.put(stat(number, family))
        uow.commit()
        uow.stats.delete(stat(2, "a").key)
        uow.stats.put(stat(2, "a"))
        check_prefixes(uow.stats)
        uow.commit()
        check_prefixes(uow.stats)
    with store.reader() as uow:
        check_prefixes(uow.stats)
    with store.writer() as uow:
        check_prefixes(uow.stats)


def check_prefixes(stats):
    def found(prefix):
        return [f"{r.pattern_key}{int(r.scope_hash)}" for r in stats.values(prefix)]

    assert found("pm|a|entry|") == ["a1", "a3", "a2"]
    assert found("pm|a") == ["ab2", "a1", "ab1", "a3", "ab3", "a2"]
    assert found("pm|ab|entry|0003") == ["ab3"]
    assert found("pm|b|entry|00") == ["b2", "b1", "b3"]
    assert found("pm|c") == found("x") == found("pm|a|entry|0001|") == []
    assert len(found("")) == len(stats) == 9


def test_values_can_be_changed_while_being_read(store):
    """A job may put and delete while it goes over the rows."""
    with store.writer() as uow:
        for number in range(5):
            uow.stats.put(stat(number))
        for row in uow.stats.values("pm|trend|"):
            uow.stats.delete(row.key)
            uow.stats.put(replace(row, n=7))
        assert [r.n for r in uow.stats.values()] == [7] * 5


def test_a_row_of_another_table_is_refused(store):
    """A table takes rows of its own class only, and unknown keys are simply absent."""
    with store.writer() as uow:
        with pytest.raises(PortError, match="table positions holds Position rows, was given a Watermark"):
            uow.positions.put(Watermark("x", 1))
        assert uow.positions.get("nobody") is None
        uow.positions.delete("nobody")
        uow.commit()


def test_a_row_with_nan_is_refused_at_commit_and_nothing_is_written(store):
    """The commit that meets NaN names table, row and field, writes nothing at all, and can be undone."""
    with store.writer() as uow:
        uow.stats.put(replace(stat(1), stats={"sum": [0.5, float("nan")]}))
        uow.watermarks.put(Watermark("a", 1))
        uow.log.append([strand(1)])
        with pytest.raises(StrandError, match=r"stats row 'pm\|trend\|entry\|0001': stats\.sum\[1\] is nan"):
            uow.commit()
        with store.reader() as seen:
            assert (len(seen.watermarks), seen.log.head[0]) == (0, 0)
        uow.rollback()
        uow.watermarks.put(Watermark("a", 2))
        uow.commit()
    with store.reader() as uow:
        assert (len(uow.stats), uow.watermarks.get("a"), uow.log.head[0]) == (0, Watermark("a", 2), 0)


# ---------------------------------------------------------------- transactions


def test_commit_is_all_and_rollback_is_nothing(store):
    """Strands and rows of one commit arrive together; a rollback takes back strands, ids, puts, deletes and order."""
    with store.writer() as uow:
        uow.log.append(strands(2))
        for number in (1, 2, 3):
            uow.stats.put(stat(number))
        uow.commit()
        head = uow.log.head
        uow.log.append(strands(3, start=3))
        uow.stats.put(stat(2, n=99))
        uow.stats.delete(stat(1).key)
        uow.stats.put(stat(4))
        uow.stats.delete(stat(3).key)
        uow.stats.put(stat(3, n=98))
        uow.rollback()
        assert uow.log.head == head
        assert uow.log.get(strand(3).id) is None
        assert [(r.scope_hash, r.n) for r in uow.stats.values()] == [("0001", 1), ("0002", 1), ("0003", 1)]
        assert [r.scope_hash for r in uow.stats.values("pm|trend|entry|")] == ["0001", "0002", "0003"]
        uow.log.append([strand(4)])
        uow.commit()
    with store.reader() as uow:
        assert [s.id for s in uow.log.read(0)] == [strand(n).id for n in (1, 2, 4)]
        assert [(r.scope_hash, r.n) for r in uow.stats.values()] == [("0001", 1), ("0002", 1), ("0003", 1)]
    assert verify(store).ok


@pytest.mark.parametrize("fails", [False, True])
def test_leaving_without_commit_undoes(store, fails):
    """Leaving the unit of work, by an error or not, forgets what was not committed, and frees the writer's place."""
    try:
        with store.writer() as uow:
            uow.log.append(strands(2))
            uow.stats.put(stat(1))
            if fails:
                raise ValueError("on the way")
    except ValueError:
        pass
    with pytest.raises(PortError, match="closed"):
        uow.commit()
    with store.writer() as uow:
        assert (uow.log.head, len(uow.stats)) == ((0, GENESIS), 0)


def half_way(uow):
    """An attempt that writes, overwrites and deletes, and then fails."""
    with uow.attempt():
        uow.log.append(strands(1, start=2))
        uow.stats.put(replace(stat(2), n=7))
        uow.stats.put(stat(3))
        uow.stats.delete(stat(1).key)
        raise ValueError("half way")


def test_an_attempt_that_fails_leaves_nothing_and_what_was_before_it_stays(store):
    """Strands, rows put and rows deleted inside are undone; a failed job around it still undoes all of its own."""
    with store.writer() as uow:
        uow.stats.put(stat(1))
        uow.commit()
        uow.savepoint()
        uow.log.append(strands(1))
        uow.stats.put(stat(2))
        head = uow.log.head
        with pytest.raises(ValueError, match="half way"):
            half_way(uow)
        assert uow.log.head == head
        assert [(r.scope_hash, r.n) for r in uow.stats.values()] == [("0001", 1), ("0002", 1)]
        with uow.attempt():
            uow.stats.put(stat(3))
        assert len(uow.stats) == 3
        uow.undo()
        assert (uow.log.head[0], [r.scope_hash for r in uow.stats.values()]) == (0, ["0001"])
        uow.log.append(strands(1))
        uow.commit()
    assert verify(store).ok


def test_a_reader_sees_the_last_commit_and_only_that(store):
    """A reader opened during a transaction sees the commit before it, to its end; the next one sees the new one."""
    with store.writer() as uow:
        uow.configs.put(replace(ROWS["configs"], module_id="dm", config_version=1))
        uow.configs.put(replace(ROWS["configs"], module_id="pm", config_version=1))
        uow.log.append(strands(1))
        uow.commit()
        uow.configs.put(replace(ROWS["configs"], module_id="dm", config_version=2))
        uow.log.append(strands(1, start=2))
        with store.reader() as old:
            assert [r.config_version for r in old.configs.values()] == [1, 1]
            uow.configs.put(replace(ROWS["configs"], module_id="pm", config_version=2))
            uow.commit()
            assert [r.config_version for r in old.configs.values()] == [1, 1]
            assert [s.seq for s in old.log.read(0)] == [1]
            assert old.log.get(strand(2).id) is None
            assert old.log.counts() == {"order_filled": 1}
        with store.reader() as new:
            assert [r.config_version for r in new.configs.values()] == [2, 2]
            assert new.log.head == uow.log.head


def test_a_reader_cannot_write(store):
    """put, delete, append and commit of a reader raise; a rollback has nothing to do."""
    with store.writer():
        """Makes the database."""
    with store.reader() as uow:
        for attempt in (
            lambda: uow.stats.put(stat(1)),
            lambda: uow.stats.delete("x"),
            lambda: uow.log.append(strands(1)),
            uow.commit,
        ):
            with pytest.raises(PortError, match="this is a reader"):
                attempt()
        uow.rollback()


def test_a_second_writer_is_refused(store):
    """There is one writer, so appends cannot interleave and a reader with a bare cursor cannot skip a strand."""
    with store.writer() as uow:
        with pytest.raises(PortError, match=r"already has a writer.* process"), store.writer():
            pass
        uow.log.append(strands(1))
        uow.commit()
    with store.writer() as uow:
        assert uow.log.head[0] == 1


def test_a_large_group_is_one_commit(store):
    """Thousands of strands and rows in one commit; a reader sees none of them before it and all after."""
    with store.writer() as uow:
        uow.log.append([])
        stored = uow.log.append(strands(5_000))
        for number in range(3_000):
            uow.stats.put(stat(number))
        with store.reader() as seen:
            assert seen.log.head[0] == 0
        uow.commit()
    with store.reader() as uow:
        assert [s.hash for s in uow.log.read(0)] == [s.hash for s in stored]
        assert len(uow.stats) == 3_000
    assert verify(store).count == 5_000


def test_an_empty_commit_and_unchanged_rows_change_nothing(store):
    """Committing nothing, or a row equal to the stored one, leaves the store as it was."""
    with store.writer() as uow:
        uow.commit()
        uow.stats.put(stat(1))
        uow.commit()
        uow.stats.put(stat(1))
        uow.stats.put(stat(2))
        uow.stats.delete(stat(2).key)
        uow.commit()
    with store.reader() as uow:
        assert list(uow.stats.values()) == [stat(1)]


def test_the_examples_are_of_every_kind_and_table():
    """The examples file is complete."""
    assert [s.kind for s in every_kind()] == list(PAYLOADS)
    assert sorted(ROWS) == sorted(spec.name for spec in TABLES)

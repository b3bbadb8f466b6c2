"""What SQLite and PostgreSQL must refuse, and what a person finds in them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from tests.contracts.examples import NOON, ROWS, every_kind, strand

from edgebook.adapters import database
from edgebook.adapters.log import verify
from edgebook.adapters.sql import SqlStore
from edgebook.adapters.tables import REVISION, REVISION_TABLE, SPECS, append_only_triggers, metadata
from edgebook.domain.errors import InputError, PortError
from edgebook.domain.evidence import Fact


@pytest.fixture
def book(url):
    """A store with ten committed strands."""
    store = SqlStore(url)
    with store.writer() as uow:
        uow.log.append([strand(number) for number in range(1, 11)])
        uow.commit()
    return store


@pytest.fixture
def raw(url):
    """A connection past the store, as somebody with the database's own tools has."""
    address = url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(address, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def drop_triggers(raw):
    names = {"sqlite": ["update", "delete"], "postgresql": ["change"]}[raw.dialect.name]
    for name in names:
        suffix = " ON ad_strands" if raw.dialect.name == "postgresql" else ""
        raw.execute(text(f"DROP TRIGGER ad_strands_no_{name}{suffix}"))


# ---------------------------------------------------------------- append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ad_strands SET symbol = 'X' WHERE seq = 3",
        "UPDATE ad_strands SET ts_recorded = 0",
        "DELETE FROM ad_strands WHERE seq = 10",
        "DELETE FROM ad_strands",
    ],
)
def test_the_database_itself_refuses_to_change_a_strand(book, raw, statement):
    """UPDATE and DELETE of ad_strands fail whoever sends them."""
    with pytest.raises(DBAPIError, match="append-only"):
        raw.execute(text(statement))
    raw.rollback()
    assert verify(book).ok


@pytest.mark.parametrize(
    ("seq", "id_"),
    [(3, "someone"), (11, strand(3).id), (12, "gap"), (0, "before")],
)
def test_sqlite_takes_a_strand_only_at_the_end(sqlite_url, seq, id_):
    """INSERT OR REPLACE over a strand, a reused id, a gap: all refused by the trigger, not only by the program."""
    store = SqlStore(sqlite_url)
    with store.writer() as uow:
        uow.log.append([strand(number) for number in range(1, 11)])
        uow.commit()
    connection = sqlite3.connect(store.label)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(ad_strands)")]
    values = ", ".join({"seq": str(seq), "id": f"'{id_}'"}.get(name, name) for name in columns)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(f"INSERT OR REPLACE INTO ad_strands SELECT {values} FROM ad_strands WHERE seq = 5")
    connection.close()
    assert verify(store).ok


@pytest.mark.postgres
def test_postgres_refuses_truncate(pg_url):
    """TRUNCATE is a change as well."""
    with SqlStore(pg_url).writer() as uow:
        uow.log.append([strand(1)])
        uow.commit()
    engine = create_engine(pg_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text("TRUNCATE ad_strands"))


def test_triggers_can_be_made_again(book, raw):
    """After a batch migration copied the table the same statements make it append-only once more."""
    drop_triggers(raw)
    raw.commit()
    for _ in range(2):
        for statement in append_only_triggers(raw.dialect.name):
            raw.exec_driver_sql(statement)
        raw.commit()
    with pytest.raises(DBAPIError, match="append-only"):
        raw.execute(text("DELETE FROM ad_strands"))
    raw.rollback()


# ---------------------------------------------------------------- verify


@pytest.mark.parametrize(
    "change",
    [
        "content = replace(content, '1.2506', '1.2507')",
        "symbol = 'BTCUSDT'",
        "ts_event = ts_event + 1",
        "kind = 'pm_action'",
        "scope = '{}'",
        "tags = '[]'",
        "arm = ''",
        "causation_id = 'other'",
        "config_version = 4",
        "hash = upper(hash)",
        "content = 'not JSON'",
    ],
)
def test_verify_names_the_changed_strand(book, raw, change):
    """Any change of any hashed column shows as a problem that names the strand's seq."""
    drop_triggers(raw)
    raw.execute(text(f"UPDATE ad_strands SET {change} WHERE seq = 4"))
    raw.commit()
    problems = verify(book).problems
    assert problems
    named = {int(problem.split()[1]) for problem in problems}
    assert named == ({4, 5} if change.startswith("hash") else {4})


def test_verify_sees_a_missing_strand(book, raw):
    """A strand cut out is named, and the writer refuses to go on with such a log."""
    drop_triggers(raw)
    raw.execute(text("DELETE FROM ad_strands WHERE seq IN (4, 7, 8)"))
    raw.commit()
    problems = verify(book).problems
    assert any(p.startswith("seq 4 missing") for p in problems)
    assert any(p.startswith("seq 7 to 8 missing") for p in problems)
    with pytest.raises(InputError, match="its log ends at seq 10 but has 7 strands"), book.writer():
        pass


def test_verify_sees_a_log_cut_off_before_a_watermark(book, raw):
    """What a consumer has read cannot be gone."""
    with book.writer() as uow:
        uow.watermarks.put(ROWS["watermarks"].__class__("aggregator", 10))
        uow.commit()
    assert verify(book).ok
    drop_triggers(raw)
    raw.execute(text("DELETE FROM ad_strands WHERE seq > 8"))
    raw.commit()
    assert verify(book).problems == ("watermark of aggregator is at seq 10, but the log ends at 8: its end is missing",)


def test_verify_of_an_empty_log(url):
    """Nothing is fine too."""
    report = verify(SqlStore(url))
    assert (report.count, report.head, report.ok) == (0, "0" * 64, True)


# ---------------------------------------------------------------- what a person finds


def test_promoted_columns_can_be_queried(url, raw):
    """The columns beside content hold plain types: money as text, scopes as JSON, flags as flags."""
    with SqlStore(url).writer() as uow:
        for name, row in ROWS.items():
            getattr(uow, name).put(row)
        uow.log.append(every_kind())
        uow.commit()

    def one(query):
        return tuple(raw.execute(text(query)).one())

    assert one("SELECT symbol, ledger_quantity, entry_price, last_seq FROM positions") == ("ETHUSDT", "0.125", 1.25, 77)
    assert one("SELECT pnl_usd, rr, closed_at FROM trades") == ("39.999999", 1.6, NOON + 3_600_000_000)
    assert one("SELECT notional_usd, quantity, status FROM orders") == ("310.5", None, "planned")
    query = "SELECT module, action_category, n, scope_values FROM pattern_scope_stats"
    assert one(query) == ("pm", "entry", 12, '{"timeframe":"1h"}')
    assert json.loads(one("SELECT effect FROM learning_lessons")[0]) == {"size_mult": 1.12}
    assert one("SELECT module_id, config_version FROM learning_configs") == ("pm", 4)
    assert one("SELECT module_id FROM learning_configs WHERE row_no = 1") == ("pm",)
    assert one("SELECT key, value FROM meta") == ("settings_hash", "cd" * 32)
    assert one("SELECT CASE WHEN acts THEN 'yes' END FROM learning_fits") == ("yes",)
    assert one("SELECT symbol, scope, ts_recorded FROM ad_strands WHERE kind = 'pm_action'")[0] == "ETHUSDT"


def test_a_rollback_leaves_no_trace_in_the_order(url, raw):
    """row_no counts what was committed: an undone row takes no number, so two equal histories are equal databases."""
    with SqlStore(url).writer() as uow:
        for name in ("a", "undone", "b", "c"):
            uow.meta.put(Fact(name, ""))
            uow.rollback() if name == "undone" else uow.commit()
        uow.meta.put(Fact("a", "changed"))
        uow.commit()
    found = raw.execute(text("SELECT row_no, key, value FROM meta ORDER BY row_no")).all()
    assert [tuple(row) for row in found] == [(1, "a", "changed"), (2, "b", ""), (3, "c", "")]


def test_every_promoted_column_is_in_its_table():
    """The registry and the tables agree, and a record has one value per column."""
    for name, spec in SPECS.items():
        record = spec.record(ROWS[name], 5, b"{}")
        assert spec.columns == (spec.key, "row_no", *(column for column, _ in spec.promoted), "content")
        assert len(record) == len(spec.columns)


def test_a_category_outside_the_list_is_refused(url):
    """The CHECK of pattern_scope_stats knows the five categories, allocation included."""
    store = SqlStore(url)
    row = ROWS["stats"]
    with store.writer() as uow:
        uow.stats.put(row.__class__("dm", "x", "allocation", 1, "a", {}, 1, {}, 1, 2))
        uow.commit()
        uow.stats.put(row.__class__("dm", "x", "hodl", 1, "b", {}, 1, {}, 1, 2))
        with pytest.raises(PortError, match=r"(?i)check"):
            uow.commit()
    with store.reader() as uow:
        assert [r.action_category for r in uow.stats.values()] == ["allocation"]


def test_two_positions_of_one_contract_are_refused(url):
    """Unique (contract, chain, timeframe, book): a database promise."""
    with SqlStore(url).writer() as uow:
        uow.positions.put(ROWS["positions"])
        uow.positions.put(replace(ROWS["positions"], id="pos-2"))
        with pytest.raises(PortError, match=r"(?i)unique"):
            uow.commit()


# ---------------------------------------------------------------- schema


def test_the_migrations_make_exactly_the_tables(url, raw):
    """What Alembic builds is what the program declares; the newest migration is the one it knows."""
    SqlStore(url)
    context = MigrationContext.configure(raw, opts={"compare_type": True, "version_table": REVISION_TABLE})
    assert compare_metadata(context, metadata) == []
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS).replace("%", "%%"))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_the_writer_brings_an_older_schema_up_and_keeps_the_log(book, url, raw, tmp_path):
    """A database of the first revision: later tables are made, its strands stay, append-only as before."""
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS).replace("%", "%%"))
    engine = create_engine(f"sqlite:///{tmp_path}/first.db", poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        first = set(inspect(connection).get_table_names())
    for name in set(metadata.tables) - first:
        raw.execute(text(f"DROP TABLE {name}"))
    raw.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '0001'"))
    raw.commit()

    with book.writer() as uow:
        assert uow.log.head[0] == 10
        assert len(uow.intents) == 0
        uow.intents.put(ROWS["intents"])
        uow.commit()
    context = MigrationContext.configure(raw, opts={"compare_type": True, "version_table": REVISION_TABLE})
    assert compare_metadata(context, metadata) == []
    assert verify(book).count == 10
    raw.rollback()
    with pytest.raises(DBAPIError, match="append-only"):
        raw.execute(text("DELETE FROM ad_strands"))
    raw.rollback()


def test_a_migration_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """The schema comes as a whole: what a failed upgrade began is gone."""

    def fails(connection):
        connection.exec_driver_sql("CREATE TABLE half (a int)")
        raise OSError("power")

    monkeypatch.setattr(database, "_upgrade", fails)
    with pytest.raises(OSError, match="power"), SqlStore(f"sqlite:///{tmp_path}/book.db").writer():
        pass
    connection = sqlite3.connect(tmp_path / "book.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_newer_schema_is_refused_by_writer_and_reader(book, url, raw):
    """One line with the database, its revision and the newest known one."""
    raw.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '0999'"))
    raw.commit()
    for opening in (book.writer, book.reader):
        expected = f"revision 0999, the newest this release knows is {REVISION}"
        with pytest.raises(InputError, match=expected) as caught, opening():
            pass
        assert caught.value.message.startswith(book.label)
        assert "\n" not in caught.value.message


def test_a_reader_does_not_migrate(book, raw):
    """An older schema is named; only the writer changes it."""
    raw.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '0000'"))
    raw.commit()
    with pytest.raises(InputError, match=f"revision 0000, this release reads {REVISION}"), book.reader():
        pass


@pytest.mark.postgres
def test_an_empty_server_database(pg_server):
    """A reader of an empty database says so; the writer makes the schema."""
    store = SqlStore(pg_server.new_database(template=None))
    with pytest.raises(InputError, match="holds no book yet"), store.reader():
        pass
    with store.writer() as uow:
        uow.log.append([strand(1)])
        uow.commit()
    assert verify(store).count == 1


@pytest.mark.postgres
def test_unreachable_servers_and_unknown_databases(pg_server):
    """No database: the user's address is wrong. No server: the port failed. Passwords stay out of messages."""
    unknown = pg_server.url("nowhere").replace("edgebook@", "edgebook:secret@")
    with pytest.raises(InputError, match='"nowhere" does not exist') as caught, SqlStore(unknown).writer():
        pass
    assert "secret" not in caught.value.message
    store = SqlStore("postgres://x@127.0.0.1:1/x")
    with pytest.raises(PortError, match=r"postgresql://x@127\.0\.0\.1:1/x"), store.reader():
        pass


# ---------------------------------------------------------------- SQLite files


def test_sqlite_is_durable_and_readable_beside_the_writer(tmp_path):
    """WAL with a sync at every commit."""
    store = SqlStore(f"sqlite:///{tmp_path}/book.db")
    with store.writer() as uow:
        raw = uow._backend._connection.connection.dbapi_connection
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("opening", ["writer", "reader"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, opening):
    """Somebody's text file is not overwritten."""
    path = tmp_path / "notes.db"
    path.write_text("dear diary, " * 500)
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(InputError, match=r"notes\.db is not a database file"), getattr(store, opening)():
        pass
    assert path.read_text() == "dear diary, " * 500


@pytest.mark.parametrize("opening", ["writer", "reader"])
def test_another_programs_database_is_refused_and_left_alone(tmp_path, opening):
    """Tables of another program stay as they are: no table of ours joins them, not even the journal mode changes."""
    path = tmp_path / "bot.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trades (id int)")
    connection.close()
    before = path.read_bytes()
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(InputError, match=r"tables of another program \(trades\)"), getattr(store, opening)():
        pass
    assert path.read_bytes() == before


def test_a_damaged_file_is_named(tmp_path):
    """Overwritten pages: one line that says the file is damaged, whoever opens it."""
    path = tmp_path / "book.db"
    store = SqlStore(f"sqlite:///{path}")
    with store.writer() as uow:
        uow.log.append([strand(number) for number in range(1, 400)])
        uow.commit()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\x5a" * (len(data) - 8192))
    with pytest.raises(InputError, match="damaged"), store.writer():
        pass
    with pytest.raises(InputError, match="damaged"), store.reader() as uow:
        list(uow.log.read(0))


def test_missing_places_are_named(tmp_path):
    """A reader of no file, a writer into no directory, a directory as the file."""
    missing = tmp_path / "gone" / "book.db"
    with pytest.raises(InputError, match="no such database"), SqlStore(f"sqlite:///{tmp_path}/x.db").reader():
        pass
    with pytest.raises(InputError, match=r"there is no directory .*gone"), SqlStore(f"sqlite:///{missing}").writer():
        pass
    with pytest.raises(InputError, match="is a directory"), SqlStore(f"sqlite:///{tmp_path}").writer():
        pass
    assert not missing.parent.exists()


@pytest.mark.parametrize("url", ["", "book.db", "sqlite://", "sqlite:///:memory:", "mysql://u:pw@h/d", "duckdb:///x"])
def test_other_addresses_are_refused(url):
    """Only the two databases; the error shows how to write them."""
    with pytest.raises(InputError, match="use sqlite:///FILE or postgresql://") as caught:
        SqlStore(url)
    assert "pw" not in caught.value.message


def test_odd_file_names_work(tmp_path):
    """Spaces, percent signs, question marks and umlauts: the path is taken as written."""
    path = tmp_path / "my %41 books? #1 ü" / "b k.db"
    path.parent.mkdir()
    store = SqlStore(f"sqlite:///{path}")
    with store.writer() as uow:
        uow.log.append([strand(1)])
        uow.commit()
    assert verify(store).count == 1
    assert path.exists()


def test_the_writers_place_is_free_after_an_error_at_opening(tmp_path, monkeypatch):
    """A writer that could not open leaves no lock behind."""
    store = SqlStore(f"sqlite:///{tmp_path}/book.db")
    with monkeypatch.context() as patch:
        patch.setattr(database, "_upgrade", lambda connection: (_ for _ in ()).throw(OSError("x")))
        with pytest.raises(OSError, match="x"), store.writer():
            pass
    with store.writer() as uow:
        assert uow.log.head[0] == 0

"""The password of a database is in nothing that is shown."""

from __future__ import annotations

import io

import pytest
import structlog
from rich.console import Console
from tests.flow import world

from edgebook.adapters import database
from edgebook.adapters.memory import MemoryStore
from edgebook.adapters.sql import SqlStore
from edgebook.cli import watch
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.masking import masked
from edgebook.runtime import bootstrap, ingress
from edgebook.runtime.logs import plain_log
from edgebook.runtime.settings import Settings

WORD = "pass-that-nobody-may-see"
URL = f"postgresql://me:{WORD}@127.0.0.1:1/book"
#: What somebody may write for an address.
WRITTEN = [
    URL,
    URL.replace("postgresql", "mysql"),
    URL.replace(":1/", ":port/"),
    f"postgres://me:{WORD}@@/:{WORD}@127.0.0.1:1/book",
    f"postgresql://127.0.0.1:1/book?user=me&password={WORD}",
]


@pytest.mark.parametrize("url", WRITTEN)
def test_an_address_is_shown_without_its_password(url):
    """By the helper, and by every error on the way to a database that is not there."""
    assert WORD not in masked(url)
    assert "***" in masked(url)
    with pytest.raises(EdgebookError) as refused:
        database.parse_address("mysql" + url.partition("postgres")[2])
    assert WORD not in str(refused.value)
    with pytest.raises(EdgebookError) as refused, SqlStore(url).writer():
        pass
    assert WORD not in str(refused.value)


@pytest.mark.parametrize("url", ["sqlite:///book.db", "postgresql://me@host/book", "sqlite:////a:b@c/d.db"])
def test_an_address_without_a_password_is_shown_as_it_was_written(url):
    """Nothing is taken for one that is none."""
    assert masked(url) == url


def test_settings_do_not_show_it():
    """Neither their repr nor their text; the setting itself is whole."""
    settings = Settings(db=URL)
    assert WORD not in f"{settings!r} {settings}"
    assert settings.db == URL


def test_nobody_running_is_told_without_it(monkeypatch, tmp_path):
    """The command that would start a system names the address."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="postgresql://me") as refused:
        ingress.post(URL, ["{}"])
    assert WORD not in refused.value.message


def test_a_database_of_other_settings_is_told_without_it():
    """The book in it is another one."""
    store, feed = MemoryStore(), world.sim_feed()
    with bootstrap.system(store, world.settings_for(URL), feed) as system:
        system.commit()
    with (
        pytest.raises(InputError, match="other settings") as refused,
        bootstrap.system(store, world.settings_for(URL, book="another"), feed),
    ):
        pass
    assert WORD not in refused.value.message


def test_the_first_line_of_a_run_does_not_show_it(monkeypatch):
    """Nor any line after it."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    monkeypatch.setattr(watch, "console", lambda: console)
    monkeypatch.setattr(bootstrap, "open_store", lambda url, **how: MemoryStore())
    watch.watch_run(world.settings_for(URL), signals=None, regime_bars=None, until="0.1d", plain=True)
    assert "postgresql://me:***@" in shown.getvalue()
    assert WORD not in shown.getvalue()


def test_a_log_shows_no_local_variables(capfd):
    """A traceback has its lines and its error, and no values."""
    structlog.reset_defaults()
    plain_log()

    def fail(word):
        raise ValueError(f"no use for {len(word)} letters")

    with pytest.raises(ValueError, match="no use") as bare:
        fail(WORD)
    structlog.get_logger().error("job failed", exc_info=bare.value)
    structlog.reset_defaults()
    shown = capfd.readouterr().out
    assert "no use for" in shown
    assert WORD not in shown


def test_a_log_that_somebody_else_has_set_up_is_left_alone():
    """A program that runs edgebook inside itself keeps its own."""
    structlog.reset_defaults()
    own = [structlog.processors.JSONRenderer()]
    structlog.configure(processors=own)
    plain_log()
    found = structlog.get_config()["processors"]
    structlog.reset_defaults()
    assert found == own

"""The system as a process of its own: how it is started, what it is told, and how its end is noticed."""

from __future__ import annotations

import json
import os
import sys

import pytest

from edgebook.domain.errors import InputError
from edgebook.flow.running import Running, SystemDiedError
from edgebook.runtime.ingress import address_file

#: Stands in for edgebook: says what it was started with, and ends.
SAYS = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if 'BOOK' in k}]))"


def running(folder, code, given=None, **kw):
    """A process that is no system."""
    return Running((sys.executable, "-c", code), folder, f"sqlite:///{folder}/book.db", "sim", given, **kw)


def test_a_process_that_ends_before_it_listens_is_told_with_its_code_and_words(tmp_path):
    """The end of what it printed, to either stream."""
    code = "import sys; print('half way'); sys.stderr.write('error: no bars'); raise SystemExit(3)"
    with pytest.raises(SystemDiedError, match=r"(?s)it ended with code 3: .*error: no bars"), running(tmp_path, code):
        pass


def test_the_command_is_that_of_a_user_and_settings_are_its_environment_alone(tmp_path, monkeypatch):
    """What the tester's own shell says of edgebook does not count."""
    monkeypatch.setenv("EDGEBOOK_SEED", "99")
    system = running(tmp_path, SAYS, {"reclaim": True, "timeframes": ("1h", "4h"), "alpha": 0.5})
    code, out, err = system.call("verify", "--json")
    words, environment = json.loads(out)

    assert (code, err) == (0, "")
    assert words == ["verify", "--json", "--db", system.db]
    assert environment == {"EDGEBOOK_RECLAIM": "true", "EDGEBOOK_TIMEFRAMES": "1h,4h", "EDGEBOOK_ALPHA": "0.5"}
    assert system.command[3:] == ["run", "--feed", "sim", "--db", system.db, "--plain", "--held"]


def test_a_command_may_be_about_another_database(tmp_path):
    """And is not about both."""
    assert (
        json.loads(running(tmp_path, SAYS).call("export", db="sqlite:///other.db").out)[0][-1] == "sqlite:///other.db"
    )


def test_a_command_that_fails_is_no_death_of_the_system(tmp_path):
    """Its code and what it said are an answer."""
    code = "import sys; sys.stderr.write('error: broken\\n'); raise SystemExit(2)"
    assert tuple(running(tmp_path, code).call("verify")) == (2, "", "error: broken")


def test_a_command_that_does_not_end_is_killed_and_has_no_code(tmp_path):
    """The campaign goes on."""
    code, out, err = running(tmp_path, "import time; print('on', flush=True); time.sleep(60)").call("run", seconds=1.0)

    assert (code, out) == (None, "on\n")
    assert err.startswith("it had not ended after 1 s")


def test_what_is_asked_of_a_system_that_has_ended_says_that_it_has(tmp_path):
    """And not only that nobody listens."""
    system = running(tmp_path, "print('bye')")
    with pytest.raises(SystemDiedError, match="code 0: bye"):
        system.start()
    for ask in (lambda: system.inject("{}"), lambda: system.pass_until(1), lambda: system.turn(True)):
        with pytest.raises(SystemDiedError, match="it ended with code 0: bye"):
            ask()


def test_what_is_asked_before_the_start_is_refused(tmp_path):
    """Nothing has died."""
    with pytest.raises(InputError, match="no running system"):
        running(tmp_path, SAYS).inject("{}")
    running(tmp_path, SAYS).kill()


def test_what_was_killed_leaves_no_address(tmp_path):
    """It could not take it back itself."""
    code = (
        "import json, socket, sys, time; from pathlib import Path; from edgebook.runtime.ingress import address_file;"
        "s = socket.create_server(('127.0.0.1', 0)); url = sys.argv[sys.argv.index('--db') + 1];"
        "address_file(url).write_text(json.dumps({'port': s.getsockname()[1], 'token': 'x'})); time.sleep(60)"
    )
    with running(tmp_path, code) as system:
        assert address_file(system.db).exists()
        system.kill()
        assert address_file(system.db).exists()
    assert not address_file(system.db).exists()


def test_a_user_without_a_home_is_told_so(monkeypatch):
    """An address of a server's database has no other place."""

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", nowhere)
    with pytest.raises(InputError, match="HOME is not set"):
        address_file("postgresql://me@host/book")


def test_what_does_not_listen_in_time_is_ended(tmp_path, monkeypatch):
    """Nobody would do it later."""
    monkeypatch.setattr("edgebook.flow.running.START_SECONDS", 0.5)
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(SystemDiedError, match="did not listen"), running(tmp_path, code):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)

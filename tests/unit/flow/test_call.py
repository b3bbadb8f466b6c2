"""A user's command run beside a system: its settings, its database, how it ended."""

from __future__ import annotations

import sys

from edgebook.flow.running import Running

TELL = "import os, sys; print(sys.argv[1:], os.environ['EDGEBOOK_TIMEFRAMES']); sys.exit(3)"


def running(folder, code):
    """A system whose command is a line of Python; it is never started."""
    return Running((sys.executable, "-c", code), folder, "sqlite:///own.db", "sim", {"timeframes": ("1h", "4h")})


def test_a_command_gets_the_settings_and_the_database_and_says_how_it_ended(tmp_path):
    """Its words, then the database of the system or another; settings are in its environment."""
    system = running(tmp_path, TELL)

    assert system.call("verify", "--json") == (3, "['verify', '--json', '--db', 'sqlite:///own.db'] 1h,4h\n", "")
    assert system.call("verify", db="sqlite:///other.db").out.startswith("['verify', '--db', 'sqlite:///other.db']")


def test_a_command_that_does_not_end_is_killed_and_has_no_code(tmp_path):
    """What it had printed is kept."""
    found = running(tmp_path, "import time; print('begun', flush=True); time.sleep(600)").call("run", seconds=3.0)

    assert (found.code, found.out) == (None, "begun\n")
    assert "it had not ended after 3 s" in found.err

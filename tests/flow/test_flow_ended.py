"""A campaign that is ended from outside: its system is gone, and so is everything that it made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from edgebook.cli.app import app
from edgebook.domain.errors import InputError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_campaign_that_is_ended_takes_its_system_and_its_files_along(tmp_path, number):
    """While time passes in the system."""
    command = [sys.executable, "-m", "edgebook", "flow", "LONG", "--out", str(tmp_path / "out")]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    campaign = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}, stdout=subprocess.DEVNULL)
    while not (found := list(scratch.rglob("*.ingress"))):
        assert campaign.poll() is None
        time.sleep(0.05)
    system = json.loads(found[0].read_text())["pid"]
    campaign.send_signal(number)

    assert campaign.wait() == 128 + number
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(system, 0)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_run(tmp_path):
    """Not after the last scenario."""
    (tmp_path / "file").write_text("")
    told = CliRunner().invoke(app, ["flow", "F0", "--out", str(tmp_path / "file")])
    assert isinstance(told.exception, InputError)
    assert "--out was" in told.exception.message
    assert told.stdout == ""

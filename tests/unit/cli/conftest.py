"""What tests of commands share: a command line run in a directory of its own."""

from __future__ import annotations

import sys

import pytest

from edgebook.cli import main


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line in a directory of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgebook", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run

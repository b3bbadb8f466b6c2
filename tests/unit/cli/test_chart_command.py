"""`edgebook chart`: what it writes, what it prints, what it refuses, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.flow import world

from edgebook.adapters.feeds.sim import SimSource
from edgebook.cli import main
from edgebook.domain.decay import DAY
from edgebook.market.bars import resample
from edgebook.runtime.chart.facts import counts, gather


@pytest.fixture(scope="module")
def series():
    """Two and a half days of 1 m bars of a simulated token."""
    source = SimSource(2, 4, prehistory=2)
    symbol = next(s for s in source.symbols if not s.startswith(("BTC", "ETH", "SOL")))
    return source.bars(symbol, 0, source.start + DAY // 2)


@pytest.fixture(scope="module")
def bars(series, tmp_path_factory):
    """The same bars as a file, in a folder of its own."""
    folder = tmp_path_factory.mktemp("bars")
    return world.write_parquet(folder / f"{series.symbol}-1m.parquet", world.columns_of(series))


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs a command line in an empty directory; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgebook", "chart", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def iso(ts):
    """ISO text of microseconds."""
    return datetime.fromtimestamp(ts / 1e6, UTC).isoformat()


# ------------------------------------------------------------------ what it does


@pytest.mark.parametrize(("name", "magic"), [("chart.html", b"<!doctype html>"), ("chart.PNG", b"\x89PNG")])
def test_it_writes_the_form_the_suffix_names(cli, bars, name, magic):
    """HTML or PNG by suffix, and nothing else in the directory."""
    code, out, err = cli("--bars", bars, "--out", name)

    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == name
    assert os.listdir() == [name]
    assert Path(name).read_bytes().startswith(magic)


def test_json_holds_the_counts_of_the_span_and_the_path(cli, bars, series):
    """One JSON object: the figures of the same span gathered directly, and where the file is."""
    start, end = int(series.ts_open[1000]), int(series.close_ts[1999])
    code, out, err = cli("--bars", bars, "--from", iso(start), "--to", iso(end), "--out", "c.html", "--json")

    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out) == counts(gather(series, start, end)) | {"out": "c.html"}


def test_lines_name_bars_states_windows_and_notes(cli, bars):
    """Without --json the same figures as text, with what a reader has to know."""
    _, out, _ = cli("--bars", bars, "--out", "c.html")
    found = json.loads(cli("--bars", bars, "--out", "c.html", "--json")[1])

    assert f"{found['bars']:,} bars after 0 of history" in out
    assert f"S0 {found['states']['S0']:,}" in out
    assert f"S1 {found['windows']['S1']['n']} ({found['windows']['S1']['bought']} with the flag up)" in out
    assert "note: No state before bar 333" in out


def test_timeframe_builds_coarser_bars_first(cli, bars, series):
    """--timeframe 5m draws the bars the system would build, and says what they were built from."""
    found = json.loads(cli("--bars", bars, "--timeframe", "5m", "--out", "c.html", "--json")[1])

    assert (found["timeframe"], found["base_timeframe"]) == ("5m", "1m")
    assert found["bars"] == len(resample(series, "5m")[0])
    assert "5m bars built from 1m bars" in " ".join(found["notes"])
    assert "5m bars built from 1m bars" in Path("c.html").read_text()


def test_what_lies_beside_the_file_does_not_matter(cli, bars, series, tmp_path):
    """Neighbours with other timeframes, other names and other contents do not keep one good file from being drawn."""
    good = tmp_path / bars.name
    good.write_bytes(bars.read_bytes())
    (tmp_path / f"{series.symbol}-1h.parquet").write_text("no Parquet")
    (tmp_path / "labels.parquet").write_text("no Parquet")

    assert cli("--bars", good, "--out", "c.html")[0] == 0


def test_a_chart_replaces_an_older_one(cli, bars):
    """Writing over an existing file leaves the new one, whole."""
    Path("c.html").write_text("old")
    assert cli("--bars", bars, "--out", "c.html")[0] == 0
    assert Path("c.html").read_text().endswith("</html>\n")
    assert os.listdir() == ["c.html"]


# ------------------------------------------------------------------ what it refuses


def refused(cli, *arguments):
    """The one line of a refusal that left the directory as it was."""
    before = sorted(os.listdir())
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return err


def test_a_missing_file_is_refused(cli):
    """The file is named."""
    assert "NOSUCH-1h.parquet: no such file" in refused(cli, "--bars", "NOSUCH-1h.parquet", "--out", "c.html")


@pytest.mark.parametrize("name", ["BTCUSDT.parquet", "BTCUSDT-2h.parquet", "-1h.parquet", "BTCUSDT-1h.csv"])
def test_a_file_of_another_name_is_refused(cli, tmp_path, name):
    """The form of the name and the timeframes are said."""
    (tmp_path / name).write_text("x")
    err = refused(cli, "--bars", f"./{name}", "--out", "c.html")

    assert f"{name}: not SYMBOL-<timeframe>.parquet; timeframes are 1m, 5m" in err


def test_a_file_that_is_no_parquet_is_refused(cli, tmp_path):
    """The file is named by the path that was given, not by some other."""
    (tmp_path / "BTCUSDT-1h.parquet").write_text("date,open\n")
    err = refused(cli, "--bars", "BTCUSDT-1h.parquet", "--out", "c.html")

    assert "error: BTCUSDT-1h.parquet: cannot be read as a Parquet file of bars" in err
    assert "edgebook-" not in err


def test_a_bad_row_is_refused_by_number(cli, bars, series, tmp_path):
    """Row and field of the first impossible price."""
    columns = world.columns_of(series) | {"low": np_with(series.low, 41, -1.0)}
    path = world.write_parquet(tmp_path / bars.name, columns)

    assert f"{path}: row 42: low is -1.0" in refused(cli, "--bars", path, "--out", "c.html")


def np_with(values, row, value):
    """A copy with one value changed."""
    changed = values.copy()
    changed[row] = value
    return changed


def test_an_empty_file_is_refused(cli, bars, series, tmp_path):
    """A Parquet file without rows holds no bars to draw."""
    path = world.write_parquet(tmp_path / bars.name, world.columns_of(series.rows(0, 0)))

    assert "no bars in the span; the file holds none" in refused(cli, "--bars", path, "--out", "c.html")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ("--from", "2024-02-01", "--to", "2024-01-01"),
            "--from 2024-02-01 00:00 must be before --to 2024-01-01 00:00",
        ),
        (("--from", "2024-01-01", "--to", "2024-01-01"), "must be before --to"),
        (("--from", "2030-01-01"), "no bars in the span; the file has 20"),
        (("--to", "2001-01-01"), "no bars in the span; the file has 20"),
        (("--from", "yesterday"), "--from must be a time such as"),
        (("--timeframe", "2h"), "--timeframe was '2h'; it must be one of 1m, 5m"),
        (("--out", "chart.svg"), "--out was chart.svg; its name must end in .html or .png"),
        (("--out", "chart"), "its name must end in .html or .png"),
        (("--out", "no/such/folder/c.html"), "there is no folder no/such/folder"),
    ],
)
def test_bad_options_are_refused(cli, bars, more, words):
    """Span, timeframe and output are checked, and the option is named."""
    assert words in refused(cli, "--bars", bars, "--out", "c.html", *more)


def test_a_finer_timeframe_is_refused(cli, bars, series, tmp_path):
    """5 m bars cannot be made into 1 m bars."""
    path = world.write_parquet(tmp_path / f"{series.symbol}-5m.parquet", world.columns_of(resample(series, "5m")[0]))

    err = refused(cli, "--bars", path, "--timeframe", "1m", "--out", "c.html")
    assert "--timeframe 1m" in err
    assert "cannot build 1m from 5m" in err


def test_an_output_that_is_a_folder_is_refused(cli, bars, tmp_path):
    """A folder named like a page is no place for a page."""
    (tmp_path / "c.html").mkdir()

    assert "which is a folder" in refused(cli, "--bars", bars, "--out", "c.html")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_folder_that_cannot_be_written_to_is_refused(cli, bars):
    """Even for the superuser, who may write anywhere else."""
    assert "cannot write /proc/c.html" in refused(cli, "--bars", bars, "--out", "/proc/c.html")


def test_a_full_disk_leaves_the_old_chart_and_no_half_one(cli, bars, monkeypatch):
    """The write breaks off in the middle: the old file is untouched and the half one gone."""
    Path("c.html").write_text("old")

    def broken(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    assert "cannot write c.html: No space left on device" in refused(cli, "--bars", bars, "--out", "c.html")
    assert Path("c.html").read_text() == "old"

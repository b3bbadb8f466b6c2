"""``edgebook status`` for people: what is held is a table of its own, and an old price is said."""

from __future__ import annotations

from edgebook.cli.show import show_status


def row(symbol, *, stale):
    """One open position."""
    plain = {"position": "p", "timeframe": "1h", "status": "active", "quantity": "2", "cost_usd": "200"}
    return plain | {"opened_at": "2020-09-13 12:26:40", "symbol": symbol, "stale_mark": stale}


def test_an_old_price_is_said_beside_its_holding_and_no_other(capsys):
    """Two are held; the bars of one stay out."""
    show_status({"clock": "now", "open_positions": [row("AUSDT", stale=True), row("BUSDT", stale=False)]})
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["open_positions", "2"] for line in lines)
    (old,) = (line for line in lines if "AUSDT" in line)
    (new,) = (line for line in lines if "BUSDT" in line)
    assert old.rstrip().endswith("stale")
    assert "stale" not in new


def test_a_flat_book_has_no_table(capsys):
    """A line per fact, and that is all."""
    show_status({"clock": "now", "open_positions": []})
    out = capsys.readouterr().out
    assert "clock" in out
    assert "cost USD" not in out

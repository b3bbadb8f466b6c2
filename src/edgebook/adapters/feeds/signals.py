"""Recorded social signals and the token table beside them (decisions 40)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from edgebook.domain.errors import InputError
from edgebook.ports import TokenInfo

_COLUMNS = ("symbol", "ticker", "chain")


def read_signals(path: Path | str) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of every line that is not blank, in file order; the text is not interpreted here.

    Raises:
        InputError: no such file, or a line that is not UTF-8; names file and line.
    """
    path = Path(path)
    number = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8").strip()
                if line:
                    yield number, line
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give a JSONL file of signals") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number}: not UTF-8 text (byte {error.start}); signals are JSON lines"
        ) from error


def read_tokens(path: Path | str) -> dict[str, TokenInfo]:
    """Token table by symbol from a CSV with columns symbol, ticker, chain and, optionally, mcap_usd or mcap_usd_proxy.

    Raises:
        InputError: no such file, a missing column, a symbol twice, or a market cap that is no positive number;
            names file, line and field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    reader = csv.DictReader(text.splitlines())
    header = reader.fieldnames or []
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise InputError(f"{path}: line 1: column {missing[0]} is missing; a token table has {', '.join(_COLUMNS)}")
    cap_column = next((name for name in ("mcap_usd", "mcap_usd_proxy") if name in header), "")
    tokens: dict[str, TokenInfo] = {}
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        symbol = (row["symbol"] or "").strip()
        if not symbol or symbol in tokens:
            raise InputError(
                f"{where}: symbol {symbol!r} is {'there twice' if symbol else 'empty'}; one row per symbol"
            )
        cap = _cap((row.get(cap_column) or "").strip(), f"{where}: {cap_column}") if cap_column else None
        ticker, chain = (row["ticker"] or symbol).strip(), (row["chain"] or "").strip()
        tokens[symbol] = TokenInfo(symbol, ticker, chain, cap)
    return tokens


def _cap(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where} is {text!r}; it must be a number of USD, 0 or more, or empty")
    return value

"""Recorded social signals and the token table beside them (decisions 40)."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from edgebook.domain.errors import InputError
from edgebook.domain.mentions import TokenMatch, TokenMention
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
    """Token table by symbol from a CSV with columns symbol, ticker, chain and, optionally, contract and mcap_usd or
    mcap_usd_proxy.

    Raises:
        InputError: no such file, a missing column, a symbol or a contract on its chain twice, or a market cap that is
            no positive number; names file, line and field.
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
    contracts: set[tuple[str, str]] = set()
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        symbol = (row["symbol"] or "").strip()
        if not symbol or symbol in tokens:
            raise InputError(
                f"{where}: symbol {symbol!r} is {'there twice' if symbol else 'empty'}; one row per symbol"
            )
        cap = _cap((row.get(cap_column) or "").strip(), f"{where}: {cap_column}") if cap_column else None
        ticker, chain = (row["ticker"] or symbol).strip(), (row["chain"] or "").strip()
        contract = (row.get("contract") or "").strip()
        if contract and (chain, contract) in contracts:
            raise InputError(f"{where}: contract {contract!r} is there twice on chain {chain!r}; one row per contract")
        contracts.add((chain, contract))
        tokens[symbol] = TokenInfo(symbol, ticker, chain, cap, contract)
    return tokens


class TableResolver:
    """``ports.TokenResolver`` by a token table: exact names only (letters may differ in case), nothing is guessed.

    A contract is looked up first, else the symbol, else the ticker (with or without ``$``), on every chain of the
    table; the chain a message names narrows the choice. Among several tokens none is chosen. A token on a chain that is
    not supported is told with ``mapping_status`` ``chain_unresolved``: the mention is kept, and never stands for the
    next best token on another chain (trading.md 1.2).

    Args:
        tokens: the table by symbol; a row without a chain is on whatever chain the message names.
        chains: supported chains.

    >>> table = TableResolver({"KEYUSDT": TokenInfo("KEYUSDT", "KEY", "exchange")}, {"exchange"})
    >>> found = table.resolve(TokenMention(ticker="$key"))
    >>> found.symbol, found.contract, found.mapping_reason
    ('KEYUSDT', 'KEYUSDT', 'ticker_only')
    """

    def __init__(self, tokens: Mapping[str, TokenInfo], chains: Collection[str]) -> None:
        self._chains = frozenset(chains)
        self._tables: dict[str, dict[str, list[TokenInfo]]] = {"contract": {}, "symbol": {}, "ticker": {}}
        for token in tokens.values():
            names = {"contract": _contract(token), "symbol": token.symbol, "ticker": token.ticker}
            for field, name in names.items():
                self._tables[field].setdefault(_folded(field, name), []).append(token)

    def resolve(self, mention: TokenMention) -> TokenMatch:
        """The one token that is meant.

        Raises:
            InputError: unknown, ambiguous, on another supported chain than the message says, or contract and symbol of
                different tokens; one line.
        """
        field = "contract" if mention.contract else "symbol" if mention.symbol else "ticker"
        name = str(getattr(mention, field))
        found = self._tables[field].get(_folded(field, name), [])
        if not found:
            raise InputError(f"token.{field} {name!r} is not a known token")
        if mention.chain:
            found = self._on_chain(found, mention.chain, f"token.{field} {name!r}")
        if field == "symbol" and len(found) > 1:
            found = [token for token in found if token.symbol == name] or found
        if len(found) > 1:
            choice = ", ".join(f"{token.symbol} on {token.chain or 'any chain'}" for token in found)
            raise InputError(
                f"token.{field} {name!r} is ambiguous: {choice}; give its contract or symbol and its chain"
            )
        (token,) = found
        if mention.contract and mention.symbol and mention.symbol.casefold() != token.symbol.casefold():
            raise InputError(
                f"token.contract {name!r} is {token.symbol}, token.symbol is {mention.symbol!r}: which one?"
            )
        return self._match(token, mention)

    def _on_chain(self, found: list[TokenInfo], chain: str, what: str) -> list[TokenInfo]:
        here = [token for token in found if token.chain in ("", chain)]
        if here or chain not in self._chains:
            return here or found
        places = ", ".join(sorted({token.chain for token in found}))
        raise InputError(f"{what} is not on chain {chain!r}: the token table has it on {places}")

    def _match(self, token: TokenInfo, mention: TokenMention) -> TokenMatch:
        other = bool(mention.chain) and mention.chain not in self._chains
        chain = mention.chain if other or not token.chain else token.chain
        chain = chain or "exchange"
        reason = "contract_link" if mention.contract else "ticker+chain_phrase" if mention.chain else "ticker_only"
        status = "resolved" if chain in self._chains else "chain_unresolved"
        return TokenMatch(token.symbol, token.ticker, chain, _contract(token), reason, status)


def _contract(token: TokenInfo) -> str:
    return token.contract or token.symbol


def _folded(field: str, name: str) -> str:
    """A name as it is compared: tickers without ``$``, letters in one case but in contracts (other than ``0x...``)."""
    if field == "contract" and not name.lower().startswith("0x"):
        return name
    return (name.lstrip("$") if field == "ticker" else name).casefold()


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

"""The token table as a resolver: one exact match or none, and the reason in one line (trading.md 1.2)."""

from __future__ import annotations

import pytest

from edgebook.adapters.feeds.signals import TableResolver, read_tokens
from edgebook.domain.errors import InputError
from edgebook.domain.mentions import TokenMatch, TokenMention
from edgebook.ports import TokenInfo

CHAINS = {"exchange", "solana", "base"}
TABLE = TableResolver(
    {
        token.symbol: token
        for token in (
            TokenInfo("KEYUSDT", "KEY", "exchange", 7e8),
            TokenInfo("CAT-SOL", "CAT", "solana", None, "So1Cat"),
            TokenInfo("CAT-BASE", "CAT", "base", None, "0xCaT"),
            TokenInfo("CAT-TRON", "CAT", "tron", None, "TRcat"),
            TokenInfo("DOG-TRON", "DOG", "tron", None, "TRdog"),
            TokenInfo("FREE", "FREE", "", None, "anyfree"),
        )
    },
    CHAINS,
)


def resolve(**said):
    return TABLE.resolve(TokenMention(**said))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"symbol": "KEYUSDT"}, ("KEYUSDT", "KEY", "exchange", "KEYUSDT", "ticker_only")),
        ({"symbol": "keyusdt"}, ("KEYUSDT", "KEY", "exchange", "KEYUSDT", "ticker_only")),
        ({"ticker": "$key"}, ("KEYUSDT", "KEY", "exchange", "KEYUSDT", "ticker_only")),
        (
            {"symbol": "KEYUSDT", "ticker": "KEY", "chain": "exchange"},
            ("KEYUSDT", "KEY", "exchange", "KEYUSDT", "ticker+chain_phrase"),
        ),
        ({"ticker": "CAT", "chain": "base"}, ("CAT-BASE", "CAT", "base", "0xCaT", "ticker+chain_phrase")),
        ({"contract": "So1Cat"}, ("CAT-SOL", "CAT", "solana", "So1Cat", "contract_link")),
        ({"contract": "0XcAt", "ticker": "CAT"}, ("CAT-BASE", "CAT", "base", "0xCaT", "contract_link")),
        ({"contract": "So1Cat", "symbol": "cat-sol"}, ("CAT-SOL", "CAT", "solana", "So1Cat", "contract_link")),
        ({"contract": "KEYUSDT"}, ("KEYUSDT", "KEY", "exchange", "KEYUSDT", "contract_link")),
        ({"ticker": "FREE", "chain": "solana"}, ("FREE", "FREE", "solana", "anyfree", "ticker+chain_phrase")),
        ({"ticker": "FREE"}, ("FREE", "FREE", "exchange", "anyfree", "ticker_only")),
    ],
)
def test_one_exact_match_is_the_token(said, found):
    """Contract, else symbol, else ticker; letters may differ in case but in a contract that is no 0x address."""
    assert resolve(**said) == TokenMatch(*found, "resolved")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"symbol": "KEY"}, "token.symbol 'KEY' is not a known token"),
        ({"symbol": "WHO", "ticker": "KEY"}, "token.symbol 'WHO' is not a known token"),
        ({"ticker": "KE"}, "token.ticker 'KE' is not a known token"),
        ({"contract": "so1cat"}, "token.contract 'so1cat' is not a known token"),
        ({"contract": "0xdead", "symbol": "KEYUSDT"}, "token.contract '0xdead' is not a known token"),
        ({"ticker": "CAT"}, "'CAT' is ambiguous: CAT-SOL on solana, CAT-BASE on base, CAT-TRON on tron"),
        ({"ticker": "CAT", "chain": "bsc"}, "is ambiguous"),
        ({"ticker": "CAT", "chain": "exchange"}, "is not on chain 'exchange': the token table has it on base, solana"),
        (
            {"contract": "So1Cat", "symbol": "CAT-BASE"},
            "token.contract 'So1Cat' is CAT-SOL, token.symbol is 'CAT-BASE'",
        ),
    ],
)
def test_anything_else_is_no_signal_and_says_why(said, why):
    """Unknown, ambiguous, elsewhere, contradictory: one line, and nothing is guessed."""
    with pytest.raises(InputError) as refused:
        resolve(**said)
    assert why in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("said", "symbol", "chain"),
    [
        ({"symbol": "KEYUSDT", "chain": "tron"}, "KEYUSDT", "tron"),
        ({"ticker": "CAT", "chain": "tron"}, "CAT-TRON", "tron"),
        ({"ticker": "DOG"}, "DOG-TRON", "tron"),
    ],
)
def test_a_chain_that_is_not_supported_is_told_and_not_replaced(said, symbol, chain):
    """The mention is kept for the decision maker to reject; it never becomes the same ticker on another chain."""
    found = resolve(**said)
    assert (found.symbol, found.chain, found.mapping_status) == (symbol, chain, "chain_unresolved")


def test_two_symbols_that_differ_in_case_are_told_apart_by_case_alone():
    """An exact name wins; a third spelling is ambiguous."""
    table = TableResolver({s: TokenInfo(s, s, "exchange") for s in ("Abc", "ABC")}, CHAINS)
    assert table.resolve(TokenMention(symbol="Abc")).symbol == "Abc"
    with pytest.raises(InputError, match="ambiguous"):
        table.resolve(TokenMention(symbol="abc"))


def test_a_token_table_may_name_contracts(tmp_path):
    """The column contract is optional; the same contract on one chain twice is named with its line."""
    path = tmp_path / "tokens.csv"
    path.write_text("symbol,ticker,chain,contract\nA,A,base,0x1\nB,B,base,\nC,C,base,\nD,D,solana,0x1\n")
    assert [token.contract for token in read_tokens(path).values()] == ["0x1", "", "", "0x1"]
    path.write_text("symbol,ticker,chain,contract\nA,A,base,0x1\nB,B,base,0x1\n")
    with pytest.raises(InputError, match=r"tokens\.csv: line 3: contract '0x1' is there twice on chain 'base'"):
        read_tokens(path)

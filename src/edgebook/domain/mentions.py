"""What a message says of a token and of who says it, and what that was found to mean (trading.md 1.1-1.3)."""

from __future__ import annotations

from dataclasses import dataclass

#: Status of a curator: the first and the last may be followed, the other two are not.
CURATOR_STATUSES: tuple[str, ...] = ("active", "inactive", "suspended", "testing")


@dataclass(frozen=True, slots=True)
class TokenMention:
    """How a message names a token; "" where it does not say.

    Attributes:
        symbol: the instrument whose bars are traded, e.g. ``KEYUSDT``.
        ticker: the short name, with or without ``$``.
        contract: address of the token on its chain.
        chain: the chain the message names.
    """

    symbol: str = ""
    ticker: str = ""
    contract: str = ""
    chain: str = ""


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """The one token a mention means.

    Attributes:
        mapping_reason: ``contract_link``, ``ticker+chain_phrase`` (the message named the chain) or ``ticker_only``; ""
            when nobody looked it up.
        mapping_status: ``resolved``, or ``chain_unresolved`` on a chain that is not supported; "" when nobody looked.
    """

    symbol: str
    ticker: str
    chain: str
    contract: str
    mapping_reason: str = ""
    mapping_status: str = ""


def curator_address(text: str) -> str:
    """One way of writing who spoke: ``platform:handle`` without ``@`` and in small letters; anything else is an id.

    >>> curator_address("Twitter:@Ann"), curator_address("Ann")
    ('twitter:ann', 'Ann')
    """
    platform, colon, handle = text.partition(":")
    return f"{platform.strip().lower()}:{handle.strip().lstrip('@').lower()}" if colon else text


def token_key(chain: str, contract: str) -> str:
    """Key of what is known of one token: its chain and contract, as positions have them."""
    return f"{chain}|{contract}"

"""Addresses as they may be shown: without the password in them."""

from __future__ import annotations

import re

_USER = re.compile(r"(://[^:@/?]*):.*@")
_QUERY = re.compile(r"([?&][a-z]*password=)[^&]*", re.IGNORECASE)


def masked(url: str) -> str:
    """The address with ``***`` for its password, where it has one; everything else as it was written.

    >>> masked("postgresql://me:secret@db.example/book")
    'postgresql://me:***@db.example/book'
    >>> masked("postgresql://db.example/book?user=me&password=secret")
    'postgresql://db.example/book?user=me&password=***'
    >>> masked("sqlite:////home/me:and@you/book.db")
    'sqlite:////home/me:and@you/book.db'
    """
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", url))

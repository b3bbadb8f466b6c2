"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from edgebook.domain.errors import InputError


def moment(text: str | None, option: str) -> int | None:
    """Microseconds UTC of an ISO time given to ``option``; a time without zone is UTC.

    >>> moment("2021-06-01", "--from")
    1622505600000000
    """
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} must be a time such as 2021-06-01 or 2021-06-01T12:00:00Z, was {text!r}") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000_000)

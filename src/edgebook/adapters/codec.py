"""The one canonical JSON form of strands and rows: what is stored, compared and hashed (decisions 33).

orjson with sorted keys and no spaces. Money travels as text. NaN, infinities and NUL characters are refused with the
path of the field: orjson would write the first two as ``null``, and PostgreSQL cannot store the third.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import orjson

from edgebook.domain.codec import from_json
from edgebook.domain.errors import StrandError
from edgebook.domain.strands import PAYLOADS, Strand, payload_from_json
from edgebook.domain.values import maker

T = TypeVar("T")

_strand = maker(Strand)

GENESIS = "0" * 64
"""Hash of the empty log."""

_FIELDS = (
    "arm",
    "causation_id",
    "config_version",
    "correlation_id",
    "episode_id",
    "id",
    "kind",
    "module",
    "position_id",
    "regime_snapshot_id",
    "symbol",
    "timeframe",
    "trade_id",
    "ts_event",
)
# What is hashed of a strand beside payload, scope and tags. Not ``seq`` and ``hash`` (the chain gives them) and not
# ``ts_recorded`` (a wall clock: the same facts recorded a second later are the same log).

COLUMNS = (
    "seq",
    "id",
    "kind",
    "module",
    "symbol",
    "timeframe",
    "position_id",
    "trade_id",
    "episode_id",
    "correlation_id",
    "causation_id",
    "ts_event",
    "ts_recorded",
    "config_version",
    "arm",
    "scope",
    "regime_snapshot_id",
    "tags",
    "content",
    "hash",
)
"""Columns of ``ad_strands`` in the order of a stored row."""

_PLAIN = attrgetter(*_FIELDS)
_WHOLE = ("ts_event", "ts_recorded", "config_version")
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_NO_SCOPE, _NO_TAGS = b"{}", b"[]"


class Encoded(NamedTuple):
    """A strand in its canonical form: the whole of it as hashed, and the three parts that are stored as text."""

    canonical: bytes
    content: bytes
    scope: bytes
    tags: bytes


def encode(value: Any) -> bytes:
    """Canonical JSON of a row, payload, mapping, tuple, Decimal or scalar.

    Raises:
        StrandError: a value that JSON or a database cannot hold; names the path of the field.

    >>> encode({"b": Decimal("1.50"), "a": (1, None, True)})
    b'{"a":[1,null,true],"b":"1.50"}'
    >>> encode({"a": [1.0, float("nan")]})
    Traceback (most recent call last):
    ...
    edgebook.domain.errors.StrandError: a[1] is nan: only finite numbers can be stored
    """
    try:
        data = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise StrandError(_first_problem(value) or f"cannot be written as JSON: {error}") from error
    # Whatever is not finite was written as null, and a NUL as an escape: only then is a look worth while.
    doubtful = b"\\u0000" in data or (b"null" in data and not _all_finite(value))
    if doubtful and (problem := _first_problem(value)):
        raise StrandError(problem)
    return data


def decode(data: bytes | str) -> Any:
    """The plain value of canonical JSON.

    Raises:
        StrandError: not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise StrandError(f"stored text is not JSON: {error}") from error


def encode_row(row: Any, where: str = "") -> bytes:
    """Canonical JSON of a projection row; errors begin with ``where`` and the row's key.

    Raises:
        StrandError: as ``encode``.
    """
    try:
        return encode(row)
    except StrandError as error:
        raise StrandError(f"{where or type(row).__name__} row {row.key!r}: {error.message}") from error


def decode_row(cls: type[T], data: bytes | str) -> T:
    """The row of ``cls`` from its canonical JSON.

    Raises:
        StrandError: not JSON, or not such a row.
    """
    return from_json(cls, decode(data))


def encode_strand(strand: Strand) -> Encoded:
    """The canonical form of ``strand``; its ``seq``, ``hash`` and ``ts_recorded`` are not part of it.

    Raises:
        StrandError: the payload's kind is not in the catalogue, or a value cannot be stored; names id, kind and field.
    """
    payload = strand.payload
    if PAYLOADS.get(getattr(payload, "kind", "")) is not type(payload):
        raise StrandError(f"strand {strand.id}: a {type(payload).__name__} is not a payload of the catalogue")
    try:
        content = encode(payload)
        scope = encode(strand.scope) if strand.scope else _NO_SCOPE
        tags = encode(strand.tags) if strand.tags else _NO_TAGS
        canonical = _envelope(_PLAIN(strand), content, scope, tags)
        for name in _WHOLE:
            if type(value := getattr(strand, name)) is not int:
                raise StrandError(f"{name} is {value!r}: must be a whole number")
    except StrandError as error:
        message = f"strand {strand.id} ({payload.kind}): {error.message}"
        raise StrandError(message, correlation_id=strand.correlation_id) from error
    return Encoded(canonical, content, scope, tags)


def strand_bytes(strand: Strand) -> bytes:
    """The bytes of ``strand`` that the chain hashes: the same on every machine and at every wall-clock time."""
    return encode_strand(strand).canonical


def chain_hash(previous: str, canonical: bytes) -> str:
    """Hash of the chain after a strand: hex SHA-256 of the previous hash's 64 hex digits and the strand's bytes."""
    return hashlib.sha256(previous.encode() + canonical).hexdigest()


def stamp(strand: Strand, seq: int, digest: str) -> Strand:
    """``strand`` with its place in the log."""
    return _strand(
        strand.id,
        strand.payload,
        strand.ts_event,
        strand.ts_recorded,
        strand.module,
        strand.symbol,
        strand.timeframe,
        strand.position_id,
        strand.trade_id,
        strand.episode_id,
        strand.correlation_id,
        strand.causation_id,
        strand.config_version,
        strand.arm,
        strand.scope,
        strand.regime_snapshot_id,
        strand.tags,
        seq,
        digest,
    )


def strand_row(strand: Strand, form: Encoded) -> tuple[Any, ...]:
    """The stored row of an appended strand, in the order of ``COLUMNS``."""
    return (
        strand.seq,
        strand.id,
        strand.payload.kind,
        strand.module,
        strand.symbol,
        strand.timeframe,
        strand.position_id,
        strand.trade_id,
        strand.episode_id,
        strand.correlation_id,
        strand.causation_id,
        strand.ts_event,
        strand.ts_recorded,
        strand.config_version,
        strand.arm,
        form.scope.decode(),
        strand.regime_snapshot_id,
        form.tags.decode(),
        form.content.decode(),
        strand.hash,
    )


def strand_from_row(row: Sequence[Any]) -> Strand:
    """The strand of a stored row.

    Raises:
        StrandError: the row does not hold a strand of the catalogue; names its seq.
    """
    data = dict(zip(COLUMNS, row, strict=True))
    try:
        data["payload"] = payload_from_json(data.pop("kind"), decode(data.pop("content")))
        data["scope"] = decode(data["scope"])
        data["tags"] = tuple(decode(data["tags"]))
    except StrandError as error:
        raise StrandError(f"ad_strands seq {row[0]}: {error.message}") from error
    return Strand(**data)


def row_bytes(row: Sequence[Any]) -> bytes:
    """The hashed bytes of a stored row, made from its columns alone, so that a change of any hashed column shows.

    Raises:
        StrandError: content, scope or tags are not JSON.
    """
    data = dict(zip(COLUMNS, row, strict=True))
    content, scope, tags = (orjson.dumps(decode(data[n]), option=_OPTIONS) for n in ("content", "scope", "tags"))
    return _envelope([data[name] for name in _FIELDS], content, scope, tags)


def _envelope(plain: Sequence[Any], content: bytes, scope: bytes, tags: bytes) -> bytes:
    """The whole strand as one object with sorted keys; ``plain`` are its fields in the order of ``_FIELDS``."""
    envelope = dict(zip(_FIELDS, plain, strict=True))
    envelope["payload"] = orjson.Fragment(content)
    envelope["scope"] = orjson.Fragment(scope)
    envelope["tags"] = orjson.Fragment(tags)
    try:
        data = orjson.dumps(envelope, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise StrandError(_first_problem(dict(zip(_FIELDS, plain, strict=True))) or str(error)) from error
    if b"\\u0000" in data and (problem := _first_problem(dict(zip(_FIELDS, plain, strict=True)))):
        raise StrandError(problem)
    return data


def _plain(value: Any) -> Any:
    """What orjson asks about: dataclasses by field, Decimal as text, other mappings and tuples."""
    if dataclasses.is_dataclass(kind := type(value)):
        return dict(zip(_names(kind), _fields_of(kind)(value), strict=True))
    if kind is Decimal and value.is_finite():
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"a {kind.__name__} cannot be stored")


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


def _all_finite(value: Any) -> bool:
    """Whether every float in or below ``value`` is finite: the quick look before the one that names the field."""
    stack = [value]
    for item in stack:  # grows while it is walked
        kind = type(item)
        if kind is float:
            if item - item != 0.0:
                return False
        elif kind in _LEAVES:
            continue
        elif kind is dict:
            stack += item.values()
        elif kind is tuple or kind is list:
            stack += item
        elif dataclasses.is_dataclass(kind):
            stack += _fields_of(kind)(item)
        else:
            stack += (inner for _, inner in _members(item) or ())
    return True


@cache
def _fields_of(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """All fields of a dataclass at once."""
    names = _names(kind)
    return attrgetter(*names) if len(names) > 1 else lambda value: tuple(getattr(value, name) for name in names)


def _first_problem(value: Any) -> str | None:
    """What is wrong with the first value that cannot be stored, with its path; None if nothing is."""
    if (fault := _fault(value)) is None:
        return None
    steps, problem = fault
    path = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in reversed(steps)).lstrip(".")
    return f"{path or 'the value'} is {problem}"


def _fault(value: Any) -> tuple[list[Any], str] | None:
    """The first fault in or below ``value``: the path to it from the inside out, and what is wrong."""
    if check := _LEAVES.get(type(value)):
        problem = check(value)
        return ([], problem) if problem else None
    members = _members(value)
    if members is None:
        kind = f"{type(value).__module__}.{type(value).__name__}"
        return [], f"a {kind}: only text, numbers, mappings, tuples and Decimal can be stored"
    for step, inner in members:
        if isinstance(value, Mapping) and (problem := _key_problem(step)):
            return [], problem
        if fault := _fault(inner):
            fault[0].append(step)
            return fault
    return None


def _members(value: Any) -> list[tuple[Any, Any]] | None:
    if dataclasses.is_dataclass(kind := type(value)):
        return [(name, getattr(value, name)) for name in _names(kind)]
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    return None


def _key_problem(key: Any) -> str | None:
    if type(key) is not str:
        return f"a mapping with the key {key!r}: keys must be text"
    problem = _text_problem(key)
    return f"a mapping with a key that is {problem}" if problem else None


def _text_problem(value: str) -> str | None:
    if "\0" in value:
        return "text with a NUL character: databases cannot store it"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "text with half a surrogate pair: not valid Unicode"
    return None


def _int_problem(value: int) -> str | None:
    return None if -(2**63) <= value < 2**64 else f"{value}: whole numbers must fit into 64 bits"


def _float_problem(value: float) -> str | None:
    return None if math.isfinite(value) else f"{value}: only finite numbers can be stored"


def _decimal_problem(value: Decimal) -> str | None:
    return None if value.is_finite() else f"{value}: only finite numbers can be stored"


_LEAVES: dict[type, Callable[[Any], str | None]] = {
    float: _float_problem,
    str: _text_problem,
    int: _int_problem,
    bool: lambda _: None,
    type(None): lambda _: None,
    Decimal: _decimal_problem,
}

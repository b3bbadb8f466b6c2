"""Frozen dataclasses to plain JSON values and back, checked against their annotations.

Used for strand payloads and projection rows. Money is ``Decimal`` and travels as text; NaN never travels (the encoder
refuses it); unknown and missing fields are errors that name the field.
"""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, TypeVar, Union

from edgebook.domain.errors import StrandError

T = TypeVar("T")
Convert = Callable[[Any], Any]


def to_json(value: Any) -> Any:
    """The plain JSON form of a frozen dataclass (field by field), mapping, tuple, Decimal or scalar.

    >>> to_json((Decimal("1.50"), {"a": None}))
    ['1.50', {'a': None}]
    """
    kind = type(value)
    if kind is str or kind is float or kind is int or kind is bool or value is None:
        return value
    if dataclasses.is_dataclass(kind):
        names, get, composite = _plan(kind)
        data = dict(zip(names, get(value), strict=True))
        for name in composite:
            data[name] = to_json(data[name])
        return data
    if kind is Decimal:
        return str(value)
    if isinstance(value, Mapping):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    raise StrandError(f"a {kind.__name__} cannot be written as JSON; use text, numbers, tuples, mappings or Decimal")


def from_json(cls: type[T], data: Any) -> T:
    """Rebuild a ``cls`` from its JSON form.

    Raises:
        StrandError: unknown or missing field, or a value of the wrong type; names ``Class.field``.
    """
    result: T = _reader(typing.cast(Hashable, cls), cls.__name__)(data)
    return result


@cache
def _plan(cls: type) -> tuple[tuple[str, ...], Convert, tuple[str, ...]]:
    """Field names, a getter of all fields at once, and the fields that are not plain scalars."""
    hints = typing.get_type_hints(cls)
    names = tuple(f.name for f in dataclasses.fields(cls))
    plain = {str, int, float, bool, type(None)}
    composite = tuple(n for n in names if not (set(typing.get_args(hints[n])) or {hints[n]}) <= plain)
    getter = operator.attrgetter(*names)
    return names, getter if len(names) > 1 else lambda value: (getter(value),), composite


@cache
def _reader(kind: Any, where: str) -> Convert:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional_reader(kind, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast(type, kind), where)
    if origin in (tuple, list):
        item = _reader(typing.get_args(kind)[0], where)
        return lambda data: tuple(item(v) for v in _expect(data, list, where))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        item = _reader(typing.get_args(kind)[1], where)
        return lambda data: {k: item(v) for k, v in _expect(data, dict, where).items()}
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        return lambda data: data if data in allowed else _wrong(data, f"one of {allowed}", where)
    return _scalar_reader(kind, where)


def _dataclass_reader(cls: type, where: str) -> Convert:
    hints = typing.get_type_hints(cls)
    readers = {f.name: _reader(hints[f.name], f"{cls.__name__}.{f.name}") for f in dataclasses.fields(cls)}
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            _wrong(data, "an object", where)
        if unknown := set(data) - set(readers):
            raise StrandError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        if missing := required - set(data):
            raise StrandError(f"{cls.__name__} lacks field {', '.join(sorted(missing))}")
        return cls(**{name: readers[name](value) for name, value in data.items()})

    return read


def _optional_reader(kind: Any, where: str) -> Convert:
    options = [a for a in typing.get_args(kind) if a is not type(None)]
    nullable = len(options) < len(typing.get_args(kind))
    if len(options) == 1:
        inner = _reader(options[0], where)
        return lambda data: None if data is None and nullable else inner(data)
    plain = tuple(options)

    def read(data: Any) -> Any:
        if data is None and nullable:
            return None
        return data if type(data) in plain else _wrong(data, " or ".join(o.__name__ for o in plain), where)

    return read


def _scalar_reader(kind: Any, where: str) -> Convert:
    if kind is Decimal:
        return lambda data: _decimal(data, where)
    if kind is float:
        return lambda data: float(data) if type(data) in (float, int) else _wrong(data, "a number", where)
    if kind in (str, int, bool):
        return lambda data: data if type(data) is kind else _wrong(data, kind.__name__, where)
    if kind is Any:
        return lambda data: data
    raise StrandError(f"{where}: fields of type {kind!r} cannot be read from JSON")


def _decimal(data: Any, where: str) -> Decimal:
    try:
        return Decimal(_expect(data, str, where))
    except InvalidOperation:
        _wrong(data, "a decimal number as text", where)
        raise


def _expect(data: Any, kind: type, where: str) -> Any:
    return data if isinstance(data, kind) else _wrong(data, kind.__name__, where)


def _wrong(data: Any, wanted: str, where: str) -> Any:
    raise StrandError(f"{where} must be {wanted}, was {data!r}")

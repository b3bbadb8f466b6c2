"""Making and copying frozen values, fast: what a class and ``dataclasses.replace`` do, several times quicker.

A frozen dataclass writes each field through ``object.__setattr__``, so that copying a row of forty fields costs more
than deciding on it. Here the fields are written into an unfrozen twin with the same slots, which then becomes the
frozen class. For a type checker both names are the originals, so that fields and types are checked as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, make_dataclass
from dataclasses import replace as _plain_replace
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(value: T, /, **changes: Any) -> T:
        """``value``, a frozen dataclass, with some fields changed; a class that checks itself checks again.

        Raises:
            AttributeError: there is no such field.

        >>> from edgebook.domain.evidence import Watermark
        >>> replace(Watermark("clock", 3, 10), seq=4)
        Watermark(consumer='clock', seq=4, at=10)
        """
        kind = type(value)
        draft, read = _twin(kind)
        if draft is None:
            return _plain_replace(value, **changes)
        made = draft(*read(value))
        for name, new in changes.items():
            setattr(made, name, new)
        made.__class__ = kind
        return made


def maker(kind: type[T]) -> type[T]:
    """A constructor of the frozen dataclass ``kind``: called exactly as the class is.

    Raises:
        TypeError: ``kind`` checks itself when made, or has no slots; use it directly.

    >>> from edgebook.domain.evidence import Watermark
    >>> maker(Watermark)("clock", 3, at=10)
    Watermark(consumer='clock', seq=3, at=10)
    """
    draft, _ = _twin(cast(Any, kind))
    if draft is None:
        raise TypeError(f"{kind.__name__} checks itself when made, or has no slots; use it directly")

    def make(*values: Any, **named: Any) -> T:
        made = draft(*values, **named)
        made.__class__ = kind
        return cast(T, made)

    return cast("type[T]", make)


@cache
def _twin(kind: type) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The unfrozen twin of ``kind`` (None where there can be none), and a getter of all fields at once."""
    own = fields(kind)
    names = [one.name for one in own]
    get = attrgetter(*names)
    read = get if len(names) > 1 else lambda value: (get(value),)
    if hasattr(kind, "__post_init__") or not hasattr(kind, "__slots__"):
        return None, read
    copies = [(one.name, one.type, _default_of(one)) for one in own]
    return make_dataclass(f"_{kind.__name__}Draft", copies, slots=True, eq=False), read


def _default_of(one: Field[Any]) -> Any:
    if one.default is not MISSING:
        return field(default=one.default)
    return field(default_factory=one.default_factory) if one.default_factory is not MISSING else field()

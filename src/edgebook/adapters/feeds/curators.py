"""The registry of curators: a TOML or JSON file that says who may be followed (trading.md 1.1).

TOML has one ``[[curators]]`` table per curator, JSON an object ``{"curators": [...]}``::

    [[curators]]
    id = "ann"
    name = "Ann"
    enabled = true
    status = "active"
    base_weight = 0.7
    handles = { twitter = "ann_calls", telegram = ["ann", "ann_backup"] }
    tags = ["solana"]
    notes = "quiet on weekends"

Only ``id`` is needed. A message names a curator by id or by ``platform:handle``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from edgebook.domain.errors import InputError
from edgebook.domain.mentions import CURATOR_STATUSES, curator_address
from edgebook.domain.strands import CuratorRegistered

BASE_WEIGHT = 0.6
_FIELDS = ("id", "name", "enabled", "status", "base_weight", "handles", "tags", "notes")


def read_curators(path: Path | str) -> tuple[CuratorRegistered, ...]:
    """Entries of the registry, by id.

    Raises:
        InputError: no such file, not TOML or JSON, an unknown field, a value of the wrong kind, an id or a handle
            twice; names file, entry and field.
    """
    path = Path(path)
    entries = [_entry(raw, f"{path}: curators[{n}]") for n, raw in enumerate(_list(path), start=1)]
    seen: dict[str, str] = {}
    for entry in entries:
        for name, field in ((entry.curator, "id"), *((handle, "handles") for handle in entry.handles)):
            if name in seen:
                raise InputError(
                    f"{path}: curator {entry.curator!r}: {field}: {name!r} belongs to {seen[name]!r} already; "
                    "an id and a handle belong to one curator"
                )
            seen[name] = entry.curator
    return tuple(sorted(entries, key=lambda entry: entry.curator))


def _list(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give a registry of curators") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); a registry is TOML or JSON") from error
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML (a JSON registry is called *.json)"
        raise InputError(f"{path}: not {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not isinstance(data.get("curators"), list):
        raise InputError(f"{path}: needs a list called curators ([[curators]] tables in TOML)")
    if unknown := sorted(set(data) - {"curators"}):
        raise InputError(f"{path}: {unknown[0]!r} is not known; a registry has curators and nothing else")
    found: list[Any] = data["curators"]
    return found


def _entry(raw: Any, where: str) -> CuratorRegistered:
    if not isinstance(raw, dict):
        _refuse(where, "must be a table of fields", raw)
    ident = _text(raw, "id", where, None)
    where = f"{where} ({ident})"
    if unknown := sorted(set(raw) - set(_FIELDS)):
        raise InputError(f"{where}: {unknown[0]} is no field; fields are {', '.join(_FIELDS)}")
    if ":" in ident:
        _refuse(f"{where}: id", "must not hold a colon, which separates platform and handle", ident)
    return CuratorRegistered(
        curator=ident,
        name=_text(raw, "name", where, ident),
        enabled=_flag(raw, "enabled", where),
        status=_status(raw, where),
        base_weight=_weight(raw, where),
        handles=_handles(raw.get("handles", {}), f"{where}: handles"),
        tags=tuple(_list_of_text(raw.get("tags", []), f"{where}: tags")),
        notes=_text(raw, "notes", where, ""),
    )


def _text(raw: Mapping[str, Any], name: str, where: str, default: str | None) -> str:
    value: Any = raw.get(name, default)
    if not _is_text(value) or (default is None and not value.strip()):
        _refuse(f"{where}: {name}", "must be text", value)
    return str(value) if name == "notes" else str(value).strip()


def _flag(raw: Mapping[str, Any], name: str, where: str) -> bool:
    value = raw.get(name, True)
    if not isinstance(value, bool):
        _refuse(f"{where}: {name}", "must be true or false", value)
    return value


def _status(raw: Mapping[str, Any], where: str) -> str:
    value = raw.get("status", "active")
    if value not in CURATOR_STATUSES:
        _refuse(f"{where}: status", f"must be one of {', '.join(CURATOR_STATUSES)}", value)
    return str(value)


def _weight(raw: Mapping[str, Any], where: str) -> float:
    value = raw.get("base_weight", BASE_WEIGHT)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        _refuse(f"{where}: base_weight", "must be a number from 0 to 1", value)
    return float(value)


def _handles(raw: Any, where: str) -> tuple[str, ...]:
    """``platform:handle`` of each handle, ascending."""
    if not isinstance(raw, dict):
        _refuse(where, "must be a table of platforms such as { twitter = 'name' }", raw)
    found = []
    for platform, value in raw.items():
        for handle in _list_of_text([value] if isinstance(value, str) else value, f"{where}.{platform}"):
            address = curator_address(f"{platform}:{handle}")
            if not platform.strip() or ":" in platform or address.endswith(":") or any(map(str.isspace, address)):
                _refuse(f"{where}.{platform}", "must be a name without spaces", handle)
            found.append(address)
    return tuple(sorted(found))


def _list_of_text(raw: Any, where: str) -> list[str]:
    if not isinstance(raw, list) or not all(_is_text(item) and item.strip() for item in raw):
        _refuse(where, "must be a list of texts", raw)
    return [item.strip() for item in raw]


def _is_text(value: Any) -> bool:
    """Whether a database can keep it as text: no NUL, no half of a surrogate pair."""
    return isinstance(value, str) and not any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in value)


def _refuse(where: str, wanted: str, value: Any) -> NoReturn:
    shown = repr(value)
    raise InputError(f"{where} {wanted}, was {shown if len(shown) <= 60 else shown[:57] + '...'}")

"""``edgebook config``: the versions of what was learnt, and an operator's hand on it."""

from __future__ import annotations

import getpass
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebook.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgebook.ports import UnitOfWork

Db = Annotated[str | None, typer.Option("--db", help="Database URL; default sqlite:///edgebook.db or EDGEBOOK_DB.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str | None, typer.Option("--who", help="Who does it; default the name of the user.")]
Why = Annotated[str, typer.Option("--why", help="Why, one line; kept in the log.")]
LessonId = Annotated[str, typer.Argument(help="Id of the lesson, or its beginning.")]

config = typer.Typer(
    help="Versions of what was learnt: list, compare, go back, hold a lesson fast or keep it from acting.",
    no_args_is_help=True,
)


@config.command()
def history(
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Config versions, the newest first: when, by whom and why, and how many overrides each added or changed."""
    from edgebook.cli.show_config import show_history
    from edgebook.runtime.config_views import history_view

    with _reading(db) as uow:
        rows = history_view(uow, limit)
    typer.echo(json.dumps(rows)) if as_json else show_history(rows)


@config.command()
def diff(
    earlier: Annotated[int, typer.Argument(min=0, help="Number of a version; 0: none learnt.")],
    later: Annotated[int, typer.Argument(min=0, help="Number of another one.")],
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Overrides that the second version adds, removes and changes against the first, with levers and scopes."""
    from edgebook.cli.show_config import show_diff
    from edgebook.runtime.config_views import diff_view

    with _reading(db) as uow:
        found = diff_view(uow, earlier, later)
    typer.echo(json.dumps(found)) if as_json else show_diff(found)


@config.command()
def revert(
    version: Annotated[int, typer.Argument(min=0, help="Number of the version; 0: as before anything was learnt.")],
    who: Who = None,
    why: Why = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """A new version with the overrides of an older one; each stands until learning has new evidence for its lesson."""
    _steer("revert", str(version), who, why, db, as_json)


@config.command()
def pin(lesson: LessonId, who: Who = None, why: Why = "", db: Db = None, as_json: AsJson = False) -> None:
    """Keep a lesson's override as it is now, whatever learning says later, until it is unpinned."""
    _steer("pin", lesson, who, why, db, as_json)


@config.command()
def unpin(lesson: LessonId, who: Who = None, why: Why = "", db: Db = None, as_json: AsJson = False) -> None:
    """Let a pinned override follow learning again."""
    _steer("unpin", lesson, who, why, db, as_json)


@config.command()
def mute(lesson: LessonId, who: Who = None, why: Why = "", db: Db = None, as_json: AsJson = False) -> None:
    """Keep a lesson's override from acting, at once, until it is unmuted; it stays listed."""
    _steer("mute", lesson, who, why, db, as_json)


@config.command()
def unmute(lesson: LessonId, who: Who = None, why: Why = "", db: Db = None, as_json: AsJson = False) -> None:
    """Let a muted override act again; it comes in at most one step an hour."""
    _steer("unmute", lesson, who, why, db, as_json)


def operator(who: str | None) -> str:
    """The name given, else the user's.

    Raises:
        InputError: neither is known.
    """
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise InputError("this user has no name here; give --who") from None


def _steer(act: str, target: str, who: str | None, why: str, db: str | None, as_json: bool) -> None:
    from edgebook.cli.show_config import steered_text
    from edgebook.runtime.settings import load_settings
    from edgebook.runtime.steering import steer_config

    done = steer_config(load_settings(None, db=db).db, act, target, operator(who), why)
    found: dict[str, Any] = {"act": act, **done}
    typer.echo(json.dumps(found, sort_keys=True) if as_json else steered_text(found))


@contextmanager
def _reading(db: str | None) -> Iterator[UnitOfWork]:
    """A read-only view of the database."""
    from edgebook.runtime.bootstrap import open_store
    from edgebook.runtime.settings import load_settings

    with open_store(load_settings(None, db=db).db).reader() as uow:
        yield uow

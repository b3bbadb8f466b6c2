"""The library: lessons from anyone's closed trades, and multipliers for anyone's next ones (decisions 23, 24, 51).

A trade table goes through the same statistics, materializer and combination of overrides as the system's own trades;
only the dims are the user's. All a lesson wants goes to one lever, ``size_mult`` in [.5, 1.5].
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgebook.adapters.frames import arrow_stream, to_frame, write_table
from edgebook.adapters.importers.freqtrade import FreqtradeTrades, read_freqtrade
from edgebook.adapters.overrides_file import Learnt, canonical, lesson_row, read_learnt, write_learnt
from edgebook.adapters.trades import (
    TRADE_CATEGORIES,
    ContextColumns,
    TradeColumns,
    check_dims,
    read_contexts,
    read_trades,
)
from edgebook.domain.decay import DAY, HOUR
from edgebook.domain.errors import EdgebookError, InputError
from edgebook.domain.evidence import ConfigVersion, FamilyFit, Lesson, family_key, split_family
from edgebook.domain.ids import hash_share
from edgebook.domain.pattern import ActionCategory, Pattern
from edgebook.domain.scope import DM_SCHEMA, ScopeItems, ScopeSchema
from edgebook.learning.config import DEFAULT
from edgebook.learning.lessons import FamilyInput, build_lessons, due
from edgebook.learning.materialize import materialize
from edgebook.learning.table import TradeTable
from edgebook.overrides.combine import RESTART_EPOCHS, Strength, apply_pattern_strength_overrides
from edgebook.overrides.history import ConfigHistory

MODULE, CATEGORY, LEVER = "pm", "entry", "size_mult"
KEY_PREFIX = "module=pm|pattern_key="
PATTERN_KEY = f"{KEY_PREFIX}user.trade.entry"
HOLDOUT_SHARE = 0.1
_HOLDOUT_SALT = "advise"
_CONFIG = replace(DEFAULT, size_log_share=1.0)
_SEEN = "trades_sha256"  # detail of a fit: the trades it was made from
_TOLD = 5  # overrides named in a "because"; the rest is counted

Moment = int | str | datetime | np.datetime64


def learn(
    trades: Any, dims: Sequence[str], at: Moment | None = None, previous: Overrides | Path | str | None = None
) -> Overrides:
    """Lessons from closed trades.

    Args:
        trades: Parquet or CSV path, dict of columns, or an Arrow table (polars, pandas, pyarrow): ``trade_id``,
            ``opened_at``, ``closed_at``, ``rr`` (R multiple), one column per dim, and optionally ``pattern_key``,
            ``action_category``, ``token`` (trades of one token and day share a shock), ``pnl``, ``roi``.
        dims: the columns lessons may be about: facts known when a trade was opened. Values are text.
        at: only trades closed at or before this count; default the newest ``closed_at``. Microseconds UTC, ISO text,
            ``datetime`` or ``datetime64``.
        previous: what was learnt before, from the same dims, or the path of its overrides.json. The trades are then
            again the whole history; the result is a version at ``at`` appended to previous' versions, towards which
            levers move one step an hour.

    Returns:
        Overrides; a fresh one is a single version in force since the first ``closed_at``, or for as long as any lever
        needs to reach its target where that is longer, so that advice at ``at`` has its full value.

    Raises:
        InputError: a bad table (names row and column), no trade closed by ``at``, other dims or a later ``at`` in
            ``previous``.
    """
    dims = check_dims(dims)
    if isinstance(previous, str | Path):
        previous = Overrides.load(previous)
    if not isinstance(previous, Overrides | None):
        raise InputError(f"previous must be Overrides or the path of an overrides.json, was {previous!r}")
    columns = read_trades(trades, dims)
    if len(columns.rr) == 0:
        raise InputError("the trades have no rows; there is nothing to learn from")
    now = int(columns.closed_at.max()) if at is None else microseconds(at, "at")
    if previous is not None and previous.dims != dims:
        raise InputError(f"previous was learnt from dims {', '.join(previous.dims)}, not {', '.join(dims)}")
    if previous is not None and now < previous.at:
        raise InputError(f"at is {iso(now)}, before previous' own {iso(previous.at)}; versions must ascend")
    known = columns.closed_at <= now
    used = int(known.sum())
    if used == 0:
        raise InputError(
            f"no trade closed at or before {iso(now)}; the first closed {iso(int(columns.closed_at.min()))}"
        )
    schemas = {"dm": DM_SCHEMA, "pm": ScopeSchema("user", dims)}
    lessons, fits = _build(_families(columns, known), previous, now, schemas)
    counts = {"used": used, "later": len(known) - used, "duplicates": columns.duplicates}
    in_force = max(0, min(int(columns.closed_at[known].min()), now - RESTART_EPOCHS * HOUR))
    versions, refused = _versions(lessons, previous, now, in_force, schemas)
    learnt_at = now if previous is None else previous.learnt.learnt_at
    return Overrides(Learnt(now, learnt_at, dims, counts, versions, lessons, fits, refused))


def _families(columns: TradeColumns, known: NDArray[np.bool_]) -> dict[str, FamilyInput]:
    """The known trades, a family per (pattern key, category)."""
    dims = {name: (coded.levels, coded.codes) for name, coded in columns.dims.items()}
    table = TradeTable(
        columns.trade_id,
        columns.opened_at,
        columns.closed_at,
        columns.rr,
        columns.token.codes,
        columns.opened_at // DAY,
        dims,
        columns.roi,
        columns.pnl,
    )
    patterns, categories = columns.pattern_key, columns.action_category
    keys = [*(canonical_key(key) for key in patterns.levels), PATTERN_KEY]
    kinds = [*categories.levels, CATEGORY]
    families: dict[str, FamilyInput] = {}
    made: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for pattern, category in sorted(set(zip(patterns.codes.tolist(), categories.codes.tolist(), strict=True))):
        rows = known & (patterns.codes == pattern) & (categories.codes == category)
        name = (keys[pattern], kinds[category])
        made[name] = made[name] | rows if name in made else rows
    for (key, category_name), rows in sorted(made.items()):
        if rows.any():
            families[family_key(MODULE, key, category_name)] = FamilyInput(MODULE, key, category_name, table.take(rows))
    return families


def _build(
    families: Mapping[str, FamilyInput], previous: Overrides | None, now: int, schemas: Mapping[str, ScopeSchema]
) -> tuple[tuple[Lesson, ...], tuple[FamilyFit, ...]]:
    """Lessons and fits after this look; families without enough that is new stand as they were (decisions 18), but not
    where a trade of the last fit is another one now, is gone, or has come to light since."""
    lessons = {lesson.id: lesson for lesson in (previous.learnt.lessons if previous else ())}
    fits = {fit.family: fit for fit in (previous.learnt.fits if previous else ())}
    asked = {
        key: family
        for key, family in families.items()
        if key not in fits or due(fits[key], len(family.trades)) or _corrected(fits[key], family.trades)
    }
    built = build_lessons(MODULE, asked, fits, lessons.values(), now, _CONFIG, schemas)
    lessons |= {lesson.id: _size_alone(lesson) for lesson in built.lessons}
    for fit in built.fits:
        seen = {_SEEN: _content(families[fit.family].trades, now)}
        fits[fit.family] = replace(fit, detail={**fit.detail, **seen})
    return tuple(lessons[ident] for ident in sorted(lessons)), tuple(fits[key] for key in sorted(fits))


def _corrected(fit: FamilyFit, trades: TradeTable) -> bool:
    """Whether the trades closed by the moment of the fit are not those it was made from."""
    return fit.detail.get(_SEEN) != _content(trades, fit.fitted_at)


def _content(trades: TradeTable, until: int) -> str:
    """SHA-256 of the trades closed by ``until``: ids, times, outcomes, dims and which share a token. Codes are counted
    anew among these trades, so that later ones change nothing."""
    known = trades.take(trades.closed_at <= until)
    made = hashlib.sha256(json.dumps([known.unit_id.tolist(), sorted(known.dims)]).encode())
    for column in (known.opened_at, known.closed_at, known.y, known.roi, known.pnl):
        made.update(b"-" if column is None else column.tobytes())
    made.update(np.unique(known.token, return_inverse=True)[1].astype(np.int64).tobytes())
    for _, (levels, codes) in sorted(known.dims.items()):
        used, places = np.unique(codes, return_inverse=True)
        made.update(json.dumps([None if code < 0 else levels[code] for code in used.tolist()]).encode())
        made.update(places.astype(np.int64).tobytes())
    return made.hexdigest()


def _size_alone(lesson: Lesson) -> Lesson:
    """The lesson with ``size_mult`` as its only lever: the others are neutral here (decisions 51)."""
    levers = lesson.effect["capital_levers"]
    return replace(lesson, effect={"capital_levers": {LEVER: levers[LEVER]}}) if LEVER in levers else lesson


def _versions(
    lessons: Sequence[Lesson], previous: Overrides | None, now: int, in_force: int, schemas: Mapping[str, ScopeSchema]
) -> tuple[tuple[ConfigVersion, ...], tuple[tuple[str, str], ...]]:
    """The config versions with what these lessons ask for; unchanged content makes no new one (decisions 33)."""
    before = previous.learnt.versions if previous else ()
    documents: tuple[Mapping[str, Any], Mapping[str, Any]] = (before[-1].dm, before[-1].pm) if before else ({}, {})
    after = before[-1].version if before else 0
    made = materialize(lessons, documents, now, schemas=schemas, after=after)
    if before and not made.changed:
        return before, made.refused
    version = ConfigVersion(after + 1, now if before else in_force, made.dm, made.pm, made.content_hash)
    return (*before, version), made.refused


@dataclass(frozen=True)
class Overrides:
    """What was learnt: lessons, and how they move the size of a trade in given circumstances."""

    learnt: Learnt

    @property
    def at(self) -> int:
        """Moment of the last learning, microseconds UTC."""
        return self.learnt.at

    @property
    def dims(self) -> tuple[str, ...]:
        """The scope dims."""
        return self.learnt.dims

    @cached_property
    def history(self) -> ConfigHistory:
        """The versions as the combination of overrides reads them."""
        schemas = {"dm": DM_SCHEMA, "pm": ScopeSchema("user", self.dims)}
        history = ConfigHistory.from_versions(self.learnt.versions, schemas=schemas)
        if history.problems:
            first = history.problems[0]
            raise InputError(f"the overrides hold an item that cannot be: {first.where}: {first.detail}")
        return history

    def advise(
        self,
        contexts: Any,
        at: Moment | None = None,
        pattern_key: str | None = None,
        category: str | None = None,
        holdout: bool = False,
    ) -> Levers:
        """The size multiplier of each context, with its because.

        Args:
            contexts: a table as for :func:`learn` with one column per dim (empty where unknown) and optionally
                ``context_id``; or a dict of single values, one context.
            at: moment of the decision; default that of the learning. Evidence fades from then on.
            pattern_key, category: family asked about; default that of trades without these columns.
            holdout: leave the stable tenth of the contexts (by hash of ``context_id``) exactly neutral, so that the
                difference can be measured.

        Raises:
            InputError: a bad table, a moment before the first learning (that would look ahead), an unknown category, or
                holdout without ``context_id``.
        """
        when = self.at if at is None else microseconds(at, "at")
        if when < self.learnt.learnt_at:
            raise InputError(
                f"asked about {iso(when)}, but these lessons were first learnt at {iso(self.learnt.learnt_at)} from "
                f"trades up to then: that would look ahead"
            )
        if category is not None and category not in TRADE_CATEGORIES:
            raise InputError(f"category must be one of {', '.join(TRADE_CATEGORIES)}, was {category!r}")
        kind = cast("ActionCategory", category or CATEGORY)
        pattern = Pattern(canonical_key(pattern_key) if pattern_key else PATTERN_KEY, kind)
        given = read_contexts(_one_row(contexts), self.dims)
        if holdout and given.ids is None:
            raise InputError("the holdout is drawn by context_id; give the contexts such a column")
        held = np.zeros(given.n, dtype=bool)
        if holdout and given.ids is not None:
            held = np.array([in_holdout(ident) for ident in given.ids.tolist()], dtype=bool)
        found, which = self._strengths(given, pattern, when)
        return Levers(self, given, tuple(found), which, held)

    def _strengths(
        self, given: ContextColumns, pattern: Pattern, when: int
    ) -> tuple[list[Strength], NDArray[np.int64]]:
        """One answer per distinct scope, and which of them each context has.

        Values that no override names cannot match and are left out before scopes are compared, so that few are left.
        """
        named: dict[str, set[str | int]] = {dim: set() for dim in self.dims}
        for version in self.learnt.versions:
            for item in version.pm["pattern_strength_overrides"]:
                for dim, value in item["scope"].items():
                    named[dim].add(value)
        which = np.zeros(given.n, dtype=np.int64)
        scopes: list[ScopeItems] = [()] if given.n else []
        for dim, (levels, codes) in given.dims.items():
            kept = [level for level in levels if level in named[dim]]
            if not kept:
                continue
            place = {level: i for i, level in enumerate(kept)}
            table = np.array([*(place.get(level, -1) for level in levels), -1], dtype=np.int64)
            joint = which * (len(kept) + 1) + table[codes] + 1
            cells, which = np.unique(joint, return_inverse=True)
            pairs = [divmod(cell, len(kept) + 1) for cell in cells.tolist()]
            scopes = [(*scopes[old], (dim, kept[code - 1])) if code else scopes[old] for old, code in pairs]
        return [apply_pattern_strength_overrides(self.history, pattern, scope, when) for scope in scopes], which

    def lessons(self) -> list[dict[str, Any]]:
        """Lesson rows, the largest move first, deprecated ones left out; a silent family has one with its reason."""
        rows = [lesson for lesson in self.learnt.lessons if lesson.status != "deprecated"]
        rows.sort(key=lambda row: (-abs(row.stats["log_target"]), row.pattern_key, row.action_category, row.id))
        return [lesson_row(row) for row in rows]

    def families(self) -> list[dict[str, Any]]:
        """Per (pattern key, category): trades, baseline in R, whether it acts, the reason, evidence in nats."""
        rows = []
        for fit in self.learnt.fits:
            _, key, category = split_family(fit.family)
            rows.append(
                {
                    "pattern_key": key,
                    "action_category": category,
                    "n": fit.n,
                    "baseline_r": fit.mean,
                    "acts": fit.acts,
                    "reason": fit.detail["reason"],
                    "nats": dict(fit.detail["lr"]),
                    "fitted_at": iso(fit.fitted_at),
                }
            )
        return rows

    def to_json(self) -> str:
        """The text of overrides.json."""
        return canonical(self.learnt)

    def save(self, path: Path | str) -> None:
        """Write overrides.json, whole or not at all.

        Raises:
            InputError: the folder does not exist, or ``path`` is a folder.
        """
        write_learnt(Path(path), self.learnt)

    @classmethod
    def load(cls, path: Path | str) -> Overrides:
        """Read overrides.json.

        Raises:
            InputError: no such file, not an overrides file, or a damaged one.
        """
        made = cls(read_learnt(Path(path)))
        try:
            made.history  # noqa: B018  (reads and checks every override)
        except EdgebookError as error:
            raise InputError(f"{path}: damaged: {error.message}") from error
        return made


@dataclass(frozen=True, eq=False)
class Levers:
    """Answers of :meth:`Overrides.advise`, in the order of the contexts."""

    overrides: Overrides
    contexts: ContextColumns
    found: tuple[Strength, ...]
    which: NDArray[np.int64]
    holdout: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of contexts."""
        return self.contexts.n

    @cached_property
    def multiplier(self) -> NDArray[np.float64]:
        """Size multiplier per context, in [.5, 1.5]; exactly 1 where nothing matches and in the holdout."""
        totals = np.array([one.size_mult * one.entry_aggression_mult for one in self.found], dtype=float)
        made = totals[self.which] if len(totals) else np.ones(0)
        made[self.holdout] = 1.0
        return made

    @cached_property
    def because(self) -> list[str]:
        """Why, per context: the overrides that matched, with effect in R, trades, status and share of the move."""
        lessons = {lesson.id: lesson for lesson in self.overrides.learnt.lessons}
        texts = [_because(one, lessons) for one in self.found]
        told = zip(self.which.tolist(), self.holdout.tolist(), strict=True)
        return ["holdout: left neutral to be compared with" if held else texts[i] for i, held in told]

    def columns(self) -> dict[str, NDArray[Any]]:
        """``context_id`` where given, the dims, ``multiplier``, ``because`` and ``holdout``, as arrays."""
        made: dict[str, NDArray[Any]] = {}
        if self.contexts.ids is not None:
            made["context_id"] = self.contexts.ids
        for dim, (levels, codes) in self.contexts.dims.items():
            made[dim] = np.array([*levels, None], dtype=object)[codes]
        because = np.empty(len(self), dtype=object)
        because[:] = self.because
        return {**made, "multiplier": self.multiplier, "because": because, "holdout": self.holdout}

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The columns as an Arrow stream: ``polars.DataFrame(levers)`` and ``pyarrow.table(levers)`` read it."""
        return arrow_stream(self.columns(), requested_schema)

    def to_pandas(self) -> Any:
        """The columns as a pandas DataFrame; needs pandas."""
        return to_frame(self.columns(), "pandas")

    def to_arrow(self) -> Any:
        """The columns as a pyarrow Table; needs pyarrow."""
        return to_frame(self.columns(), "pyarrow")

    def write(self, path: Path | str) -> Path:
        """Write the columns to a ``.parquet`` or ``.csv`` file.

        Raises:
            InputError: another ending, or a folder that does not exist.
        """
        return write_table(Path(path), self.columns())


def _because(found: Strength, lessons: Mapping[str, Lesson]) -> str:
    """One line: the matches by share of the move, the largest first."""
    nudge = next((n for n in found.nudges if n.lever == LEVER), None)
    if nudge is None or not nudge.matched:
        return "no lesson matches"
    pulls = [(one.decay * one.conviction * math.log(one.targets[LEVER]), one) for one in nudge.matched]
    total = sum(abs(pull) for pull, _ in pulls)
    pulls.sort(key=lambda pair: (-abs(pair[0]), pair[1].lesson_id))
    parts = []
    for pull, one in pulls[:_TOLD]:
        stats = lessons[one.lesson_id].stats if one.lesson_id in lessons else {}
        scope = " ".join(f"{dim}={value}" for dim, value in one.scope.items()) or "everywhere"
        effect, n = stats.get("effect", 0.0), stats.get("n", 0)
        share = abs(pull) / total if total else 0.0
        times = f" counted {one.conviction:.1f} times" if one.conviction > 1.0 else ""
        asked = math.exp(pull / one.conviction)
        parts.append(f"{scope} x{asked:.3f}{times} ({effect:+.3f} R, n {n}, {one.status}, {share:.0%})")
    rest = pulls[_TOLD:]
    if rest:
        parts.append(f"and {len(rest)} more ({sum(abs(pull) for pull, _ in rest) / total:.0%})")
    moving = "" if math.isclose(nudge.applied, nudge.blend, rel_tol=1e-9) else f"; on the way to x{nudge.blend:.3f}"
    return "; ".join(parts) + moving


def in_holdout(context_id: str) -> bool:
    """Whether a context is of the stable tenth that stays neutral when asked for (decisions 6).

    >>> sum(in_holdout(str(i)) for i in range(1000))
    100
    """
    return hash_share(context_id, _HOLDOUT_SALT) < HOLDOUT_SHARE


def canonical_key(text: str) -> str:
    """A pattern key of module pm; a plain name gets the prefix.

    Raises:
        InputError: a key of another module.

    >>> canonical_key("breakout"), canonical_key("module=pm|pattern_key=uptrend.S1.buy_flag")
    ('module=pm|pattern_key=breakout', 'module=pm|pattern_key=uptrend.S1.buy_flag')
    """
    if text.startswith("module=") and not text.startswith(KEY_PREFIX):
        raise InputError(f"pattern_key {text!r} is not of module pm; give a plain name, or {KEY_PREFIX}NAME")
    return text if text.startswith(KEY_PREFIX) else KEY_PREFIX + text


def microseconds(moment: Moment, name: str) -> int:
    """A moment as microseconds UTC; text and ``datetime`` without zone are UTC.

    Raises:
        InputError: not a moment.

    >>> microseconds("1970-01-01T01:00", "at"), microseconds(np.datetime64(2, "s"), "at"), microseconds(7, "at")
    (3600000000, 2000000, 7)
    """
    if isinstance(moment, np.datetime64) and not np.isnat(moment):
        return int(moment.astype("datetime64[us]").astype(np.int64))
    if isinstance(moment, int | np.integer) and not isinstance(moment, bool):
        return int(moment)
    try:
        when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        when = None
    if not isinstance(when, datetime):
        raise InputError(f"{name} must be a time such as 2024-01-31T12:00:00Z, was {moment!r}")
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def iso(moment: int) -> str:
    """Microseconds UTC as text.

    >>> iso(1_622_505_600_000_000)
    '2021-06-01T00:00:00Z'
    """
    return f"{np.datetime64(moment, 'us').astype('datetime64[s]')}Z"


def _one_row(contexts: Any) -> Any:
    """A dict of single values as a table of one row."""
    if not isinstance(contexts, Mapping):
        return contexts
    single = [value is None or isinstance(value, str | int | float | np.generic) for value in contexts.values()]
    return {name: [value] for name, value in contexts.items()} if single and all(single) else contexts


def refuse_same(out: Path | str, *inputs: Path | str) -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: ``out`` is one of the files ``inputs``, under whatever name.
    """
    target = Path(out)
    for given in map(Path, inputs):
        linked = target.exists() and given.exists() and target.samefile(given)
        if linked or target.resolve() == given.resolve():
            raise InputError(f"{out}: it is read here and would be overwritten; give another file to write")


def import_freqtrade(path: Path | str, out: Path | str) -> FreqtradeTrades:
    """Write a freqtrade bot's closed trades as TRADES, Parquet or CSV by the ending of ``out``.

    Raises:
        InputError: no freqtrade database, or ``out`` is that very file or cannot be written.
    """
    refuse_same(out, path)
    found = read_freqtrade(Path(path))
    write_table(Path(out), found.columns)
    return found

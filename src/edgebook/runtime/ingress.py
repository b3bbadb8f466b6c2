"""Loopback ingress: how ``edgebook inject``, ``kill-switch``, ``config`` or any program of that user reach the running
system (decisions 38, 39).

A tiny HTTP server on 127.0.0.1 takes what is posted and queues it; between two steps the driver hands JSONL social
signals to `ingest_signal` and turns the kill switch. Its address and a random token lie in a file beside the database,
readable by the owner only.

``POST /signals`` with the header ``X-Edgebook-Token`` and a body of JSON lines (schema: `trading.signals`), UTF-8, at
most 4,000,000 bytes, is answered with

- 200 and ``{"read": 3, "accepted": 1, "known": 1, "refused": 1, "refusals": [{"line": 3, "reason": "..."}]}``: every
  line was looked at, those delivered before are known, those refused are dead letters as well; at most 1,000 refusals
  are listed;
- 400 where the body as a whole is no text, empty, too large or cut off, or on another path: nothing of it was taken;
- 403 without the token, 503 when the system does not get to it within half a minute (it is queued, and
  delivering it again does no harm).

``POST /kill-switch`` with ``{"on": true, "channel": ""}`` (a channel is ``dm``, ``strength`` or ``tuning``; "" is the
book; ``who`` and ``why`` may stand beside) is answered with 200 and ``{"changed": true, "in_force": [...]}``: whether
that changed anything, and every protection that is on now (`views.protections_view`); it holds from the next step on.
The errors are those above.

``POST /position`` with ``{"id": "...", "do": "pause"}`` (or ``resume``, ``archive``: `trading.lifecycle`) is answered
with 200 and ``{"changed": true, "status": "paused"}``, or 400 and the reason where there is no such position or it
cannot be turned so now.

``POST /config`` with ``{"do": "mute", "target": "...", "who": "...", "why": "..."}`` (`domain.steering`; ``why`` may be
left out) is answered with 200 and ``{"changed": true, "target": "...", "config_version": 8}``: the whole id of the
lesson, and the version in force now; or 400 and the reason.

``POST /clock`` with ``{"until": 1704067200000000}`` (microseconds UTC) lets time pass where the clock is held
(``run --held``), and is answered with 200 and ``{"clock": 1704067200000000, "ended": false}``: how far it got within a
few seconds, and whether the feed is at its end; 400 where the clock runs by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import queue
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypedDict

from edgebook.domain.errors import InputError
from edgebook.domain.masking import masked
from edgebook.domain.protection import channel_scope
from edgebook.domain.steering import ACTS, check_words
from edgebook.overrides.record import CHANNELS
from edgebook.trading.lifecycle import WISHES
from edgebook.trading.signals import ACCEPTED, KNOWN, REFUSED, Receipt

MAX_BODY_BYTES = 4_000_000
MAX_REFUSALS = 1_000
ANSWER_SECONDS = 30.0
_CHUNK = 65_536
_DRAINED_BYTES = 64_000_000


@dataclass(slots=True)
class Delivery:
    """One posted batch of lines, and what became of each."""

    lines: list[str]
    receipts: list[Receipt] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Turn:
    """One posted turn of the kill switch of a scope (`domain.protection`), and what came of it."""

    scope: str
    on: bool
    who: str = ""
    why: str = ""
    changed: bool = False
    in_force: Sequence[Mapping[str, object]] = ()
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Move:
    """One posted wish about a position (`trading.lifecycle`), and what came of it."""

    position_id: str
    wish: str
    changed: bool = False
    status: str = ""
    refused: str = ""
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Steer:
    """One posted act on what was learnt (`domain.steering`), and what came of it."""

    act: str
    target: str
    who: str
    why: str
    changed: bool = False
    version: int = 0
    refused: str = ""
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Pass:
    """Posted: let time pass, up to a moment (microseconds UTC); how far it got."""

    until: int
    clock: int = 0
    ended: bool = False
    refused: str = ""
    done: threading.Event = field(default_factory=threading.Event)


Asked = Delivery | Turn | Move | Steer | Pass
Inbox = queue.SimpleQueue[Asked]


class Answer(TypedDict):
    """What became of a batch: counts, and the number (from 1) and reason of each line that was refused."""

    read: int
    accepted: int
    known: int
    refused: int
    refusals: list[Refusal]


class Refusal(TypedDict):
    """One line that was refused."""

    line: int
    reason: str


def address_file(db_url: str) -> Path:
    """Where the address of a running system on ``db_url`` is written: beside an SQLite file, else in the user's own
    ``~/.edgebook``, under a name that follows from the address of the database without its password.

    Raises:
        InputError: the user has no home.

    >>> str(address_file("sqlite:////tmp/a.db"))
    '/tmp/a.db.ingress'
    >>> address_file("postgresql://me:secret@host/book") == address_file("postgres://me:other@host/book")
    True
    """
    prefix = "sqlite:///"
    if db_url.startswith(prefix):
        return Path(db_url.removeprefix(prefix) + ".ingress")
    name = hashlib.sha256(masked(db_url).partition("://")[2].encode()).hexdigest()[:16]
    try:
        home = Path.home()
    except RuntimeError as error:
        raise InputError("HOME is not set, so there is no place for the address of the ingress: set it") from error
    return home / ".edgebook" / f"{name}.ingress"


@contextmanager
def listening(db_url: str, port: int) -> Iterator[tuple[Inbox, int]]:
    """Listen on loopback while the block runs; yields the queue of what is posted and the port.

    Raises:
        InputError: the port cannot be bound.
    """
    inbox: Inbox = queue.SimpleQueue()
    token = secrets.token_hex(16)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(inbox, token))
    except OSError as error:
        raise InputError(
            f"cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port", stage="ingress"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="ingress", daemon=True)
    thread.start()
    bound = int(server.server_address[1])
    path = _write_address(db_url, bound, token)
    try:
        yield inbox, bound
    finally:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)


def _write_address(db_url: str, port: int, token: str) -> Path:
    """Write where the system listens, for the owner's eyes only.

    Raises:
        InputError: there is no place for it.
    """
    path = address_file(db_url)
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"port": port, "token": token, "pid": os.getpid()}))
        fresh.replace(path)
    except OSError as error:
        raise InputError(f"cannot write the address of the ingress to {path}: {error.strerror}") from error
    return path


def numbered(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1.

    >>> numbered(["a", "", "b\\r"])
    [(1, 'a'), (3, 'b')]
    """
    return [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]


def answer_of(numbers: Sequence[int], receipts: Sequence[Receipt]) -> Answer:
    """The answer to a batch, given the number of each line."""
    told = Counter(receipt.status for receipt in receipts)
    refused = [(n, receipt.reason) for n, receipt in zip(numbers, receipts, strict=True) if receipt.status == REFUSED]
    return {
        "read": len(receipts),
        "accepted": told[ACCEPTED],
        "known": told[KNOWN],
        "refused": told[REFUSED],
        "refusals": [{"line": n, "reason": reason} for n, reason in refused[:MAX_REFUSALS]],
    }


def post(db_url: str, lines: Sequence[str]) -> Answer:
    """Send lines to the running system, in as many batches as they need, and wait for what became of each.

    Raises:
        InputError: no system is running on this database, it did not take the lines, or one line alone is too large.
    """
    path = _running(db_url) if lines else address_file(db_url)
    total: Answer = {"read": 0, "accepted": 0, "known": 0, "refused": 0, "refusals": []}
    for batch in _batches(numbered(lines)):
        found: Answer = _send(path, "/signals", "\n".join(line for _, line in batch).encode())
        for name in ("read", "accepted", "known", "refused"):
            total[name] += found[name]
        total["refusals"] += [{**one, "line": batch[one["line"] - 1][0]} for one in found["refusals"]]
    return total


def post_turn(db_url: str, on: bool, channel: str = "", who: str = "", why: str = "") -> dict[str, Any]:
    """Turn the kill switch of the running system, of the book or of one learning channel, and wait for the answer.

    Raises:
        InputError: no such channel, no system is running on this database, or it did not take it.
    """
    if channel not in ("", *CHANNELS):
        raise InputError(f"channel {channel!r} is none of {', '.join(CHANNELS)}")
    body = {"on": on, "channel": channel, "who": who, "why": why}
    found: dict[str, Any] = _send(_running(db_url), "/kill-switch", json.dumps(body).encode())
    return found


def post_steer(db_url: str, act: str, target: str, who: str, why: str) -> dict[str, Any]:
    """Have the running system do an operator's act on what was learnt, and wait for the answer.

    Raises:
        InputError: no system is running on this database, or it refused.
    """
    body = {"do": act, "target": target, "who": who, "why": why}
    found: dict[str, Any] = _send(_running(db_url), "/config", json.dumps(body).encode())
    return found


def post_clock(db_url: str, until: int) -> int:
    """Let time pass in a running system whose clock is held, up to ``until``, the last bar close before it, or the end
    of its feed; its clock then.

    Raises:
        InputError: no system is running on this database, or its clock is not held.
    """
    path, body = _running(db_url), json.dumps({"until": until}).encode()
    before = -1
    while True:
        found = _send(path, "/clock", body)
        if found["clock"] >= until or found["ended"] or found["clock"] == before:
            return int(found["clock"])
        before = found["clock"]


def is_running(db_url: str) -> bool:
    """Whether somebody listens at the address beside this database; a killed system leaves an address and no
    listener."""
    try:
        port = int(json.loads(address_file(db_url).read_text())["port"])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False


def post_move(db_url: str, position_id: str, wish: str) -> dict[str, Any]:
    """Pause, resume or archive a position of the running system, and wait for the answer.

    Raises:
        InputError: no such wish, no system is running on this database, or it refused.
    """
    if wish not in WISHES:
        raise InputError(f"position takes {', '.join(WISHES)}, was {wish!r}")
    found: dict[str, Any] = _send(_running(db_url), "/position", json.dumps({"id": position_id, "do": wish}).encode())
    return found


def _running(db_url: str) -> Path:
    path = address_file(db_url)
    if not path.exists():
        raise InputError(
            f"no running system: {path} does not exist; start one with 'edgebook run --db {masked(db_url)}'",
            stage="ingress",
        )
    return path


def _batches(lines: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for number, line in lines:
        more = len(line.encode()) + 1
        if more > MAX_BODY_BYTES:
            raise InputError(f"line {number} has {more} bytes; a signal has at most {MAX_BODY_BYTES}", stage="ingress")
        if size + more > MAX_BODY_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((number, line))
        size += more
    if batch:
        yield batch


def _send(path: Path, to: str, body: bytes) -> Any:
    try:
        address = json.loads(path.read_text())
        port, token = int(address["port"]), str(address["token"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no address of a running system ({error}); restart it", stage="ingress") from error
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS + 5)
    try:
        connection.request("POST", to, body, {"X-Edgebook-Token": token, "Content-Type": "application/x-ndjson"})
        response = connection.getresponse()
        found: Any = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(
            f"the system named in {path} does not answer ({error}); it may have stopped", stage="ingress"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise InputError(f"the running system refused it: {found.get('error', response.reason)}", stage="ingress")
    return found


def _text_of(body: bytes) -> str:
    """The body as text.

    Raises:
        InputError: it is none, or has no line.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the body is no UTF-8 text (byte {error.start}); POST JSON lines") from None
    if "\x00" in text:
        raise InputError("the body holds a NUL, so it is no text; POST JSON lines")
    if not text.strip():
        raise InputError("the body has no line; POST JSON lines")
    return text


def _asked(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body; an empty one where it holds something else, which no wish can be read from.

    Raises:
        InputError: it is no text, or has no line.
    """
    text = _text_of(body)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _turn_of(body: bytes) -> Turn:
    """The turn a body asks for.

    Raises:
        InputError: it asks for none.
    """
    asked = _asked(body)
    on, channel = asked.get("on"), asked.get("channel", "")
    if not isinstance(on, bool) or channel not in ("", *CHANNELS):
        raise InputError(f'POST /kill-switch takes {{"on": true, "channel": ""}}; channels are {", ".join(CHANNELS)}')
    return Turn(channel_scope(channel), on, *_words(asked))


def _words(asked: Mapping[str, Any]) -> tuple[str, str]:
    """Who asks, and why; "" where it is not said.

    Raises:
        InputError: something else than a line of text.
    """
    who, why = asked.get("who", ""), asked.get("why", "")
    if not isinstance(who, str) or not isinstance(why, str):
        raise InputError(f"who and why are text, were {who!r} and {why!r}")
    check_words(who=who, why=why)
    return who, why


def _steer_of(body: bytes) -> Steer:
    """The act a body asks for.

    Raises:
        InputError: it asks for none.
    """
    asked = _asked(body)
    act, target = asked.get("do"), asked.get("target")
    if act not in ACTS or not isinstance(target, str) or not asked.get("who"):
        raise InputError(
            f'POST /config takes {{"do": "mute", "target": "...", "who": "...", "why": "..."}}; do is one of '
            f"{', '.join(ACTS)}"
        )
    return Steer(act, target, *_words(asked))


def _move_of(body: bytes) -> Move:
    """The wish a body states.

    Raises:
        InputError: it states none.
    """
    asked = _asked(body)
    ident, wish = asked.get("id"), asked.get("do")
    if not isinstance(ident, str) or wish not in WISHES:
        raise InputError(f'POST /position takes {{"id": "...", "do": "pause"}}; do is one of {", ".join(WISHES)}')
    return Move(ident, wish)


def _pass_of(body: bytes) -> Pass:
    """The moment up to which a body lets time pass.

    Raises:
        InputError: it names none.
    """
    until = _asked(body).get("until")
    if isinstance(until, bool) or not isinstance(until, int):
        raise InputError('POST /clock takes {"until": 1704067200000000}, microseconds UTC')
    return Pass(until)


class _Handler(BaseHTTPRequestHandler):
    """What is posted, checked and queued; a subclass knows the queue and the token."""

    inbox: Inbox
    token: str
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        size = int(length) if length.isascii() and length.isdecimal() and len(length) < 16 else 0
        if not hmac.compare_digest((self.headers.get("X-Edgebook-Token") or "").encode(), self.token.encode()):
            return self._refuse(403, "wrong or missing token", size)
        takes = {
            "/signals": self._signals,
            "/kill-switch": self._kill_switch,
            "/position": self._position,
            "/config": self._config,
            "/clock": self._clock,
        }
        take = takes.get(self.path)
        if take is None or not 0 < size <= MAX_BODY_BYTES:
            return self._refuse(400, f"POST to {', '.join(takes)} takes 1 to {MAX_BODY_BYTES} bytes", size)
        body = self.rfile.read(size)
        if len(body) < size:
            return self._refuse(400, f"the body ended after {len(body)} of {size} bytes", 0)
        try:
            return take(body)
        except InputError as error:
            return self._refuse(400, error.message, 0)

    def _signals(self, body: bytes) -> None:
        lines = numbered(_text_of(body).split("\n"))
        delivery = Delivery([line for _, line in lines])
        if self._done(delivery):
            self._answer(200, answer_of([n for n, _ in lines], delivery.receipts))

    def _kill_switch(self, body: bytes) -> None:
        turn = _turn_of(body)
        if self._done(turn):
            self._answer(200, {"changed": turn.changed, "in_force": turn.in_force})

    def _position(self, body: bytes) -> None:
        move = _move_of(body)
        if not self._done(move):
            return
        if move.refused:
            self._refuse(400, move.refused, 0)
        else:
            self._answer(200, {"changed": move.changed, "status": move.status})

    def _config(self, body: bytes) -> None:
        asked = _steer_of(body)
        if not self._done(asked):
            return
        if asked.refused:
            self._refuse(400, asked.refused, 0)
        else:
            found = {"changed": asked.changed, "target": asked.target, "config_version": asked.version}
            self._answer(200, found)

    def _clock(self, body: bytes) -> None:
        asked = _pass_of(body)
        if not self._done(asked):
            return
        if asked.refused:
            self._refuse(400, asked.refused, 0)
        else:
            self._answer(200, {"clock": asked.clock, "ended": asked.ended})

    def _done(self, asked: Asked) -> bool:
        """Queue it and wait until the driver has got to it; when it does not, the sender is told so."""
        self.inbox.put(asked)
        if asked.done.wait(ANSWER_SECONDS):
            return True
        self._refuse(503, "queued, but the system did not get to it in time", 0)
        return False

    def _refuse(self, status: int, reason: str, unread: int) -> None:
        """Answer with an error; what is still being sent is read first, or the sender would never see it."""
        left = min(unread, _DRAINED_BYTES)
        while left > 0 and (data := self.rfile.read(min(left, _CHUNK))):
            left -= len(data)
        self._answer(status, {"error": reason})

    def _answer(self, status: int, body: Mapping[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged to the terminal; deliveries are counted in the log of strands."""


def _handler(inbox: Inbox, token: str) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"inbox": inbox, "token": token})

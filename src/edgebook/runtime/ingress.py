"""Loopback ingress: how ``edgebook inject`` reaches the running system (decisions 38).

A tiny HTTP server on 127.0.0.1 takes JSONL social signals and queues them; the driver hands them to `ingest_signal`
at its next
step and answers with what became of each line. Its address and a random token lie in a file beside the database,
readable by the owner only.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgebook.domain.errors import InputError

MAX_BODY_BYTES = 4_000_000
ANSWER_SECONDS = 30.0


@dataclass(slots=True)
class Delivery:
    """One posted batch of lines, and what became of it."""

    lines: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


def address_file(db_url: str) -> Path:
    """Where the address of a running system on ``db_url`` is written: beside an SQLite file, else in the working
    directory.

    >>> str(address_file("sqlite:////tmp/a.db"))
    '/tmp/a.db.ingress'
    """
    prefix = "sqlite:///"
    return Path(db_url.removeprefix(prefix) + ".ingress") if db_url.startswith(prefix) else Path("edgebook.ingress")


@contextmanager
def listening(db_url: str, port: int) -> Iterator[tuple[queue.SimpleQueue[Delivery], int]]:
    """Listen on loopback while the block runs; yields the queue of deliveries and the port.

    Raises:
        InputError: the port cannot be bound.
    """
    inbox: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
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
    path = address_file(db_url)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({"port": bound, "token": token, "pid": os.getpid()}))
    fresh.replace(path)
    try:
        yield inbox, bound
    finally:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)


def post(db_url: str, lines: list[str]) -> dict[str, int]:
    """Send lines to the running system and wait for what became of them.

    Raises:
        InputError: no system is running on this database, or it did not take the lines.
    """
    path = address_file(db_url)
    if not path.exists():
        raise InputError(
            f"no running system: {path} does not exist; start one with 'edgebook run --db {db_url}'", stage="ingress"
        )
    try:
        address = json.loads(path.read_text())
        port, token = int(address["port"]), str(address["token"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no address of a running system ({error}); restart it", stage="ingress") from error
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS + 5)
    try:
        body = "\n".join(lines).encode()
        connection.request(
            "POST", "/signals", body, {"X-Edgebook-Token": token, "Content-Type": "application/x-ndjson"}
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(
            f"the system named in {path} does not answer ({error}); it may have stopped", stage="ingress"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise InputError(
            f"the running system refused the signals: {answer.get('error', response.reason)}", stage="ingress"
        )
    counts: dict[str, int] = answer
    return counts


def _handler(inbox: queue.SimpleQueue[Delivery], token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length") or ""
            size = int(length) if length.isascii() and length.isdecimal() else 0
            if not hmac.compare_digest((self.headers.get("X-Edgebook-Token") or "").encode(), token.encode()):
                return self._answer(403, {"error": "wrong or missing token"})
            if self.path != "/signals" or not 0 < size <= MAX_BODY_BYTES:
                return self._answer(400, {"error": f"POST /signals takes 1 to {MAX_BODY_BYTES} bytes of JSON lines"})
            text = self.rfile.read(size).decode("utf-8", errors="replace")
            delivery = Delivery([line for line in text.splitlines() if line.strip()])
            inbox.put(delivery)
            if not delivery.done.wait(ANSWER_SECONDS):
                return self._answer(503, {"error": "queued, but the system did not get to it in time"})
            return self._answer(200, delivery.counts)

        def _answer(self, status: int, body: Mapping[str, str | int]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged to the terminal; deliveries are counted in the log of strands."""

    return Handler

"""How the log of a running system is written: plain lines, and plain tracebacks.

A traceback that shows local variables shows what must not be seen, such as the key of an account.
"""

from __future__ import annotations

import sys

import structlog


def plain_log() -> None:
    """Write the log without local variables in tracebacks; whoever has configured structlog before is left alone."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )

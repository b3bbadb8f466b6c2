"""How numeric kernels are compiled: one way for all of them, and a cache that cannot go stale.

numba's cache looks at the file of a function, not at the files of the functions it calls: after an update it would go
on using what it had compiled from the old ones, without a word. So compiled code is kept in a folder named after the
content of every file with kernels in it, and of the files these take constants from.

Division by zero gives infinity or NaN, as in numpy, and never raises: every kernel tests what it divides by.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

_config: Any = numba.config
_PACKAGE = Path(__file__).parent
_USES_KERNELS = re.compile(rb"^from edgebook\.kernels import", re.MULTILINE)
_IMPORTS = re.compile(rb"^from edgebook\.([a-z0-9_.]+) import", re.MULTILINE)
#: Folders of earlier versions that are kept, so that going back and forth between two does not compile each time.
_KEPT = 3


def kernel(function: F) -> F:
    """Compile ``function`` at its first call, to machine code that is kept between runs."""
    return _compiled(function, inline="never")


def inlined(function: F) -> F:
    """As `kernel`, but its body goes into the kernels that call it: for what is called once a bar with many arrays."""
    return _compiled(function, inline="always")


def _compiled(function: F, **options: Any) -> F:
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(_FOLDER)  # read when a function is wrapped; others in this process keep their own
    try:
        compiled: Any = njit(cache=True, nogil=True, error_model="numpy", **options)
        made: F = compiled(function)
    finally:
        _config.CACHE_DIR = before
    return made


def _folder() -> Path:
    digest = hashlib.sha256()
    for text in _sources().values():
        digest.update(text)
    home = _PACKAGE / "__pycache__"
    here = home / f"kernels-{digest.hexdigest()[:16]}"
    if not here.exists() and home.exists():
        older = sorted(home.glob("kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in older[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
    return here


def _sources() -> dict[str, bytes]:
    """Every module with kernels, this one, and the modules they import from, by path."""
    texts = {str(path.relative_to(_PACKAGE)): path.read_bytes() for path in sorted(_PACKAGE.rglob("*.py"))}
    found = {"kernels.py"} | {path for path, text in texts.items() if _USES_KERNELS.search(text)}
    for path in sorted(found):
        found.update(name.decode().replace(".", "/") + ".py" for name in _IMPORTS.findall(texts[path]))
    return {path: texts[path] for path in sorted(found) if path in texts}


_FOLDER = _folder()

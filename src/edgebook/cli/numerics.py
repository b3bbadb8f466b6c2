"""The same digits on every machine of one kind: how many threads, and which vector units, numeric code may use.

numpy and OpenBLAS choose code by the processor they find. With wider vectors sums are added in another order, so that a
fit may differ in its last digit and the log, from there on, in every hash. Asked for the same units everywhere (AVX2,
which every x86-64 server of the last ten years has), two machines that did the same have the same log head.
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

_CPU = Path("/proc/cpuinfo")


def settle(environ: MutableMapping[str, str] = os.environ, cpu: Path = _CPU) -> None:
    """Set what is not set yet; to be called before numpy is imported.

    Args:
        environ: the process environment.
        cpu: the system's list of processor features; where there is none, the vector units are left alone.
    """
    environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if platform.machine() in ("x86_64", "AMD64") and cpu.is_file() and " avx2 " in cpu.read_text():
        environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR")
        environ.setdefault("OPENBLAS_CORETYPE", "Haswell")

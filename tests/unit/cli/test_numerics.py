"""Numeric code is told which vector units to use before it loads, and nobody's own choice is overruled."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from edgebook.cli.numerics import settle

LOOK = """
import json, os, edgebook.cli, numpy
from numpy._core._multiarray_umath import __cpu_features__ as found
print(json.dumps([os.environ["OPENBLAS_NUM_THREADS"], found.get("X86_V4", False), found.get("AVX512_SKX", False)]))
"""


def test_the_command_line_computes_with_one_thread_and_without_the_widest_units():
    """In a process of its own, since numpy reads the environment once."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("NPY_", "OPENBLAS_"))}
    shown = subprocess.run([sys.executable, "-c", LOOK], env=given, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == ["1", False, False]


def test_what_the_user_has_set_stays(tmp_path):
    """Defaults, not orders."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("flags : fpu avx2 bmi2\n")
    chosen = {"OPENBLAS_NUM_THREADS": "4", "OPENBLAS_CORETYPE": "Zen", "NPY_DISABLE_CPU_FEATURES": ""}
    environ = dict(chosen)
    settle(environ, cpu)
    assert environ == chosen


@pytest.mark.parametrize("flags", ["flags : fpu sse4_2\n", None])
def test_a_processor_without_the_units_is_left_alone(tmp_path, flags):
    """Code for units that are not there would crash; an unknown system is not guessed at."""
    cpu = tmp_path / "cpuinfo"
    if flags is not None:
        cpu.write_text(flags)
    environ: dict[str, str] = {}
    settle(environ, cpu)
    assert environ == {"OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="vector units of x86-64")
def test_a_processor_that_has_them_is_asked_for_them(tmp_path):
    """AVX2 for numpy and for linear algebra."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("flags : fpu avx2 bmi2\n")
    environ: dict[str, str] = {}
    settle(environ, cpu)
    assert environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert "X86_V4" in environ["NPY_DISABLE_CPU_FEATURES"]

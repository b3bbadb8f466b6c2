"""Compiled code: kept apart by the content of its sources, without touching how others use the compiler."""

from __future__ import annotations

import shutil

import numba
import pytest

from edgebook import kernels


def double(x):
    return 2.0 * x


def test_a_kernel_computes_and_leaves_the_compilers_settings_alone():
    """The folder is set only while a kernel is wrapped."""
    before = numba.config.CACHE_DIR
    assert kernels.kernel(double)(1.5) == 3.0
    after = numba.config.CACHE_DIR
    assert after == before


def test_division_by_zero_is_infinite_and_raises_nothing():
    """Every kernel tests what it divides by; none can stop a bar with an exception."""
    assert kernels.kernel(lambda x: 1.0 / x)(0.0) == float("inf")


def test_a_change_in_any_file_that_kernels_are_made_of_is_another_folder(tmp_path, monkeypatch):
    """A callee in another file counts, and where a constant comes from; what has nothing to do with it does not."""
    uses = "from edgebook.kernels import kernel\n"
    texts = {
        "kernels.py": "",
        "market/levels.py": uses,
        "engine/machine.py": f"{uses}from edgebook.domain.reading import WARM_BARS\n",
        "domain/reading.py": "WARM_BARS = 333\n",
        "trading/tick.py": "from edgebook.engine.machine import run\n",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(kernels, "_PACKAGE", tmp_path)
    first = kernels._folder()
    for name in texts:
        path = tmp_path / name
        path.write_text(texts[name] + "# changed\n")
        assert (kernels._folder() == first) == (name == "trading/tick.py"), name
        path.write_text(texts[name])
    assert kernels._folder() == first


def test_folders_of_long_gone_versions_are_removed(tmp_path, monkeypatch):
    """The newest few stay, so that going back to the last version does not compile again."""
    (tmp_path / "kernels.py").write_text("a = 1\n")
    monkeypatch.setattr(kernels, "_PACKAGE", tmp_path)
    for number in range(6):
        (tmp_path / "__pycache__" / f"kernels-{number}").mkdir(parents=True)
    kernels._folder()
    assert len(list((tmp_path / "__pycache__").glob("kernels-*"))) == kernels._KEPT
    shutil.rmtree(tmp_path / "__pycache__")
    assert kernels._folder().parent == tmp_path / "__pycache__"


@pytest.mark.parametrize("wrap", [kernels.kernel, kernels.inlined])
def test_both_forms_agree(wrap):
    """Inlining changes nothing but speed."""
    inner = wrap(double)

    @kernels.kernel
    def outer(x):
        return inner(x) + 1.0

    assert outer(2.0) == 5.0

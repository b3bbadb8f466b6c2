"""A Spark session for tests, on two threads of this machine.

pyspark and a Java of 17 or newer are no development requirements: together they add some 500 MB. Where one is missing,
the tests that need them are skipped with the reason; where both are there and do not work, they fail with ``CI=true``.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _missing() -> str:
    """Why there can be no session, or nothing."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed: pip install 'edgebook[spark]'"
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        return "no Java: install a runtime of version 17 or newer, or set JAVA_HOME"
    return ""


@pytest.fixture(scope="session")
def spark(tmp_path_factory) -> Iterator[Any]:
    """The one Spark session of a test run."""
    if reason := _missing():
        pytest.skip(f"no Spark: {reason}")
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("edgebook tests")
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "3",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.log.level": "ERROR",
    }
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pyspark leaves the pipe to a child that died open
        try:
            session = builder.config(map=options).getOrCreate()
        except PySparkRuntimeError as error:
            reason = str(error)
        gc.collect()
    if reason:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"pyspark and Java are here, but Spark does not start: {reason}")
        pytest.skip(f"no Spark: {reason}")
    yield session
    session.stop()

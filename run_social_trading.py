"""Turn the system on: settings, bootstrap, `start_pm_jobs()` inside the driver, the screen. The same as ``edgebook
run``."""

from __future__ import annotations

import sys

from edgebook.cli.watch import watch_run
from edgebook.runtime.settings import load_settings

if __name__ == "__main__":
    watch_run(load_settings(), signals=None, regime_bars=None, until=None, plain=not sys.stdout.isatty())

"""``edgebook export``: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json

from tests.contracts.examples import strand
from tests.contracts.units import DAY, START, random_units

from edgebook.adapters.sql import SqlStore


def make(folder):
    with SqlStore(f"sqlite:///{folder / 'edgebook.db'}").writer() as uow:
        uow.log.append([strand(n, ts_event=(START + n) * DAY) for n in range(1, 4)])
        for unit in random_units(20):
            uow.observations.put(unit)
        uow.commit()


def test_json_tells_rows_per_dataset(cli, tmp_path):
    make(tmp_path)

    code, out, err = cli("export", "--out", "out", "--json")

    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["datasets"]["strands"] == {"rows": 3, "days": 3, "removed": 0, "total": 3}
    assert found["datasets"]["observations"]["rows"] == 20
    assert json.loads((tmp_path / found["manifest"]).read_text())["seq"] == found["seq"] == 3


def test_text_tells_rows_and_spans(cli, tmp_path):
    make(tmp_path)

    code, out, _ = cli("export", "--out", "out", "--from", "2024-10-05", "--to", "2024-10-07")

    assert code == 0
    assert "strands: 2 rows in 2 days; 2 in the folder" in out
    assert "complete as of strand 3: 2024-10-05 to before 2024-10-07" in out


def test_a_time_within_a_day_is_refused(cli, tmp_path):
    make(tmp_path)

    code, _, err = cli("export", "--out", "out", "--from", "2024-10-05T12:00")

    assert code == 2
    assert err == "error: --from must be a day such as 2021-06-01, since whole days (UTC) are written\n"

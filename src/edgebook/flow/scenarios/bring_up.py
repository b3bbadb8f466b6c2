"""F0: the system is turned on, and everything that has to run does."""

from __future__ import annotations

import json

from edgebook.flow.check import Flow, every, exactly, scenario, that
from edgebook.flow.story import Story, signal

#: What has to have run once there was something to read.
LEARNING_JOBS = ("pattern_scope_aggregator", "lesson_builder_pm", "lesson_builder_dm", "override_materializer")


@scenario("F0", "bring-up: schema, jobs, config version, the log's chain")
def bring_up(flow: Flow) -> None:
    """Two hours with one closed trade: every required job has run, none has failed, one config version is known."""
    story = Story(1.0)
    tale = story.tale(story.token("AAAUSDT"), "1h", 2)
    tale.state("S1").chance().state("S2", 104).state("S3", 106).state("S0", 108)
    with flow.system(story) as system:
        flow.check(
            "schema",
            "SELECT version_num FROM edgebook_revision",
            that("one revision of four digits", lambda f: len(f) == 1 and len(f[0][0]) == 4 and f[0][0].isdigit()),
        )
        flow.inject(system, signal("boot-1", "AAAUSDT"))
        flow.about("boot-1")
        system.pass_until(tale.last + 3 * 3_600_000_000)
        flow.check(
            "scheduler",
            "SELECT DISTINCT name FROM job_runs ORDER BY name",
            that(f"{', '.join(LEARNING_JOBS)} among them", lambda found: {n for (n,) in found} >= set(LEARNING_JOBS)),
        )
        flow.check(
            "scheduler",
            "SELECT name, status, error FROM job_runs",
            every("ok without an error", lambda _, status, error: status == "ok" and not error, len(LEARNING_JOBS)),
        )
        flow.check("dead letters", "SELECT count(*) FROM dead_letters", exactly(0))
        flow.check("config", "SELECT length(value) FROM meta WHERE key = 'settings_hash'", exactly(16))
        flow.check(
            "log",
            "SELECT count(*), max(seq) FROM ad_strands",
            that("seq without a gap", lambda found: found[0][0] == found[0][1] > 10),
        )
        code, out, err = system.call("verify", "--json")
        intact = json.loads(out or "{}").get("intact")
        told = f"exit code {code}, intact {intact} {err}".strip()
        flow.note("log", "edgebook verify --json", "exit code 0, intact True", told == "exit code 0, intact True", told)

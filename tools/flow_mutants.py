"""Whether the flow campaign names what is broken: breaks the wiring on purpose, one place at a time (`wiring_faults`).

Each fault is put into a system that is started as ever, and the scenarios that must catch it are run: a packet has to
die, and at the stage that is broken. Before that, the same scenarios are run without any fault: everything arrives.

    python -m tools.flow_mutants                     all faults, on SQLite
    python -m tools.flow_mutants --only closing_action_missing --only tuning_wrapper_missing
    python -m tools.flow_mutants --db postgresql://USER@HOST/NAME --json --out mutants.md

Exit code 1 if a fault survives or the wrong stage is named. ``--as NAME WORDS`` is the command line of edgebook with
that fault in it, as the scenarios start it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if (root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, root)  # started by its path, as a scenario does

import edgebook.cli  # one thread for small matrices; before numpy

# isort: split
import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from tools import learning_faults, running_faults  # noqa: F401  (they register their faults)
from tools.wiring_faults import FAULTS, Fault

from edgebook.domain.errors import EdgebookError
from edgebook.flow.campaign import Outcome, chosen_scenarios, run_campaign

REPO = Path(root)
HEAD = ("fault", "what is broken", "scenario", "stage named", "expected", "verdict", "the sentence")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One fault under one scenario: where the packet died (``""`` if it arrived), and whether that is right."""

    fault: str
    broken: str
    scenario: str
    named: str
    expected: tuple[str, ...]
    right: bool
    sentence: str
    wall_s: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        word = "right" if self.right else "WRONG" if self.named else "SURVIVED"
        named, expected = self.named or "-", " or ".join(self.expected)
        return (self.fault, self.broken, self.scenario, named, expected, word, self.sentence)


def command_of(fault: Fault) -> tuple[str, ...]:
    """What starts edgebook with a fault in it."""
    return (sys.executable, str(Path(__file__).resolve()), "--as", fault.name)


def launch(name: str, words: Sequence[str]) -> None:
    """The command line of edgebook, with a fault in it."""
    FAULTS[name].put_in()
    sys.argv = ["edgebook", *words]
    edgebook.cli.main()


def judged(fault: Fault, outcome: Outcome) -> Verdict:
    """Whether a scenario has named what is broken."""
    right = outcome.died_at in fault.stages and fault.says in outcome.why
    expected = tuple(sorted(fault.stages))
    sentence = outcome.why or "everything arrived"
    return Verdict(
        fault.name, fault.broken, outcome.scenario, outcome.died_at, expected, right, sentence, outcome.wall_s
    )


def check(
    faults: Sequence[Fault], db: str = "sqlite", *, told: Callable[[Verdict | Outcome], None] = lambda _: None
) -> tuple[list[Outcome], list[Verdict]]:
    """Run the scenarios of some faults, first without any fault and then with each.

    Args:
        db: as `run_campaign` takes it.
        told: called with each outcome without a fault and each verdict, as they come.

    Returns:
        The outcomes without a fault, and the verdicts; none for a scenario that fails by itself.

    Raises:
        InputError: a fault names a scenario that is not there, or the database cannot be reached.
    """
    wanted = [one.name for one in chosen_scenarios(()) if any(one.name in fault.scenarios for fault in faults)]
    chosen_scenarios([name for fault in faults for name in fault.scenarios])
    control = run_campaign(wanted, db, told=told)
    sound = {one.scenario for one in control if one.verdict == "arrived"}
    verdicts = []
    for fault in faults:
        for outcome in run_campaign([n for n in fault.scenarios if n in sound] or ["-"], db, command=command_of(fault)):
            verdicts.append(judged(fault, outcome))
            told(verdicts[-1])
    return control, verdicts


def table(control: Sequence[Outcome], verdicts: Sequence[Verdict]) -> str:
    """The result as Markdown."""
    right = sum(one.right for one in verdicts)
    lines = ["# What the flow campaign says of a broken system", ""]
    lines += [f"{right} of {len(verdicts)} named rightly. Without a fault:", ""]
    lines += [f"- {one.scenario}: {one.verdict}{f' at {one.died_at}' if one.died_at else ''}" for one in control]
    lines += ["", "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(map(_cell, one.cells)) + " |" for one in verdicts]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = re.sub(r"/\S*/", "", text)  # folders of this machine
    short = text if len(text) <= 330 else f"{text[:160]} ... {text[-160:]}"
    return short.replace("|", "\\|").replace("\n", " ")


def _tell(one: Verdict | Outcome) -> None:
    """A line for who is waiting."""
    if isinstance(one, Outcome):
        words = f"{one.scenario:5} without a fault: {one.verdict} {one.why}"
    else:
        fault, _, scenario, named, expected, word, sentence = one.cells
        words = f"{scenario:5} {word:8} {fault}: {named}" + ("" if one.right else f", expected {expected}: {sentence}")
    print(f"{words} ({one.wall_s:.1f} s)", file=sys.stderr, flush=True)


def chosen(names: Sequence[str], faults: Mapping[str, Fault] = FAULTS) -> list[Fault]:
    """Faults by name, all without names.

    Raises:
        SystemExit: there is no such fault.
    """
    unknown = [name for name in names if name not in faults]
    if unknown:
        raise SystemExit(f"no fault {unknown[0]!r}; there are {', '.join(faults)}")
    return [faults[name] for name in names] or list(faults.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one fault; may be repeated")
    parser.add_argument("--db", default="sqlite", help="sqlite, or a PostgreSQL server on which databases may be made")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)
    try:
        control, verdicts = check(chosen(given.only), given.db, told=_tell)
    except EdgebookError as error:
        raise SystemExit(f"error: {error.message}") from error
    text = table(control, verdicts)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    if given.json:
        print(json.dumps({"control": [one.row() for one in control], "faults": [asdict(one) for one in verdicts]}))
    else:
        print(text)
    arrived = all(one.verdict == "arrived" for one in control)
    if not arrived or not all(one.right for one in verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        launch(sys.argv[2], sys.argv[3:])
    else:
        main()

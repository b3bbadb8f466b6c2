"""An operator's hand on what was learnt: mute, pin and revert against a naive model, and what each act refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lessons import DM, NOW, SIZE

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.levers import LEVERS
from edgebook.learning.acts import find_lesson, steer
from edgebook.learning.materialize import materialize
from edgebook.learning.steering import Steering, read_steering, write_steering
from edgebook.overrides import parse_documents


class Book:
    """Lessons, and the config versions that the materializer and an operator make of them."""

    def __init__(self, *lessons):
        self.lessons = {lesson.id: lesson for lesson in lessons}
        self.versions = [({}, {})]
        self.now = NOW
        self.run()

    @property
    def documents(self):
        return self.versions[-1]

    @property
    def listed(self):
        overrides, problems = parse_documents(*self.documents)
        assert problems == ()
        return {o.lesson_id: o for o in overrides}

    def of(self, number):
        return self.versions[number] if number < len(self.versions) else None

    def run(self):
        """The hourly job; whether it made a version."""
        self.now += HOUR
        made = materialize(
            self.lessons.values(),
            self.documents,
            self.now,
            after=len(self.versions) - 1,
            documents_of=self.of,
        )
        return self._keep(made)

    def do(self, act, target):
        """An act; whether it made a version."""
        after = len(self.versions) - 1
        lessons = list(self.lessons.values())
        found = steer(act, target, lessons, self.documents, self.now, documents_of=self.of, after=after)
        return found.result is not None and self._keep(found.result)

    def _keep(self, made):
        if made.changed:
            assert made.version == len(self.versions)
            self.versions.append((made.dm, made.pm))
        return made.changed

    def learn(self, ident, target, *, evidence=True):
        """A later fit of a lesson: ``target`` None gives it up."""
        old = self.lessons[ident]
        lever = "alloc_mult" if ident.startswith("dm") else "size_mult"
        effect = old.effect if target is None else {"capital_levers": {lever: target}}
        at = old.evidence_at + HOUR if evidence and target is not None else old.evidence_at
        status = "deprecated" if target is None else "candidate"
        self.lessons[ident] = replace(
            old, effect=effect, status=status, evidence_at=at, lesson_version=old.lesson_version + 1
        )

    def target(self, ident):
        """What the override of a lesson wants; None where there is none, 0 where it is muted."""
        found = self.listed.get(ident)
        return None if found is None else (next(iter(found.targets.values())) if found.enabled else 0)


# ------------------------------------------------------------------ mute


def test_a_mute_outlasts_new_evidence_and_the_lessons_absence():
    """Muted it stays listed; it goes and comes back muted; unmuted it acts as learning says by then."""
    book = Book(DM, SIZE)
    assert book.do("mute", "dm-1")
    assert (book.target("dm-1"), book.target("pm-1")) == (0, 0.9)
    assert not book.do("mute", "dm")

    book.learn("dm-1", None)
    assert book.run()
    assert book.target("dm-1") is None
    book.learn("dm-1", 1.1)
    assert book.run()
    assert book.target("dm-1") == 0

    assert book.do("unmute", "dm-1")
    assert book.target("dm-1") == 1.1
    assert not book.do("unmute", "dm-1")
    assert "steering" not in book.documents[1]


def test_a_lesson_can_be_muted_before_it_acts():
    """No override is listed yet; its first one is muted."""
    book = Book(replace(DM, status="deprecated"), SIZE)
    assert book.do("mute", "dm-1")
    book.learn("dm-1", 1.2)
    book.run()
    assert book.target("dm-1") == 0


# ------------------------------------------------------------------ pin


def test_a_pin_keeps_target_and_evidence_time_whatever_learning_says():
    """New evidence, the other sign, given up: the override stays; unpinned it is what learning says by then."""
    book = Book(DM, SIZE)
    before = book.listed["dm-1"]
    assert book.do("pin", "dm-1")
    assert book.listed["dm-1"] == replace(before, pinned_at=book.now)
    assert not book.do("pin", "dm-1")

    for target in (1.05, 0.8, None):
        book.learn("dm-1", target)
        assert not book.run()
        assert (book.listed["dm-1"].targets, book.listed["dm-1"].evidence_at) == (before.targets, before.evidence_at)

    assert book.do("unpin", "dm-1")
    assert book.target("dm-1") is None
    assert not book.do("unpin", "dm-1")


def test_a_pinned_lesson_can_be_muted_and_comes_back_pinned():
    """Mute wins while it stands."""
    book = Book(DM)
    book.do("pin", "dm-1")
    book.do("mute", "dm-1")
    assert book.target("dm-1") == 0
    book.learn("dm-1", 0.8)
    book.run()
    book.do("unmute", "dm-1")
    assert (book.target("dm-1"), book.listed["dm-1"].pinned_at is None) == (1.2, False)


def test_bounds_hold_for_a_pin_too():
    """A pinned override that a hand has made too large is read within the lever's bounds, and written so."""
    book = Book(DM)
    book.do("pin", "dm-1")
    dm, pm = book.documents
    item = {**dm["alloc_overrides"][0], "levers": {"alloc_mult": 50.0}}
    book.versions.append(({**dm, "alloc_overrides": [item]}, pm))
    book.run()
    assert book.documents[0]["alloc_overrides"][0]["levers"] == {"alloc_mult": LEVERS["alloc_mult"].hi}


# ------------------------------------------------------------------ revert


def test_a_revert_stands_until_there_is_new_evidence_lesson_by_lesson():
    """The old target returns, a later lesson goes; a refit without new evidence changes nothing; evidence releases one
    lesson and not the other."""
    book = Book(DM)
    book.learn("dm-1", 0.8)
    book.lessons["pm-1"] = SIZE
    book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (0.8, 0.9)

    assert book.do("revert", "1")
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, None)
    assert len(book.versions) == 4
    assert not book.do("revert", "1")

    book.learn("pm-1", 0.95, evidence=False)
    book.learn("dm-1", 0.7, evidence=False)
    assert not book.run()
    book.learn("pm-1", 0.95)
    assert book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, 0.95)
    book.learn("dm-1", 1.1)
    assert book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (1.1, 0.95)
    assert "steering" not in book.documents[1]


def test_what_a_later_fit_gives_up_is_not_held_in_force():
    """A lesson that stood in the version and is deprecated after the revert leaves; one deprecated before it stays."""
    book = Book(DM, SIZE)
    book.learn("dm-1", None)
    book.run()
    assert book.do("revert", "1")
    assert not book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, 0.9)
    book.learn("pm-1", None)
    assert book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, None)


def test_a_lesson_born_after_the_revert_acts():
    """It has nothing but new evidence."""
    book = Book(DM)
    assert book.do("revert", "0")
    assert book.listed == {}
    book.lessons["pm-1"] = SIZE
    assert book.run()
    assert (book.target("dm-1"), book.target("pm-1")) == (None, 0.9)


def test_mutes_and_pins_of_now_outlast_a_revert_and_those_of_then_do_not_return():
    """Steering of single lessons is no part of what a revert brings back."""
    book = Book(DM, SIZE)
    book.do("mute", "dm-1")
    book.do("pin", "pm-1")
    steered = len(book.versions) - 1
    book.do("unmute", "dm-1")
    book.do("unpin", "pm-1")
    book.learn("dm-1", 0.8)
    book.learn("pm-1", 1.3)
    book.run()
    assert book.do("revert", str(steered))
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, 0.9)
    assert book.listed["pm-1"].pinned_at is None

    book.do("mute", "pm-1")
    book.do("pin", "dm-1")
    assert book.do("revert", "0")
    assert (book.target("dm-1"), book.target("pm-1")) == (1.2, None)
    book.do("unpin", "dm-1")
    assert book.target("dm-1") is None


def test_reverting_to_what_is_in_force_changes_nothing():
    """Also by another number with the same overrides."""
    book = Book(DM)
    assert not book.do("revert", "1")
    book.do("mute", "dm-1")
    book.do("unmute", "dm-1")
    assert not book.do("revert", "1")
    assert len(book.versions) == 4


# ------------------------------------------------------------------ refusals and reading


@pytest.mark.parametrize(
    ("act", "target", "said"),
    [
        ("mute", "", "no lesson ''"),
        ("mute", "x", "no lesson 'x'"),
        ("pin", "pm", "2 lessons begin with 'pm': pm-1, pm-2; give more of the id"),
        ("pin", "pm-2", "lesson pm-2 has no override in force that could be pinned"),
        ("revert", "5", "no config version 5; the newest is 1, and 0 is none learnt"),
        ("revert", "-1", "revert takes the number of a config version, was '-1'"),
        ("revert", "²", "revert takes the number"),
        ("forget", "dm-1", "an act is one of mute, unmute, pin, unpin, revert, was 'forget'"),
    ],
)
def test_refusals_say_what_would_be_right_and_change_nothing(act, target, said):
    """One line; no version."""
    book = Book(DM, SIZE, replace(SIZE, id="pm-2", status="deprecated"))
    with pytest.raises(InputError) as caught:
        book.do(act, target)
    assert said in caught.value.message
    assert len(book.versions) == 2


def test_a_whole_id_wins_over_longer_ones_that_begin_with_it():
    """``pm-1`` is meant, though ``pm-12`` begins so."""
    assert find_lesson("pm-1", {"pm-1", "pm-12"}) == "pm-1"


@pytest.mark.parametrize(
    "said",
    [
        7,
        {"muted": "all"},
        {"muted": [3, None]},
        {"reverted": []},
        {"reverted": {"to": "1", "known": {"dm-1": [0, 0]}}},
        {"reverted": {"to": 1, "known": {"dm-1": [0, True], "x": "y", "z": [1]}}},
    ],
    ids=repr,
)
def test_steering_that_cannot_be_read_is_none(said):
    """A damaged document steers nothing and stops nothing."""
    assert read_steering(({}, {"steering": said})) == Steering()


@given(
    st.frozensets(st.text(min_size=1, max_size=4)),
    st.integers(0, 9),
    st.dictionaries(st.text(min_size=1, max_size=4), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1),
)
def test_what_is_written_is_read(muted, to, held):
    """write, then read: the same; other keys of the document are kept."""
    steering = Steering(muted, {}, to, held)
    pm = write_steering({"mine": 1, "steering": {"muted": ["old"]}}, steering)
    assert pm["mine"] == 1
    assert read_steering(({}, pm)) == steering
    assert write_steering(pm, Steering()) == {"mine": 1}


# ------------------------------------------------------------------ against a naive model


class Naive:
    """What each lesson's override should want, kept per lesson and nothing else."""

    def __init__(self, book):
        self.said = {
            i: o and next(iter(o.targets.values())) for i, o in ((i, book.listed.get(i)) for i in book.lessons)
        }
        self.muted, self.pins, self.holds, self.past = set(), {}, {}, [{}]

    def learnt(self, ident):
        return self.holds[ident] if ident in self.holds else self.said[ident]

    def raw(self):
        return {ident: self.pins.get(ident, self.learnt(ident)) for ident in self.said}

    def expected(self):
        return {i: (0 if i in self.muted else t) for i, t in self.raw().items() if t is not None}


IDS = ("dm-1", "dm-2", "pm-1")
STEP = st.one_of(
    st.tuples(st.sampled_from(["mute", "unmute", "pin", "unpin"]), st.sampled_from(IDS)),
    st.tuples(st.just("revert"), st.integers(0, 12)),
    st.tuples(st.just("learn"), st.sampled_from(IDS), st.sampled_from([0.8, 0.9, 1.1, 1.25]), st.booleans()),
    st.tuples(st.just("give up"), st.sampled_from(IDS)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_any_sequence_of_acts_and_fits_is_that_of_the_naive_model(steps):
    """After every step: overrides as the model says, the hourly job finds nothing to do, doing an act again changes
    nothing, and no version that was there before has changed."""
    book = Book(DM, replace(DM, id="dm-2", scope_values={}, effect={"capital_levers": {"alloc_mult": 0.9}}), SIZE)
    model = Naive(book)
    model.past.append(model.raw())
    for step in steps:
        before = list(book.versions)
        if step[0] == "learn":
            _, ident, target, evidence = step
            book.learn(ident, target, evidence=evidence)
            model.said[ident] = target
            if evidence:
                model.holds.pop(ident, None)
            book.run()
        elif step[0] == "give up":
            ident = step[1]
            if book.lessons[ident].status != "deprecated":
                book.learn(ident, None)
                model.said[ident] = None
                if model.holds.get(ident) is not None:
                    del model.holds[ident]
            book.run()
        elif step[0] == "revert":
            number = min(step[1], len(model.past) - 1)
            wanted = {i: model.pins.get(i, model.past[number].get(i)) for i in IDS}
            changes = wanted != model.raw() or _evidence_differs(book, number, model)
            assert book.do("revert", str(number)) == changes
            if changes:
                model.holds = {i: model.past[number].get(i) for i in IDS}
        else:
            _act(book, model, *step)
        assert {ident: book.target(ident) for ident in book.listed} == model.expected()
        assert not book.run()
        if step[0] in ("mute", "unmute", "unpin", "revert"):
            target = str(min(step[1], len(model.past) - 1)) if step[0] == "revert" else step[1]
            assert not book.do(step[0], target)
        assert book.versions[: len(before)] == before
        while len(model.past) < len(book.versions):
            model.past.append(model.raw())


def _evidence_differs(book, number, model):
    """Whether the overrides of that version differ from those of now in more than what they want."""
    old, now = ({o.lesson_id: o for o in parse_documents(*d)[0]} for d in (book.versions[number], book.documents))
    plain = {i: replace(o, enabled=True, pinned_at=None) for i, o in old.items() if i not in model.pins}
    return plain != {i: replace(o, enabled=True, pinned_at=None) for i, o in now.items() if i not in model.pins}


def _act(book, model, act, ident):
    if act == "pin":
        if book.target(ident) is None:
            with pytest.raises(InputError):
                book.do("pin", ident)
            return
        assert book.do("pin", ident) == (ident not in model.pins)
        model.pins.setdefault(ident, model.raw()[ident])
    elif act == "unpin":
        assert book.do("unpin", ident) == (ident in model.pins)
        model.pins.pop(ident, None)
    else:
        muted = act == "mute"
        assert book.do(act, ident) == (muted != (ident in model.muted))
        (model.muted.add if muted else model.muted.discard)(ident)

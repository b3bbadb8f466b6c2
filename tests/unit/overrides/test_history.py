"""The version history: pinning, no look-ahead, switches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebook.domain.decay import HOUR
from edgebook.domain.errors import OverrideError
from edgebook.domain.evidence import ConfigVersion
from edgebook.domain.pattern import DM_ALLOCATION, S1_ENTRY
from edgebook.overrides import ConfigHistory, Override, apply_pattern_strength_overrides, dump_documents, weight
from edgebook.overrides.record import Family

STRENGTH = Family("pm_strength", *S1_ENTRY)


def size(target, **fields):
    half_life = fields.pop("half_life", 720.0)
    return Override(fields.pop("lesson_id", "l"), *STRENGTH, (), {"size_mult": target}, half_life, 0, **fields)


def alloc(target):
    return Override("d", "dm_alloc", *DM_ALLOCATION, (), {"alloc_mult": target}, 720.0, 0)


def version(number, epoch, *overrides, **pm):
    dm, documents = dump_documents(overrides)
    return ConfigVersion(number, epoch * HOUR, dm, {**documents, **pm}, "")


def test_version_at_is_the_newest_in_force():
    """In force from its moment on, not before; 0 before the first."""
    history = ConfigHistory.from_versions([version(3, 10), version(5, 20)])
    asked = [10 * HOUR - 1, 10 * HOUR, 20 * HOUR - 1, 20 * HOUR, 99 * HOUR]
    assert [history.version_at(ts) for ts in asked] == [0, 3, 3, 5, 5]
    assert (history.current_version, history.versions) == (5, (3, 5))


def test_as_of_truncates():
    """An open trade sees the version it was pinned to and nothing later; 0 is the time before any."""
    history = ConfigHistory.from_versions([version(3, 10, size(1.1)), version(5, 20, size(1.2))])
    assert [history.as_of(n).current_version for n in (0, 2, 3, 4, 5, 9)] == [0, 0, 3, 3, 5, 5]
    assert history.as_of(3).overrides[0].targets == {"size_mult": 1.1}
    assert history.as_of(0).overrides == ()


def test_append_leaves_the_shorter_history_alone_and_shares_what_did_not_change():
    """Both histories stay usable; families that did not change are the same objects."""
    first = ConfigHistory.from_versions([version(1, 10, size(1.1), alloc(1.1))])
    second = first.append(version(2, 20, size(1.2), alloc(1.1)))
    assert (first.current_version, second.current_version) == (1, 2)
    assert first.overrides[1].targets == {"size_mult": 1.1}
    dm = Family("dm_alloc", *DM_ALLOCATION)
    assert second.families[dm] is first.families[dm]
    assert second.families[STRENGTH].previous is first.families[STRENGTH]
    assert second.as_of(1) is first


def test_two_futures_of_one_past_do_not_mix():
    """Appending twice to one history makes two independent histories."""
    past = ConfigHistory.from_versions([version(1, 10, size(1.1))])
    one, other = past.append(version(2, 20, size(1.2))), past.append(version(3, 30, size(0.8)))
    assert (one.versions, other.versions) == ((1, 2), (1, 3))
    assert (one.append(version(4, 40)).versions, other.append(version(5, 40)).versions) == ((1, 2, 4), (1, 3, 5))
    assert other.as_of(1) is past


@pytest.mark.parametrize("late", [version(2, 30), version(1, 30), version(3, 9)])
def test_versions_must_ascend(late):
    """A number or a time that goes back is refused."""
    history = ConfigHistory.from_versions([version(2, 10)])
    with pytest.raises(OverrideError, match="both must ascend"):
        history.append(late)


def strength_at(history, epoch):
    """Size multiplier everywhere, asked in the hour ``epoch``."""
    return apply_pattern_strength_overrides(history, STRENGTH[1:], (), epoch * HOUR + 7).size_mult


def test_a_mute_acts_at_once_and_unmuting_comes_in_by_the_step():
    """In the hour of the mute the lesson counts for nothing, and the other one stands where it would without it."""
    loud, other = size(1.5, half_life=1e12), size(0.9, lesson_id="m", half_life=1e12)
    silent = replace(loud, enabled=False)
    history = ConfigHistory.from_versions([version(1, 10, loud), version(2, 100, loud, other)])
    assert strength_at(history, 200) == pytest.approx(1.5 * 0.9)
    muted = history.append(version(3, 200, silent, other))
    assert strength_at(muted, 200) == pytest.approx(0.9)
    assert strength_at(muted, 199) == strength_at(history, 199)
    back = muted.append(version(4, 300, loud, other))
    assert [strength_at(back, 300 + n) for n in (0, 1, 2)] == pytest.approx([0.9 * 1.02**n for n in (0, 1, 2)])
    assert strength_at(back, 400) == pytest.approx(1.5 * 0.9)


def test_a_mute_in_the_hour_of_another_version_acts_at_once_too():
    """Whatever else came into force in that hour, before or after."""
    loud = size(1.5, half_life=1e12)
    versions = [version(1, 10, loud), version(2, 200, replace(loud, targets={"size_mult": 1.4}))]
    muted = ConfigHistory.from_versions([*versions, version(3, 200, replace(loud, enabled=False))])
    assert strength_at(muted, 200) == 1.0
    later = muted.append(version(4, 200, replace(loud, enabled=False), size(1.1, lesson_id="m")))
    assert [strength_at(later, epoch) for epoch in (200, 201)] == pytest.approx([1.0, 1.02])


def test_a_mute_of_today_acts_on_an_open_trade_as_well():
    """The version a trade is pinned to is read without what is muted now; once unmuted, as it was."""
    loud, other = size(1.5, half_life=1e12), size(0.9, lesson_id="m", half_life=1e12)
    silent = replace(loud, enabled=False)
    history = ConfigHistory.from_versions(
        [version(1, 10, loud), version(2, 90, loud, other), version(3, 200, silent, other)]
    )
    assert strength_at(history.as_of(1), 210) == 1.0
    assert strength_at(history.as_of(2), 210) == pytest.approx(0.9)
    assert history.as_of(2).as_of(1).current_version == 1
    assert strength_at(history.append(version(4, 300, loud)).as_of(1), 310) == pytest.approx(1.5)


def test_a_pin_holds_the_value_it_found():
    """From its hour on the decay stands still, so it strengthens nothing; until then it ran."""
    plain = size(1.4)
    pinned = replace(plain, pinned_at=720 * HOUR + 5)
    history = ConfigHistory.from_versions([version(1, 0, plain), version(2, 720, pinned)])
    unpinned = ConfigHistory.from_versions([version(1, 0, plain)])
    assert strength_at(history, 720) == strength_at(unpinned, 720) == pytest.approx(1.4**0.5)
    assert strength_at(history, 9_000) == strength_at(history, 720)
    assert weight(pinned, 9_000 * HOUR) == weight(pinned, 720 * HOUR + 5) == weight(plain, 720 * HOUR + 5)


def test_unknown_channels_are_refused():
    """A kill switch that switches nothing must not pass in silence."""
    with pytest.raises(OverrideError, match="unknown channel 'sizes'; use one of dm, strength, tuning"):
        ConfigHistory.from_versions([], neutral_channels=["sizes"])


def test_kill_switches_reach_pinned_and_later_histories():
    """Switched off means off for open trades too, and stays so when the next version arrives."""
    history = ConfigHistory.from_versions([version(1, 10, size(1.1)), version(2, 20)]).with_neutral({"strength"})
    assert history.as_of(1).neutral_channels == {"strength"}
    assert history.as_of(1) is history.as_of(1)
    assert history.append(version(3, 30)).as_of(1).neutral_channels == {"strength"}
    assert history.with_neutral(()).as_of(1).neutral_channels == frozenset()


def test_problems_are_kept_with_the_version():
    """What was not believed can be shown."""
    broken = version(1, 10, pattern_overrides=[{"levers": 1}])
    history = ConfigHistory.from_versions([broken])
    assert [p.where for p in history.problems] == ["pm.pattern_overrides[0]"]


def test_problems_of_unchanged_items_are_reported_where_they_stand_now():
    """An item that moved up the list is reported at its new place."""
    dm, pm = dump_documents([size(1.1, lesson_id="a"), size(1.2, lesson_id="b")])
    items = pm["pattern_strength_overrides"]
    items[1]["levers"] = {"size_mult": 7.0}
    history = ConfigHistory.from_versions([ConfigVersion(1, 0, dm, pm, "")])
    assert [p.where for p in history.problems] == ["pm.pattern_strength_overrides[1]"]
    history = history.append(ConfigVersion(2, HOUR, dm, {**pm, "pattern_strength_overrides": items[1:]}, ""))
    assert [p.where for p in history.problems] == ["pm.pattern_strength_overrides[0]"]


@pytest.mark.parametrize(
    ("flags", "scope", "allowed"),
    [
        ({}, (), True),
        ({"learning_overrides_enabled": False}, (), False),
        ({"learning_overrides_enabled": "no"}, (), False),
        ({"learning_overrides_enabled_regimes": ["Good"]}, (("macro_phase", "Good"),), True),
        ({"learning_overrides_enabled_regimes": ["Good"]}, (("macro_phase", "Dip"),), False),
        ({"learning_overrides_enabled_regimes": ["Good"]}, (), False),
        ({"learning_overrides_enabled_buckets": ["nano"]}, (("bucket", "nano"),), True),
        ({"learning_overrides_enabled_buckets": ["nano"]}, (("bucket", "mega"),), False),
        ({"learning_overrides_enabled_buckets": 5}, (), False),
        ("on", (), False),
    ],
)
def test_feature_flags(flags, scope, allowed):
    """Flags allow pm overrides by regime and bucket, an empty list allows all; an unreadable flag switches pm off, not
    dm.
    """
    history = ConfigHistory.from_versions([version(1, 10, feature_flags=flags)])
    assert history.flags.allow("pm", scope) is allowed
    assert history.flags.allow("dm", scope) is True


def test_flags_of_today_hold_for_pinned_histories():
    """Switching learning off acts at once, for open trades too."""
    history = ConfigHistory.from_versions(
        [version(1, 10, size(1.1)), version(2, 20, feature_flags={"learning_overrides_enabled": False})]
    )
    assert history.as_of(1).overrides[0].targets == {"size_mult": 1.1}
    assert history.as_of(1).flags.allow("pm", ()) is False

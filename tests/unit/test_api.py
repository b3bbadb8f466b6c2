"""The library: what learn promises of its trades, advise of its answers, and overrides.json of both."""

from __future__ import annotations

import datetime as dt
import json
import math
import re

import duckdb
import numpy as np
import pytest
from tests.tables import START, ArrowOnly, trades

import edgebook
from edgebook.api import in_holdout, microseconds
from edgebook.domain.decay import HOUR
from edgebook.domain.errors import InputError
from edgebook.domain.levers import MULTIPLIER_STEP
from edgebook.planted import policy

DIMS = ("side", "bucket")
T0 = int(START.astype(np.int64))
BOTH = {"side": ["long", "short", None], "bucket": ["mid", "mid", "mid"]}


@pytest.fixture(scope="module")
def learnt():
    """Lessons from 400 trades of which the longs are worth 1.2 R more."""
    return edgebook.learn(trades(400), DIMS)


# ------------------------------------------------------------------ learn


def test_a_planted_difference_is_learnt(learnt):
    """The better side is made larger, the worse one smaller, within the bounds; the dim that says nothing is silent."""
    longs, shorts, unknown = learnt.advise(BOTH).multiplier.tolist()

    assert 1.2 < longs <= 1.5
    assert 0.5 <= shorts < 0.8
    assert unknown == pytest.approx(1.0, abs=0.1)
    assert {tuple(row["scope"]) for row in learnt.lessons()} >= {("side",)}
    (family,) = learnt.families()
    assert (family["n"], family["acts"]) == (400, True)


def test_lessons_have_the_settled_shape_and_one_lever(learnt):
    """Rows as ``lessons --json``; the whole of a lesson is size_mult, none of it aggression (decisions 51)."""
    keys = {
        "id", "lesson_type", "module", "pattern_key", "action_category", "scope", "levers", "stats", "status", "reason",
    }  # fmt: skip
    for row in learnt.lessons():
        assert set(row) == keys
        assert set(row["levers"]) == {"size_mult"}
        assert math.log(row["levers"]["size_mult"]) == pytest.approx(row["stats"]["log_target"])
        assert (row["lesson_type"], row["module"], row["action_category"]) == ("pm_strength", "pm", "entry")


def test_noise_teaches_nothing_and_says_why():
    """A silent family has a row at the root, neutral, with its reason, and neutral ones for what stood out most; every
    multiplier is exactly 1."""
    found = edgebook.learn(trades(300, effect=0.0, seed=5), DIMS)

    rows = found.lessons()
    assert sum(row["scope"] == {} for row in rows) == 1
    assert len(rows) > 1
    for row in rows:
        assert (row["levers"], row["reason"], row["status"]) == ({"size_mult": 1.0}, "no_variance", "candidate")
    advice = found.advise(BOTH)
    assert advice.multiplier.tolist() == [1.0, 1.0, 1.0]
    assert advice.because == ["no lesson matches"] * 3


def test_too_few_trades_say_so():
    """Nineteen trades are no family."""
    (row,) = edgebook.learn(trades(19), DIMS).lessons()

    assert (row["reason"], row["stats"]["n"]) == ("too_few", 19)


def test_later_trades_do_not_exist():
    """Learning at t gives to the byte what learning from the trades closed by t alone gives (no look-ahead)."""
    given = trades(400)
    at = given["closed_at"][249]
    early = {name: values[:250] for name, values in given.items()}

    cut, whole = edgebook.learn(given, DIMS, at=at), edgebook.learn(early, DIMS)

    assert cut.learnt.trades == {"used": 250, "later": 150, "duplicates": 0}
    assert cut.learnt.lessons == whole.learnt.lessons
    assert cut.learnt.versions == whole.learnt.versions
    assert cut.advise(BOTH).multiplier.tolist() == whole.advise(BOTH).multiplier.tolist()


def test_order_and_duplicates_do_not_matter():
    """Rows in another order, some twice, from a stream: the same file but for the count of duplicates."""
    given = trades(300)
    order = np.random.default_rng(1).permutation(np.concatenate([np.arange(300), np.arange(0, 300, 7)]))
    shuffled = {name: np.asarray(values)[order] for name, values in given.items()}

    one, other = edgebook.learn(given, DIMS), edgebook.learn(ArrowOnly(shuffled), DIMS)

    assert other.learnt.trades["duplicates"] == 43
    assert one.learnt.versions == other.learnt.versions
    assert one.learnt.lessons == other.learnt.lessons


def test_families_are_apart():
    """A pattern key or category of its own has lessons of its own; plain names get the prefix."""
    given = trades(400)
    half = np.arange(400) % 2 == 0
    given["pattern_key"] = np.where(half, "breakout", None).tolist()
    given["action_category"] = np.where(half, "add", "entry").tolist()
    given["rr"] = np.where(half, -given["rr"], given["rr"])

    found = edgebook.learn(given, DIMS)

    breakout = found.advise(BOTH, pattern_key="breakout", category="add").multiplier
    default = found.advise(BOTH).multiplier
    assert breakout[0] < 1 < breakout[1]
    assert default[1] < 1 < default[0]
    assert found.advise(BOTH, pattern_key="breakout").multiplier.tolist() == [1, 1, 1]
    assert [row["pattern_key"] for row in found.families()] == [
        "module=pm|pattern_key=breakout",
        "module=pm|pattern_key=user.trade.entry",
    ]


def test_the_key_written_out_is_the_plain_name():
    """``breakout`` and ``module=pm|pattern_key=breakout`` are one family."""
    given = trades(400)
    given["pattern_key"] = ["breakout" if i % 2 else "module=pm|pattern_key=breakout" for i in range(400)]

    assert [row["n"] for row in edgebook.learn(given, DIMS).families()] == [400]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"at": "2020-01-01"}, "no trade closed at or before 2020-01-01"),
        ({"at": "yesterday"}, "at must be a time .* was 'yesterday'"),
        ({"at": True}, "at must be a time"),
        ({"dims": ["rr"]}, "fixed column"),
        ({"trades": {**trades(3), "pattern_key": ["module=dm|x"] * 3}}, "not of module pm"),
        ({"trades": {name: values[:0] for name, values in trades(3).items()}}, "no rows"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(change, complaint):
    """One clear line each."""
    with pytest.raises(InputError, match=complaint):
        edgebook.learn(**{"trades": trades(3), "dims": DIMS, **change})


# ------------------------------------------------------------------ previous: a history


def test_a_next_version_moves_by_steps(learnt):
    """With previous the new lessons are a version at ``at``; levers walk there one step an hour, in a year they are
    there."""
    flipped = trades(800)
    flipped["rr"] = np.where(np.arange(800) < 400, flipped["rr"], -3 * flipped["rr"])
    at = int(flipped["closed_at"][-1].astype(np.int64))

    following = edgebook.learn(flipped, DIMS, previous=learnt)
    fresh = edgebook.learn(flipped, DIMS)

    assert [v.version for v in following.learnt.versions] == [1, 2]
    assert following.learnt.versions[0] == learnt.learnt.versions[0]
    assert following.learnt.versions[1].in_force_from == at
    before = learnt.advise(BOTH, at=at).multiplier
    paths = np.array([following.advise(BOTH, at=at + k * HOUR).multiplier for k in range(80)])
    assert paths[0] == pytest.approx(before, rel=1e-9)
    assert np.abs(np.diff(np.log(paths), axis=0)).max() <= MULTIPLIER_STEP + 2e-3
    assert paths[-1] == pytest.approx(fresh.advise(BOTH, at=at + 79 * HOUR).multiplier, rel=1e-9)
    assert fresh.advise(BOTH).multiplier[0] < 1


def test_a_family_without_news_stands(learnt):
    """Fewer than 5 % new trades: the lessons are those of before, and no version is made (decisions 18, 33)."""
    given = trades(410)
    first = edgebook.learn({name: values[:400] for name, values in given.items()}, DIMS)
    again = edgebook.learn(given, DIMS, previous=first)

    assert again.learnt.versions == first.learnt.versions
    assert again.learnt.lessons == first.learnt.lessons
    assert again.learnt.fits == first.learnt.fits
    assert again.at > first.at


CORRECTIONS = {
    "rr": lambda t: t.update(rr=-t["rr"]),
    "one rr": lambda t: t["rr"].__setitem__(3, t["rr"][3] + 1e-9),
    "dim": lambda t: t["side"].__setitem__(3, "short" if t["side"][3] == "long" else "long"),
    "late": lambda t: t["opened_at"].__setitem__(3, t["opened_at"][3] + np.timedelta64(1, "s")),
    "id": lambda t: t["trade_id"].__setitem__(3, "other"),
    "gone": lambda t: t.update({name: values[:-1] for name, values in t.items()}),
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrected_trades_are_learnt_from_anew(name, learnt):
    """The same number of trades, or one fewer, but not the same ones: previous' fit stands no longer."""
    given = trades(400)
    CORRECTIONS[name](given)

    again = edgebook.learn(given, DIMS, at=learnt.at + HOUR, previous=learnt)

    assert [fit.fitted_at for fit in again.learnt.fits] == [learnt.at + HOUR]
    if name == "rr":
        assert again.advise(BOTH, at=again.at + 200 * HOUR).multiplier[0] < 1


def test_the_same_trades_in_another_form_are_no_correction(learnt, tmp_path):
    """Order, duplicates, and a later trade with a level of its own change nothing of what was known."""
    given = trades(400)
    later = {"trade_id": "z", "opened_at": given["opened_at"][-1], "closed_at": given["closed_at"][-1] + 1, "rr": 9.0}
    order = np.random.default_rng(1).permutation(np.r_[np.arange(400), 0, 7])
    shuffled = {n: [*np.asarray(v)[order], {**later, "side": "aside", "bucket": "a"}[n]] for n, v in given.items()}

    again = edgebook.learn(shuffled, DIMS, previous=learnt)

    assert again.learnt.trades == {"used": 401, "later": 0, "duplicates": 2}
    assert again.learnt.fits == learnt.learnt.fits
    assert again.learnt.lessons == learnt.learnt.lessons


def test_previous_may_be_a_path(learnt, tmp_path):
    """Of its file; anything else is told what is wanted."""
    learnt.save(tmp_path / "o.json")

    for path in (tmp_path / "o.json", str(tmp_path / "o.json")):
        assert edgebook.learn(trades(400), DIMS, previous=path).to_json() == learnt.to_json()
    with pytest.raises(InputError, match=r"no\.json: cannot be read"):
        edgebook.learn(trades(400), DIMS, previous=tmp_path / "no.json")
    with pytest.raises(InputError, match=r"previous must be Overrides or the path of an overrides\.json, was \{\}"):
        edgebook.learn(trades(400), DIMS, previous={})


def test_dims_of_an_array_are_plain_text(learnt, tmp_path):
    """numpy's own text would not go into the file."""
    found = edgebook.learn(trades(400), np.array(DIMS))
    found.save(tmp_path / "o.json")

    assert found.to_json() == learnt.to_json()
    assert {type(dim) for dim in found.dims} == {str}


def test_previous_must_fit(learnt):
    """The same dims, and no step back in time."""
    with pytest.raises(InputError, match="learnt from dims side, bucket, not side"):
        edgebook.learn(trades(400), ["side"], previous=learnt)
    with pytest.raises(InputError, match="before previous' own"):
        edgebook.learn(trades(400), DIMS, at=learnt.at - 1, previous=learnt)


# ------------------------------------------------------------------ advise


def test_one_context_may_be_single_values(learnt):
    """For a bot that asks about one trade."""
    assert learnt.advise({"side": "long", "bucket": None}).multiplier.tolist() == pytest.approx(
        learnt.advise({"side": ["long"], "bucket": [None]}).multiplier.tolist()
    )


def test_a_short_history_has_its_full_value_at_once():
    """All trades within a day: advice at the moment of learning is what the lessons ask for, not on the way to it."""
    given = trades(400)
    opened = np.datetime64("2024-03-01T00:00:00") + np.arange(400).astype("timedelta64[m]")
    found = edgebook.learn(given | {"opened_at": opened, "closed_at": opened + np.timedelta64(1, "h")}, DIMS)
    advice = found.advise(BOTH)

    assert found.families()[0]["acts"]
    assert advice.multiplier[0] > 1.3
    assert "on the way" not in advice.because[0]


def test_because_names_scope_effect_trades_status_and_share(learnt):
    """The texts say what moved the number, shares add up, and what each asks for makes the multiplier, within its
    bounds."""
    advice = learnt.advise(BOTH)

    assert advice.because[2] == "no lesson matches"
    for text, multiplier in zip(advice.because[:2], advice.multiplier.tolist(), strict=False):
        form = r"(\S+) x([\d.]+)(?: counted ([\d.]+) times)? \(([+-][\d.]+) R, n (\d+), (candidate|active), (\d+)%\)"
        parts = re.findall(form, text)
        assert len(parts) == text.count(";") + 1
        assert sum(int(part[6]) for part in parts) == pytest.approx(100, abs=2)
        asked = math.prod(float(part[1]) ** float(part[2] or 1) for part in parts)
        assert multiplier == pytest.approx(min(1.5, max(0.5, asked)), abs=2e-3)
        for _, lever, _, effect, n, _, _ in parts:
            assert (float(lever) - 1.0) * float(effect) >= 0
            assert 0.5 <= float(lever) <= 1.5, "a lesson is told within its bounds"
            assert 0 < int(n) <= 400
    assert advice.because[0].startswith("side=long x")


def test_evidence_fades(learnt):
    """What each lesson asks for halves in its half-life; in eight nothing is left worth telling, and no multiplier ever
    grows on the way."""
    (row,) = [row for row in learnt.lessons() if row["scope"] == {"side": "long"}]
    half_life = row["stats"]["half_life_hours"]
    assert half_life >= 720.0

    def asked(halves):
        advice = learnt.advise(BOTH, at=learnt.at + round(halves * half_life * HOUR))
        (long,) = [m for m in advice.found[advice.which[0]].nudges[0].matched if m.scope == {"side": "long"}]
        return long.decay * long.conviction * math.log(long.targets["size_mult"]), math.log(advice.multiplier[0])

    pulls, moves = np.array([asked(halves) for halves in (0, 1, 2, 3, 4, 8)]).T
    assert pulls[:5] == pytest.approx(pulls[0] * 0.5 ** np.arange(5.0), rel=0.02)
    assert pulls[0] == pytest.approx(row["stats"]["kappa"] * row["stats"]["effect"], rel=0.02)
    assert (np.diff(moves) <= 1e-12).all()
    assert 0 < moves[4] < 0.2 < moves[0]
    assert 0 <= moves[5] < 0.02


def test_the_past_is_not_advised_with_later_lessons(learnt):
    """Before the first learning there is no answer, rather than one that looks ahead."""
    with pytest.raises(InputError, match="look ahead"):
        learnt.advise(BOTH, at=learnt.at - 1)


def test_the_holdout_is_a_stable_tenth(learnt):
    """Exactly neutral, said so, the same rows however often and in whatever company."""
    ids = [f"c{i}" for i in range(2000)]
    contexts = {"context_id": ids, "side": ["long"] * 2000, "bucket": ["mid"] * 2000}

    advice, plain = learnt.advise(contexts, holdout=True), learnt.advise(contexts)

    assert 150 < advice.holdout.sum() < 250
    assert (advice.multiplier[advice.holdout] == 1.0).all()
    assert (advice.multiplier[~advice.holdout] > 1.0).all()
    assert advice.holdout.tolist() == [in_holdout(ident) for ident in ids]
    assert advice.because[int(np.argmax(advice.holdout))].startswith("holdout")
    assert not plain.holdout.any()
    with pytest.raises(InputError, match="context_id"):
        learnt.advise(BOTH, holdout=True)


def test_answers_are_tables(learnt, tmp_path):
    """Columns, Arrow, Parquet and CSV say the same."""
    advice = learnt.advise({"context_id": [7, 8, 9], **BOTH})
    columns = advice.columns()

    assert list(columns) == ["context_id", "side", "bucket", "multiplier", "because", "holdout"]
    assert columns["side"].tolist() == BOTH["side"]
    connection = duckdb.connect()
    connection.register("streamed", advice)
    rows = connection.sql("SELECT context_id, side, multiplier FROM streamed").fetchall()
    assert rows == list(zip(["7", "8", "9"], BOTH["side"], advice.multiplier.tolist(), strict=True))
    for name in ("levers.parquet", "levers.csv"):
        found = duckdb.sql(f"SELECT multiplier FROM '{advice.write(tmp_path / name)}'").fetchall()
        assert [row[0] for row in found] == advice.multiplier.tolist()


@pytest.mark.parametrize(("library", "convert"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_answers_are_frames_where_the_library_is(library, convert, learnt):
    """Where it is not, the error says which library is wanted."""
    advice = learnt.advise(BOTH)
    try:
        __import__(library)
    except ImportError:
        with pytest.raises(InputError, match=f"needs {library}"):
            getattr(advice, convert)()
    else:
        assert list(getattr(advice, convert)()["multiplier"].tolist() if library == "pandas" else
                    getattr(advice, convert)()["multiplier"].to_pylist()) == advice.multiplier.tolist()  # fmt: skip


def test_nothing_asked_nothing_answered(learnt):
    """Empty contexts give empty columns."""
    advice = learnt.advise({"side": [], "bucket": []})

    assert (len(advice), advice.because, advice.multiplier.tolist()) == (0, [], [])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"category": "buy"}, "category must be one of"), ({"pattern_key": "module=dm|x"}, "not of module pm")],
)
def test_questions_are_checked(change, complaint, learnt):
    """Families that cannot exist are a mistake; unknown ones are merely neutral."""
    with pytest.raises(InputError, match=complaint):
        learnt.advise(BOTH, **change)


def test_a_planted_stream_may_start_at_hour_0():
    """The judge's way in: hours of a stream that has just begun, and of one 30 weeks on, say the same."""
    given = trades(300)
    hours = np.arange(300) * 0.1
    stream = {"trade_id": given["trade_id"], "rr": given["rr"], "side": given["side"]}

    made = [
        policy(
            {**stream, "opened_at": hours + start, "closed_at": hours + start + 0.5}, {"side": BOTH["side"]}, start + 31
        )
        for start in (0, 30 * 7 * 24)
    ]

    assert made[0][0] > 1.1
    np.testing.assert_array_equal(made[0], made[1])


# ------------------------------------------------------------------ overrides.json


def test_the_file_is_the_whole_of_it(learnt, tmp_path):
    """Saved and loaded: equal contents, equal answers, equal bytes."""
    path = tmp_path / "overrides.json"
    learnt.save(path)

    back = edgebook.Overrides.load(path)

    assert back.learnt == learnt.learnt
    assert back.to_json() == learnt.to_json() == path.read_text(encoding="utf-8")
    assert back.advise(BOTH).multiplier.tolist() == learnt.advise(BOTH).multiplier.tolist()
    assert json.loads(path.read_text())["format"] == "edgebook.overrides"
    assert [p.name for p in tmp_path.iterdir()] == ["overrides.json"]


def test_learning_goes_on_from_a_file(learnt, tmp_path):
    """``previous`` from the file is ``previous`` from memory."""
    learnt.save(tmp_path / "o.json")
    more = trades(600, seed=0)

    one = edgebook.learn(more, DIMS, previous=learnt)
    other = edgebook.learn(more, DIMS, previous=edgebook.Overrides.load(tmp_path / "o.json"))

    assert one.to_json() == other.to_json()


def harmed(change):
    """A function that damages the parsed file."""

    def harm(text):
        body = json.loads(text)
        change(body)
        return json.dumps(body)

    return harm


def _first(body):
    return body["versions"][0]["pm"]["pattern_strength_overrides"][0]


DAMAGE = {
    "cut": (lambda text: text[: len(text) // 2], "not JSON"),
    "foreign": (lambda text: '{"a": 1}', "not an overrides file"),
    "list": (lambda text: "[]", "not an overrides file"),
    "newer": (harmed(lambda b: b.update(format_version=9)), "format_version is 9; this edgebook reads 2"),
    "lever": (harmed(lambda b: _first(b)["levers"].update(size_mult=1.49)), "version 1 hashes to"),
    "gone": (harmed(lambda b: b.pop("dims")), "damaged: .*dims"),
    "extra": (harmed(lambda b: b.update(more=1)), "damaged: .*more"),
    "typed": (harmed(lambda b: b["lessons"][0].update(scope_values="x")), "damaged: .*scope_values"),
    "empty": (harmed(lambda b: b.update(versions=[])), "holds no version"),
    "scope": (harmed(lambda b: b.update(dims=["bucket"])), "damaged"),
    "none": (lambda text: "null", "not an overrides file"),
    "lesson": (harmed(lambda b: b["lessons"][0]["stats"].update(effect=9.0)), "not that of its hash"),
    "moment": (harmed(lambda b: b.update(learnt_at=0)), "not that of its hash"),
    "fit": (harmed(lambda b: b["fits"][0].update(acts=False)), "not that of its hash"),
    "count": (harmed(lambda b: b["trades"].update(used=1)), "not that of its hash"),
    "refused": (harmed(lambda b: b.update(refused=[["a", "b"]])), "not that of its hash"),
    "refusedint": (harmed(lambda b: b.update(refused=7)), "damaged"),
    "hashless": (harmed(lambda b: b.pop("sha256")), "not that of its hash"),
    "words": (harmed(lambda b: b["lessons"][0]["stats"].update(effect="much")), "stats.effect is 'much'.*number"),
    "statless": (harmed(lambda b: b["lessons"][0]["stats"].pop("log_target")), "stats.log_target is None.*number"),
    "leverless": (harmed(lambda b: b["lessons"][0]["effect"].clear()), "effect.capital_levers is None.*object"),
    "yes": (harmed(lambda b: b["lessons"][0]["effect"]["capital_levers"].update(size_mult=True)), "is True.*number"),
    "reasonless": (harmed(lambda b: b["fits"][0]["detail"].pop("reason")), "detail.reason is None.*text"),
    "evidence": (harmed(lambda b: b["fits"][0]["detail"].update(lr=[1])), r"detail.lr is \[1\].*object"),
    "twice": (harmed(lambda b: b["versions"].append(b["versions"][0])), "damaged: .*must ascend|not that of its hash"),
    "texts": (harmed(lambda b: b.update(at="x")), "damaged: at must be int, was 'x'"),
    "infinite": (harmed(lambda b: b["lessons"][0]["stats"].update(effect=math.inf)), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused(name, learnt, tmp_path):
    """Cut, foreign, newer or changed by hand: one line that names file and place."""
    harm, complaint = DAMAGE[name]
    path = tmp_path / "o.json"
    path.write_text(harm(learnt.to_json()))

    with pytest.raises(InputError, match=complaint) as caught:
        edgebook.Overrides.load(path)
    assert caught.value.message.startswith(str(path))


def test_a_file_that_is_not_there_is_refused(learnt, tmp_path):
    """Reading and writing alike."""
    with pytest.raises(InputError, match="cannot be read"):
        edgebook.Overrides.load(tmp_path / "no.json")
    with pytest.raises(InputError, match="does not exist"):
        learnt.save(tmp_path / "no" / "o.json")
    with pytest.raises(InputError, match="it is a folder"):
        learnt.save(tmp_path)
    assert list(tmp_path.parent.glob(f"{tmp_path.name}.part")) == []


# ------------------------------------------------------------------ moments


def test_a_moment_may_be_written_in_many_ways():
    """Text and datetimes without zone are UTC."""
    moment = 1_704_078_000_000_000
    for written in (
        moment,
        np.int64(moment),
        "2024-01-01T03:00",
        "2024-01-01T04:00:00+01:00",
        dt.datetime(2024, 1, 1, 3),  # noqa: DTZ001
        dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC),
        np.datetime64("2024-01-01T03", "h"),
    ):
        assert microseconds(written, "at") == moment
    with pytest.raises(InputError):
        microseconds(np.datetime64("NaT"), "at")


def test_the_package_has_the_names_and_no_others():
    """``edgebook.learn`` is there without an import of api; a wrong name is an AttributeError."""
    assert edgebook.learn.__module__ == "edgebook.api"
    with pytest.raises(AttributeError, match="no attribute 'teach'"):
        edgebook.teach  # noqa: B018

"""The canonical JSON of strands and rows: one form, whatever the order, the machine or the wall clock."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from decimal import Decimal
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.examples import ROWS, payload, strand

from edgebook.adapters import codec
from edgebook.adapters.tables import SPECS
from edgebook.domain.codec import to_json
from edgebook.domain.errors import StrandError
from edgebook.domain.strands import PAYLOADS, StageTransition, Strand, payload_from_json

KINDS = list(PAYLOADS)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_from_its_json(kind):
    """A payload of every kind is equal after JSON, and its JSON is what the standard library reads."""
    one = payload(kind)
    data = codec.encode(one)
    assert payload_from_json(kind, codec.decode(data)) == one
    assert json.loads(data) == to_json(one)


@pytest.mark.parametrize("name", SPECS)
def test_every_row_comes_back_from_its_json(name):
    """A row of every table is equal after JSON."""
    row = ROWS[name]
    data = codec.encode_row(row)
    assert codec.decode_row(type(row), data) == row
    assert json.loads(data) == to_json(row)


@pytest.mark.parametrize("kind", KINDS)
def test_a_strand_comes_back_from_its_row(kind):
    """Stored row and strand are two forms of one thing, and both give the same bytes to the chain."""
    one = codec.stamp(strand(1, kind), 7, "ab" * 32)
    form = codec.encode_strand(one)
    row = codec.strand_row(one, form)
    assert codec.strand_from_row(row) == one
    assert codec.row_bytes(row) == form.canonical == codec.strand_bytes(one)
    assert (one.seq, one.hash) == (7, "ab" * 32)
    assert dataclasses.replace(one, seq=0, hash="") == strand(1, kind)


def test_the_hashed_bytes_of_a_strand_written_out():
    """The form anybody can recompute: sorted keys, no spaces, UTF-8; no seq, no hash, no wall clock."""
    moved = StageTransition("S0", "S1", 1.5, "a±")
    one = Strand("id-1", moved, 10, 99, symbol="ETH", scope={"b": 1, "a": "x"}, tags=("t",), seq=4)
    expected = (
        '{"arm":"","causation_id":"","config_version":0,"correlation_id":"","episode_id":"","id":"id-1",'
        '"kind":"uptrend_stage_transition","module":"","payload":{"attempt_id":"a±","from_state":"S0","price":1.5,'
        '"to_state":"S1"},"position_id":"","regime_snapshot_id":"","scope":{"a":"x","b":1},"symbol":"ETH","tags":["t"],'
        '"timeframe":"","trade_id":"","ts_event":10}'
    ).encode()
    assert codec.strand_bytes(one) == expected
    assert codec.chain_hash(codec.GENESIS, expected) == hashlib.sha256(b"0" * 64 + expected).hexdigest()


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Strand)])
def test_what_is_hashed_of_the_envelope(field):
    """Every field of the envelope moves the bytes, but seq, hash and ts_recorded do not."""
    one = strand(1)
    other = {
        "payload": payload("pm_action"),
        "scope": {},
        "tags": (),
        **dict.fromkeys(("seq", "config_version", "ts_event", "ts_recorded"), 4242),
    }.get(field, "other")
    moved = codec.strand_bytes(dataclasses.replace(one, **{field: other})) != codec.strand_bytes(one)
    assert moved == (field not in ("seq", "hash", "ts_recorded"))


@given(values)
def test_one_value_has_one_form(value):
    """Reading and writing again gives the same bytes; the standard library reads the same value."""
    data = codec.encode(value)
    assert codec.encode(codec.decode(data)) == data
    assert json.loads(data) == value


@given(st.dictionaries(texts, scalars, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(mapping, random):
    """Two mappings with equal items have equal bytes, at any depth, of any mapping class."""
    items = list(mapping.items())
    random.shuffle(items)
    assert codec.encode({"x": [dict(items)]}) == codec.encode({"x": (MappingProxyType(mapping),)})


@given(values, st.sampled_from([float("nan"), float("inf"), float("-inf"), Decimal("NaN"), Decimal("Infinity")]))
def test_a_number_that_is_none_is_found_wherever_it_hides(value, bad):
    """Beside any amount of ordinary content, None included, the bad number is refused by its path."""
    with pytest.raises(StrandError, match=r"^b\[1\]\.c is -?(nan|inf|NaN|Infinity): only finite numbers"):
        codec.encode({"a": value, "b": [None, {"c": bad}]})


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"a": {"b": "x\0y"}}, "a.b is text with a NUL character"),
        ({"a\0": 1}, "the value is a mapping with a key that is text with a NUL"),
        ({"a": {1: 2}}, "a is a mapping with the key 1: keys must be text"),
        ({"a": {None, 1}}, r"a is a builtins\.set: only text, numbers"),
        ({"a": b"bytes"}, r"a is a builtins\.bytes"),
        (["ok", -(2**63) - 1], r"\[1\] is -9223372036854775809: whole numbers must fit"),
        (float("nan"), "the value is nan"),
    ],
)
def test_what_has_no_json_form_is_refused_by_its_path(value, complaint):
    """Each kind of fault says where it is."""
    with pytest.raises(StrandError, match=complaint):
        codec.encode(value)


def test_numpy_scalars_are_refused():
    """A numpy float that slipped into a row would come back as something else: convert it where it is made."""
    numpy = pytest.importorskip("numpy")
    for scalar in (numpy.float64(1.5), numpy.int64(3), numpy.float32("nan")):
        with pytest.raises(StrandError, match=r"a is a numpy\."):
            codec.encode({"a": scalar})


def test_text_that_looks_like_an_escape_is_text():
    """A backslash, a u and four zeros are six characters, not a NUL; the word null is no missing number."""
    for text in ("\\u0000", "null", "nan"):
        assert codec.decode(codec.encode({"a": text})) == {"a": text}


@pytest.mark.parametrize("field", ["ts_event", "ts_recorded", "config_version"])
def test_times_are_whole_numbers(field):
    """A float time would be rounded by one database and not by the other."""
    with pytest.raises(StrandError, match=f"{field} is 1.5: must be a whole number"):
        codec.encode_strand(dataclasses.replace(strand(1), **{field: 1.5}))


def test_a_payload_outside_the_catalogue_is_refused():
    """Only registered kinds can be read back, so only they are written."""

    @dataclasses.dataclass(frozen=True)
    class Rumour:
        kind = "order_filled"

    with pytest.raises(StrandError, match="a Rumour is not a payload of the catalogue"):
        codec.encode_strand(dataclasses.replace(strand(1), payload=Rumour()))


@pytest.mark.parametrize(("column", "value"), [("content", "{}"), ("content", "{"), ("kind", "rumour"), ("scope", "x")])
def test_a_row_that_is_no_strand_is_named(column, value):
    """Reading a damaged row says which one it is."""
    one = codec.stamp(strand(1), 12, "ab" * 32)
    row = dict(zip(codec.COLUMNS, codec.strand_row(one, codec.encode_strand(one)), strict=True))
    with pytest.raises(StrandError, match="ad_strands seq 12: "):
        codec.strand_from_row(list({**row, column: value}.values()))

"""The registry of curators: what it says, and one clear line for whatever is wrong with it (trading.md 1.1)."""

from __future__ import annotations

import json

import pytest

from edgebook.adapters.feeds.curators import read_curators
from edgebook.domain.errors import InputError
from edgebook.domain.strands import CuratorRegistered

FULL = """
[[curators]]
id = "zoe"

[[curators]]
id = "ann"
name = "Ann"
enabled = false
status = "suspended"
base_weight = 0.7
handles = { Twitter = "@Ann_Calls", telegram = ["ann", "ann2"] }
tags = ["solana", "memes"]
notes = "quiet on weekends"
"""


def test_a_toml_registry(tmp_path):
    """Every field is read, what is left out has its default, entries come by id, handles are platform:handle."""
    path = tmp_path / "curators.toml"
    path.write_text(FULL)
    ann, zoe = read_curators(path)
    assert ann == CuratorRegistered(
        "ann", "Ann", False, "suspended", 0.7, ("telegram:ann", "telegram:ann2", "twitter:ann_calls"),
        ("solana", "memes"), "quiet on weekends",
    )  # fmt: skip
    assert zoe == CuratorRegistered("zoe", "zoe", True, "active", 0.6, (), (), "")


def test_a_json_registry_says_the_same(tmp_path):
    """The same entries in JSON are the same registry."""
    path, other = tmp_path / "curators.json", tmp_path / "curators.toml"
    other.write_text(FULL)
    ann = {
        "id": "ann", "name": "Ann", "enabled": False, "status": "suspended", "base_weight": 0.7,
        "handles": {"twitter": "ann_calls", "telegram": ["ann2", "ann"]}, "tags": ["solana", "memes"],
        "notes": "quiet on weekends",
    }  # fmt: skip
    path.write_text(json.dumps({"curators": [ann, {"id": "zoe"}]}))
    assert read_curators(path) == read_curators(other)


def test_an_empty_registry_is_a_registry(tmp_path):
    path = tmp_path / "curators.json"
    path.write_text('{"curators": []}')
    assert read_curators(path) == ()


def one(**fields):
    return {"curators": [{"id": "zoe"}, {"id": "ann"} | fields]}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "needs a list called curators"),
        ({"curators": {}}, "needs a list called curators"),
        ({"curators": [], "people": 1}, "'people' is not known"),
        ({"curators": ["ann"]}, "curators[1] must be a table of fields, was 'ann'"),
        ({"curators": [{"name": "Ann"}]}, "curators[1]: id must be text, was None"),
        ({"curators": [{"id": " "}]}, "curators[1]: id must be text, was ' '"),
        ({"curators": [{"id": "a:b"}]}, "curators[1] (a:b): id must not hold a colon"),
        (one(naem="Ann"), "curators[2] (ann): naem is no field; fields are id, name"),
        (one(name=7), "curators[2] (ann): name must be text, was 7"),
        (one(name="a\x00"), "curators[2] (ann): name must be text"),
        (one(notes="\ud800"), "curators[2] (ann): notes must be text"),
        (one(enabled="yes"), "curators[2] (ann): enabled must be true or false, was 'yes'"),
        (one(status="retired"), "curators[2] (ann): status must be one of active, inactive, suspended, testing"),
        (one(status=["active"]), "curators[2] (ann): status must be one of"),
        (one(base_weight=1.5), "curators[2] (ann): base_weight must be a number from 0 to 1, was 1.5"),
        (one(base_weight=True), "curators[2] (ann): base_weight must be a number from 0 to 1, was True"),
        (one(base_weight=float("nan")), "curators[2] (ann): base_weight must be a number from 0 to 1, was nan"),
        (one(base_weight="much"), "curators[2] (ann): base_weight must be"),
        (one(handles=["ann"]), "curators[2] (ann): handles must be a table of platforms"),
        (one(handles={"twitter": 7}), "curators[2] (ann): handles.twitter must be a list of texts, was 7"),
        (one(handles={"twitter": "@"}), "curators[2] (ann): handles.twitter must be a name without spaces, was '@'"),
        (one(handles={"twitter": "a b"}), "handles.twitter must be a name without spaces, was 'a b'"),
        (one(handles={"": "ann"}), "must be a name without spaces"),
        (one(tags="solana"), "curators[2] (ann): tags must be a list of texts, was 'solana'"),
        (one(tags=[""]), "curators[2] (ann): tags must be a list of texts"),
        (one(notes=["x" * 5000] * 2), "curators[2] (ann): notes must be text"),
        ({"curators": [{"id": "ann"}, {"id": "ann"}]}, "curator 'ann': id: 'ann' belongs to 'ann' already"),
        (
            {
                "curators": [
                    {"id": "a", "handles": {"twitter": "X"}},
                    {"id": "b", "handles": {"TWITTER": "@x"}},
                ]
            },
            "curator 'b': handles: 'twitter:x' belongs to 'a' already",
        ),
    ],
)
def test_a_wrong_registry_is_one_line_with_file_entry_and_field(tmp_path, data, named):
    """The message starts with the file, names the entry and the field, and is short."""
    path = tmp_path / "curators.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as refused:
        read_curators(path)
    message = refused.value.message
    assert message.startswith(f"{path}: ")
    assert named in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("curators.toml", b"[[curators]\n", "not TOML"),
        ("curators.json", b"[[curators]]", "not JSON"),
        ("curators.json", b"[" * 100_000, "not JSON"),
        ("curators.toml", b"\xff\xfe", "not UTF-8 text (byte 0)"),
        ("curators.toml", None, "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, name, content, named):
    """Missing, not text, not TOML or JSON."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_curators(path)
    assert named in refused.value.message
    assert name in refused.value.message
    assert "\n" not in refused.value.message

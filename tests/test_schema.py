"""JSON from anyone: what has its declared shape comes back as it was written, all else is one clear error."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.schema import Either, Flag, Integer, Items, Names, Null, Number, Record, Shape, Text, parse, read

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e308, max_value=1e308)
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | st.text(max_size=5)
NAMES = st.text(max_size=3)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=9)
WHOLE = Integer(-3, 7)


def shapes(inner):
    """Pairs of a shape and what draws values that have it."""
    return st.one_of(
        inner.map(lambda pair: (Null(pair[0]), st.none() | pair[1])),
        inner.map(lambda pair: (Items(pair[0], 1, 3), st.lists(pair[1], min_size=1, max_size=3))),
        inner.map(lambda pair: (Names(pair[0]), st.dictionaries(NAMES, pair[1], max_size=3))),
        inner.map(lambda pair: (Record({"must": pair[0]}, {"may": pair[0]}), st.builds(
            lambda must, more: {**more, "must": must}, pair[1], st.dictionaries(st.sampled_from("xy"), ANYTHING)))),
        st.tuples(inner, inner).map(lambda two: (Either(two[0][0], two[1][0]), two[0][1] | two[1][1])),
    )  # fmt: skip


PLAIN = st.sampled_from([
    (WHOLE, st.integers(-3, 7)), (Number(), FINITE), (Number(0, 1), st.floats(0, 1)), (Flag(), st.booleans()),
    (Text(), st.text()), (Text(("a", "b")), st.sampled_from(["a", "b"])), (Shape(), ANYTHING),
])  # fmt: skip


@settings(deadline=None)
@given(st.recursive(PLAIN, shapes, max_leaves=6).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1])))
def test_what_has_the_shape_comes_back(drawn):
    shape, value = drawn
    wrapped = Record({"it": shape}, rest=None)
    text = json.dumps({"it": value})
    assert parse(text, wrapped, "file") == {"it": value}
    assert parse(text.encode(), wrapped, "file") == {"it": value}
    with pytest.raises(ValueError, match="file is damaged: 'it' is missing"):
        parse("{}", wrapped, "file")
    with pytest.raises(ValueError, match="file is damaged: more is unknown"):
        parse(json.dumps({"it": value, "more": 1}), wrapped, "file")


@given(ANYTHING)
def test_what_has_not_is_refused(value):
    """An independent look at a few shapes tells which values they take."""
    kinds = {
        WHOLE: type(value) is int and -3 <= value <= 7,
        Number(0): type(value) in (int, float) and value >= 0,
        Flag(): type(value) is bool,
        Text(): type(value) is str,
        Null(Text()): value is None or type(value) is str,
        Items(Text()): type(value) is list and all(type(item) is str for item in value),
        Either(Flag(), Text()): type(value) in (bool, str),
    }
    for shape, right in kinds.items():
        text = json.dumps([value])
        if right:
            assert parse(text, Items(shape), "file") == [value]
        else:
            with pytest.raises(ValueError, match=r"^file is damaged: \[0\]"):
                parse(text, Items(shape), "file")


@given(st.integers(1, 300), st.sampled_from(["[]", '{"a":}']))
def test_depth(depth, pair):
    start, end = (pair[0], pair[1]) if pair == "[]" else ('{"a":', "}")
    text = start * depth + "1" + end * depth
    if depth <= 64:
        assert parse(text, Shape(), "file") == json.loads(text)
    else:
        with pytest.raises(ValueError, match="file is damaged: nested more than 64 levels deep"):
            parse(text, Shape(), "file")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6, '{"a":' * 10**5, "", "{", "1 2", "NaN", "[Infinity]", "[1e999]", "1" * 400, "9" * 9999, b"\xff",
        '"\x00"',
    ],
    ids=range(12),
)  # fmt: skip
def test_hostile_texts(text):
    with pytest.raises(ValueError, match=r"^file is damaged: "):
        parse(text, Shape(), "file")


def test_figures_that_are_not_finite_where_they_may_be():
    shape = Items(Number(nan=True))
    found = parse("[NaN, Infinity, -Infinity, 1e999, 1]", shape, "file", nan=True)
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, math.inf, 1]


def test_only_regular_files_of_some_length_are_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('\ufeff{"a": 1}', "utf-8")
    assert read(path, Record()) == {"a": 1}
    with pytest.raises(ValueError, match=r"x\.json has 11 bytes, at most 10 are read"):
        read(path, Record(), longest=10)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json is damaged: not a JSON object"):
        read(path, Record())
    with pytest.raises(OSError, match="directory"):
        read(tmp_path, Record())
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe is not a regular file"):
            read(tmp_path / "pipe", Record())

"""Lines for people reach any stream: none, closed, with ``write`` alone, in any encoding."""

import io
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.terminal import bar, encodable, is_terminal, put_line

ENCODINGS = ["ascii", "latin-1", "cp437", "cp932", "cp1251", "cp1252", "koi8-r", "utf-8", "utf-16", "gb18030"]


@given(st.text(st.characters() | st.sampled_from("×–·±…÷→²½\udcff")), st.sampled_from(ENCODINGS))
def test_every_text_can_be_encoded_and_one_that_could_be_is_unchanged(text, encoding):
    found = encodable(text, encoding)
    found.encode(encoding)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        assert found.isascii() or any(not sign.isascii() for sign in text)
    else:
        assert found == text


@given(st.text(st.characters(max_codepoint=0x2FFF)), st.sampled_from(ENCODINGS))
def test_a_line_is_written_in_the_encoding_of_its_stream(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, newline="")
    put_line(text, stream)
    assert raw.getvalue() == f"{encodable(text, encoding)}\n".encode(encoding)


def test_signs_have_plain_forms():
    assert encodable("3×3 – 2²·½ ± 1…", "ascii") == "3x3 - 22*1/2 +- 1..."
    assert encodable("3×3 – 2²", "latin-1") == "3×3 - 2²"
    assert encodable("name-\udcff", "utf-8") == "name-\\udcff"
    assert encodable("×", None) == encodable("×", "no such encoding") == "×"


class Tee:
    """What some programs put in the place of standard output."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def test_streams_that_are_none_or_little_of_one():
    closed = io.StringIO()
    closed.close()
    tee = Tee()
    for stream in (None, closed, tee):
        put_line("×", stream)
        assert not is_terminal(stream)
    assert tee.text == "×\n"


def test_a_stream_that_fails_says_so():
    class Full(Tee):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        put_line("text", Full())


@pytest.mark.parametrize("shell", [None, object()])
def test_who_has_imported_a_notebook_s_packages_is_in_no_notebook(monkeypatch, shell):
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    for name, module in (("IPython", ipython), ("ipykernel", ModuleType("ipykernel"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert bar(total=1) is None

"""Every command ends as it should whatever its output is: a pipe, closed, full, in any encoding."""

import contextlib
import io
import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.cli import main
from fastconv.cli.output import Output, OutputClosed, OutputLost
from fastconv.terminal import encodable

posix = pytest.mark.skipif(os.name == "nt", reason="redirections as a POSIX shell has them")

# {n} is a new name every time. There before: a run "runs/a", a search "runs/s", nets "deep.bin" and "mlp.safetensors".
COMMANDS = [
    "", "--help", "--version", "search --help", "deep train --help", "info", "info --json", "models", "models --json",
    "models mnist-small --plan", "train --model linear --epochs 1", "train --model linear --epochs 1 --json",
    "train --model mnist-small --epochs 1 --watch-every 9 --out {n}", "check --model linear --seconds 0.5",
    "check --model linear --seconds 0.5 --json", "search --model linear --epochs 1 --trials 3 --lr 1e-3:1e5",
    "search --model linear --epochs 1 --trials 2 --json", "search --model linear --epochs 1 --trials 2 --workers 2",
    "eval runs/a", "eval runs/a --json", "predict runs/a image.npy", "predict runs/a image.npy --json",
    "runs list runs", "runs list runs --json", "runs show runs/a", "runs show runs/a --json",
    "runs diff runs/a runs/s/trial-0001", "runs diff runs/a runs/s/trial-0002 --json",
    "plot runs/a --only curves --only updates --out {n}", "plot runs/a --only curves --out {n} --json",
    "report runs -o {n}.html", "report runs -o {n}.html --json",
    "deep init --dataset digits --layers 9 --weights {n}.bin",
    "deep train --dataset digits --steps 2 --weights {n}.bin",
    "deep eval --dataset digits", "deep eval --dataset digits --json", "deep inspect deep.bin",
    "deep inspect deep.bin --json", "mlp train --dataset digits --steps 2 --weights {n}", "mlp eval --dataset digits",
    "mlp eval --dataset digits --json",
]  # fmt: skip
WRONG = [
    "nonsense", "train --lr none", "eval no-×-folder", "runs list no-×-folder", "runs show –", "plot runs/×",
    "report no–folder", "search --lr 1:0", "deep eval --weights ×", "mlp eval --weights –", "predict runs/a ×",
]  # fmt: skip
ENCODINGS = ["ascii", "latin-1", "cp437", "cp932", "cp1251", "koi8-r"]
LOSSES = [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "> /dev/full 2>&1",
          "| head -c 1; exit ${PIPESTATUS[0]}"]  # fmt: skip
HOWS = [*LOSSES, *ENCODINGS, "C"]


def environment(how="utf-8"):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    env |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONWARNINGS": "ignore"}
    if how == "C":
        return env | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return env | {"PYTHONIOENCODING": how if how in ENCODINGS else "utf-8"}


def shell(folder, command, how=""):
    """Run a command by a shell, its output lost or encoded in some way."""
    program = f"{shlex.quote(sys.executable)} -m fastconv {command} {how if how in LOSSES else ''}"
    return subprocess.run(["bash", "-c", program], cwd=folder, env=environment(how), capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for package in ("sklearn", "matplotlib", "optuna"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("output")
    for command in (
        "train --model mnist-small --epochs 1 --watch-every 20 --out runs/a",
        "search --model linear --epochs 1 --trials 2 --out runs/s",
        "deep init --dataset digits --layers 9",
        "mlp train --dataset digits --steps 2",
    ):
        done = shell(folder, command)
        assert done.returncode == 0, done.stderr.decode()
    np.save(folder / "image.npy", np.zeros((8, 8), np.uint8))
    return folder


def drawn():
    """Every command, and wrong usage, each in one way."""
    draw = random.Random(0)
    for command in COMMANDS:
        yield command, draw.choice(HOWS), 0
    for command in WRONG:
        yield command, draw.choice(HOWS), 2


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(("command", "how", "good"), list(drawn()))
def test_every_command_ends_as_it_should_wherever_its_output_goes(folder, command, how, good):
    done = shell(folder, command.format(n=f"new-{random.randrange(10**12)}"), how)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    if good == 0 and how.startswith("> /dev/full"):
        assert done.returncode == 2
        if how == "> /dev/full":
            assert said.strip().splitlines()[-1] == "fastconv: standard output: No space left on device"
    elif how.startswith("|"):
        assert done.returncode in (good, 128 + 13)  # short output is through before its reader leaves
    else:
        assert done.returncode == good, said
    if how in ENCODINGS:
        done.stdout.decode(how)
        done.stderr.decode(how)
        if command.endswith("--json"):
            same = shell(folder, command, "utf-8").stdout.splitlines()[-1]
            assert json.loads(done.stdout.splitlines()[-1]).keys() == json.loads(same).keys()
    if how == "C":
        assert done.stdout.isascii()


def test_json_is_exact_in_any_encoding(tmp_path):
    names = ["×–·", "学", "é", "plain"]
    for how in ENCODINGS:
        done = subprocess.run(
            [sys.executable, "-m", "fastconv", "runs", "list", str(tmp_path), "--json"],
            env=environment(how), capture_output=True, timeout=60,
        )  # fmt: skip
        assert json.loads(done.stdout)["runs"] == []
    code = f"from fastconv.cli.common import print_json; print_json({{'names': {names!r}, 'nan': float('nan')}})"
    for how in ENCODINGS:
        done = subprocess.run([sys.executable, "-c", code], env=environment(how), capture_output=True, timeout=60)
        assert json.loads(done.stdout.decode("ascii")) == {"names": names, "nan": None}


@given(st.lists(st.text(), max_size=5), st.sampled_from(["ascii", "cp932", "utf-8"]))
def test_output_is_what_its_encoding_can_hold(texts, encoding):
    raw = io.BytesIO()
    output = Output(io.TextIOWrapper(raw, encoding, newline=""), result=True)
    for text in texts:
        assert output.write(text) == len(text)
    output.flush()
    assert raw.getvalue() == b"".join(encodable(text, encoding).encode(encoding) for text in texts)
    assert not output.isatty()
    assert output.encoding == encoding
    assert not hasattr(output, "buffer")


@given(st.text(st.characters(exclude_categories=["C"])), st.sampled_from([*ENCODINGS, "utf-8"]))
def test_click_takes_it_for_a_stream_of_texts(text, encoding):
    raw = io.BytesIO()
    output = Output(io.TextIOWrapper(raw, encoding, newline=""), result=True)
    with contextlib.redirect_stdout(output):
        click.echo(text)
    assert raw.getvalue() == encodable(f"{text}\n", encoding).encode(encoding)


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space"), OutputLost), (BrokenPipeError(), OutputClosed)]
)
def test_a_result_that_is_lost_ends_a_command_and_what_is_said_beside_it_does_not(error, raised):
    class Failing(io.StringIO):
        def write(self, text):
            raise error

    for _ in range(2):
        Output(Failing(), result=False).write("text")
    output = Output(Failing(), result=True)
    for _ in range(2):  # again and again: what prints may have caught the first
        with pytest.raises(raised):
            output.write("text")


@pytest.mark.parametrize("stream", ["none", "closed", "little"])
def test_streams_that_are_none_or_little_of_one(stream, monkeypatch):
    class Tee:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    closed, tee = io.StringIO(), Tee()
    closed.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, {"none": None, "closed": closed, "little": tee}[stream])
    for arguments, code in (["models"], 0), (["nonsense"], 2), (["train", "--model", "linear", "--epochs", "1"], 0):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == code
    assert stream != "little" or ("lenet5" in tee.text and "nonsense" in tee.text and "state sha256" in tee.text)


@pytest.mark.parametrize("broken", [False, True])
def test_ctrl_c_at_a_bad_moment_is_an_interruption(broken, monkeypatch, capsys):
    """Cleaning up after it may fail, as tqdm's lock does where it was not yet held."""
    import fastconv.cli.show

    def interrupted(value):
        try:
            if not broken:
                raise KeyboardInterrupt
            raise ValueError("no interruption")
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    monkeypatch.setattr(fastconv.cli.show, "print_json", interrupted)
    if broken:
        with pytest.raises(RuntimeError):
            main(["info", "--json"])
        return
    with pytest.raises(SystemExit) as end:
        main(["info", "--json"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_while_the_command_line_is_being_loaded_is_quiet(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    env = environment() | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])}
    done = subprocess.run([sys.executable, "-m", "fastconv", "info"], env=env, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")

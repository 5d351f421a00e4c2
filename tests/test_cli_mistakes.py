"""What people type wrong, drawn for every argument of every command: one line, exit code 2, nothing written."""

from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import serialize
from fastconv.cli import main
from fastconv.cli.common import Number, Place
from fastconv.cli.memory import Size
from fastconv.cli.names import Names, NamesAndMore

pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'fastconv[image]'")
pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'fastconv[search]'")

# Calls of which nothing is wrong, by command; an argument is put in the place of its own, or behind.
RIGHT = {
    "board": ["board", "runs", "--port", "70000"],  # which is refused: a board would never end
    "check": ["check", "--model", "linear"],
    "deep eval": ["deep", "eval", "--weights", "deep.bin", "--dataset", "digits"],
    "deep init": ["deep", "init", "--weights", "new.bin", "--layers", "3", "--dataset", "digits"],
    "deep inspect": ["deep", "inspect", "deep.bin"],
    "deep train": ["deep", "train", "--weights", "new.bin", "--layers", "3", "--dataset", "digits", "--steps", "1"],
    "eval": ["eval", "runs/one"],
    "export": ["export", "runs/one", "--out", "new.onnx"],
    "info": ["info"],
    "mlp eval": ["mlp", "eval", "--weights", "mlp.safetensors", "--dataset", "digits"],
    "mlp train": ["mlp", "train", "--weights", "new.safetensors", "--dataset", "digits", "--steps", "1"],
    "models": ["models"],
    "plot": ["plot", "runs/one", "--only", "curves"],
    "predict": ["predict", "runs/one", "image.png"],
    "report": ["report", "runs", "--out", "new.html"],
    "runs diff": ["runs", "diff", "runs/one", "runs/two"],
    "runs list": ["runs", "list", "runs"],
    "runs show": ["runs", "show", "runs/one"],
    "search": ["search", "--model", "linear", "--trials", "1", "--epochs", "1", "--out", "new"],
    "train": ["train", "--model", "linear", "--epochs", "1", "--out", "new"],
}
BREAK = "two\nlines"


def commands(group=main, path=()):
    """Yield (name, command) of all commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())
ARGUMENTS = [(name, p) for name, command in COMMANDS.items() for p in command.params if not getattr(p, "is_flag", 0)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A folder with all that commands read, and things that they do not."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for ask in (
            ["train", "--model", "linear", "--epochs", "1", "--out", "runs/one"],
            ["train", "--model", "linear", "--epochs", "1", "--seed", "1", "--out", "runs/two"],
            ["mlp", "train", "--dataset", "digits", "--steps", "1", "--weights", "mlp.safetensors"],
            ["deep", "train", "--dataset", "digits", "--steps", "1", "--layers", "3", "--weights", "deep.bin"],
        ):
            assert CliRunner().invoke(main, ask).exit_code == 0
        Image.fromarray(np.zeros((8, 8), np.uint8)).save("image.png")
        Path("text.txt").write_text("hello\n")
        Path("empty").write_text("")
        Path("table.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n")
        Path("damaged.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      xx")
        Path("damaged.onnx").write_bytes(b"onnx")
        Path("folder").mkdir()
    return folder


def left(folder):
    """Return what there is in a folder: names, sizes and times."""
    return {p.relative_to(folder): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def refused(arguments, folder, monkeypatch):
    """Hold that a call is refused by one line, and writes nothing."""
    monkeypatch.chdir(folder)
    before = left(folder)
    done = CliRunner().invoke(main, arguments)
    assert isinstance(done.exception, SystemExit), (arguments, done.exception)
    assert done.exit_code == 2, (arguments, done.output)
    assert len(done.stderr.splitlines()) == 1, (arguments, done.stderr)
    assert done.stderr.endswith("\n")
    assert done.stdout == "", arguments
    assert left(folder) == before, arguments
    return done.stderr


def call(name, parameter, value):
    """Return a call with one value in the place of the right one."""
    right = RIGHT[name]
    if isinstance(parameter, click.Option):
        option = max(parameter.opts, key=len)
        return [*right, f"{option}={value}"]
    places = [p for p in COMMANDS[name].params if isinstance(p, click.Argument)]
    at = len(name.split()) + places.index(parameter)
    return [*right[:at], value, *right[at + 1 :]]


def wrong(parameter):
    """Return texts none of which an argument can be, whatever else it may take."""
    kind, found = parameter.type, [""]
    if isinstance(kind, click.IntRange | Number):
        found += ["x", "1,2", "nan", "inf", "1e999", "-1e999", " ", BREAK]
        found += [] if kind.min is None else [f"{kind.min - 1:g}", f"{-(10**30)}"]
        found += [] if kind.max is None else [f"{kind.max * 10 + 10:g}", f"{10**30}"]
        found += [] if not getattr(kind, "min_open", False) else [f"{kind.min:g}"]
    elif isinstance(kind, Names | click.Choice):
        found += ["nope", "-1", " ", BREAK, next(iter(kind.choices), "x") + "x"]
    elif isinstance(kind, NamesAndMore):
        found += ["nope", "no/such/file", "-1", " ", BREAK]
    elif isinstance(kind, Size):
        found += ["x", "0", "-1", "nan", BREAK]
    elif isinstance(kind, Place) and (kind.exists or isinstance(parameter, click.Argument)):
        found += ["no/such/file", "-1", " ", BREAK, "text.txt", "folder"]
        found += ["damaged.onnx", "damaged.safetensors"] * (not kind.exists or kind.file_okay)
    return found


# Where an odd value is no mistake: a folder of runs may be empty, and a text or a folder of names is one.
RIGHT_AFTER_ALL = {
    ("board", "runs_dir"): {"folder"}, ("runs list", "root"): {"folder"}, ("report", "runs_dir"): {"folder"},
    ("predict", "labels"): set(),
}  # fmt: skip


def test_every_command_is_called():
    assert COMMANDS.keys() == RIGHT.keys()
    assert len(ARGUMENTS) > 180


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_a_wrong_value_is_one_line_and_2(data, stage):
    name, parameter = data.draw(st.sampled_from(ARGUMENTS), label="argument")
    value = data.draw(st.sampled_from(wrong(parameter)), label="value")
    if value in RIGHT_AFTER_ALL.get((name, parameter.name), ()):
        return
    with pytest.MonkeyPatch.context() as patch:
        said = refused(call(name, parameter, value), stage, patch)
    if not value:
        option = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else "an argument"
        assert said == f"fastconv: {option} is empty: is a variable of the shell not set?\n"


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_no_command_knows_is_one_line_and_2(data, stage):
    name = data.draw(st.sampled_from(sorted(RIGHT)))
    extra = data.draw(st.sampled_from([["--nonsense"], ["--jsn"], ["-9"], ["--json=3"], ["--threads"]]))
    right = [*RIGHT[name], *extra]
    with pytest.MonkeyPatch.context() as patch:
        refused(right, stage, patch)


@pytest.mark.parametrize("group", [[], ["runs"], ["deep"], ["mlp"]])
def test_a_group_alone_tells_what_it_has(group):
    done = CliRunner().invoke(main, group)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Commands:\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search --model damaged.onnx --trials 1 --out new", "damaged.onnx: not an ONNX file"),
        ("search --model text.txt --trials 1 --out new", "text.txt: it is no file of weights"),
        ("search --model folder --trials 1 --out new", "folder is not the folder of a run"),
        ("search --model lenet5 --trials 1 --out new", "lenet5 needs images of at least 28×28 pixels"),
        ("search --model unet --trials 1 --out new", "unet gives scores for each pixel"),
        ("search --checks 2 --epochs 1 --trials 1 --out new", "--checks parts trials of so many --steps"),
        ("search --epochs 1 --steps 2 --trials 1 --out new", "--epochs and --steps: give one of the two"),
        ("deep train --in-memory --durability step --dataset digits", "--durability step is for a net"),
        ("deep train --in-memory --memory-limit 1G --dataset digits", "--memory-limit is for a net that is streamed"),
        ("deep train --save-every 3 --dataset digits", "--save-every is for --in-memory"),
        ("deep train --weights text.txt --dataset digits", "text.txt is there and of no deep net"),
        ("eval runs/one --dataset table.csv", "linear takes images, and table.csv is a table"),
        ("deep train --steps 1 --epochs 1 --dataset digits", "two lengths of one run"),
        ("deep init --weights new.bin --head new.bin --dataset digits", "the head's file new.bin is another"),
        ("deep train --weights new.bin --head new.bin.json --dataset digits", "another one of the net new.bin"),
        ("mlp train --hidden 99 --weights mlp.safetensors --dataset digits", "--hidden 99, but the net"),
        ("models lenet5 --batch 3", "--batch is for --plan"),
        ("models lenet5 --plan --batch 99999999999999999999", "larger than any memory"),
        ("predict runs/one image.png --image-size 8", "image-size is for an .onnx file that leaves it open"),
        ("report runs --watch 1e30", "Invalid value for '--watch'"),
        ("train --out new --optimizer adam --momentum 0.9", "adam has no momentum option"),
    ],
)
def test_options_that_exclude_one_another(arguments, message, stage, monkeypatch):
    assert message in refused(arguments.split(), stage, monkeypatch)


def test_a_net_of_a_file_is_searched(stage, tmp_path, monkeypatch):
    """It begins with the weights of the file, as 'fastconv train' does: a rate of next to nothing leaves them."""
    monkeypatch.chdir(stage)
    ask = ["search", "--model", "runs/one", "--lr", "1e-30", "--trials", "1", "--epochs", "1"]
    done = CliRunner().invoke(main, [*ask, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    state = "model.safetensors"
    found, before = (serialize.load(folder / state) for folder in (tmp_path / "new" / "trial-0001", stage / "runs/one"))
    assert all(np.array_equal(a, found.state_dict()[name]) for name, a in before.state_dict().items())

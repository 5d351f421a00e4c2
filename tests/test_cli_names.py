"""Options that take names: help, shell completion and errors come from one list, which is the package's own."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import fastconv
from fastconv import data, models
from fastconv.cli import main
from fastconv.cli.names import Names, NamesAndMore

KNOWN = ("digits", "mnist-small", "lenet5")


def options():
    """Every option with names of every command, as (words of the command, option)."""
    waiting = [((), main)]
    while waiting:
        words, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [((*words, name), part) for name, part in command.commands.items()]
        for option in command.params:
            if isinstance(option.type, Names | NamesAndMore) and isinstance(option, click.Option):
                yield words, option


FIXED = [(words, option) for words, option in options() if isinstance(option.type, Names)]


def completed(*words):
    """Return what a shell would be offered, by the very protocol of bash."""
    line = ("fastconv", *words)
    asked = {"_FASTCONV_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    if words[-1] == "":
        asked["COMP_WORDS"] += " "
    done = subprocess.run(
        [sys.executable, "-c", "from fastconv.cli import main; main(prog_name='fastconv')"],
        env={**os.environ, **asked}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()], done.stdout


@pytest.mark.parametrize(("words", "option"), FIXED, ids=[f"{' '.join(w)} {o.opts[0]}" for w, o in FIXED])
def test_help_completion_and_errors_tell_the_list(words, option):
    names = option.type.choices
    if not names:
        pytest.skip(f"what {option.type.where} needs is not installed")
    assert len(names) > 1
    flag = max(option.opts, key=len)
    if option.metavar is None:
        shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=999, prog_name="fastconv").output
        assert f"[{'|'.join(names)}]" in "".join(shown.split())
    context = click.Context(click.Command("x"))
    assert [item.value for item in option.type.shell_complete(context, option, "")] == list(names)
    needed = {"plot": ["."]}.get(words[0], [])
    for wrong, near in ((names[0] + "x", names[0]), ("¿", None)):
        found = CliRunner().invoke(main, [*words, flag, wrong, *needed], prog_name="fastconv")
        assert found.exit_code == 2
        assert f"unknown {option.type.what} {wrong!r}; known are {', '.join(names)}" in found.output
        assert (f"did you mean {near!r}?" in found.output) == (near is not None)


@pytest.mark.parametrize("words", [("train", "--optimizer", "ad"), ("deep", "train", "--activation", "t")])
def test_a_shell_completes_names(words):
    offered, _ = completed(*words)
    assert offered == {"ad": ["adam", "adamw", "adagrad"], "t": ["tanh"]}[words[-1]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell):
    code = "from fastconv.cli import main; main(prog_name='fastconv')"
    asked = {**os.environ, "_FASTCONV_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True)
    if "bash" in done.stderr.lower():
        pytest.skip(done.stderr)  # click asks bash for its version
    assert done.returncode == 0, done.stderr
    assert f"_FASTCONV_COMPLETE={shell}_complete" in done.stdout


def test_a_shell_completes_nets_data_sets_and_paths():
    assert completed("train", "--model", "resnet")[0] == [name for name in models.ZOO if name.startswith("resnet")]
    assert completed("train", "--dataset", "")[0] == list(data.names())
    offered, raw = completed("train", "--model", "./ne")
    assert (offered, raw) == (["./ne"], "file,./ne\n")  # the shell looks among its files
    assert completed("models", "len")[0] == ["lenet5"]
    assert completed("ru")[0] == ["runs"]


def test_without_what_a_list_needs_help_still_comes():
    code = (
        "import sys; sys.modules['optuna'] = None; from fastconv.cli import main; "
        "main(['search', '--help'], prog_name='fastconv')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--sampler" in done.stdout


def test_what_can_be_chosen_is_there():
    pytest.importorskip("optuna")
    from fastconv import choices, init
    from fastconv.search import samplers
    from fastconv.train import metrics, setup

    assert tuple(setup.OPTIMIZERS) == choices.OPTIMIZERS
    assert ("default", *init.NAMES) == choices.INITIALISATIONS
    assert set(metrics.NAMED) == set(choices.METRICS)
    for name in choices.SCHEDULES:
        assert len({setup.schedule_of(name, 700)(step) for step in range(700)}) > (name != "constant")
    for name in choices.PRUNERS:
        assert samplers.pruner(name) is not None
    for name in choices.ALGORITHMS:
        with fastconv.config.algorithm(name):
            assert fastconv.config.algorithm() == name


def test_commands_start_without_what_their_lists_are_in():
    code = "import sys, fastconv.cli; print('fastconv.train' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"

"""A user's script has types that checkers follow: no error, and nothing that they cannot know."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import nn

SCRIPT = Path(__file__).with_name("user_script.py")
SOURCES = str(Path(fastconv.__file__).parents[1])


def test_mypy_is_strict_about_a_users_script(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(SCRIPT)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "MYPYPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_is_strict_about_a_users_script(tmp_path):
    pytest.importorskip("pyright")
    here = subprocess.run([sys.executable, "-m", "pyright", "--version"], cwd=tmp_path, capture_output=True, text=True)
    if here.returncode:  # its first run fetches the checker from npm
        pytest.skip(f"pyright cannot be had: {(here.stderr or here.stdout).strip()[-200:]}")
    settings = {"extraPaths": [SOURCES], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    (tmp_path / SCRIPT.name).write_text(SCRIPT.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_runs(tmp_path):
    pytest.importorskip("sklearn")
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.safetensors").is_file()


def test_gradients_given_by_name_are_refused():
    model = nn.Linear(2, 1)
    y = model(np.ones((3, 2), np.float32))
    with pytest.raises(TypeError, match=r"Linear.backward takes gradients by position, got grad_output by name"):
        model.backward(grad_output=y)

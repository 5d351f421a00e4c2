"""Weights that PyTorch wrote: both kinds of files, whole checkpoints, half precision, and files that are none."""

import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastconv import models, nn, serialize


def state_of(seed=0):
    rng = np.random.default_rng(seed)
    model = models.build("lenet5", (1, 28, 28), 10)
    return {name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in model.state_dict().items()}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert (found[name] == array).all()


def test_safetensors_fill_a_model(tmp_path):
    state = state_of()
    save_file(state, tmp_path / "net.safetensors")
    found = serialize.load_torch(tmp_path / "net.safetensors")
    same(found, state)
    model = models.build("lenet5", (1, 28, 28), 10)
    model.load_state_dict(found)
    same(model.state_dict(), state)


def test_half_precision_small_integers_and_prefixes(tmp_path):
    state = {"module.w": np.array([1.5, 2], np.float16), "module.n": np.array([3], np.int32)}
    save_file(state, tmp_path / "net.safetensors")
    same(serialize.load_torch(tmp_path / "net.safetensors"),
         {"w": np.array([1.5, 2], np.float32), "n": np.array([3], np.int64)})  # fmt: skip


@pytest.mark.parametrize("where", [(), ("state_dict",), ("model",), ("state_dict", "model")])
def test_files_of_torch_save(where, tmp_path):
    torch = pytest.importorskip("torch")
    state = state_of(1)
    held = {name: torch.from_numpy(array) for name, array in state.items()}
    for name in reversed(where):
        held = {name: held, "epoch": 3}
    torch.save(held, tmp_path / "net.pth")
    same(serialize.load_torch(tmp_path / "net.pth"), state)


def test_a_model_goes_there_and_back(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    ours.load_state_dict(serialize.load_torch(tmp_path / "net.pth"))
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(ours.predict(x), theirs.eval()(torch.from_numpy(x)), rtol=1e-5, atol=1e-5)


class Hostile:
    def __reduce__(self):
        return print, ("code of the file runs",)


def test_a_pickle_that_runs_code_does_not(tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "net.pth").write_bytes(pickle.dumps({"w": Hostile()}))
    with pytest.raises(serialize.ModelFileError, match=r"net\.pth"):
        serialize.load_torch(tmp_path / "net.pth")
    assert "runs" not in capsys.readouterr().out


def test_what_is_no_state_dict_says_so(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"nothing of this kind")
    with pytest.raises(serialize.ModelFileError, match=r"net\.safetensors"):
        serialize.load_torch(tmp_path / "net.safetensors")
    with pytest.raises(OSError, match="absent"):
        serialize.load_torch(tmp_path / "absent.safetensors")
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(serialize.ModelFileError, match="holds a list"):
        serialize.load_torch(tmp_path / "list.pth")
    with pytest.raises(OSError, match="absent"):
        serialize.load_torch(tmp_path / "absent.pth")


def test_without_torch_its_files_say_what_to_do(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(FileNotFoundError, match=r"net\.pth"):  # which is what is wrong first of all
        serialize.load_torch(tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(b"PK")
    with pytest.raises(ImportError, match="safetensors"):
        serialize.load_torch(tmp_path / "net.pth")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"weights\n"])
def test_what_torch_never_wrote_does_not_ask_for_torch(tmp_path, content):
    (tmp_path / "cat.png").write_bytes(content)
    with pytest.raises(serialize.ModelFileError, match="it is no file of weights"):
        serialize.load_torch(tmp_path / "cat.png")

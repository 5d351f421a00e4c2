"""Models in files: what is saved comes back, and what is not a model is refused with a reason."""

import contextlib
import json
import os
import re
import signal
import stat
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn
from fastconv.serialize import LAYERS, ModelFileError, load, load_arrays, register, save, save_arrays


def everything():
    """Return a net with every kind of layer and every form of hyperparameter."""
    fastconv.manual_seed(9)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(2, 6, (3, 2), (1, 2), ((1, 0), (0, 1)), 1, 2, bias=False),
            "bias": nn.Bias(6), "relu": nn.ReLU(), "norm": nn.BatchNorm2d(6, momentum=None),
            "block": nn.Residual(nn.Sequential(nn.Conv2d(6, 6, 3, padding="same"), nn.LeakyReLU(0.2)),
                                 activation=nn.Tanh()),
            "pool": nn.MaxPool2d(2, 1, ceil_mode=True), "mean": nn.AvgPool2d((2, 1)),
            "fit": nn.AdaptiveAvgPool2d((None, 2)), "drop": nn.Dropout(0.25), "flat": nn.Flatten(),
            "fc": nn.Linear(36, 8), "norm1": nn.BatchNorm1d(8, affine=False), "soft": nn.Softsign(),
            "out": nn.LogSoftmax(),
        },
        input_grad=False,
    )  # fmt: skip


def images(n=3):
    return np.random.default_rng(0).standard_normal((n, 2, 8, 8)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def rewrite(path, change_header=lambda header: None, change_model=lambda model: None, payload=None):
    """Write a safetensors file again with another header."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    description = json.loads(header["__metadata__"]["fastconv"])
    change_model(description)
    header["__metadata__"]["fastconv"] = json.dumps(description)
    change_header(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (raw[8 + size :] if payload is None else payload))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_saved_comes_back(file, dtype):
    model = everything().astype(dtype)
    model(images(5).astype(dtype))
    save(model.eval(), file)
    again = load(file)
    assert repr(again) == repr(model)
    assert not again.training
    assert again.extra_state() == model.extra_state()
    for (name, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert (name, a.dtype) == (other, b.dtype)
        assert_array_equal(a, b)
    x = images().astype(dtype)
    assert_array_equal(again.predict(x), model.predict(x))
    a, b = (m.train()(x).copy() for m in (model, again))  # dropout's masks go on where they were
    assert_array_equal(a, b)
    for m in (model, again):
        assert m.backward(np.ones_like(a)) is None
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert_array_equal(p.grad, q.grad)


def test_loading_draws_no_random_numbers(file):
    save(everything(), file)
    fastconv.manual_seed(4)
    expected = nn.Linear(3, 2).weight.data
    fastconv.manual_seed(4)
    load(file)
    assert_array_equal(nn.Linear(3, 2).weight.data, expected)


def test_every_exported_layer_is_registered():
    containers = {nn.Module, nn.Loss}
    kinds = {k for k in vars(nn).values() if isinstance(k, type) and issubclass(k, nn.Module)} - containers
    assert set(LAYERS.values()) >= kinds


def test_the_zoo_can_be_saved(file):
    from fastconv import models

    for name, recipe in models.ZOO.items():
        if recipe.channels is not None or recipe.pixels:
            continue  # saved as graphs, once they have run: tests/test_zoo.py
        shape = (1, max(recipe.smallest, 8), max(recipe.smallest, 8))
        model = models.build(name, shape, 3)
        save(model, file)
        assert repr(load(file)) == repr(model)


def test_the_file_is_plain_safetensors_with_the_names_of_the_state(file):
    from safetensors.numpy import load_file

    model = everything()
    save(model, file)
    arrays = load_file(file)
    assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in model.state_dict().items()}


def test_writing_replaces_the_file_as_a_whole(file, monkeypatch):
    model = everything()
    save(model, file)
    before = file.read_bytes()
    file.chmod(0o640)

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            save(model, file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    save(model, file)
    assert file.read_bytes() == before
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        link = file.with_name("link")
        link.symlink_to(file)
        save(nn.Linear(2, 2), link)
        assert link.is_symlink()
        assert isinstance(load(file), nn.Linear)


def test_what_cannot_be_saved(file):
    class Mine(nn.Module):
        pass

    class Linear(nn.Linear):
        pass

    class Odd(nn.Module):
        def __init__(self, thing):
            self.thing = thing

    for model in (Mine(), nn.Sequential(Linear(2, 2))):
        with pytest.raises(TypeError, match=f"{'Mine' if isinstance(model, Mine) else 'Linear'} is not registered"):
            save(model, file)
    with pytest.raises(ValueError, match="'Linear' is the name of another layer class"):
        register(Linear)
    deep = nn.ReLU()
    for _ in range(70):
        deep = nn.Sequential(deep)
    with pytest.raises(ValueError, match="nested more than 64 levels"):
        save(deep, file)
    try:
        register(Odd)
        with pytest.raises(TypeError, match="hyperparameter is a object, which has no JSON form"):
            save(Odd(object()), file)
        save(Odd({"a": [1, (2.5, None)], "b": "text"}), file)
        assert load(file).thing == {"a": (1, (2.5, None)), "b": "text"}
    finally:
        LAYERS.pop("Odd")
    with pytest.raises(ModelFileError, match="unknown layer class 'Odd'"):
        load(file)
    with pytest.raises(TypeError, match="x must be float32, float64 or int64, got complex128"):
        save_arrays(file, {"x": np.zeros(2, complex)})


def test_arrays_of_any_layout_round_trip(file):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(12, dtype=np.float32)[::2],
        "swapped": np.arange(3, dtype=">f8"),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_arrays(file, arrays, {"note": "ä"})
    loaded, metadata = load_arrays(file)
    assert metadata == {"note": "ä"}
    assert sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert loaded[name].shape == array.shape
        assert_array_equal(loaded[name], array)
        assert loaded[name].flags.writeable


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="POSIX limits")
def test_what_cannot_be_written_is_an_os_error_that_names_the_file(file):
    """As from a full disk, of which the safetensors library tells by an exception of its own."""
    import resource

    with pytest.raises(FileNotFoundError) as caught:
        save_arrays(file / "below", {})
    assert caught.value.filename == str(file / "below")
    save_arrays(file, {"x": np.zeros(3)})
    before = file.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match=rf"{re.escape(str(file))} cannot be written: .*File too large"):
            save_arrays(file, {"x": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


# --- what is no model ---------------------------------------------------------------------------------


def test_missing_files_and_folders(file):
    with pytest.raises(FileNotFoundError):
        load(file)
    with pytest.raises(ModelFileError, match="not a regular file"):
        load(file.parent)
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        with pytest.raises(ModelFileError, match="not a regular file"):
            load(file)


def test_a_truncated_file_is_refused_wherever_it_ends(file):
    save(nn.Linear(3, 2), file)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"cut short|damaged"):
            load(file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError):
        load(file)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 64, b"PK\x03\x04" + bytes(100), b"\x80\x04\x95" + bytes(50), b"{}" * 40,
        struct.pack("<Q", 2**63) + bytes(100), struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}" + bytes(100), struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"[[[[", struct.pack("<Q", 40_000) + b"[" * 40_000,
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    ],
    ids=range(12),
)  # fmt: skip
def test_foreign_files_are_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=str(file)):
        load(file)


def test_safetensors_of_others_say_that_they_describe_no_layers(file):
    save_arrays(file, {"weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(ModelFileError, match="describes no layers"):
        load(file)
    save_arrays(file, {}, {"fastconv": "[" * 100_000})
    with pytest.raises(ModelFileError, match="description of its layers is damaged"):
        load(file)


def layer(kind, **config):
    return {"type": kind, "config": config}


def nested(depth):
    value = layer("ReLU")
    for _ in range(depth):
        value = layer("Sequential", layers={"dict": {"0": value}}, input_grad=True, fuse=True)
    return value


HOSTILE = [
    (None, "the model is a NoneType"),
    (7, "the model is a int"),
    ("nn.Linear", "the model is a str"),
    ([layer("ReLU")], "the model is a tuple"),
    ({}, "must have a type and a config"),
    (layer("os.system", command="true"), "unknown layer class 'os.system'"),
    (layer("__import__", name="os"), "unknown layer class"),
    (layer("Module"), "unknown layer class 'Module'"),
    (layer("../../etc/passwd"), "unknown layer class"),
    ({"type": ["Linear"], "config": {}}, "unknown layer class"),
    ({"type": "Linear", "config": [1, 2]}, "type and a config"),
    ({"type": "Linear", "config": {}, "more": 1}, "type and a config"),
    (layer("Linear", in_features=3), "out_features"),
    (layer("Linear", in_features=3, out_features=2, bias=True, weight=1), "weight"),
    (layer("Linear", in_features="3", out_features=2), "cannot be built"),
    (layer("Linear", in_features=-3, out_features=2), "at least 1"),
    (layer("Linear", in_features=10**6, out_features=10**6), r"shape \(2, 3\).*needs \(1000000, 1000000\)"),
    (layer("Linear", in_features=10**30, out_features=2), "cannot be built"),
    (layer("Linear", in_features=2, out_features=3), r"shape \(2, 3\) .*needs \(3, 2\)"),
    (layer("Linear", in_features=3, out_features=2, bias=False), r"1 unexpected \['bias'\]"),
    (layer("Bias", num_features=2), r"1 unexpected \['weight'\]"),
    (layer("BatchNorm1d", num_features=10**12), "arrays missing"),
    (layer("Conv2d", in_channels=1, out_channels=1, kernel_size=[10**9, 10**9]), "shape|built"),
    (layer("Sequential", layers={"dict": {"../x": layer("ReLU")}}), "letters, digits and underscores"),
    (layer("Sequential", layers={"dict": {"0": 5}}), "must be a Module"),
    (layer("Sequential", layers=3), "must be a Module|cannot be built"),
    (layer("Residual", body=None), "body must be a Module, got NoneType"),
    (layer("Residual", body=layer("ReLU"), shortcut="x"), "shortcut must be a Module, got str"),
    (layer("AdaptiveAvgPool2d", output_size="x"), "cannot be built"),
    (layer("LeakyReLU", negative_slope=[1]), "cannot be built"),
    (layer("BatchNorm2d", num_features=2, eps="small"), "cannot be built"),
    (layer("Dropout", p="often"), "cannot be built"),
    (nested(66), "nested more than 64 levels"),
]


@pytest.mark.parametrize(("model", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_descriptions_are_refused(file, model, message):
    save(nn.Linear(3, 2), file)
    rewrite(file, change_model=lambda description: description.update(model=model))
    with pytest.raises(ModelFileError, match=message):
        load(file)


class Wrapped(nn.Module):
    """A class that no file knows: its forward is written down, its layers stay layers."""

    def __init__(self, inner):
        self.inner = inner
        self.shift = nn.Parameter(np.zeros(1, np.float32))

    def forward(self, x):
        return self.inner(x) + self.shift


def state(model):
    """Return the modes of all layers, and which parameters are trained."""
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    return {name: module.training for name, module in model.named_modules()}, trained


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_layer_keeps_its_mode_and_every_parameter_what_freezes_it(data, tmp_path_factory):
    model = everything()
    if data.draw(st.booleans(), label="written as a graph"):
        model = Wrapped(model)
        model(images())
    model.train(data.draw(st.booleans(), label="mode"))
    for name, module in list(model.named_modules())[1:]:
        module.training ^= data.draw(st.booleans(), label=name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = data.draw(st.booleans(), label=name)
    before = state(model)
    path = tmp_path_factory.getbasetemp() / "modes.safetensors"
    save(model, path)
    assert state(model) == before  # saving changed nothing
    assert state(load(path)) == before


def test_a_file_of_before_modes_were_written(file):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    save(model, file)
    rewrite(file, change_model=lambda description: [description.pop(name) for name in ("modes", "frozen")])
    again = load(file)
    assert not any(m.training for m in again.modules())
    assert all(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads format 1"),
        ({"extra_state": []}, "extra_state must map names to integers"),
        ({"extra_state": {"step": -1}}, "extra_state must map"),
        ({"extra_state": {"step": 1.5}}, "extra_state must map"),
        ({"extra_state": {"step": 1}}, r"expected \[\], got \['step'\]"),
        ({"training": "yes"}, "training must be true or false"),
        ({"modes": ["a"]}, "modes must map names of layers to true or false"),
        ({"modes": {"": 1}}, "modes must map names of layers to true or false"),
        ({"modes": {"0": True, "": False}}, r"modes names 1 that are not there: \['0'\]"),
        ({"frozen": {"weight": True}}, "frozen must be a list of parameters' names"),
        ({"frozen": [1]}, "frozen must be a list of parameters' names"),
        ({"frozen": ["weight", "scale"]}, r"frozen names 1 that are not there: \['scale'\]"),
    ],
)
def test_damaged_fields_are_refused(file, change, message):
    save(nn.Linear(3, 2), file)
    rewrite(file, change_model=lambda description: description.update(change))
    with pytest.raises(ModelFileError, match=message):
        load(file)


def entry(dtype="F32", shape=(2, 3), start=8, end=32):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "weight",
    [
        entry(shape=(3, 2)), entry(shape=(6,)), entry(shape=(2**40, 2**40)), entry(shape=(2, 4)),
        entry(shape=(-2, -3)), entry(end=2**60), entry(start=0, end=24), entry("F16", (2, 6)), entry("I32"),
        entry("F64", (1, 3)), entry("object"), entry("BF16", (3, 4)), {}, None, 7,
    ],
    ids=range(15),
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(file, weight):
    save(nn.Linear(3, 2), file)
    rewrite(file, change_header=lambda header: header.update(weight=weight))
    with pytest.raises(ModelFileError):
        load(file)


def test_mixed_dtypes_are_refused(file):
    model = nn.Linear(3, 2)
    model.bias.data = model.bias.data.astype(np.float64)
    save(model, file)
    with pytest.raises(ModelFileError, match="arrays of float32 and float64 in one model"):
        load(file)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_byte_gives_a_model_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "m"
    fastconv.manual_seed(0)  # dropout's stream is in the file: the same bytes each time
    save(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), nn.BatchNorm1d(2)), path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(ModelFileError):
        assert isinstance(load(path), nn.Module)

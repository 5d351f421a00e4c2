"""Nets that others have trained: weights from files, a new head, frozen parts, on the command line and resumed."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import data, models, nn, serialize
from fastconv.cli import main
from fastconv.train import origins, transfer
from fastconv.train.origins import NORMALIZATIONS, Origin, read, standardizer_of
from fastconv.train.setup import fill, prepare

SHAPE = (1, 8, 8)


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a run that learned digits for an epoch."""
    folder = tmp_path_factory.mktemp("first") / "run"
    arguments = ["train", "--epochs", "1", "--model", "resnet20", "--no-augment", "--out", str(folder)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return folder


def weights_of(folder):
    return serialize.load_arrays(folder / "model.safetensors")[0]


class Net(nn.Module):
    """Normalisations, dropout before the head, and a branch: what freezing has to do with."""

    def __init__(self, classes=3):
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2, self.drop2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.conv3, self.bn3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.drop, self.fc = nn.GlobalAvgPool2d(), nn.Dropout(0.5), nn.Linear(4, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = x + self.drop2(self.bn2(self.conv2(x)))
        return self.fc(self.drop(self.pool(self.bn3(self.conv3(x))).flatten(1)))


def origin(model, about=None):
    return Origin(Path("net"), model, model.state_dict(), about or {})


def begin(model, classes=3, freeze=None):
    return transfer.start("net", transfer.Origins(layers=origin(model)), SHAPE, classes, freeze)


# ---- freezing


@pytest.mark.parametrize(
    ("freeze", "frozen", "still"),
    [
        ("0", [], []),
        ("1", ["conv1", "bn1"], ["conv1", "bn1"]),
        ("2", ["conv1", "bn1", "conv2", "bn2"], ["conv1", "bn1", "conv2", "bn2"]),
        ("3", ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"], ["drop2", "conv3", "bn3"]),
        ("all-but-head", ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"], ["bn2", "drop2", "conv3", "bn3"]),
    ],
)
def test_frozen_layers_are_the_first_and_are_in_evaluation_mode(freeze, frozen, still):
    start = begin(Net(), freeze=freeze)
    modules = dict(start.model.named_modules())
    names = {name for name, p in start.model.named_parameters() if not p.requires_grad}
    assert names == {f"{layer}.{p}" for layer in frozen for p in ("weight", "bias")}
    assert not any(modules[name].training for name in still)
    assert modules["drop"].training  # the head's own
    assert modules["fc"].training
    assert start.model.training
    assert (start.frozen, start.layers) == (len(frozen) // 2, 4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3), st.integers(2, 5), st.integers(0, 2**32))
def test_what_is_frozen_keeps_its_weights_and_statistics_to_the_bit(count, classes, seed):
    fastconv.manual_seed(seed)
    model = Net()
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean[...], module.running_var[...] = rng.normal(size=4), rng.uniform(0.5, 2, 4)
    start = begin(model, classes, str(count))
    before = start.model.state_dict()
    x, y = rng.normal(size=(12, *SHAPE)).astype(np.float32), rng.integers(0, classes, 12)
    optimizer = fastconv.optim.SGD(start.model.parameters(), lr=0.1)
    fastconv.train.Trainer(start.model, nn.CrossEntropyLoss(), optimizer, progress=False).fit(
        x, y, epochs=2, batch_size=6
    )
    after = start.model.state_dict()
    fixed = [f"{kind}{i}" for i in range(1, count + 1) for kind in ("conv", "bn")]
    for name in before:
        layer = name.split(".")[0]
        same = before[name].tobytes() == after[name].tobytes()
        if layer in fixed:
            assert same, name
        elif name.endswith(("weight", "running_mean")):  # a bias before a normalisation has no gradient
            assert not same, name


def test_features_of_a_frozen_body_do_not_change():
    start = begin(Net(), freeze="all-but-head")
    body = start.model
    head, body.fc = body.fc, nn.Identity()
    body.drop.p = 0.0
    x = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)
    assert_array_equal(body(x), body.predict(x))
    assert head.out_features == 3


# ---- heads


@pytest.mark.parametrize("name", [n for n, r in models.ZOO.items() if r.channels is None and not r.pixels])
def test_every_small_net_gets_a_head_for_other_classes(name):
    shape = (1, 28, 28)
    model = models.build(name, shape, 10)
    start = transfer.start("net", transfer.Origins(layers=origin(model)), shape, 4)
    assert start.model.predict(np.zeros((2, *shape), np.float32)).shape == (2, 4)
    kept = {n: a for n, a in model.state_dict().items() if n.rpartition(".")[0] not in start.head}
    state = start.model.state_dict()
    assert all((state[n] == a).all() for n, a in kept.items())
    assert "10 outputs, the data have 4 classes" in start.notes["head"]
    assert model.predict(np.zeros((1, *shape), np.float32)).shape == (1, 10)  # as it was


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_lite0", "squeezenet1_1"])
def test_large_nets_by_name_take_weights_with_another_head(name, tmp_path):
    fastconv.manual_seed(3)
    trained = models.build(name, (3, 32, 32), 7)
    serialize.save_arrays(tmp_path / "weights.safetensors", trained.state_dict())
    found = transfer.Origins.of(name, str(tmp_path / "weights.safetensors"))
    fastconv.manual_seed(4)
    start = transfer.start(name, found, (3, 32, 32), 5, "all-but-head")
    state, own = start.model.state_dict(), trained.state_dict()
    for key, array in state.items():
        if key.rpartition(".")[0] not in start.head:
            assert_array_equal(array, own[key])
    assert "has 7 outputs" in start.notes["head"]
    assert start.frozen == start.layers - 1
    same = transfer.start(name, found, (3, 32, 32), 7)
    assert "head" not in same.notes
    assert all((a == own[key]).all() for key, a in same.model.state_dict().items())


def test_a_net_from_onnx_gets_a_head_trains_and_is_saved(tmp_path):
    onnx = pytest.importorskip("fastconv.onnx")
    pytest.importorskip("onnx")
    fastconv.manual_seed(0)
    model = Net()
    onnx.save(model.eval(), tmp_path / "net.onnx", (1, *SHAPE), metadata={"note": "mine"})
    found = transfer.Origins.of(str(tmp_path / "net.onnx"), None)
    assert found.layers.model.metadata["note"] == "mine"
    start = transfer.start("net.onnx", found, SHAPE, 6, "2")
    assert start.head == ("fc",)
    assert {n for n, p in start.model.named_parameters() if not p.requires_grad} >= {"conv1.weight", "conv2.weight"}
    x = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    want = start.model.predict(x)
    serialize.save(start.model, tmp_path / "ours.safetensors")
    back = serialize.load(tmp_path / "ours.safetensors")
    assert_array_equal(back.predict(x), want)
    again = transfer.start("ours", transfer.Origins.of(str(tmp_path / "ours.safetensors"), None), SHAPE, 2)
    assert again.model.predict(x).shape == (4, 2)


# ---- what does not fit


def saved(tmp_path, arrays):
    serialize.save_arrays(tmp_path / "w.safetensors", arrays)
    return str(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("0.weight"), "not the weights of mnist-small: 1 of its 8 arrays are missing, as 0.weight"),
        (lambda s: s.pop("0.weight"), "model has to be the net that they are of, instead of mnist-small"),
        (lambda s: s.update({"0.weight": np.zeros((2, 2), np.float32)}), r"0.weight has shape \(2, 2\) there"),
        (lambda s: s["0.weight"].fill(np.nan), "0.weight holds numbers that are not finite"),
        (lambda s: s.clear(), "holds no weights"),
    ],
)
def test_weights_that_do_not_fit_are_one_line_and_nothing_is_written(spoil, message, tmp_path, run):
    state = models.build("mnist-small", SHAPE, 10).state_dict()
    spoil(state)
    path = saved(tmp_path, state)
    result = run("train", "--model", "mnist-small", "--pretrained", path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nope"], "unknown model 'nope'; known are linear"),
        (["--freeze", "2"], "pretrained is missing"),
        (["--pretrained", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--model", "FIRST", "--freeze", "99"], "one has to be left to train"),
        (["--model", "FIRST", "--freeze", "most"], "freeze must be all-but-head or how many"),
        (["--model", "FIRST", "--init", "he"], "init he draws weights anew"),
        (["--model", "FIRST", "--freeze", "all-but-head", "--backbone-lr", "0.1"], "trains none of them"),
        (["--model", "FIRST", "--normalize", "imagenet"], "for 3 channels, the images have 1"),
        (["--model", "FIRST", "--normalize", "1,0"], "a standard deviation must be above 0"),
        (["--model", "FIRST", "--normalize", "nan,1"], "normalize must be one of"),
        (["--model", "FIRST", "--dataset", "cifar10"], ""),
        (["--model", "EMPTY"], "is not the folder of a run"),
        (["--model", "TEXT"], ""),
    ],
)
def test_what_does_not_go_together_is_one_line_and_nothing_is_written(options, message, tmp_path, run, first):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("no net")
    places = {"FIRST": first, "EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text.onnx"}
    result = run("train", *(places.get(o, o) for o in options), "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    if "cifar10" not in options:  # whose message tells where it was looked for
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_file_of_weights_alone_is_no_net(tmp_path):
    path = saved(tmp_path, models.build("mlp", SHAPE, 10).state_dict())
    with pytest.raises(ValueError, match="holds weights and no layers: name the net"):
        transfer.Origins.of(path, None)


def test_a_net_without_a_plain_head_is_refused():
    behind = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"behind it 2, a BatchNorm1d, has parameters"):
        begin(behind)
    with pytest.raises(ValueError, match="no layer with weights"):
        begin(nn.Sequential(nn.Flatten(), nn.Bias(64)))
    with pytest.raises(ValueError, match=r"gives \(1, 3, 8, 8\) for one image"):
        begin(nn.Sequential(nn.Conv2d(1, 3, 1)))
    with pytest.raises(ValueError, match="cannot take images of 1×8×8"):
        begin(nn.Sequential(nn.Flatten(), nn.Linear(63, 3)))


# ---- normalisation


def test_normalisations_by_word_and_number():
    image = np.full((1, 3, 2, 2), 255, np.uint8)
    assert_array_equal(standardizer_of("minus-one-to-one", (3, 2, 2))(image), 1)
    assert_array_equal(standardizer_of("zero-to-one", (3, 2, 2))(image), 1)
    assert_array_equal(standardizer_of("127,128", (3, 2, 2))(image), 1)
    found = standardizer_of("imagenet", (3, 2, 2))(image)[0, :, 0, 0]
    assert np.allclose(found, [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6)
    assert standardizer_of("1,2,3,4,5,6", (3, 2, 2)).mean.ravel().tolist() == [1, 2, 3]
    sixteen = standardizer_of("minus-one-to-one", (1, 2, 2), levels=16)(np.array([[[[0, 16]]]], np.uint8))
    assert sixteen.ravel().tolist() == [-1, 1]
    for wrong in ("x", "1", "1,2,3", "inf,1", ""):
        with pytest.raises(ValueError, match="normalize"):
            standardizer_of(wrong, (3, 2, 2))
    assert set(NORMALIZATIONS) > {"dataset", "imagenet"}


def test_the_normalisation_is_that_which_the_weights_expect(first):
    about = json.loads((first / "config.json").read_text())
    setup = prepare(fill("digits", model=str(first), validation=0.5), progress=False)
    assert setup.standardizer.to_dict() == about["standardizer"]  # not that of this half
    own = prepare(fill("digits", model=str(first), validation=0.5, normalize="dataset"), progress=False)
    assert own.standardizer.to_dict() == data.Standardizer.fit(own.train.samples[0]).to_dict()
    assert own.standardizer.to_dict() != about["standardizer"]


# ---- the command line


def test_train_from_a_run_then_evaluate_predict_and_export(first, tmp_path, run):
    arguments = ["train", "--model", first, "--freeze", "all-but-head", "--head-lr", "0.1", "--lr", "0.01"]
    result = run(*arguments, "--epochs", "1", "--no-augment", "--out", tmp_path / "second")
    assert result.exit_code == 0, result.output
    assert "frozen         21 of 22 layers with weights; normalisations among them keep" in result.stdout
    assert "head lr 0.1" in result.stdout
    before, after = weights_of(first), weights_of(tmp_path / "second")
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed == {"14.weight", "14.bias"}, changed
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["made_of"]["frozen"] == 21
    assert config["made_of"]["layers"]["sha256"] == read(first).sha256
    assert serialize.made_of(tmp_path / "second" / "model.safetensors") == config["made_of"]
    assert serialize.made_of(first / "model.safetensors") == {}
    for command in (["eval", tmp_path / "second"], ["export", tmp_path / "second", "-o", tmp_path / "net.onnx"]):
        assert run(*command).exit_code == 0


@pytest.mark.parametrize("name", ["net.pth", "net.onnx", "net.safetensors", "folder"])
def test_a_file_that_is_missing_is_what_is_said(tmp_path, run, name):
    result = run("train", "--model", "resnet20", "--pretrained", tmp_path / name)
    assert result.exit_code == 2
    assert f"{name}: no such file" in result.output
    assert "torch" not in result.output.replace(str(tmp_path), "")


def test_the_rates_of_head_and_body(first):
    setup = prepare(fill("digits", model=str(first), head_lr=0.2, backbone_lr=0.002, lr=0.1), progress=False)
    rates = {id(p): group["lr"] for group in setup.trainer.optimizer.param_groups for p in group["params"]}
    head = {id(p) for p in setup.start.head_parameters()}
    for parameter in setup.model.parameters():
        assert rates[id(parameter)] == (0.2 if id(parameter) in head else 0.002)


def test_interrupted_and_resumed_has_the_same_bits(first, tmp_path):
    from fastconv.train import Checkpoint, RunWriter, read_record
    from fastconv.train.resume import options_of, take_up

    options = fill("digits", model=str(first), freeze="7", head_lr=0.1, lr=0.01, epochs=1, augment=True)

    def whole():
        setup = prepare(options, progress=False)
        setup.trainer.fit(setup.train, setup.validation, epochs=1)
        return setup.model.state_dict()

    class Killed(Exception):
        pass

    class Kill(fastconv.train.Callback):
        def on_step_end(self, trainer):
            if trainer.step == 25:
                raise Killed

    folder = tmp_path / "run"
    setup = prepare(options, [Checkpoint(folder / "checkpoints", steps=10), Kill()], progress=False)
    writer = RunWriter.start(folder, {**setup.describe(), "observed": {"checkpoint_every": "10"}}, setup.model)
    setup.trainer.callbacks.insert(0, writer)
    with pytest.raises(Killed):
        setup.trainer.fit(setup.train, setup.validation, epochs=1)
    writer.close()
    record = read_record(folder)
    again = Checkpoint(folder / "checkpoints", steps=10)
    setup = prepare(options_of(record, {"model": str(first)}), [again], progress=False)
    take_up(setup, record)
    assert setup.trainer.step == 20
    setup.trainer.resume(setup.train, setup.validation)
    want = whole()
    assert all((setup.model.state_dict()[name] == array).all() for name, array in want.items())


def test_a_run_whose_file_was_replaced_does_not_go_on(first, tmp_path, run):
    copy = tmp_path / "start"
    shutil.copytree(first, copy)
    options = fill("digits", model=str(copy), epochs=2)
    setup = prepare(options, progress=False)
    from fastconv.train import RunWriter

    RunWriter.start(tmp_path / "run", setup.describe(), setup.model).close()
    other = serialize.load(copy / "model.safetensors")
    next(iter(other.parameters())).data[...] += 1
    serialize.save(other, copy / "model.safetensors")
    result = run("train", "--resume", tmp_path / "run")
    assert result.exit_code == 2
    assert "is not the file that the run was started with" in result.stderr


# ---- predictions


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures, one of them damaged, one hidden and one below."""
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    images = data.load("digits").test.images[:4, 0] * 15
    for image, name in zip(images, ["a.png", "b.png", "more/c.png", ".hidden.png"], strict=True):
        pillow.fromarray(image).resize((32, 32)).save(folder / name)
    (folder / "d.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_predict_takes_folders_and_patterns_and_names_the_damaged(first, pictures, run):
    result = run("predict", first, pictures, pictures / "*.png", pictures / "a.png", "--top", "3", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    names = [guess["image"].removeprefix(f"{pictures}/") for guess in found["predictions"]]
    assert names == ["a.png", "b.png", "more/c.png", "a.png", "b.png", "a.png"]
    assert len(found["damaged"]) == 2
    assert result.stderr.count("left out: ") == 2
    for guess in found["predictions"]:
        assert len(guess["top"]) == 3
        chances = [entry["probability"] for entry in guess["top"]]
        assert chances == sorted(chances, reverse=True)
        assert guess["top"][0] == {"class": guess["class"], "probability": guess["probability"]}
    assert found["predictions"][0] == found["predictions"][3] == found["predictions"][5]
    shown = run("predict", first, pictures / "a.png", "--top", "10").stdout.splitlines()
    assert len(shown) == 11
    assert {line.split()[-3] for line in shown[1:]} == set("0123456789")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["nowhere.png"], "nowhere.png: no such image"),
        (["nowhere/*.png"], "no file has such a name"),
        (["DAMAGED"], "d.png"),
        (["EMPTY"], "no pictures in this folder"),
        (["HOPELESS"], "none of the images can be read"),
    ],
)
def test_predict_says_which_image_it_cannot_take(images, message, first, pictures, tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hopeless").mkdir()
    (tmp_path / "hopeless" / "x.png").write_bytes(b"")
    places = {"DAMAGED": pictures / "d.png", "EMPTY": tmp_path / "empty", "HOPELESS": tmp_path / "hopeless"}
    result = run("predict", first, *(places.get(i, i) for i in images))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not result.stdout


def test_predict_and_eval_take_the_file_that_export_wrote(first, pictures, tmp_path, run):
    pytest.importorskip("onnx")
    net = tmp_path / "net.onnx"
    assert run("export", first, "-o", net).exit_code == 0
    guesses = [
        json.loads(run("predict", source, pictures / "a.png", "--no-invert", "--json").stdout.splitlines()[-1])
        for source in (first, net)
    ]
    ours, theirs = (found["predictions"][0] for found in guesses)
    assert ours["class"] == theirs["class"]
    assert abs(ours["probability"] - theirs["probability"]) < 1e-5
    accuracies = [
        json.loads(run("eval", *arguments, "--json").stdout.splitlines()[-1])["test_accuracy"]
        for arguments in ([first], [net, "--dataset", "digits"], [first, "--dataset", "digits"])
    ]
    assert accuracies[0] == accuracies[1] == accuracies[2]
    result = run("eval", net)
    assert result.exit_code == 2
    assert "does not say what it learned" in result.stderr


def test_an_onnx_file_of_others_has_to_be_told_its_normalisation(pictures, tmp_path, run):
    onnx = pytest.importorskip("fastconv.onnx")
    pytest.importorskip("onnx")
    net = tmp_path / "net.onnx"
    onnx.save(Net(3).eval(), net, (1, 1, 8, 8))
    result = run("predict", net, pictures / "a.png")
    assert result.exit_code == 2
    assert "give --normalize imagenet" in result.stderr
    (tmp_path / "names.txt").write_text("eins\nzwei\ndrei\n")
    arguments = ["predict", net, pictures / "a.png", "--normalize", "minus-one-to-one", "--top", "3"]
    assert {line.split()[-3] for line in run(*arguments).stdout.splitlines()[1:]} == {"0", "1", "2"}
    named = run(*arguments, "--labels", tmp_path / "names.txt").stdout
    assert {line.split()[-3] for line in named.splitlines()[1:]} == {"eins", "zwei", "drei"}
    (tmp_path / "names.txt").write_text("eins\n")
    assert "1 lines, the net tells apart 3 classes" in run(*arguments, "--labels", tmp_path / "names.txt").stderr
    assert "takes images of 8×8, not 9×9" in run(*arguments, "--image-size", "9").stderr
    assert "tells apart 3 classes" in run("eval", net, "--dataset", "digits", "--normalize", "zero-to-one").stderr


def test_the_pretrained_net_names_what_it_sees(data_root, tmp_path, run):
    pillow = pytest.importorskip("PIL.Image")
    pytest.importorskip("onnx")
    folder = Path(data_root) / "models"
    for i, image in enumerate(np.load(folder / "efficientnet_lite0_expected.npz")["images"]):
        pillow.fromarray(image).save(tmp_path / f"{i}.png")
    arguments = ["predict", folder / "efficientnet_lite0.onnx", tmp_path, "--normalize", "127,128", "--json"]
    found = json.loads(run(*arguments).stdout.splitlines()[-1])
    assert [guess["class"] for guess in found["predictions"]] == ["285", "967", "657", "450"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "null", '{"a": 1}', "NaN", '["a"', ""])
def test_classes_that_an_onnx_file_should_not_tell_are_not_taken(text):
    assert origins._exported({"classes": text}) == {}
    assert origins._exported({"classes": '["a", "b"]'}) == {"classes": ["a", "b"]}

"""The preflight: leaves everything as it was, says what it saw, survives whatever it is given."""

import copy
import json
import math
import time

import numpy as np
import pytest
from click.testing import CliRunner

import fastconv
from fastconv import config, data, nn, optim, random
from fastconv.cli import main
from fastconv.diagnose import Finding, Report, Verdict, check, range_test
from fastconv.diagnose.preflight import STEPS
from fastconv.train import state_sha256

SECONDS = 600.0


def blobs(n=240, classes=3, seed=0):
    """Images 1×6×6 of a few classes: a bright row each, and noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, 1, 6, 6))
    x[np.arange(n), 0, y] += 3
    return ((x - x.mean()) / x.std()).astype(np.float32), y


def net(*, classes=3):
    fastconv.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(64, classes), input_grad=False,
    )  # fmt: skip


class Breaks(nn.Module):
    """Raises in one of its calls."""

    def __init__(self, forwards=0, backward=False):
        self.forwards, self.backwards = forwards, backward

    def forward(self, input):
        if self.forwards and len(input) > 2:
            self.weights_of_others[...] = 0
            raise RuntimeError("forward is broken")
        return self._save(input.copy())

    def backward(self, grad_output):
        if self.backwards:
            raise RuntimeError("backward is broken")
        return self._recall(grad_output)[0]


def everything(model, optimizer):
    """All that must stay: bytes of arrays, counters, modes, flags, hooks, optimiser, global streams."""
    return {
        "sha256": state_sha256(model),
        "state": {name: array.tobytes() for name, array in model.named_state()},
        "arrays": {name: id(array) for name, array in model.named_state()},
        "gradients": {name: param.grad.tobytes() for name, param in model.named_parameters()},
        "frozen": {name: param.requires_grad for name, param in model.named_parameters()},
        "extra": model.extra_state(),
        "modes": [(module.training, module.need_input_grad, len(module._hooks)) for module in model.modules()],
        "dropout": [module.p for module in model.modules() if isinstance(module, nn.Dropout)],
        "optimizer": {name: array.tobytes() for name, array in optimizer.state_dict().items()},
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "source": (random._source.get(), random._latest.source),
    }


@pytest.mark.parametrize("broken", ["nothing", "forward", "backward", "loss"])
def test_everything_stays_as_it_was(broken):
    layers = list(net())
    if broken in ("forward", "backward"):
        layers.insert(2, Breaks(forwards=broken == "forward", backward=broken == "backward"))
    model = nn.Sequential(*layers)
    if broken == "forward":
        layers[2].weights_of_others = model[0].weight.data
    loss = nn.CrossEntropyLoss() if broken != "loss" else lambda output, target: 1 / 0
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = blobs()
    validation = blobs(60, seed=1)
    model[0].eval()
    model[0].weight.requires_grad = False
    for param in model.parameters():
        param.grad[...] = np.random.default_rng(2).normal(size=param.shape)
    batches = data.Batches(x, y, 16, seed=3)
    next(iter(batches))
    before, position, pixels = everything(model, optimizer), batches.position, (x.tobytes(), y.tobytes())
    report = check(model, batches, validation, loss=loss, optimizer=optimizer, l2=0.01, seconds=SECONDS)
    assert everything(model, optimizer) == before
    assert batches.position == position
    assert (x.tobytes(), y.tobytes()) == pixels
    assert [finding.step for finding in report.findings] == list(STEPS)
    if broken != "nothing":
        assert report.verdict == Verdict.WRONG
        said = {"forward": "RuntimeError: forward is broken", "backward": "RuntimeError: backward is broken",
                "loss": "ZeroDivisionError"}[broken]  # fmt: skip
        assert said in str(report["overfit"].remarks)


def test_the_same_figures_every_time():
    model, (x, y) = net(), blobs()
    one, two = (check(model, (x, y), seed=5, seconds=SECONDS).to_dict() for _ in range(2))
    for report in (one, two):
        del report["seconds"]
        for finding in report["findings"]:
            del finding["seconds"]
    assert json.dumps(one) == json.dumps(two)


def test_threads_and_isa_change_no_figure(every_setting):
    model, (x, y) = net(), blobs()
    found = every_setting(
        lambda: [
            finding.figures
            for finding in check(
                model, (x, y), seconds=SECONDS, steps=["loss", "gradients", "signal"]
            ).findings
        ]
    )
    assert len({json.dumps(figures, sort_keys=True) for figures in found.values()}) == 1


def test_report_reads_well_and_is_plain_json():
    x, y = blobs()
    seen = []
    report = check(net(), (x, y), blobs(60, seed=1), seconds=SECONDS, watch=seen.append)
    assert seen == report.findings
    assert report.verdict < Verdict.WRONG, report
    json.dumps(report.to_dict(), allow_nan=False)
    page = report.text(width=80)
    assert all(len(line) <= 100 for line in page.splitlines())
    assert all(len(line) <= 80 for line in page.splitlines() if "─" in line or "·" in line)
    for number, finding in enumerate(report.findings, 1):
        assert f"{number}  {finding.title}" in page
    with pytest.raises(KeyError, match="'weather'; this report has data, loss"):
        report["weather"]


def test_layout():
    finding = Finding("data", "Data", "3 images", table=[("name", "n"), ("a", "10"), ("bcd", "2")])
    finding.good("Fine.")
    finding.wrong("Labels are a mess, and this line is long enough to be wrapped at sixty.", "Mend them.")
    text = Report([finding]).text(width=60)
    assert text == (
        "1  Data ────────────────────────────────────────────── WRONG\n"
        "   3 images\n"
        "   name   n\n"
        "   a     10\n"
        "   bcd    2\n"
        "   · Fine.\n"
        "   ✗ Labels are a mess, and this line is long enough to be\n"
        "     wrapped at sixty.\n"
        "     → Mend them.\n"
        "\n"
        "wrong: data (0.0 s)"
    )


def test_arrays_batches_and_other_targets():
    x, y = blobs()
    raw = (40 * x + 100).clip(0, 255).astype(np.uint8)
    batches = data.Batches(raw, y, 16, standardize=data.Standardizer.fit(raw))
    assert check(net(), batches, steps=["data", "loss"]).verdict == Verdict.GOOD
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 1))
    target = x.mean(axis=(1, 2, 3), keepdims=False)[:, None].astype(np.float32)
    report = check(model, (x, target), loss=nn.MSELoss(), seconds=SECONDS)
    assert report.verdict < Verdict.WRONG, report
    hinge = check(net(), (x, y), loss=nn.MultiMarginLoss(), seconds=SECONDS)
    assert hinge.verdict < Verdict.WRONG, hinge
    assert "equal scores give 0.6667" in hinge["loss"].summary
    double = net().astype(np.float64)
    assert check(double, (x.astype(np.float64), y), seconds=SECONDS).verdict < Verdict.WRONG


def test_what_cannot_be_checked():
    x, y = blobs()
    with pytest.raises(ValueError, match="no training samples"):
        check(net(), (x[:0], y[:0]))
    with pytest.raises(ValueError, match="240 images but 239 labels"):
        check(net(), (x, y[1:]))
    with pytest.raises(ValueError, match="unknown steps luck; there are data, loss"):
        check(net(), (x, y), steps=["data", "luck"])
    report = check(net(), (x[:, :, :2], y))
    assert len(report.findings) == 1
    assert "The model cannot take the images, (1, 2, 6) each: ValueError" in report["data"].remarks[0].text


@pytest.mark.parametrize("few", [1, 2, 3, 7])
def test_hardly_any_data(few):
    x, y = blobs()
    report = check(net(), (x[:few], y[:few]), (x[few : few + 1], y[few : few + 1]), seconds=SECONDS)
    assert len(report.findings) == 6
    assert "Error" not in str(report), report


def test_above_the_best_rate_none_is_called_too_low_or_slow():
    digits = data.load("digits")
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    found = [range_test(model, digits.train, seed=seed, seconds=SECONDS) for seed in range(4)]
    for test in found:
        best = min(test.trials, key=lambda trial: trial.loss)
        assert {t.word for t in test.trials if t.rate > best.rate} <= {"good", "too high", "rising", "exploding"}
    assert "too high" in {trial.word for test in found for trial in test.trials}


def test_range_test_always_has_a_result_with_a_reason():
    x, y = blobs()
    test = range_test(net(), (x, y), optimizer=None, batch_size=32, seconds=SECONDS)
    low, high = test.suggestion
    assert test.rates == sorted(test.rates)
    assert len(test.rates) == len(test.losses) == len(test.accuracies)
    assert low <= min(zip(test.losses, test.rates, strict=True))[1] <= high
    assert "the loss falls most at" in test.reason
    words = [trial.word for trial in test.trials]
    assert words[0] == "too low"
    assert {"good", "exploding"} & set(words)

    noise = range_test(net(), (x, np.random.default_rng(0).integers(0, 3, len(y))), seconds=SECONDS)
    assert noise.suggestion is None or noise.first_loss - min(noise.losses) < 0.1
    assert noise.reason

    nothing = range_test(net(), (x[:3], y[:3]))
    assert (nothing.suggestion, nothing.reason) == (None, "only 3 images can be used")

    model = net()
    model[5].weight.data[...] = np.nan
    lost = range_test(model, (x, y), seconds=SECONDS)
    assert lost.suggestion is None
    assert lost.reason == "the loss is nan before any update"


def test_accuracy_rises_while_the_loss_barely_changes():
    """The lecture's riddle, on a linear net with small weights: the order of the scores is all that counts."""
    x, y = blobs(900)
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    for param in model.parameters():
        param.data *= 1e-3
    finding = check(model, (x, y), steps=["rates"], seconds=SECONDS)["rates"]
    assert any("the loss barely changes, yet accuracy rises" in remark.text for remark in finding.remarks), finding


def test_gradients_are_compared_beside_kinks():
    """Zero-padded ReLU and max pooling tie all the time; a healthy net must come out clean from any seed."""
    x, y = blobs()
    x[:, :, :, ::2] = 0
    for seed in range(5):
        fastconv.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 3)
        )
        finding = check(model, (x, y), steps=["gradients"], seed=seed, seconds=SECONDS)["gradients"]
        assert finding.verdict == Verdict.GOOD, finding.text(3)
        assert finding.figures["compared"] > 20


def test_a_layer_that_trains_itself():
    x, y = blobs()
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.DeepResidual(8, 6, lr=0.1), nn.Linear(8, 3))
    before = state_sha256(model)
    finding = check(model, (x, y), steps=["gradients"], seconds=SECONDS)["gradients"]
    assert finding.verdict == Verdict.GOOD, finding.text(3)
    assert state_sha256(model) == before


def test_weights_in_a_file_stay_too(tmp_path):
    """A layer that maps its weights and trains itself: the copies must not write to the file."""
    x, y = blobs()
    row = 8 * 8 + 8
    path = tmp_path / "layers"
    np.random.default_rng(0).normal(scale=0.1, size=(6, row)).astype("<f4").tofile(path)
    before = path.read_bytes()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.DeepResidual(8, 6, lr=0.1, file=path), nn.Linear(8, 3))
    report = check(model, (x, y), seconds=SECONDS)
    model[2].weight.flush()
    assert path.read_bytes() == before
    assert "Error" not in str(report), report


# ---- the command


def run(*arguments):
    with config.threads(config.threads()):
        return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_command_on_a_healthy_net():
    done = run("--seconds", SECONDS, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["verdict"] == "good"
    assert result["model"] == "mnist-small"
    assert [finding["step"] for finding in result["findings"]] == list(STEPS)
    assert math.isclose(result["findings"][1]["figures"]["expected"], math.log(10))
    for text in ("mnist-small (13,034 parameters", "1  Data", "6  Learning rates", "← chosen", "all 6 steps good"):
        assert text in done.stderr


def test_command_ends_with_4_when_something_is_wrong():
    done = run("--lr", 50, "--model", "mlp", "--seconds", 2)
    assert done.exit_code == 4, done.output
    assert "The rate chosen, 50, explodes" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("wrong: learning rates")


def test_command_takes_the_options_of_a_run(tmp_path):
    folder = tmp_path / "run"
    done = CliRunner().invoke(main, ["train", "--epochs", "1", "--model", "mlp", "--lr", "0.02", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    done = run("--run", folder, "--seconds", 1)
    assert "mlp (" in done.stdout
    assert "sgd lr 0.02, batches of 32" in done.stdout
    assert "sgd lr 0.03" in run("--run", folder, "--lr", 0.03, "--seconds", 1).stdout
    done = run("--run", tmp_path)
    assert done.exit_code == 2


def test_command_refuses_what_train_refuses():
    done = run("--model", "lenet")
    assert done.exit_code == 2
    assert "check: unknown model 'lenet'; known are" in done.stderr


def test_copies_of_subject_carry_hyperparameters():
    from fastconv.diagnose.subject import Inputs, Subject

    model, (x, y) = net(), blobs()
    own = optim.Adam(list(model.parameters())[:2], lr=0.5, betas=(0.8, 0.9), weight_decay=0.1)
    subject = Subject(model, nn.CrossEntropyLoss(), Inputs.of((x, y)), None, own)
    twin = subject.copy()
    made = subject.optimize(twin, 0.25)
    assert (made.lr, made.betas, made.weight_decay) == (0.25, (0.8, 0.9), 0.1)
    assert [id(param) for param in made.params] == [id(param) for param in list(twin.parameters())[:2]]
    assert copy.deepcopy(model).training == model.training


def remembering(seed=0):
    """Return a net whose normalisations have seen images brought to -1..1, and such images as bytes."""
    fastconv.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    images = rng.normal(110, 60, (120, 3, 8, 8)).clip(0, 255).astype(np.uint8)
    model.train()
    model((images.astype(np.float32) - 127.5) / 127.5)
    return model, images, rng.integers(0, 3, 120)


@pytest.mark.parametrize("word", ["minus-one-to-one", "imagenet", "zero-to-one"])
def test_images_normalised_otherwise_than_the_weights_expect_are_noticed(word):
    from fastconv.train.origins import standardizer_of

    model, images, labels = remembering()
    batches = data.Batches(images, labels, 20, standardize=standardizer_of(word, images.shape[1:]))
    finding = check(model, batches, steps=["data"])["data"]
    said = [remark for remark in finding.remarks if "running statistics" in remark.text]
    if word == "minus-one-to-one":
        assert not said
        assert finding.figures["misfit"] < 0.05
    else:
        assert "Try --normalize minus-one-to-one" in said[0].advice
        assert said[0].verdict == Verdict.SUSPICIOUS


def test_a_fresh_net_remembers_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(4, 3))
    _, images, labels = remembering()
    assert "misfit" not in check(model, (images.astype(np.float32), labels), steps=["data"])["data"].figures


def test_frozen_layers_are_counted_and_normalisations_at_work_noticed():
    model, images, labels = remembering()
    for layer in (model[0], model[1]):
        layer.requires_grad_(False)
    x = (images.astype(np.float32) - 127.5) / 127.5
    finding = check(model, (x, labels), steps=["loss"])["loss"]
    assert "4 of 6 parameters are frozen; 27 numbers are trained" in finding.summary
    assert any("frozen weights, but the batch's statistics" in remark.text for remark in finding.remarks)
    model[1].eval()
    quiet = check(model, (x, labels), steps=["loss"])["loss"]
    assert not any("frozen weights" in remark.text for remark in quiet.remarks)
    assert quiet.figures["frozen"] == 4


class Slow(nn.Module):
    """Passes images on, and takes a hundredth of a second for each."""

    def forward(self, x):
        time.sleep(0.01 * len(x))
        return x

    def backward(self, grad):
        return grad


def test_every_step_keeps_to_its_time():
    x, y = blobs(300)
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), Slow(), nn.ReLU(), nn.Linear(8, 3))
    report = check(model, (x, y), optimizer=optim.SGD(model.parameters(), lr=0.1), seconds=0.5)
    took = {finding.step: finding.seconds for finding in report.findings}
    assert max(took.values()) < 2.5, took  # sleeping alone: 15 rates of 12 updates of 64 images would take 115 s
    rates = report["rates"]
    assert "as 0.5 s allow no more (--seconds)" in rates.summary
    assert 0.1 in [trial["rate"] for trial in rates.figures["trials"]]
    assert report["loss"].figures["samples"] < 50

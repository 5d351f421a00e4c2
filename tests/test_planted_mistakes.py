"""Mistakes that people make, planted into healthy trainings: `diagnose.check` must find them, and nothing else.

``pytest -s tests/test_planted_mistakes.py`` prints each with what was said about it, and the share found.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import data, init, models, nn, optim
from fastconv.diagnose import Verdict, check
from fastconv.train.setup import fill, prepare

SECONDS = 600.0  # no step is cut short, so that figures do not depend on the machine


@dataclass
class Training:
    """All that a training starts from."""

    model: nn.Module
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    lr: float = 0.05
    optimizer: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    def check(self, **options):
        optimizer = self.optimizer or optim.SGD(self.model.parameters(), self.lr, momentum=0.9)
        return check(
            self.model, self.train, self.validation, optimizer=optimizer,
            **{"batch_size": 32, "seconds": SECONDS, **self.options, **options},
        )  # fmt: skip


_DIGITS: dict[str, Any] = {}


def digits(raw=False):
    """Training and validation arrays, standardised unless raw; copies."""
    if not _DIGITS:
        _DIGITS["raw"] = data.split(data.load("digits").train, 0.1, seed=0)
        standardize = data.Standardizer.fit(_DIGITS["raw"][0].images)
        _DIGITS["standard"] = [(standardize(x), y) for x, y in _DIGITS["raw"]]
    parts = _DIGITS["raw" if raw else "standard"]
    return [(np.array(x), np.array(y)) for x, y in parts]


def convnet(*extra):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10), *extra,
    )  # fmt: skip


def dense(activation, depth, width=64):
    layers = [nn.Flatten(), nn.Linear(64, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def normed(**options):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, **options), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16, **options), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def started(model, name):
    init.apply(model, name, 0)
    return model


def lenet_like():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


HEALTHY = {
    "mnist-small": lambda: started(models.build("mnist-small", (1, 8, 8), 10), "he"),
    "mlp": lambda: models.build("mlp", (1, 8, 8), 10),
    "lenet-like": lenet_like,
    "batch normalisation": normed,
    "tanh, Xavier": lambda: started(dense(nn.Tanh, 4), "xavier"),
}


def healthy(model=None):
    fastconv.manual_seed(0)
    train, validation = digits()
    return Training(convnet() if model is None else model(), train, validation)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_nets_are_not_called_wrong(name):
    report = healthy(HEALTHY[name]).check()
    print(f"\n{name}: {report.closing()}")
    assert report.verdict < Verdict.WRONG, report
    assert [finding.step for finding in report.findings] == ["data", "loss", "gradients", "signal", "overfit", "rates"]


# ---- real sets at full size


def full_size(name, **options):
    """All that `fastconv train` would start from, of a set under FASTCONV_DATA."""
    try:
        data.load(name, download=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return prepare(fill(name, **options), progress=False)


@pytest.mark.slow
def test_lenet5_on_mnist_is_healthy(data_root):
    s = full_size("mnist", model="lenet5")
    report = check(s.model, s.train, s.validation, loss=s.loss, optimizer=s.trainer.optimizer)
    print(f"\nlenet5 on MNIST: {report.closing()}")
    assert report.verdict < Verdict.WRONG, report
    assert report["data"].figures["training"]["samples"] == 54_000


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_labels_shuffled_and_images_leaked_at_full_size(name, data_root):
    s = full_size(name, model="linear")
    images, labels = s.train.samples
    assert check(s.model, s.train, s.validation, steps=["data"]).verdict == Verdict.GOOD
    mixed = data.Batches(images, np.random.default_rng(0).permutation(labels), 64, standardize=s.standardizer)
    finding = check(s.model, mixed, s.validation, steps=["data"])["data"]
    assert "Labels do not follow the images" in finding.remarks[0].text
    leaked = data.Batches(images[:200], labels[:200], 64, standardize=s.standardizer)
    finding = check(s.model, s.train, leaked, steps=["data"])["data"]
    assert "200 of 200 validation images (100.0%) are among the training images" in finding.remarks[0].text


# ---- the mistakes

MISTAKES = {}


def planted(step):
    """Register a mistake and the step that should find it."""

    def register(function):
        MISTAKES[function.__name__.replace("_", " ")] = (step, function)
        return function

    return register


@planted("data")
def shuffled_labels(t):
    np.random.default_rng(0).shuffle(t.train[1])


@planted("rates")
def labels_shuffled_apart_in_training(t):
    np.random.default_rng(0).shuffle(t.train[1])


@planted("data")
def label_noise(t):
    rng = np.random.default_rng(0)
    rows = rng.choice(len(t.train[1]), len(t.train[1]) // 4, replace=False)
    t.train[1][rows] = rng.integers(0, 10, len(rows))


@planted("data")
def labels_off_by_one(t):
    t.train[1][:] += 1
    t.validation[1][:] += 1


@planted("data")
def validation_labels_off_by_one(t):
    t.validation[1][:] = (t.validation[1] + 1) % 10


@planted("data")
def unscaled_inputs(t):
    (x, y), (v, w) = digits(raw=True)
    t.train, t.validation = (x * np.float32(255 / 16), y), (v * np.float32(255 / 16), w)


@planted("data")
def validation_standardised_otherwise(t):
    t.validation = (digits(raw=True)[1][0] / np.float32(16), t.validation[1])


@planted("data")
def leaked_validation_images(t):
    t.train = tuple(np.concatenate([a, b[:30]]) for a, b in zip(t.train, t.validation, strict=True))


@planted("data")
def duplicated_training_images(t):
    t.train = tuple(np.concatenate([a, a[:300]]) for a in t.train)


@planted("data")
def constant_input(t):
    t.train[0][:] = 0.5
    t.validation[0][:] = 0.5


@planted("data")
def blanked_out_pixels(t):
    for x, _ in (t.train, t.validation):
        x[:, :, 2:, :] = 0


@planted("data")
def nan_pixel(t):
    t.train[0][700, 0, 3, 3] = np.nan


@planted("data")
def class_missing_in_training(t):
    keep = t.train[1] != 3
    t.train = tuple(a[keep] for a in t.train)


@planted("data")
def classes_out_of_balance(t):
    keep = (t.train[1] == 1) | (np.arange(len(t.train[1])) % 20 == 0)
    t.train = tuple(a[keep] for a in t.train)


@planted("data")
def split_without_shuffling(t):
    order = np.argsort(t.train[1], kind="stable")
    x, y = (a[order] for a in t.train)
    t.train, t.validation = (x[:1100], y[:1100]), (x[1100:], y[1100:])


@planted("loss")
def double_softmax(t):
    t.model = convnet(nn.Softmax())


@planted("loss")
def relu_behind_the_scores(t):
    t.model = convnet(nn.ReLU())


@planted("loss")
def huge_weights(t):
    for param in t.model.parameters():
        param.data[...] *= 10


@planted("loss")
def summed_loss(t):
    t.options["loss"] = nn.CrossEntropyLoss("sum")


class DividedTwice(nn.CrossEntropyLoss):
    def forward(self, output, target):
        return super().forward(output, target) / len(target)

    def backward(self, scale=1.0):
        return super().backward(scale / len(self._saved[1][0]))


@planted("loss")
def loss_averaged_twice(t):
    t.options["loss"] = DividedTwice()


@planted("loss")
def penalty_far_too_large(t):
    t.options["l2"] = 10.0


@planted("loss")
def dropout_of_99_percent(t):
    t.model = nn.Sequential(*list(convnet())[:-1], nn.Dropout(0.99), nn.Linear(32, 10))


class WrongSign(nn.Linear):
    def backward(self, grad_output):
        return super().backward(-grad_output)


class ForgottenBias(nn.Linear):
    def backward(self, grad_output):
        kept = self.bias.grad.copy()
        grad_input = super().backward(grad_output)
        self.bias.grad[...] = kept
        return grad_input


class Overwriting(nn.Linear):
    def backward(self, grad_output):
        self.weight.grad.fill(0)
        return super().backward(grad_output)


class WithoutSlope(nn.Module):
    """A squared activation whose backward forgets the factor 2 x."""

    def forward(self, input):
        return self._save(np.square(input))

    def backward(self, grad_output):
        return self._recall(grad_output)[0]


def with_head(head):
    return nn.Sequential(*list(convnet())[:-1], head)


@planted("gradients")
def wrong_sign_of_a_gradient(t):
    t.model = with_head(WrongSign(32, 10))


@planted("overfit")
def uphill_steps(t):
    t.model = with_head(WrongSign(32, 10))


@planted("gradients")
def forgotten_bias_gradient(t):
    t.model = with_head(ForgottenBias(32, 10))


@planted("gradients")
def overwritten_gradient(t):
    t.model = with_head(Overwriting(32, 10))


@planted("gradients")
def chain_rule_forgotten(t):
    t.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), WithoutSlope(), nn.Linear(32, 10))


@planted("gradients")
def frozen_layer(t):
    t.model[0].weight.requires_grad = False


@planted("gradients")
def layer_unknown_to_the_optimiser(t):
    t.optimizer = optim.SGD(t.model[8].parameters(), lr=0.05, momentum=0.9)


@planted("signal")
def all_weights_zero(t):
    for param in t.model.parameters():
        param.data[...] = 0


@planted("overfit")
def zero_weights_learn_nothing(t):
    for param in t.model.parameters():
        param.data[...] = 0


@planted("signal")
def huge_weights_of_all_layers(t):
    for param in t.model.parameters():
        param.data[...] = np.random.default_rng(0).standard_normal(param.shape)


@planted("signal")
def dead_relus(t):
    for layer in (t.model[0], t.model[3]):
        layer.bias.data[...] = -10


@planted("signal")
def tanh_saturated_by_unit_weights(t):
    t.model = dense(nn.Tanh, 5)
    for param in t.model.parameters():
        param.data[...] = np.random.default_rng(0).standard_normal(param.shape)


@planted("signal")
def signal_dying_in_tanh_with_small_weights(t):
    t.model = started(dense(nn.Tanh, 10), "small")


@planted("signal")
def deep_sigmoids(t):
    t.model = dense(nn.Sigmoid, 10)


@planted("signal")
def biases_that_drown_the_images(t):
    t.model[3].bias.data[...] = 100.0


@planted("overfit")
def running_statistics_that_stand_still(t):
    t.model = normed(momentum=0.0)


class CutOff(nn.Module):
    """Lets nothing pass, as a mask of the wrong sign or a scale of 0."""

    def forward(self, input):
        return self._save(0 * input)

    def backward(self, grad_output):
        return 0 * self._recall(grad_output)[0]


@planted("overfit")
def layer_cut_off(t):
    t.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), CutOff(), nn.Linear(32, 10))


@planted("rates")
def learning_rate_times_100(t):
    t.lr *= 100


@planted("rates")
def learning_rate_of_1e_7(t):
    t.lr = 1e-7


# ---- mistakes of other kinds; three of the fifty-two in this file are looked for by two steps


class Leaking(nn.ReLU):
    """A ReLU whose backward lets every gradient pass."""

    fuses_as = None

    def backward(self, grad_output):
        return self._recall(grad_output)[0]


class Halved(nn.Conv2d):
    def backward(self, grad_output):
        grad_input = super().backward(grad_output)
        return None if grad_input is None else 0.5 * grad_input


class Detached(nn.Module):
    """Forward as it should be; no gradient comes back."""

    def forward(self, input):
        return self._save(input.copy())

    def backward(self, grad_output):
        return np.zeros_like(self._recall(grad_output)[0])


def replaced(index, layer):
    layers = list(convnet())
    layers[index] = layer
    return nn.Sequential(*layers)


@planted("gradients")
def relu_that_ignores_the_sign_in_backward(t):
    t.model = replaced(4, Leaking())


@planted("gradients")
def gradient_of_a_convolution_halved(t):
    t.model = replaced(3, Halved(8, 16, 3, padding=1))


@planted("gradients")
def gradient_cut_between_two_layers(t):
    t.model = nn.Sequential(*list(convnet())[:3], Detached(), *list(convnet())[3:])


@planted("data")
def pixels_shuffled_in_every_image(t):
    rng = np.random.default_rng(0)
    flat = t.train[0].reshape(len(t.train[0]), -1)
    for row in flat:
        rng.shuffle(row)
    t.train = (flat.reshape(t.train[0].shape), t.train[1])


@planted("data")
def validation_images_upside_down(t):
    t.validation = (t.validation[0][:, :, ::-1].copy(), t.validation[1])


@planted("data")
def validation_images_inverted(t):
    t.validation = (-t.validation[0], t.validation[1])


@planted("data")
def labels_all_the_same(t):
    t.train[1][:] = 4


@planted("loss")
def bias_of_one_class_far_too_large(t):
    t.model[8].bias.data[3] = 10.0


@planted("overfit")
def bottleneck_of_one_unit(t):
    t.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Sigmoid(), nn.Linear(1, 10))


@planted("overfit")
def pooled_to_almost_nothing(t):
    t.model = nn.Sequential(nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(1, 10))


@planted("rates")
def adam_at_1(t):
    t.optimizer = optim.Adam(t.model.parameters(), lr=1.0)


@planted("rates")
def learning_rate_zero(t):
    t.optimizer = optim.SGD(t.model.parameters(), lr=0.0, momentum=0.9)


@planted("rates")
def momentum_of_999_thousandths(t):
    t.optimizer = optim.SGD(t.model.parameters(), lr=0.05, momentum=0.999)


@planted("signal")
def deep_relus_with_small_weights(t):
    t.model = started(dense(nn.ReLU, 12), "small")


@pytest.fixture(scope="module")
def found():
    """Verdicts by mistake, filled by the tests below; the share is judged at the end."""
    return {}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name, found):
    step, plant = MISTAKES[name]
    training = healthy()
    plant(training)
    finding = training.check(steps=[step]).findings[-1]
    worst = next((r for r in finding.remarks if r.verdict == finding.verdict), None)
    print(f"\n{name} → {step}: {finding.verdict}. {worst.text if worst else ''}")
    found[name] = finding.verdict


def test_nine_of_ten_mistakes_are_found(found):
    if len(found) < len(MISTAKES):
        pytest.skip(f"needs the verdicts of all {len(MISTAKES)} mistakes, has {len(found)}")
    missed = [name for name, verdict in found.items() if verdict == Verdict.GOOD]
    share = 1 - len(missed) / len(found)
    count = f"{len(found) - len(missed)} of {len(found)}"
    print(f"\nfound {count} planted mistakes ({share:.0%}); missed: {missed or 'none'}")
    assert len(found) >= 20
    assert share >= 0.9

"""What people write from habit in their first hour, and what comes: it works, or says how."""

import inspect

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import data, nn, optim, train
from fastconv.train import Trainer, evaluate
from fastconv.train.setup import fill

X = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def net():
    fastconv.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


def trainer(model=None, **options):
    model = net() if model is None else model
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model, lr=0.5), progress=False, **options)


def batches():
    for start in range(0, 64, 16):
        yield X[start : start + 16], Y[start : start + 16]


FITS = {
    "X, Y": lambda run: run.fit(X, Y, epochs=3),
    "(X, Y)": lambda run: run.fit((X, Y), epochs=3),
    "[X, Y]": lambda run: run.fit([X, Y], epochs=3),
    "float64 and small labels": lambda run: run.fit(X.astype(np.float64), Y.astype(np.uint8), epochs=3),
    "lists": lambda run: run.fit(X.tolist(), Y.tolist(), epochs=3),
    "validation behind": lambda run: run.fit(X, Y, (X, Y), epochs=3),
    "validation by name": lambda run: run.fit(X, Y, validation=(X.tolist(), Y), epochs=3),
    "Batches": lambda run: run.fit(data.DataLoader(X, Y, 64), epochs=3),
}


@pytest.mark.parametrize("name", FITS)
def test_every_way_to_give_arrays_trains_alike(name):
    run, plain = trainer(keep_best=False), trainer(keep_best=False)
    FITS[name](run)
    plain.fit((X, Y), epochs=3)
    for p, q in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        assert_array_equal(p.data, q.data)


def test_tensors():
    torch = pytest.importorskip("torch")
    run, plain = trainer(), trainer()
    run.fit(torch.tensor(X), torch.tensor(Y), epochs=2)
    plain.fit(X, Y, epochs=2)
    x = torch.tensor(X)
    assert_array_equal(run.model.predict(x), plain.model.predict(X))


def test_generators_are_training_data():
    run, plain = trainer(), trainer()
    run.fit(batches, epochs=3)  # the function that makes one
    plain.fit(list(batches()), epochs=3)
    for p, q in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        assert_array_equal(p.data, q.data)
    assert run.history["steps"] == [4, 8, 12]
    run.fit(batches(), epochs=1)
    with pytest.raises(ValueError, match=r"gives its batches once, and 2 epochs need them; pass the function"):
        run.fit(batches(), epochs=2)
    with pytest.raises(TypeError, match=r"inputs of shape \(64, 2\) without their targets: fit\(X, Y, epochs"):
        run.fit(X, epochs=1)
    with pytest.raises(TypeError, match="the training data are a int; give arrays"):
        run.fit(3, epochs=1)


def test_prediction_takes_what_fit_takes():
    model = net()
    expected = model.predict(X)
    for other in (X.tolist(), X.astype(np.float64), X.astype(">f4")):
        assert_array_equal(model.predict(other), expected)
    whole = np.arange(6).reshape(3, 2)
    assert_array_equal(model.predict(whole), model.predict(whole.astype(np.float32)))
    assert_array_equal(model.predict(whole > 2), model.predict((whole > 2).astype(np.float32)))
    assert_array_equal(model.predict(X.tolist(), 7), expected)
    for wrong, words in (("x", "must be a NumPy array"), (X.astype(complex), "must hold real numbers"),
                         ([["a"]], "must hold real numbers")):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            model.predict(wrong)


def test_the_loop_of_other_libraries():
    """optimizer = SGD(model); loss = criterion(model(x), y); loss.backward(); optimizer.step()"""
    by_hand, plain = net(), trainer(keep_best=False)
    optimizer, criterion = optim.SGD(by_hand, lr=0.5), nn.CrossEntropyLoss()
    for _ in range(3):
        for x, y in batches():
            optimizer.zero_grad()
            loss = criterion(by_hand(x), y)
            loss.backward()
            optimizer.step()
    plain.fit(list(batches()), epochs=3)
    for p, q in zip(by_hand.parameters(), plain.model.parameters(), strict=True):
        assert_array_equal(p.data, q.data)


def test_a_plain_function_is_a_callback():
    seen = []
    trainer(callbacks=[lambda run: seen.append(run.history[-1]["epoch"])]).fit(X, Y, epochs=3)
    assert seen == [1, 2, 3]


def test_names_that_people_look_for():
    assert train.EarlyStopping is train.Patience
    assert data.DataLoader is data.Batches
    model = net()
    assert [type(layer).__name__ for layer in model.children()] == ["Linear", "ReLU", "Linear"]
    seen = []
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert seen == ["Linear", "ReLU", "Linear", "Sequential"]
    assert sum(p.numel() for p in model.parameters()) == 2 * 8 + 8 + 8 * 2 + 2
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model[2].requires_grad_()
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    before = model.predict(X)
    assert model.append(nn.Softmax()) is model
    assert_array_equal(model.predict(X).argmax(1), before.argmax(1))
    assert not np.array_equal(model.predict(X), before)
    model[3] = nn.Identity()
    assert_array_equal(model.predict(X), before)
    model["3"] = nn.ReLU()
    assert isinstance(model[3], nn.ReLU)
    for wrong, error in ((lambda: model.append(model[0]), ValueError), (lambda: model.append(3), TypeError),
                         (lambda: model.__setitem__("x", nn.ReLU()), KeyError)):  # fmt: skip
        with pytest.raises(error):
            wrong()
    assert len(model) == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Conv2d(1, 2, kernel=3), r"Conv2d: no argument 'kernel'; did you mean 'kernel_size'\?"),
        (lambda: nn.Conv1d(1, 2, 3, paddings=1), r"Conv1d: no argument 'paddings'; did you mean 'padding'\?"),
        (lambda: nn.CrossEntropyLoss(smoothing=0.1), "CrossEntropyLoss: no argument 'smoothing'; did you mean"),
        (lambda: optim.SGD(net(), learning_rate=0.1), "SGD: no argument 'learning_rate'; it has params, lr, momentum"),
        (lambda: optim.Adam(net(), weight_deca=0.1), r"Adam: no argument 'weight_deca'; did you mean 'weight_decay'\?"),
        (lambda: train.Patience(epoch=3), r"Patience: no argument 'epoch'; did you mean 'epochs'\?"),
        (lambda: trainer(clipnorm=1), r"Trainer: no argument 'clipnorm'; did you mean 'clip_norm'\?"),
        (lambda: fill("digits", epoch=3), r"fill: no option 'epoch'; did you mean 'epochs'\?"),
        (lambda: nn.LeakyReLU(0.1, inplace=True), "LeakyReLU: no argument 'inplace'; leave it out"),
    ],
)
def test_a_wrong_keyword_names_the_class_and_the_nearest_argument(make, words):
    with pytest.raises(TypeError, match=words):
        make()


PLAIN = [
    value
    for value in (*vars(nn).values(), *vars(train).values())
    if inspect.isclass(value) and issubclass(value, (nn.Module, train.Callback)) and value.__init__ is object.__init__
]


@pytest.mark.parametrize("owner", PLAIN)
def test_a_class_that_takes_nothing_refuses_everything(owner):
    with pytest.raises(TypeError, match=f"^{owner.__name__}: takes no arguments, got 3$"):
        owner(3)
    with pytest.raises(TypeError, match=f"^{owner.__name__}: no argument 'size'; it has none$"):
        owner(size=3)
    owner()
    assert not inspect.signature(owner).parameters


def test_a_misspelt_name_brings_the_nearest():
    from fastconv import models

    for wrong, words in (
        (lambda: models.build("resnet21", (3, 32, 32), 10), "no model 'resnet21'; .*did you mean 'resnet20'"),
        (lambda: fill("digits", model="mnist_small"), "unknown model 'mnist_small'; .*did you mean 'mnist-small'"),
        (lambda: fill("digits", schedule="cosin"), "unknown schedule .*did you mean 'cosine'"),
        (lambda: fill("digits", optimizer="adamm"), "unknown optimiser .*did you mean 'adam"),
        (lambda: trainer(metrics="f1_makro"), "no metric .*did you mean 'f1_macro'"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_a_plateau_lowers_the_rate():
    run = trainer(callbacks=[train.ReduceLROnPlateau(factor=0.5, patience=1, threshold=10.0, min_lr=0.1)])
    run.fit(X, Y, epochs=10)  # no loss ever falls to less than nothing
    assert run.history["lr"] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.1, 0.1, 0.1]
    with pytest.raises(ValueError, match=r"factor must be in \(0, 1\), got 1"):
        train.ReduceLROnPlateau(factor=1)


def test_evaluation_of_what_was_trained():
    run = trainer()
    run.fit(X, Y, epochs=20)
    assert evaluate(run.model, nn.CrossEntropyLoss(), list(batches())).accuracy > 0.9


def test_a_hook_between_backward_and_step_sees_the_gradients():
    norms = []

    class Look(train.Callback):
        def on_gradients(self, run):
            norms.append(float(sum((p.grad**2).sum() for p in run.model.parameters())) ** 0.5)

    run = trainer(callbacks=[Look()])
    run.fit(X, Y, epochs=2, batch_size=32)
    assert len(norms) == run.step == 4
    assert min(norms) > 0


def test_batches_add_up_to_one_update():
    """Two halves of a batch, accumulated, are the update of the whole one, but for rounding."""
    halves, whole = trainer(keep_best=False, accumulate=2), trainer(keep_best=False)
    halves.fit([(X[:32], Y[:32]), (X[32:], Y[32:])], epochs=3)
    whole.fit([(X, Y)], epochs=3)
    assert halves.step == whole.step == 3
    for p, q in zip(halves.model.parameters(), whole.model.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, atol=1e-5)


def test_metrics_by_name_and_by_function():
    metrics = pytest.importorskip("sklearn.metrics")
    run = trainer(metrics=["accuracy", "top5", "f1_macro", "iou", metrics.balanced_accuracy_score], monitor="f1_macro")
    run.fit(X, Y, (X, Y), epochs=3)
    last = run.history[-1]
    taken = run.model.predict(X).argmax(axis=1)
    assert last["validation_balanced_accuracy_score"] == pytest.approx(metrics.balanced_accuracy_score(Y, taken))
    assert last["validation_top5"] == 1  # of two classes
    assert last["validation_f1_macro"] == pytest.approx(metrics.f1_score(Y, taken, average="macro"))
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    target = X[:, :1] * 2 - X[:, 1:]
    run = Trainer(model, nn.MSELoss(), optim.Adam(model, lr=0.02), metrics=["mae", "r2"], monitor="r2", progress=False)
    run.fit(X, target, (X, target), epochs=30)
    assert run.history[-1]["validation_r2"] == pytest.approx(metrics.r2_score(target, model.predict(X)), abs=1e-6)
    assert run.history[-1]["validation_r2"] > 0.5
    with pytest.raises(ValueError, match="has no name; give a dict"):
        trainer(metrics=[lambda y, p: 0.0])


@pytest.mark.parametrize("make", [
    lambda: nn.MaxPool2d(2)(np.zeros((1, 1, 1, 1), np.float32)),
    lambda: nn.MaxPool2d(2, return_indices=True)(np.zeros((1, 1, 1, 1), np.float32)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(3))(np.zeros((2, 1, 4, 4), np.float32)),
    lambda: nn.Linear(3, 2)(np.zeros((2, 4), np.float32)),
    lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 1))(np.zeros((2, 3), np.float32)),
    lambda: nn.BatchNorm2d(3)(np.zeros((2, 4, 5, 5), np.float32)),
    lambda: nn.GlobalMaxPool2d()(np.zeros((2, 3), np.float32)),
    lambda: nn.Conv2d(3, 4, 3)(np.zeros((2, 1, 8, 8), np.float32)),
])  # fmt: skip
def test_internal_names_never_reach_a_user(make):
    """An error names what the user called, a public function or class."""
    public = {*fastconv.functional.__all__, *nn.__all__}
    with pytest.raises((ValueError, TypeError)) as caught:
        make()
    first = str(caught.value).split(":")[0]
    names = {word for word in first.replace("(", " ").replace(".", " ").split() if word.isidentifier()}
    assert names & public, str(caught.value)
    assert "_like" not in str(caught.value)


def test_a_range_that_is_none_is_told_how_ranges_are_written():
    pytest.importorskip("optuna")
    from click.testing import CliRunner

    from fastconv.cli import main

    found = CliRunner().invoke(main, ["search", "--lr", "1e-3-1"], prog_name="fastconv")
    assert found.exit_code == 2
    assert "LOW:HIGH" in found.output

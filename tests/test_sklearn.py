"""Nets as estimators: scikit-learn's own checks, and everything that takes an estimator."""

import doctest
import pickle
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("sklearn")

import joblib
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastconv import models, nn, optim, random
from fastconv.sklearn import ConvClassifier, ConvRegressor

ROWS, LABELS = load_digits(return_X_y=True)
ROWS = (ROWS[:400] / 16).astype(np.float32)
LABELS = LABELS[:400]
IMAGES = ROWS.reshape(-1, 1, 8, 8)


def quick(**given):
    return ConvClassifier(**{"model": "mnist-small", "epochs": 3, "random_state": 0, **given})


def small(shape, classes, width=8):
    channels, height, rows = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * (height - 2) * (rows - 2), classes)
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimator's parameters changed after estimator initialization")
@parametrize_with_checks([
    ConvClassifier(), ConvRegressor(),
    ConvClassifier(optimizer__lr=0.003, trainer__clip_norm=5.0),
])  # fmt: skip
def test_the_checks_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_flat_rows_and_images_are_the_same_samples():
    rows, deep = quick(image_shape=(8, 8)), quick(image_shape=[1, 8, 8])
    nets = [
        rows.fit(ROWS, LABELS), deep.fit(ROWS, LABELS.tolist()), clone(rows).fit(IMAGES, LABELS),
        quick().fit(IMAGES, LABELS), quick().fit(IMAGES[:, 0], LABELS),
    ]  # fmt: skip
    expected = nets[0].predict_proba(ROWS)
    assert nets[0].score(ROWS, LABELS) > 0.5  # of ten classes, after three epochs of seven updates
    for net in nets:
        assert net.n_features_in_ == 64
        assert net.image_shape_ == (1, 8, 8)
        for X in (ROWS, IMAGES, IMAGES[:, 0], IMAGES.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)):
            assert_array_equal(net.predict_proba(X), expected)


def test_dtypes():
    assert quick().fit(IMAGES.astype(np.uint8), LABELS).predict_proba(IMAGES).dtype == np.float32
    wide = quick().fit(IMAGES.astype(np.float64), LABELS)
    assert next(wide.model_.parameters()).data.dtype == np.float64
    assert wide.predict_proba(IMAGES).dtype == np.float64
    wide.fit(IMAGES, LABELS)
    assert next(wide.model_.parameters()).data.dtype == np.float32


def test_labels_of_any_kind():
    plain = quick().fit(IMAGES, LABELS)
    for names in (np.array([f"digit {i}" for i in range(10)]), np.arange(10) * 7 - 20, np.arange(10) / 1.0,
                  np.array([f"digit {i}" for i in range(10)], object)):  # fmt: skip
        net = quick().fit(IMAGES, names[LABELS])
        assert_array_equal(net.classes_, names)
        assert_array_equal(net.predict(IMAGES), names[plain.predict(IMAGES)])
        assert net.predict(IMAGES).dtype == names.dtype
    net = quick().fit(IMAGES, LABELS > 4)
    assert_array_equal(net.classes_, [False, True])
    assert net.predict_proba(IMAGES).shape == (400, 2)


def test_models_by_name_module_and_function():
    named = quick().fit(IMAGES, LABELS)
    seed = named._seed
    with random.seeded(seed):
        module = small((1, 8, 8), 10, 12)
    before = [p.data.copy() for p in module.parameters()]
    as_module = quick(model=module).fit(IMAGES, LABELS)
    made = quick(model=small, model__width=12).fit(IMAGES, LABELS)
    assert_array_equal(as_module.predict_proba(IMAGES), made.predict_proba(IMAGES))
    for p, q in zip(module.parameters(), before, strict=True):
        assert_array_equal(p.data, q)  # a fit trains a copy
    assert ConvClassifier(epochs=1).fit(IMAGES[:20], LABELS[:20]).model_.state_dict().keys() == models.build(
        "cifar-small", (1, 8, 8), 10
    ).state_dict().keys()
    assert isinstance(ConvClassifier(epochs=1).fit(ROWS[:20], LABELS[:20]).model_[0], nn.Flatten)


def test_a_fit_leaves_the_source_of_numbers_of_layers_alone():
    random.manual_seed(3)
    expected = [nn.Linear(2, 2).weight.data for _ in range(2)]
    random.manual_seed(3)
    found = [nn.Linear(2, 2).weight.data]
    quick(epochs=1).fit(IMAGES, LABELS)
    found.append(nn.Linear(2, 2).weight.data)
    assert_array_equal(found, expected)


def test_nested_parameters():
    net = quick(optimizer="sgd", optimizer__lr=0.1, optimizer__momentum=0.9, loss__label_smoothing=0.1)
    assert net.optimizer_params == {"lr": 0.1, "momentum": 0.9}
    assert net.get_params()["optimizer__momentum"] == 0.9
    assert "optimizer__momentum" not in net.get_params(deep=False)
    twin = clone(net).set_params(optimizer__lr=0.2, epochs=1, trainer__clip_norm=1.0)
    assert (net.optimizer_params["lr"], twin.optimizer_params["lr"], twin.epochs) == (0.1, 0.2, 1)
    twin.fit(IMAGES, LABELS)
    optimizer = twin.trainer_.optimizer
    assert (type(optimizer), optimizer.lr, optimizer.momentum) == (optim.SGD, 0.2, 0.9)
    assert twin.trainer_.loss.label_smoothing == 0.1
    assert twin.history_["gradient_norm"][0] > 0
    assert "optimizer_params={'lr': 0.1" in repr(net)


def test_the_same_random_state_has_the_same_bits():
    for state in (5, np.int64(5)):
        nets = [quick(random_state=state).fit(IMAGES, LABELS) for _ in range(2)]
        assert_array_equal(nets[0].predict_proba(IMAGES), nets[1].predict_proba(IMAGES))
    generator = np.random.RandomState(0)
    nets = [quick(random_state=generator).fit(IMAGES, LABELS) for _ in range(2)]
    assert (nets[0].predict_proba(IMAGES) != nets[1].predict_proba(IMAGES)).any()


def test_weights_of_samples_and_classes():
    rng = np.random.default_rng(0)
    order = rng.permutation(60)
    weight = rng.integers(0, 4, 60)
    X, y = IMAGES[:60].astype(np.float64), LABELS[:60]
    repeated = quick(model="linear").fit(X.repeat(weight, 0), y.repeat(weight))
    whole = quick(model="linear", batch_size=200).fit(X.repeat(weight, 0), y.repeat(weight))
    weighed = quick(model="linear", batch_size=200).fit(X[order], y[order], sample_weight=weight[order])
    np.testing.assert_allclose(weighed.predict_proba(X), whole.predict_proba(X), rtol=1e-12)
    assert (repeated.predict_proba(X) != whole.predict_proba(X)).any()

    rare = np.r_[np.flatnonzero(LABELS == 0)[:3], np.flatnonzero(LABELS == 1)]
    X, y = IMAGES[rare], LABELS[rare]
    balanced = quick(model="linear", class_weight="balanced").fit(X, y)
    by_hand = quick(model="linear").fit(X, y, sample_weight=len(y) / (2 * np.bincount(y))[y])
    assert_array_equal(balanced.predict_proba(X), by_hand.predict_proba(X))
    told = quick(model="linear", class_weight={0: 50.0}).fit(X, y)
    by_hand = quick(model="linear").fit(X, y, sample_weight=np.where(y == 0, 50.0, 1.0))
    assert_array_equal(told.predict_proba(X), by_hand.predict_proba(X))


def test_early_stopping_keeps_the_best():
    net = quick(
        epochs=60, early_stopping=True, validation_fraction=0.3, n_iter_no_change=3, optimizer__lr=0.01
    ).fit(IMAGES, LABELS, sample_weight=np.ones(400))  # fmt: skip
    history = net.history_
    assert net.n_iter_ == len(history) < 60
    best = max(history, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))
    assert best["epoch"] == net.n_iter_ - 3 == net.trainer_.best_epoch
    assert history[-1]["steps"] == net.n_iter_ * 5  # 280 of 400, in batches of 64


def test_warm_start_goes_on():
    cold, warm = quick(), quick(warm_start=True)
    for net in (cold, warm):
        net.fit(IMAGES, LABELS)
    first = warm.history_["loss"]
    assert_array_equal(first, cold.history_["loss"])
    warm.fit(IMAGES, LABELS)
    assert warm.history_["loss"][0] < first[-1]
    with pytest.raises(ValueError, match="none of the classes"):
        warm.fit(IMAGES, LABELS + 5)


def test_partial_fit_goes_on_also_after_a_pickle():
    plain, copied = quick(), quick()
    for turn in range(3):
        plain.partial_fit(IMAGES, LABELS, np.arange(10))
        copied.partial_fit(IMAGES, LABELS, np.arange(10) if turn == 0 else None)
        copied = pickle.loads(pickle.dumps(copied))
    assert_array_equal(plain.predict_proba(IMAGES), copied.predict_proba(IMAGES))
    assert plain.n_iter_ == 3
    whole = quick(epochs=3).fit(IMAGES, LABELS)  # epochs of one fit have the very orders
    assert_array_equal(plain.predict_proba(IMAGES), whole.predict_proba(IMAGES))
    fitted = quick(schedule="cosine").fit(IMAGES, LABELS)
    before = fitted.predict_proba(IMAGES)
    fitted.partial_fit(IMAGES, LABELS)
    assert (fitted.predict_proba(IMAGES) != before).any()


def test_files(tmp_path):
    net = make_pipeline(MinMaxScaler(), quick(image_shape=(8, 8))).fit(ROWS, LABELS)
    expected = net.predict_proba(ROWS)
    joblib.dump(net, tmp_path / "net.joblib")
    assert_array_equal(joblib.load(tmp_path / "net.joblib").predict_proba(ROWS), expected)
    joblib.dump(net, tmp_path / "mapped.joblib")
    assert_array_equal(joblib.load(tmp_path / "mapped.joblib", mmap_mode="r").predict_proba(ROWS), expected)
    assert_array_equal(pickle.loads(pickle.dumps(net)).predict_proba(ROWS), expected)


@pytest.mark.slow
def test_everything_that_takes_an_estimator():
    net = make_pipeline(StandardScaler(), quick(epochs=10, image_shape=(8, 8)))
    assert cross_val_score(net, ROWS, LABELS, cv=3).min() > 0.5  # of ten classes
    grid = {"convclassifier__optimizer__lr": [1e-4, 3e-3], "convclassifier__model": ["mnist-small", "linear"]}
    found = [GridSearchCV(net, grid, cv=2, n_jobs=jobs).fit(ROWS, LABELS) for jobs in (1, 2)]
    assert_array_equal(found[0].cv_results_["mean_test_score"], found[1].cv_results_["mean_test_score"])
    assert found[1].best_params_["convclassifier__optimizer__lr"] == 3e-3
    assert_array_equal(found[0].predict_proba(ROWS), found[1].predict_proba(ROWS))
    assert found[1].best_estimator_[-1].trainer_.optimizer.lr == 3e-3
    calibrated = CalibratedClassifierCV(quick(), cv=2).fit(IMAGES, LABELS)
    assert calibrated.score(IMAGES, LABELS) > 0.5


def test_the_examples():
    assert doctest.testmod(sys.modules["fastconv.sklearn.estimators"]).failed == 0


def test_html():
    net = make_pipeline(MinMaxScaler(), quick(optimizer__lr=0.01))
    assert "ConvClassifier" in net._repr_html_()
    assert "0.01" in net[-1]._repr_html_()
    with config_context(display="text"):
        assert repr(quick()) == "ConvClassifier(epochs=3, model='mnist-small', random_state=0)"


def test_regression():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = 200 + 50 * X[:, 0] * X[:, 1]
    net = TransformedTargetRegressor(ConvRegressor(epochs=60, random_state=0), transformer=StandardScaler())
    assert net.fit(X, y).score(X, y) > 0.9
    both = ConvRegressor(epochs=5, random_state=0).fit(X, np.c_[X[:, 0], X[:, 1]])
    assert both.predict(X).shape == (300, 2)
    assert both.n_outputs_ == 2
    for loss in ("l1", "smooth_l1", "huber", nn.HuberLoss(delta=2.0), nn.L1Loss):
        assert ConvRegressor(epochs=1, loss=loss, random_state=0).fit(X, X[:, 0]).predict(X).shape == (300,)
    images = ConvRegressor(small, epochs=20, random_state=0).fit(IMAGES, IMAGES.mean((1, 2, 3)) * 10)
    assert images.score(IMAGES, IMAGES.mean((1, 2, 3)) * 10) > 0.5
    parts = ConvRegressor(random_state=0)
    for _ in range(4):
        parts.partial_fit(X, X[:, 0])
    whole = ConvRegressor(epochs=4, random_state=0).fit(X, X[:, 0])
    assert_array_equal(parts.predict(X), whole.predict(X))
    with pytest.raises(ValueError, match="was fitted to 1 outputs"):
        parts.partial_fit(X, X[:, :2])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"model": "lenet6"}, ValueError, "ConvClassifier: model 'lenet6' is unknown; there are auto, linear"),
        ({"model": "lenet5"}, ValueError, r"lenet5 takes images, and X holds rows of 64 numbers; give image_shape="),
        ({"model": "resnet20"}, ValueError, r"resnet20 takes images, and X holds rows"),
        ({"model": "lenet5", "image_shape": (8, 8)}, ValueError, "at least 28×28 pixels, got 8×8"),
        ({"model": 3}, TypeError, "model must be a name, a module or a function"),
        ({"model": "mlp", "model__width": 3}, ValueError, "nets of the zoo take no model__width"),
        ({"model": lambda shape, classes: 3}, TypeError, "returned a int, not a Module"),
        ({"model": nn.Linear(64, 3)}, ValueError, r"must return \(N, 10\), got shape \(1, 3\)"),
        ({"image_shape": (8, 9)}, ValueError, r"X has 64 features, image_shape=\(1, 8, 9\) would be 72"),
        ({"image_shape": 8}, ValueError, "image_shape must be"),
        ({"loss": "mse"}, ValueError, "loss 'mse' is unknown; there are cross_entropy, multi_margin"),
        ({"optimizer": "sdg"}, ValueError, "optimizer 'sdg' is unknown; there are sgd, adam"),
        ({"optimizer__momentm": 0.9}, TypeError, "no argument 'momentm'"),
        ({"optimizer_params": 3}, TypeError, "optimizer_params must be a dict or None, got 3"),
        ({"trainer__clipnorm": 1}, TypeError, "Trainer: no argument 'clipnorm'; did you mean 'clip_norm'"),
        ({"schedule": "cosin"}, ValueError, "schedule 'cosin' is unknown; there are constant"),
        ({"epochs": 0}, ValueError, "ConvClassifier: epochs must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "ConvClassifier: batch_size must be at least 1, got 0"),
        ({"early_stopping": True, "validation_fraction": 1.5}, ValueError, r"must be in \(0, 1\), got 1.5"),
    ],
)
def test_wrong_parameters_are_told_at_the_fit(given, error, words):
    with pytest.raises(error, match=words):
        ConvClassifier(**{"epochs": 1, **given}).fit(ROWS, LABELS)


def test_wrong_names_and_data():
    with pytest.raises(TypeError, match=r"ConvClassifier: no argument 'epoch'; did you mean 'epochs'\?"):
        ConvClassifier(epoch=3)
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        ConvClassifier().set_params(epoch=3)
    net = quick()
    for given, words in (
        ((IMAGES[:3], LABELS[:3], [1.0, -1.0, 1.0]), "must be finite and at least 0"),
        ((IMAGES[:3], LABELS[:3], [1.0]), r"must have shape \(3,\), got \(1,\)"),
        ((IMAGES[:3], LABELS[:3], [0, 0, 0]), "sample_weight is zero for all samples"),
        ((IMAGES[:3], [1, 1, 1]), "there is 1 class, np.int64.1.; there must be at least 2 classes"),
        ((IMAGES[:3], [0.5, 1.5, 2.5]), "Unknown label type"),
        ((IMAGES[None, :3], [1]), r"must be \(N, features\), \(N, H, W\) or \(N, C, H, W\), got shape \(1, 3, 1"),
    ):
        with pytest.raises(ValueError, match=words):
            net.fit(*given)
    with pytest.raises(ValueError, match="the first call needs classes="):
        net.partial_fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="early_stopping needs all data at once"):
        quick(early_stopping=True).partial_fit(IMAGES, LABELS, range(10))
    with pytest.raises(ValueError, match="class_weight='balanced' needs all labels"):
        quick(class_weight="balanced").partial_fit(IMAGES, LABELS, range(10))
    net.partial_fit(IMAGES, LABELS, range(10))
    with pytest.raises(ValueError, match="are not those of the first call"):
        net.partial_fit(IMAGES, LABELS, range(11))
    with pytest.raises(ValueError, match=r"y holds .*12.*, which is none of the classes"):
        net.partial_fit(IMAGES[:2], [1, 12])
    with pytest.raises(ValueError, match=r"was fitted to images \(1, 8, 8\), X has images \(4, 4, 4\)"):
        net.predict(IMAGES.reshape(-1, 4, 4, 4))
    with pytest.raises(ValueError, match="not fitted"):
        quick().predict(IMAGES)

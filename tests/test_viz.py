"""Pictures: what is drawn is the data; odd data, many layers and few epochs do not break them."""

import io
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import data, nn, viz
from fastconv.cli import main
from fastconv.train import History, RunWriter
from fastconv.train.run import read_record

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'fastconv[plot]'")


def rng(seed=0):
    return np.random.default_rng(seed)


def history(epochs=5, validation=True, seed=0):
    draw = rng(seed)
    return History(
        {
            "epoch": k + 1,
            "loss": float(2 / (k + 1)),
            "accuracy": float(1 - 0.5 / (k + 1)),
            "validation_loss": float(2.2 / (k + 1) + draw.random() / 10) if validation else None,
            "validation_accuracy": float(0.9 - 0.4 / (k + 1)) if validation else None,
        }
        for k in range(epochs)
    )


def drawn(figure):
    """Render, which is where matplotlib finds most faults; return the figure."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def lines(ax):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.lines}


def image(ax):
    (shown,) = ax.images
    return np.ma.filled(np.ma.asarray(shown.get_array(), float), np.nan)


def texts(figure):
    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def net(channels=1, size=12):
    fastconv.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4 * ((size - 2) // 2) ** 2, 16), nn.ReLU(), nn.Linear(16, 3),
        input_grad=False,
    )  # fmt: skip


def samples(n=6, channels=1, size=12):
    return rng(1).normal(size=(n, channels, size, size)).astype(np.float32)


# ---- curves


def test_curves_show_the_history_and_the_gap():
    past = history()
    figure = drawn(viz.curves(past))
    for ax, key in zip(figure.axes, ("loss", "accuracy"), strict=True):
        shown = lines(ax)
        assert shown["training"].tolist() == past[key]
        assert shown["validation"].tolist() == past[f"validation_{key}"]
        assert len(ax.collections) == 2  # the shade and its end
    gap = 100 * (past[-1]["validation_accuracy"] - past[-1]["accuracy"])
    assert f"{gap:+.1f} points".replace("-", "−") in texts(figure)


def test_curves_of_several_runs():
    runs = {"one": history(), "two": history(3, seed=1), "_three": history(validation=False)}
    figure = drawn(viz.curves(runs))
    ys = [np.asarray(line.get_ydata(), float).tolist() for line in figure.axes[0].lines]
    for name, past in runs.items():
        assert past["loss"] in ys
        assert name == "_three" or past["validation_loss"] in ys
    for name in ("one", "two", "_three", "validation", "training"):
        assert name in texts(figure)


def test_a_run_before_its_first_epoch_has_no_curves(tmp_path):
    RunWriter.start(tmp_path / "run", {}).close()
    pictures = viz.RunPictures(tmp_path / "run")
    with pytest.raises(viz.Missing, match="no epoch of it has ended"):
        pictures.draw("curves")
    with pytest.raises(ValueError, match=r"unknown picture 'curve'; .*did you mean 'curves'"):
        pictures.draw("curve")


def test_of_many_runs_the_best_are_named():
    runs = {f"run {i}": History([{"epoch": 1, "loss": 2.0, "validation_accuracy": i / 100}]) for i in range(40)}
    figure = drawn(viz.loss(runs))
    assert "run 39" in texts(figure)
    assert "run 29" not in texts(figure)
    assert "30 more runs" in texts(figure)


@pytest.mark.parametrize("past", [
    History(), history(1), history(1, validation=False), history(2), history(4, validation=False),
    History([{"epoch": 1, "loss": None, "validation_loss": None}, {"epoch": 2, "loss": float("nan")}]),
    History([{"epoch": 1, "loss": 1.0, "accuracy": None}, {"epoch": 2, "loss": float("inf")}]),
    History([{"epoch": k, "loss": 10.0**-k} for k in range(1, 6)]),
])  # fmt: skip
def test_odd_histories(past):
    for draw in (viz.curves, viz.loss, viz.accuracy):
        figure = drawn(draw(past))
        if "training" in lines(figure.axes[0]) and len(past) == 1:
            assert figure.axes[0].lines[0].get_marker() == "."
            assert figure.axes[0].get_xticks().tolist() == [1]
    drawn(viz.curves({"a": past, "b": past}))
    if not len(past):
        assert "no epoch yet" in texts(viz.loss(past))


def test_a_wide_range_of_losses_has_a_log_scale():
    assert viz.loss(History({"epoch": k, "loss": 10.0**-k} for k in range(5))).axes[0].get_yscale() == "log"
    assert viz.loss(history()).axes[0].get_yscale() == "linear"


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="no run to draw"):
        viz.curves([])


def test_an_axes_of_ones_own():
    figure = matplotlib.figure.Figure()
    left, right = figure.subplots(1, 2)
    sub = figure.subfigures(1, 2)[1].subplots()
    assert viz.loss(history(), ax=left) is figure
    assert viz.confusion(np.eye(3, dtype=int), ax=right) is figure
    assert viz.filters(rng().normal(size=(4, 1, 3, 3)), ax=sub) is figure
    assert lines(left)["training"].tolist() == history()["loss"]


def test_learning_rate_range():
    rates, losses = np.logspace(-5, 1, 30), np.linspace(2.3, 0.5, 30)
    losses[-3:] = 40, np.inf, np.nan
    accuracies = np.linspace(0.1, 0.9, 30)
    figure = drawn(viz.learning_rate_range(rates, losses, accuracies, (1e-3, 1e-1)))
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), rates)
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), losses)
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), accuracies)
    assert loss.get_ylim() == (0, 3 * 2.3)
    assert "suggested 0.001 to 0.1" in texts(figure)
    assert "suggested 0.02" in texts(drawn(viz.learning_rate_range([1e-3, 1e-1], [1.0, 0.5], suggestion=0.02)))
    drawn(viz.learning_rate_range([1e-3], [np.nan], [None]))
    with pytest.raises(ValueError, match="3 rates but 2 losses"):
        viz.learning_rate_range([1, 2, 3], [1, 2])


@pytest.mark.parametrize("layers", [1, 3, 40])
def test_update_ratios(layers):
    def ratios(k):
        return {f"{i}.weight": 1e-3 * (i + 1) / (k + 1) for i in range(layers)}

    steps = [{"step": 10 * k, "update_ratio": ratios(k)} for k in range(6)] + [{"step": 70, "grad_norm": {}}]
    steps[2]["update_ratio"]["0.weight"] = None  # was infinite
    steps[3]["update_ratio"]["0.weight"] = 0.0
    figure = drawn(viz.update_ratios(steps))
    first, last = figure.axes[0].lines[0], figure.axes[0].lines[-2]
    assert list(first.get_xdata()) == [0, 10, 20, 30, 40, 50]
    assert np.isnan(first.get_ydata()).tolist() == [False, False, True, True, False, False]
    assert last.get_ydata()[-1] == steps[5]["update_ratio"][f"{layers - 1}.weight"]
    assert ("40 weights" in texts(figure)) == (layers == 40)
    with pytest.raises(ValueError, match="none of 1 step records has update_ratio"):
        viz.update_ratios([{"step": 1}])


def test_gradient_norms_and_dead_units():
    def layers(k):
        return {"0": {"dead": 0.0}, "1": {"dead": k / 10}}

    steps = [{"step": k, "grad_norm": {"0.weight": 2.0 * k}, "activations": layers(k)} for k in range(4)]
    (line,) = drawn(viz.gradient_norms(steps)).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 2, 4, 6])
    (line,) = drawn(viz.dead_units(steps)).axes[0].lines
    assert line.get_label() == "layer 1"
    np.testing.assert_array_equal(line.get_ydata(), [0, 0.1, 0.2, 0.3])
    many = [{"step": 1, "grad_norm": {f"{i}.{p}": 1.0 for i in range(9) for p in ("weight", "bias")}}]
    many.append({**many[0], "update_ratio": {f"{i}.weight": 1.0 for i in range(9)}})
    assert len(drawn(viz.gradient_norms(many)).axes[0].lines) == 9
    assert "none" in texts(drawn(viz.dead_units([{"step": 1, "activations": layers(0)}])))
    for draw in (viz.gradient_norms, viz.dead_units):
        with pytest.raises(ValueError, match="none of 0 step records"):
            draw([])


# ---- weights


def test_mosaic():
    tiles = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    sheet = viz.mosaic(tiles, columns=3, zoom=1)
    assert sheet.shape == (5, 11)
    for i, tile in enumerate(tiles):
        top, left = i // 3 * 3, i % 3 * 4
        np.testing.assert_array_equal(sheet[top : top + 2, left : left + 3], tile)
    assert np.isnan(sheet).sum() == 55 - 30
    assert viz.mosaic(tiles, 3, zoom=2)[:4:2, :6:2].tolist() == tiles[0].tolist()
    assert viz.mosaic(np.zeros((8, 3, 3)), zoom=1).shape == (7, 15)  # 4 columns: no open row
    assert viz.mosaic(np.zeros((7, 3, 3, 3)), zoom=1, gap=2).shape == (13, 13, 3)


@pytest.mark.parametrize(("filters", "channels"), [(6, 1), (32, 3), (8, 4), (300, 1), (256, 3), (96, 64)])
def test_filters_are_the_weights(filters, channels):
    weight = rng().normal(size=(filters, channels, 3, 3)).astype(np.float32)
    figure = drawn(viz.filters(weight))
    shown = image(figure.axes[0])
    if channels == 3:
        limit = np.abs(weight).max()
        np.testing.assert_allclose(shown[0, 0], 0.5 + weight[0, :, 0, 0] / (2 * limit), rtol=1e-6)
        assert shown.min() >= 0
        assert shown.max() <= 1
    else:
        columns = channels if channels > 1 and filters * channels <= 1024 else None
        np.testing.assert_array_equal(shown, viz.mosaic(weight.reshape(-1, 3, 3)[:1024], columns))
    assert f"{filters} filters of 3×3" in texts(figure)
    assert ("first 1024" in texts(figure)) == (channels == 64)


def test_filters_of_a_model():
    model = net()
    np.testing.assert_array_equal(image(viz.filters(model).axes[0]), viz.mosaic(model[0].weight.data[:, 0]))
    model[0].weight.data[0, 0, 0, 0] = np.nan
    drawn(viz.filters(model))
    with pytest.raises(ValueError, match="the model has no Conv2d"):
        viz.filters(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"4 dimensions and not be empty, got \(2, 3\)"):
        viz.filters(np.zeros((2, 3)))


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 3), (2, 26)])
def test_templates(channels, classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 20, classes))
    names = [f"class name {i}" for i in range(classes)] if classes == 3 else None
    figure = drawn(viz.templates(model, (channels, 4, 5), names))
    weight = model[1].weight.data.reshape(classes, channels, 4, 5)
    shown = image(figure.axes[1])
    if channels == 3:
        limit = np.abs(weight[1]).max()
        np.testing.assert_allclose(shown, 0.5 + weight[1].transpose(1, 2, 0) / (2 * limit), rtol=1e-6)
    else:
        np.testing.assert_array_equal(shown, weight[1].mean(axis=0))
    with pytest.raises(ValueError, match="do not fit images of shape"):
        viz.templates(model, (channels, 4, 4))


def test_sparsity():
    model = net()
    figure = drawn(viz.sparsity(model))
    np.testing.assert_array_equal(image(figure.axes[0]), np.abs(model[4].weight.data))
    assert "4 maps of 25 pixels" in texts(figure)
    weight = np.ones((10, 20), np.float32)
    weight[:5] = 0
    assert "50 % of the weights are near 0" in texts(drawn(viz.sparsity(weight)))
    drawn(viz.sparsity(np.zeros((3, 4))))


# ---- layers


def test_layer_outputs_are_copies_in_evaluation_mode():
    model, x = net(), samples()
    model[4].training = False
    modes = [module.training for module in model.modules()]
    found = viz.layer_outputs(model, x, (nn.ReLU,))
    assert list(found) == ["1", "5"]
    assert [module.training for module in model.modules()] == modes
    np.testing.assert_array_equal(found["5"], nn.Sequential(*list(model)[:6]).predict(x))
    model.predict(x + 1)
    np.testing.assert_array_equal(found["5"], viz.layer_outputs(model, x)["5"])


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_feature_maps(channels):
    model, x = net(channels), samples(1, channels)
    figure = drawn(viz.feature_maps(model, x[0]))
    maps = viz.layer_outputs(model, x)["1"][0]
    np.testing.assert_array_equal(image(figure.axes[1]), viz.mosaic(maps, 8))
    assert "1 ReLU: 4 maps of 10×10" in texts(figure)
    drawn(viz.feature_maps(model, x, layers=["0", "2"]))
    with pytest.raises(ValueError, match="no maps of 5; there are 0, 1, 2"):
        viz.feature_maps(model, x, layers=["5"])


def test_feature_maps_of_wide_layers():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 200, 3), nn.Tanh())
    figure = drawn(viz.feature_maps(model, samples(1)))
    assert "0 Conv2d, 64 of 200 maps of 10×10" in texts(figure)
    assert image(figure.axes[1]).shape == viz.mosaic(np.zeros((64, 10, 10)), 16).shape


def test_the_lectures_initialisations():
    study = viz.initialisations((0.01, 1.0, "xavier", "lsuv"), layers=10, units=200, samples=250)
    assert list(study) == ["normal(0.01)", "normal(1)", "xavier", "lsuv"]
    spread = {rule: [float(y.std()) for y in layers.values()] for rule, layers in study.items()}
    assert spread["normal(0.01)"][-1] < 1e-6
    assert spread["normal(1)"][-1] > 0.95
    assert 0.2 < spread["xavier"][-1] < 0.3
    assert spread["lsuv"][-1] > 0.5
    assert all(y.shape == (250, 200) for layers in study.values() for y in layers.values())
    two = {rule: {layer: study[rule][layer] for layer in ("layer 1", "layer 10")} for rule in ("normal(1)", "xavier")}
    figure = drawn(viz.activation_histograms(two))
    shares, edges, _ = figure.axes[2].patches[0].get_data()
    assert len(figure.axes) == 4
    assert (edges[0], edges[-1]) == (-1, 1)
    counts, _ = np.histogram(study["xavier"]["layer 1"].astype(float), edges)
    np.testing.assert_array_equal(shares, counts / 50_000)


def test_histograms_of_one_net_and_of_bad_values():
    outputs = {"0": np.full((4, 3), np.nan), "1": np.array([[np.inf, -3.0, 5.0]]), "2": np.zeros((2, 2))}
    figure = drawn(viz.activation_histograms(outputs))
    assert [ax.get_title() for ax in figure.axes] == ["0", "1", "2"]
    assert "not finite" in texts(figure)
    drawn(viz.activation_histograms({"a": {"0": np.zeros(3)}, "b": {"0": np.ones(3), "1": np.ones(3)}}))
    with pytest.raises(ValueError, match="no outputs"):
        viz.activation_histograms({})


def test_hidden_units():
    draw = rng()
    units = np.maximum(draw.normal(size=(50, 8)), 0).astype(np.float32)
    units[:, 3] = 0
    units[:, 5] = units[:, 4]
    labels = draw.integers(0, 3, 50)
    correlation, dead = viz.unit_figures(units)
    alive = np.delete(units.astype(float), 3, axis=1)
    full = np.abs(np.corrcoef(alive.T))
    assert correlation == pytest.approx((full.sum() - 7) / 42, rel=1e-9)
    assert dead == 1 / 8
    figure = drawn(viz.hidden_units(units, labels))
    np.testing.assert_array_equal(image(figure.axes[0]), units[np.argsort(labels, kind="stable")].T)
    assert f"mean |correlation| {correlation:.2f}, 12 % dead" in texts(figure)
    drawn(viz.hidden_units(np.full((4, 2), np.nan)))
    assert "|correlation| –, 100 % dead" in texts(drawn(viz.hidden_units(np.zeros((4, 3, 2, 2)))))
    with pytest.raises(ValueError, match="50 samples but 3 labels"):
        viz.hidden_units(units, labels[:3])


# ---- data and errors


def test_mean_and_deviation():
    images = rng().integers(0, 256, (20, 1, 5, 6)).astype(np.uint8)
    left, right = drawn(viz.mean_and_deviation(images)).axes[:2]
    np.testing.assert_allclose(image(left), images[:, 0].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(image(right), images[:, 0].std(axis=0), rtol=1e-12)
    colour = rng().integers(0, 256, (20, 3, 5, 6)).astype(np.uint8)
    left = drawn(viz.mean_and_deviation(data.Standardizer.fit(colour, "pixel"))).axes[0]
    np.testing.assert_allclose(image(left), colour.mean(axis=0).transpose(1, 2, 0) / 255, rtol=1e-12)
    with pytest.raises(ValueError, match="fit the standardizer per pixel"):
        viz.mean_and_deviation(data.Standardizer.fit(colour))


def test_confusion():
    counts = np.array([[50, 2, 0], [7, 40, 1], [0, 0, 0]])
    figure = drawn(viz.confusion(counts, ["cat", "dog", "automobile"], worst=2))
    ax = figure.axes[0]
    np.testing.assert_array_equal(image(ax), counts * (1 - np.eye(3)))
    assert {text.get_text() for text in ax.texts} == {"50", "2", "7", "40", "1"}
    assert [(p.get_x() + 0.5, p.get_y() + 0.5) for p in ax.patches] == [(0, 1), (1, 0)]
    assert "dog as cat (7×), cat as dog (2×)" in texts(figure).replace("\n", ", ")
    assert "90.00 % of 100 right" in texts(figure)
    drawn(viz.confusion(np.zeros((2, 2), int)))
    assert not drawn(viz.confusion(rng().integers(0, 9, (120, 120)))).axes[0].texts
    with pytest.raises(ValueError, match=r"counts \(2, 3\)"):
        viz.confusion(np.zeros((2, 3)))


def test_mistakes_are_sorted_by_how_wrong_they_are():
    images = rng().integers(0, 256, (5, 3, 4, 4)).astype(np.uint8)
    labels = np.array([0, 1, 1, 0, 1])
    scores = np.array([[5, 0], [1, 0], [9, 0], [0, 3], [0, 1]], np.float32)
    figure = drawn(viz.mistakes(images, labels, scores, count=2))
    for ax, i in zip(figure.axes, (2, 3), strict=True):
        np.testing.assert_array_equal(image(ax), images[i].transpose(1, 2, 0) / 255)
    assert figure.axes[0].get_title(loc="center") == "1 as 0  100 %"
    assert "3 of 5 wrong, the worst of them" in texts(figure)
    drawn(viz.mistakes(images[:1], labels[:1], scores[:1]))
    drawn(viz.mistakes(images, labels, np.full((5, 2), np.nan, np.float32), ["a cat", "a dog"]))
    with pytest.raises(ValueError, match="5 images, 5 labels, 4 rows"):
        viz.mistakes(images, labels, scores[:4])


# ---- search


def test_search():
    draw = rng()
    trials = [
        {"lr": float(lr), "l2": float(l2), "accuracy": float(accuracy)}
        for lr, l2, accuracy in zip(
            10 ** draw.uniform(-7, -1, 30), 10 ** draw.uniform(-5, 5, 30), draw.random(30), strict=True
        )
    ]
    trials[3]["accuracy"], trials[4]["accuracy"] = float("nan"), None
    figure = drawn(viz.search(trials))
    ax = figure.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    failed, done, best = ax.collections
    assert len(failed.get_offsets()) == 2
    reached = sorted(t["accuracy"] for t in trials if t["accuracy"] is not None and t["accuracy"] == t["accuracy"])
    np.testing.assert_allclose(done.get_array(), 100 * np.array(reached))
    top = max((t for t in trials if t["accuracy"] in reached), key=lambda t: t["accuracy"])
    np.testing.assert_allclose(best.get_offsets()[0], [top["lr"], top["l2"]])
    columns = {key: [trial[key] for trial in trials] for key in trials[0]}
    assert len(drawn(viz.search(columns)).axes[0].collections) == 3


def rings(figure):
    """The points of a search, the last the best, their values, the best's, and its text."""
    *_, done, best = figure.axes[0].collections
    return done.get_offsets().tolist(), done.get_array().tolist(), best.get_offsets()[0].tolist(), best.get_label()


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.25, 0.5])), min_size=1, max_size=8),
    st.sampled_from([None, "maximize", "minimize"]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_the_best_of_a_search_is_that_of_its_direction(drawn_trials, direction, say):
    trials = [
        {"lr": 10.0**-i, "l2": 1.0, "value": round(value, 1), "validation_loss": loss}
        for i, (value, loss) in enumerate(drawn_trials)
    ]
    sign = -1 if direction == "minimize" else 1
    best = min(trials, key=lambda t: (-sign * t["value"], t["validation_loss"]))
    if say:  # by the trials themselves
        trials, arguments = [{"direction": direction or "maximize", **trial} for trial in trials], {}
    else:
        arguments = {"direction": direction}
    for given_trials in (trials, {key: [trial[key] for trial in trials] for key in trials[0]}):
        places, values, ring, text = rings(viz.search(given_trials, value="value", label="objective", **arguments))
        assert ring == places[-1] == [best["lr"], best["l2"]]
        assert values == sorted((t["value"] for t in trials), key=lambda value: sign * value)
        assert "%" not in text


def test_only_an_accuracy_is_shown_in_percent():
    trials = [{"lr": 0.1, "l2": 1.0, "value": 0.5, "accuracy": 0.5}, {"lr": 0.2, "l2": 1.0, "value": 0.2}]
    assert "best: 0.5 at" in rings(viz.search(trials, value="value"))[3]
    assert "best: 50.0 % at" in rings(viz.search(trials, value="value", label="validation accuracy"))[3]
    assert "best: 50.0 % at" in rings(viz.search(trials))[3]
    with pytest.raises(ValueError, match="direction must be 'maximize' or 'minimize', got 'down'"):
        viz.search(trials, direction="down")


def test_search_with_zeros_and_without_results():
    trials = [{"lr": 1e-3, "l2": 0.0, "accuracy": 0.5}, {"lr": 1e-2, "l2": 1e-2, "accuracy": 0.6}]
    ax = drawn(viz.search(trials)).axes[0]
    assert ax.get_yticklabels()[0].get_text() == "0"
    assert ax.collections[0].get_offsets()[0].tolist() == [1e-3, 1e-3]
    drawn(viz.search([{"lr": 0.0, "l2": 0.0, "accuracy": None}]))
    with pytest.raises(ValueError, match="no trial with l2"):
        viz.search([{"lr": 1.0, "accuracy": 1.0}])
    with pytest.raises(ValueError, match="no trial"):
        viz.search([])


# ---- gradients


@pytest.mark.gradients
@pytest.mark.parametrize("channels", [1, 3])
def test_input_gradient_against_differences(channels):
    model, x = net(channels).astype(np.float64), samples(2, channels).astype(np.float64)
    before = {name: array.tobytes() for name, array in model.state_dict().items()}
    labels = [2, 0]
    gradient = viz.input_gradient(model, x, labels)
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before
    assert model.training
    assert gradient.shape == x.shape
    h = 1e-6
    for n, label in enumerate(labels):
        for at in [(0, 3, 4), (channels - 1, 7, 7), (0, 11, 0)]:
            up, down = x.copy(), x.copy()
            up[(n, *at)] += h
            down[(n, *at)] -= h
            slope = (model.predict(up)[n, label] - model.predict(down)[n, label]) / (2 * h)
            # Rounding of scores of about 1 over the step, and the step's square.
            assert gradient[(n, *at)] == pytest.approx(slope, abs=16 * np.finfo(float).eps / h + 1e-9)


def test_guided_backpropagation_by_hand():
    """At each ReLU only positive gradients pass, and only where the unit is on."""
    model = net()
    x = samples(3)
    outputs = viz.layer_outputs(model, x)
    first, second = model[0].weight.data, model[4].weight.data
    gradient = np.zeros((3, 3), np.float32)
    gradient[:, 1] = 1
    gradient = np.where(outputs["5"] > 0, np.maximum(gradient @ model[6].weight.data, 0), 0)
    gradient = (gradient @ second).reshape(outputs["2"].shape)
    on = outputs["1"]
    passed = np.zeros_like(on)
    for n, c, p, q in np.ndindex(*gradient.shape):
        window = on[n, c, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2]
        i, j = np.unravel_index(window.argmax(), (2, 2))
        passed[n, c, 2 * p + i, 2 * q + j] = gradient[n, c, p, q]
    passed = np.where(on > 0, np.maximum(passed, 0), 0)
    expected = np.zeros_like(x)
    for i, j in np.ndindex(3, 3):
        expected[:, 0, i : i + 10, j : j + 10] += np.einsum("nkpq,k->npq", passed, first[:, 0, i, j])
    found = viz.input_gradient(model, x, [1, 1, 1], guided=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * np.finfo(np.float32).eps * np.abs(expected).max())
    assert type(model[1]) is nn.ReLU
    assert not np.array_equal(found, viz.input_gradient(model, x, [1, 1, 1]))


def test_gradients_reach_through_residual_nets():
    fastconv.manual_seed(0)
    model = fastconv.models.build("resnet20", (3, 8, 8), 10)
    x = samples(2, 3, 8)
    for guided in (False, True):
        gradient = viz.input_gradient(model, x, guided=guided)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_saliency(channels):
    model, x = net(channels), samples(4, channels)
    figure = drawn(viz.saliency(model, x, classes=["zero", "one", "two"]))
    chosen = model.predict(x).argmax(axis=1)
    gradient = viz.input_gradient(model, x, chosen)
    np.testing.assert_array_equal(image(figure.axes[5]), np.abs(gradient[1]).max(axis=0))
    np.testing.assert_array_equal(viz.saliency_map(gradient)[1], np.abs(gradient[1]).max(axis=0))
    if channels == 1:
        np.testing.assert_array_equal(image(figure.axes[8]), viz.input_gradient(model, x, chosen, guided=True)[0, 0])
    assert figure.axes[0].get_title() == ["zero", "one", "two"][chosen[0]]
    with pytest.raises(ValueError, match=r"labels \[0, 1, 2, 3\] for scores of shape \(4, 3\)"):
        viz.saliency(model, x, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="no sample"):
        viz.saliency(model, x[:0])


# ---- the package


def test_a_missing_matplotlib_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fastconv import viz\n"
        "assert viz.mosaic is not None and dir(viz)\n"
        "try: viz.curves\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "fastconv.viz draws with matplotlib: pip install 'fastconv[plot]'\n"
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        viz.pie  # noqa: B018


def test_no_pyplot_and_no_settings_are_touched():
    code = (
        "import matplotlib, sys; before = matplotlib.rcParams.copy()\n"
        "from fastconv import viz; import numpy as np\n"
        "picture = viz.filters(np.ones((2, 1, 3, 3)))\n"
        "assert picture._repr_png_()[:4] == b'\\x89PNG'\n"
        "assert 'matplotlib.pyplot' not in sys.modules and matplotlib.rcParams.copy() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_draw_at_once():
    failures = []

    def work():
        try:
            drawn(viz.curves(history()))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two watched runs on the digits: a convnet and one layer."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("mnist-small", "linear"):
        options = ["--model", name, "--epochs", "1", "--watch-every", "10", "--out", str(root / name), "--json"]
        done = CliRunner().invoke(main, ["train", *options])
        assert done.exit_code == 0, done.output
    return root


def test_plot_writes_what_there_is(trained, tmp_path):
    done = CliRunner().invoke(main, ["plot", str(trained / "mnist-small"), "--json", "--samples", "50"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    folder = trained / "mnist-small" / "plots"
    expected = set(viz.RUN_PICTURES) - {"templates", "predictions"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in expected}
    assert set(said["pictures"]) == {str(folder / f"{name}.png") for name in expected}
    assert said["skipped"] == {
        "mnist-small: templates": "the model has more than one layer",
        "mnist-small: predictions": "it tells classes, not numbers",
    }
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.iterdir())


def test_plot_of_several_runs(trained, tmp_path):
    options = ["plot", *(str(trained / name) for name in ("mnist-small", "linear")), "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*options, "--only", "curves", "--only", "templates", "--format", "svg"])
    assert done.exit_code == 0, done.output
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.svg")}
    assert found == {"runs.svg", "mnist-small/curves.svg", "linear/curves.svg", "linear/templates.svg"}
    assert "no templates of mnist-small: the model has more than one layer" in done.stderr


def test_plot_of_a_run_without_model(tmp_path):
    with RunWriter.start(tmp_path / "run", {"lr": 0.1}) as run:
        for record in history(3):
            run.write({"kind": "epoch", **record})
    done = CliRunner().invoke(main, ["plot", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "run" / "plots").iterdir()] == ["curves.png"]
    assert "holds no trained model" in done.stderr
    assert "config.json names no data set" in done.stderr


def test_plot_refuses(trained, tmp_path):
    run = str(trained / "linear")
    for options, message in [
        ([str(tmp_path)], "is not the folder of a run"),
        ([run, "--only", "pie"], "unknown picture 'pie'; known are curves, updates"),
    ]:
        done = CliRunner().invoke(main, ["plot", *options])
        assert done.exit_code == 2
        assert message in done.stderr


def test_runs_of_one_name_are_told_apart(trained, tmp_path):
    for parent in ("one", "two"):
        with RunWriter.start(tmp_path / parent / "run", {}) as run:
            run.write({"kind": "epoch", "epoch": 1, "loss": 1.0})
    records = [read_record(tmp_path / parent / "run") for parent in ("one", "two", "two")]
    assert viz.run_names(records) == ["one/run", "two/run (2)", "two/run (3)"]
    assert "one/run" in texts(viz.curves(records))

"""Watching a run: the records, no trace in the run, and advice on planted faults but none on healthy nets."""

import io
import math
import re
from contextlib import redirect_stderr

import numpy as np
import pytest
from click.testing import CliRunner

import fastconv
from fastconv import init, nn, optim
from fastconv.cli import main
from fastconv.diagnose import Watch, activation_statistics, gradient_norms
from fastconv.diagnose.advice import Advice
from fastconv.train import Callback, Diverged, RunWriter, Trainer, state_sha256
from fastconv.train.run import read_record
from fastconv.train.setup import fill, prepare


def points(n=64, seed=0, scale=1.0):
    x = scale * np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def net(layers=1, activation=nn.ReLU, rule="default", width=16):
    fastconv.manual_seed(0)
    stack = [nn.Linear(4, width), activation()]
    for _ in range(layers - 1):
        stack += [nn.Linear(width, width), activation()]
    model = nn.Sequential(*stack, nn.Linear(width, 2), input_grad=False)
    if rule != "default":
        init.apply(model, rule, 0)
    return model


def run(model, lr=0.05, callbacks=(), samples=None, epochs=4, **options):
    optimizer = optim.SGD(model.parameters(), lr=lr)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, progress=False, keep_best=False, **options
    )
    trainer.fit(samples or points(), points(20, seed=1), epochs=epochs, batch_size=16)
    return trainer


def test_records_hold_the_figures_of_their_step():
    written, looked = [], []

    class Twin(Callback):
        """Takes the same figures by other means."""

        def on_step_start(self, trainer):
            self.before = trainer.model[0].weight.data.copy()

        def on_step_end(self, trainer):
            after = trainer.model[0].weight.data.astype(np.float64)
            ratio = np.linalg.norm(after - self.before) / np.linalg.norm(self.before)
            norms = gradient_norms(trainer.model)
            looked.append((trainer.step, trainer.batch_loss, trainer.optimizer.lr, ratio, norms))

        def on_record(self, trainer, record):
            if record["kind"] == "step":
                written.append(record)

    watching = Watch(3)
    run(net(2), callbacks=[Twin(), watching], schedule=lambda step: 1 / (1 + step))
    assert written == watching.records
    assert [record["step"] for record in written] == [1, 3, 6, 9, 12, 15]
    for record in written:
        step, loss, lr, ratio, norms = looked[record["step"] - 1]
        assert (record["kind"], record["step"], record["loss"], record["lr"]) == ("step", step, loss, lr)
        assert record["grad_norm"] == norms
        assert record["update_ratio"]["0.weight"] == pytest.approx(ratio, rel=1e-6)  # a difference in float32
        assert list(record["update_ratio"]) == ["0.weight", "2.weight", "4.weight"]
        assert list(record["activations"]) == ["0", "1", "2", "3", "4"]
        figures = {"mean", "std", "zeros", "saturated", "dead"}
        assert set(record["activations"]["1"]) == figures | ({"layer"} if record["step"] == 1 else set())


def test_activations_are_those_of_the_training_batch():
    x, y = points(16)
    model = net()
    found = activation_statistics(model, x)
    expected = {name: {"layer": layer.layer, **layer.to_dict()} for name, layer in found.items()}
    watching = Watch(1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[watching], progress=False)
    trainer.fit([(x, y)], (x[:4], y[:4]), epochs=1)
    assert watching.records[0]["activations"] == expected


def test_a_watched_run_has_the_same_bits():
    def trained(callbacks):
        setup = prepare(fill("digits", epochs=1, augment=True), callbacks, progress=False)
        setup.trainer.fit(setup.train, setup.validation, epochs=1)
        assert not any(module._hooks for module in setup.model.modules())
        return state_sha256(setup.model)

    assert trained([Watch(4)]) == trained([])


def test_between_looks_nothing_is_hooked():
    hooked = []

    class Look(Callback):
        def on_step_start(self, trainer):
            hooked.append(any(module._hooks for module in trainer.model.modules()))

        def on_epoch_end(self, trainer):
            assert not any(module._hooks for module in trainer.model.modules())

    run(net(), callbacks=[Watch(5), Look()], epochs=2)
    assert hooked == [step in (1, 5) for step in range(1, 9)]


@pytest.mark.parametrize(
    ("part", "key"), [("updates", "update_ratio"), ("gradients", "grad_norm"), ("activations", "activations")]
)
def test_each_part_alone(part, key):
    parts = dict.fromkeys(("updates", "gradients", "activations"), False)
    watching = Watch(2, **{**parts, part: True})
    run(net(), callbacks=[watching], epochs=1)
    assert set(watching.records[-1]) == {"kind", "step", "loss", "lr", key}
    with pytest.raises(ValueError, match="nothing to look at"):
        Watch(2, **parts)


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Watch(0)


def test_a_run_that_breaks_leaves_no_hooks():
    model = net()
    with pytest.raises(Diverged), np.errstate(all="ignore"):
        run(model, lr=1e38, callbacks=[Watch(1, say=lambda line: None)])
    assert not any(module._hooks for module in model.modules())


@pytest.mark.parametrize("options", [
    {"epochs": 3},
    {"model": "mlp", "epochs": 10},
    {"model": "mlp", "epochs": 2, "optimizer": "adam", "lr": 1e-3},
    {"model": "cifar-small", "epochs": 1},
])  # fmt: skip
def test_healthy_nets_get_no_advice(options):
    watching = Watch(5)
    setup = prepare(fill("digits", **options), [watching], progress=False)
    setup.trainer.fit(setup.train, setup.validation, epochs=setup.options.epochs)
    assert watching.advice == []
    assert len(watching.records) > 8


SATURATING = dict(model=lambda: net(2, nn.Tanh), samples=points(scale=100.0), lr=1e-4)


@pytest.mark.parametrize(("fault", "line"), [
    (dict(model=net, lr=20.0), r"step 2: an update changes the weights by \d.* lower the learning rate, now 20$"),
    (dict(model=net, lr=1e-7), r"step 2: an update changes the weights by only .* raise the learning rate, now 1e-07$"),
    (dict(model=lambda: net(6, nn.Tanh, "small"), lr=0.1), r"changes \d+.weight by .* but 12.weight by .*init xavier"),
    (dict(model=lambda: net(12, nn.Tanh, "small"), lr=0.1), r"layer \d+ \((Tanh|Linear)\).* the signal dies out"),
    (dict(model=net, samples=points(scale=1e6), lr=1e-12), r"the gradient has the norm .*standardise the inputs"),
    (dict(model=net, samples=points(scale=1e6), lr=1e-12), r"layer 0 \(Linear\): .*the signal explodes.*init he"),
    (SATURATING, r"layer 1 \(Tanh\): \d+ % of the outputs are saturated"),
])  # fmt: skip
def test_planted_faults_are_named_once(fault, line):
    said = []
    options = {"callbacks": [Watch(1, say=said.append)], **{k: v for k, v in fault.items() if k != "model"}}
    run(fault["model"](), **options)
    assert [text for text in said if re.search(line, text)], said
    assert len({text.split(": ", 1)[1][:24] for text in said}) == len(said)


def test_dead_units_are_named_where_the_batch_is_large_enough():
    for batch, named in ((64, True), (16, False)):
        model = net()
        model[0].bias.data[:12] = -100
        watching = Watch(1, say=lambda line: None)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.01), callbacks=[watching], progress=False
        )
        trainer.fit(points(), epochs=3, batch_size=batch)
        found = [line for line in watching.advice if "75 % of the units are dead (no slope on any of 64" in line]
        assert bool(found) == named
        assert watching.records[0]["activations"]["1"]["dead"] == 0.75


def test_a_dead_layer_passes_no_gradient():
    model = net()
    model[0].bias.data[...] = -100
    watching = Watch(1, say=lambda line: None)
    run(model, callbacks=[watching])
    assert any("no gradient at all reaches 0.weight and 2 more" in line for line in watching.advice)


def test_small_steps_are_no_fault_late_or_once_learned():
    record = {"step": 1, "loss": 2.0, "lr": 1.0, "update_ratio": {"0.weight": 1e-7}}

    def lines(**later):
        judge = Advice()
        judge(record | {"update_ratio": {"0.weight": 1e-3}}, {}, 0, 1.0)
        return [line for step in (2, 3, 4) for line in judge(record | {"step": step} | later, {}, 0, 1.0)]

    assert len(lines()) == 1
    assert lines(lr=0.4) == []
    assert lines(loss=0.9) == []


def test_one_look_alone_is_no_symptom():
    judge = Advice()
    for step in range(1, 20):
        ratio = 0.5 if step % 2 else 1e-3
        record = {"step": step, "loss": 1.0, "lr": 1.0, "update_ratio": {"0.weight": ratio}}
        assert judge(record, {}, 0, 1.0) == []


def test_figures_that_are_not_finite_do_not_break_it():
    judge = Advice()
    bad = {"mean": math.nan, "std": math.nan, "zeros": 0.0, "saturated": 0.0, "dead": 0.0}
    for value in (math.nan, math.inf):
        record = {
            "step": 1, "loss": value, "lr": 1.0,
            "update_ratio": {"0.weight": value}, "grad_norm": {"0.weight": value}, "activations": {"0": bad},
        }  # fmt: skip
        for _ in range(3):
            assert all(isinstance(line, str) for line in judge(record, {"0": "ReLU"}, 64, 1.0))


def test_the_run_keeps_looks_and_advice(tmp_path):
    with RunWriter.start(tmp_path / "run", {}) as writer:
        watching = Watch(3, say=lambda line: None)
        run(net(), lr=1e-7, callbacks=[writer, watching])
        writer.finish({"status": "finished"})
    record = read_record(tmp_path / "run")
    assert record.steps == watching.records
    assert [event["text"] for event in record.events] == watching.advice
    assert record.events[0]["step"] == 3
    assert len(record.history) == 4


def test_advice_goes_to_standard_error():
    caught = io.StringIO()
    with redirect_stderr(caught):
        run(net(), lr=1e-7, callbacks=[Watch(1)])
    assert caught.getvalue().startswith("step 2: an update changes")
    assert caught.getvalue().count("\n") == 1


def test_the_command_line_watches(tmp_path):
    options = ["train", "--epochs", "1", "--lr", "1", "--watch-every", "5", "--out", str(tmp_path / "run"), "--json"]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "lower the learning rate, now" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert [step["step"] for step in read_record(tmp_path / "run").steps] == [1, *range(5, 41, 5)]

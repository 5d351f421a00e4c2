"""Flags are True or False, words are among those known: all else is refused by its name, and changes nothing."""

import dataclasses
import importlib
import inspect
import pkgutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import NEEDED, REQUIRED

import fastconv
from fastconv import data, deep, diagnose, init, models, nn, optim, schedule, testing, train
from fastconv import functional as F
from fastconv.functional._check import short
from fastconv.train.setup import Options, fill

HUGE = 10**5000  # Python writes no integer of so many digits
ARRAYS = st.builds(
    lambda shape, kind: np.ones(shape).astype(kind),
    st.sampled_from([(), (0,), (1,), (3,), (2, 2), (40, 40)]),
    st.sampled_from([bool, np.int64, np.float32, str, object]),
)
OTHERS = st.sampled_from([b"a", 1.0, 0.5, 1j, (), (True,), [False], {}, {"a": 1}, object(), bool, nn.ReLU()])
NUMBERS = st.sampled_from([2, -1, np.int64(2), HUGE, -HUGE])
NO_FLAG = st.one_of(st.text(max_size=200), st.none(), ARRAYS, OTHERS, NUMBERS)
NO_WORD = st.one_of(ARRAYS, OTHERS, st.sampled_from([2, 7, HUGE]))


def annotated(parameter):
    """Return what is written behind a parameter's name."""
    kind = parameter.annotation
    return kind if isinstance(kind, str) else getattr(kind, "__name__", None) or str(kind)


def flags(call):
    """Return the flags among the parameters, and whether each may be None."""
    parameters = inspect.signature(call).parameters.values()
    known = [p for p in parameters if isinstance(p.default, bool) or annotated(p) in ("bool", "bool | None")]
    return {p.name: p.default is None for p in known}


def words(call):
    """Return the words among the parameters: those whose default is one."""
    return [p.name for p in inspect.signature(call).parameters.values() if isinstance(p.default, str) and p.default]


def classes(module):
    """Return the public classes that people make."""
    return [kind for name, kind in sorted(vars(module).items()) if name in module.__all__ and inspect.isclass(kind)
            and not issubclass(kind, Exception)]  # fmt: skip


def samples():
    return data.Samples(np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1]))


# What must be given, by the name of the class or else of the argument.
ARGUMENTS = {
    "Parameter": lambda: {"data": np.ones(2)},
    "Batches": lambda: {"images": samples().images, "labels": samples().labels, "batch_size": 2},
    "Dataset": lambda: {"name": "set", "classes": ("a", "b"), "train": samples(), "test": samples()},
    "Trainer": lambda: {"model": (net := nn.Linear(1, 1)), "loss": nn.MSELoss(), "optimizer": optim.SGD(net)},
    "Checkpoint": lambda: {"folder": "nowhere"},
    "Optimizer": lambda: {"params": [nn.Parameter(np.ones((3, 2)))], "lr": 0.1},
    "OneCycleLR": lambda: {"total": 10},
}


def arguments(kind):
    """Return what a class is given so that all is right."""
    if kind.__name__ in ARGUMENTS:
        return ARGUMENTS[kind.__name__]()
    parameters = inspect.signature(kind).parameters.values()
    names = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    rng = np.random.default_rng(0)
    return {
        name: [nn.Parameter(np.ones((3, 2)))] if name == "params" else REQUIRED[name](rng, 3)
        for name in (*names, *NEEDED.get(kind, ()))
    }


MADE_BY_OTHERS = (nn.GraphModule, train.Evaluation)  # nobody writes their constructors' arguments
CLASSES = [kind for module in (nn, optim, data, train) for kind in classes(module) if kind not in MADE_BY_OTHERS]
CLASSES += [diagnose.Watch, schedule.OneCycleLR]
WITH_FLAGS = [(kind, name, none) for kind in CLASSES for name, none in flags(kind).items()]
WITH_WORDS = [(kind, name) for kind in CLASSES for name in words(kind)]
WITH_WORDS += [(nn.Conv1d, "padding"), (nn.Conv2d, "padding"), (nn.Conv2d, "algorithm"), (train.Trainer, "monitor")]


def refused(call, name, value, *errors):
    """Hold that a call names the argument, and says in a line or so what it got."""
    with pytest.raises(errors, match=rf"\b{name}\b|no figure") as found:
        call()
    text = str(found.value)
    assert len(text) < 420
    assert "\n" not in text
    assert short(value) in text


def same_afterwards(call, given_to_it):
    """Hold that what a refused constructor was given is as it was, and the next layer has the numbers it would have."""
    fastconv.manual_seed(3)
    due = nn.Linear(2, 2).weight.data
    fastconv.manual_seed(3)
    params = list(given_to_it.get("params", ()))
    held = [(p.data, p.grad, p.home) for p in params]
    call()
    assert np.array_equal(nn.Linear(2, 2).weight.data, due)
    assert all(p.data is d and p.grad is g and p.home is h for p, (d, g, h) in zip(params, held, strict=True))


def test_there_are_such_classes():
    found = {(kind.__name__, name) for kind, name, _ in WITH_FLAGS}
    assert found >= {
        ("Linear", "bias"), ("BatchNorm2d", "affine"), ("MaxPool2d", "ceil_mode"), ("Upsample", "align_corners"),
        ("SGD", "nesterov"), ("AdamW", "decay_bias_norm"), ("Batches", "shuffle"), ("Augment", "flip"),
        ("Trainer", "keep_best"), ("Sequential", "fuse"),
    }  # fmt: skip
    assert {("MSELoss", "reduction"), ("GELU", "approximate"), ("DiceLoss", "normalize")} <= {
        (kind.__name__, name) for kind, name in WITH_WORDS
    }


@pytest.mark.parametrize(("kind", "name", "none"), WITH_FLAGS, ids=lambda value: getattr(value, "__name__", value))
@settings(deadline=None, max_examples=30)
@given(value=NO_FLAG)
def test_what_is_no_flag_is_refused(kind, name, none, value):
    if none and value is None:
        return
    rest = arguments(kind)
    same_afterwards(lambda: refused(lambda: kind(**{**rest, name: value}), name, value, TypeError), rest)


@pytest.mark.parametrize(("kind", "name", "none"), WITH_FLAGS, ids=lambda value: getattr(value, "__name__", value))
def test_flags_of_numpy_and_0_and_1_are_flags(kind, name, none):
    more = {"momentum": 0.9} if name == "nesterov" else {"mode": "bilinear"} if name == "align_corners" else {}
    for value, flag in ((np.True_, True), (np.False_, False), (0, False), (1, True), (np.int64(1), True), (True, True)):
        made = [kind(**{**arguments(kind), **more, name: given}) for given in (value, flag)]
        if kind is not train.Trainer:
            kept = [getattr(one, name, None) for one in made]
            assert isinstance(kept[0], np.ndarray | nn.Parameter) or kept[0] == kept[1]


@pytest.mark.parametrize(("kind", "name"), WITH_WORDS, ids=lambda value: getattr(value, "__name__", value))
@settings(deadline=None, max_examples=30)
@given(value=NO_WORD, cut=st.integers(0, 2))
def test_what_is_no_word_is_refused(kind, name, value, cut):
    usual = inspect.signature(kind).parameters[name].default
    usual = usual if isinstance(usual, str) else {"padding": "same", "algorithm": "auto", "monitor": "loss"}[name]
    near = (usual + "x", usual[:-1] + "é", usual.upper())[cut]
    rest = arguments(kind)
    for wrong in (value, near):
        if name == "padding" and not isinstance(wrong, str | np.ndarray):
            continue
        same_afterwards(lambda: refused(lambda: kind(**{**rest, name: wrong}), name, wrong, ValueError), rest)  # noqa: B023


X = np.ones((2, 2, 4, 4), np.float32)
S, P, V = X[:, :, 0], np.ones((2, 2, 2, 2), np.float32), np.ones(2, np.float32)
W, W1, M = np.ones((2, 2, 1, 1), np.float32), np.ones((2, 2, 1), np.float32), np.ones((2, 2), np.float32)
CALLS = {
    "max_pool2d": (X, 2), "max_pool1d": (S, 2), "avg_pool2d": (X, 2), "avg_pool1d": (S, 2),
    "max_pool2d_backward": (P, P.astype(np.int64), X.shape, 2),
    "max_pool1d_backward": (P[:, :, 0], S, 2), "max_pool2d_argmax_like": (X, 2),
    "pool2d_output_shape": (X.shape, 2),
    "avg_pool2d_backward": (P, X.shape, 2), "avg_pool1d_backward": (P[:, :, 0], S.shape, 2),
    "adaptive_max_pool2d": (X, 2), "global_max_pool2d": (X,),
    "mean": (X,), "sum": (X,), "mean_backward": (np.float32(1), X), "sum_backward": (np.float32(1), X),
    "interpolate": (X, 2, None, "bilinear"), "interpolate_backward": (P, X, 2, None, "bilinear"),
    "conv2d_backward": (X, X, W), "conv1d_backward": (S, S, W1), "linear_backward": (M, M, M),
    "batch_norm": (X, V, V), "batch_norm_backward": (X, X, V, np.ones((2, 2), np.float32), True),
    "dropout": (X, 0.5, True), "sgd_step": (V, V + 1, V + 2, 0.1), "adam_step": (V, V + 1, V + 2, V + 3),
}  # fmt: skip
KEYS = {"dropout": {"seed": 0, "stream": 0, "step": 0}}
FUNCTIONS = [(name, flag, none) for name in F.__all__ if inspect.isfunction(getattr(F, name))
             for flag, none in flags(getattr(F, name)).items()]  # fmt: skip


@pytest.mark.parametrize(("function", "name", "none"), FUNCTIONS)
@settings(deadline=None, max_examples=20)
@given(value=NO_FLAG)
def test_what_is_no_flag_is_refused_by_functions(function, name, none, value):
    if none and value is None:
        return
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in CALLS[function]]
    given = dict(zip(inspect.signature(getattr(F, function)).parameters, copies, strict=False))
    refused(lambda: getattr(F, function)(**{**given, **KEYS.get(function, {}), name: value}), name, value, TypeError)
    for a, b in zip(copies, CALLS[function], strict=True):
        assert np.array_equal(a, b)


@settings(deadline=None, max_examples=60)
@given(value=NO_FLAG)
def test_what_is_no_flag_changes_no_model_and_no_optimiser(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = optim.SGD(model, momentum=0.5)
    before = model.state_dict(), repr(optimizer)
    for name, call in {
        "mode": lambda: model.train(value),
        "training": lambda: setattr(model, "training", value),
        "requires_grad": lambda: model.requires_grad_(value),
        "strict": lambda: model.load_state_dict({}, value),
        "error_if_nonfinite": lambda: optim.clip_grad_norm_(model, 1.0, error_if_nonfinite=value),
        "nesterov": lambda: optimizer.param_groups[0].update(nesterov=value),
        "highest": lambda: train.History([{"epoch": 1, "loss": 0.5}]).best("loss", value),
        "download": lambda: data.load("digits", download=value),
        "cache": lambda: data.load("digits", cache=value),
    }.items():
        refused(call, name, value, TypeError)
    refused(lambda: model.plan((2, 2), value), "training", value, TypeError)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert repr(optimizer) == before[1]
    assert all(np.array_equal(a, before[0][name]) for name, a in model.state_dict().items())


@settings(deadline=None, max_examples=60)
@given(value=st.one_of(NO_WORD, st.sampled_from(["meen", "autos", ""])))
def test_what_is_no_word_is_refused_by_functions(value, tmp_path_factory):
    for name, call in {
        "approximate": lambda: F.gelu(X, value),
        "reduction": lambda: F.mse_loss(X, X, value),
        "normalize": lambda: F.dice_loss(X, np.zeros((2, 4, 4), np.int64), normalize=value),
        "mode": lambda: F.interpolate(X, 2, mode=value),
        "per": lambda: data.Standardizer.fit(X, value),
        "resize": lambda: data.load_image("none.png", (1, 2, 2), resize=value),
        "invert": lambda: data.load_image("none.png", (1, 2, 2), invert=value),
        "task": lambda: data.read_table("none.csv", task=value),
        "initialisation": lambda: init.apply(nn.Linear(1, 1), value),
        "algorithm": lambda: F.conv2d(X, W, algorithm=value),
    }.items():
        if name == "invert" and isinstance(value, float):
            continue  # 1.0 is True
        refused(call, name, value, ValueError)


# ---- all that is public and takes a flag, by its signature: what is not tested above has a line here


def everywhere():
    """Return {name of a callable: its flags, and whether each may be None}; rooms that lack a package are left out."""
    found = {}
    for info in pkgutil.iter_modules(fastconv.__path__, "fastconv."):
        try:
            room = importlib.import_module(info.name)
            values = [getattr(room, name) for name in getattr(room, "__all__", ())]
        except ImportError:
            continue
        for value in values:
            if inspect.isclass(value) and issubclass(value, BaseException):
                continue
            methods = inspect.getmembers(value, inspect.isroutine) if inspect.isclass(value) else ()
            calls = [call for name, call in methods if name[0] != "_"] + [value] * callable(value)
            for call in calls:
                if str(getattr(call, "__module__", None)).startswith("fastconv.") and (known := flags(call)):
                    found[f"{call.__module__.split('.')[1]}.{call.__qualname__}"] = known
    return found


def record():
    return deep.Record(width=4, layers=3, alpha=0.1, activation="tanh", inputs=4, classes=2, seed=0)


def paths(folder):
    return deep.Paths.of(folder / "net")


def estimator(name):
    import fastconv.sklearn

    def fit(**given):
        made = getattr(fastconv.sklearn, name)(**{"model": "linear", "epochs": 1, **given})
        made.fit(np.eye(4), np.array([0, 1, 0, 1]))

    return lambda folder: fit


def onnx_save(folder):
    from fastconv import onnx

    return partial(onnx.save, nn.Linear(2, 2), folder / "net.onnx", (1, 2))


def search_in(folder):
    from fastconv import search

    return partial(search.search, lambda attempt: 1.0, {"x": "1:2"}, trials=1, out=folder / "search")


def search_range(folder):
    from fastconv import search

    return partial(search.Range, 1.0, 2.0)


def guided(folder):
    from fastconv import viz

    return partial(viz.input_gradient, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), np.ones((1, 1, 2, 2), np.float32))


def parameters(folder):
    import fastconv.sklearn

    return fastconv.sklearn.ConvClassifier().get_params


# From the name of a callable to the call that a flag makes wrong; it may write to the folder.
ELSEWHERE = {
    "data.load": lambda folder: partial(data.load, "digits"),
    "data.load_image": lambda folder: partial(data.load_image, folder / "none.png", (1, 2, 2)),
    "deep.Head.write": lambda folder: partial(deep.Head(4, 4, 2).write, folder / "head"),
    "deep.Paths.lock": lambda folder: paths(folder).lock,
    "deep.Training": lambda folder: partial(
        deep.Training, paths(folder), arguments(data.Dataset), batch=2, layer_rate=0.1, head_rate=0.1
    ),
    "deep.create": lambda folder: partial(deep.create, paths(folder), record()),
    "deep.evaluate": lambda folder: partial(deep.evaluate, paths(folder), samples(), 255),
    "diagnose.activation_statistics": lambda folder: partial(diagnose.activation_statistics, nn.ReLU(), M),
    "models.Recipe": lambda folder: partial(models.Recipe, "mine", "", nn.Identity, 1, "default"),
    "nn.Module.plan": lambda folder: partial(nn.Linear(2, 2).plan, (2, 2)),
    "nn.Module.train": lambda folder: nn.Linear(2, 2).train,
    "nn.State.load_state_dict": lambda folder: partial(nn.Linear(2, 2).load_state_dict, {}),
    "nn.State.requires_grad_": lambda folder: nn.Linear(2, 2).requires_grad_,
    "onnx.save": onnx_save,
    "optim.clip_grad_norm_": lambda folder: partial(optim.clip_grad_norm_, nn.Linear(2, 2), 1.0),
    "search.Range": search_range,
    "search.search": search_in,
    "sklearn.ConvClassifier": estimator("ConvClassifier"),
    "sklearn.ConvRegressor": estimator("ConvRegressor"),
    "sklearn.Nested.get_params": parameters,
    "testing.gradcheck": lambda folder: partial(testing.gradcheck, nn.Linear(2, 2), (2, 2)),
    "train.History.best": lambda folder: partial(train.History([{"epoch": 1, "loss": 0.5}]).best, "loss"),
    "train.evaluate": lambda folder: partial(train.evaluate, nn.Linear(2, 2), nn.MSELoss(), [(M, M)]),
    "viz.input_gradient": guided,
}
TOLD = {"search.SearchResult", "train.Evaluation", "nn.GraphModule"}  # nobody writes their arguments
ABOVE = {f"{kind.__module__.split('.')[1]}.{kind.__qualname__}" for kind, _, _ in WITH_FLAGS}
ABOVE |= {f"functional.{name}" for name, _, _ in FUNCTIONS}
FOUND = everywhere()


def test_no_callable_with_a_flag_is_forgotten():
    """One that is new needs a line in ELSEWHERE, so that what is no flag is known to be refused."""
    assert set(FOUND) - ABOVE - TOLD <= set(ELSEWHERE)
    assert set(ELSEWHERE) & ABOVE == set()
    assert len(FOUND) > 60


@pytest.mark.parametrize("name", sorted(set(FOUND) & set(ELSEWHERE)))
@settings(deadline=None, max_examples=25)
@given(value=NO_FLAG)
def test_what_is_no_flag_is_refused_everywhere(name, value):
    with tempfile.TemporaryDirectory() as path:
        for flag, none in FOUND[name].items():
            call = ELSEWHERE[name](Path(path))
            if not (none and value is None):
                refused(lambda: call(**{flag: value}), flag, value, TypeError, ValueError)  # noqa: B023
                assert list(Path(path).iterdir()) == []


@settings(deadline=None, max_examples=60)
@given(value=NO_FLAG.filter(lambda value: value is not None))
def test_what_is_no_flag_is_refused_among_the_options_of_a_run(value):
    for option in dataclasses.fields(Options):
        if "bool" in option.type:
            refused(lambda: fill("digits", **{option.name: value}), option.name, value, TypeError)  # noqa: B023


@settings(deadline=None, max_examples=60)
@given(value=st.one_of(NO_WORD, st.sampled_from(["meen", "autos", ""])))
def test_what_is_no_word_is_refused_where_a_run_or_a_picture_is_asked_for(value):
    search, viz = pytest.importorskip("fastconv.search"), pytest.importorskip("fastconv.viz")
    rows = [{"lr": 0.1, "l2": 0.1, "accuracy": 0.9}]
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for name, call in (
            ("sampler", lambda: search_in(folder)(sampler=value)),
            ("pruner", lambda: search_in(folder)(pruner=value)),
            ("direction", lambda: search_in(folder)(direction=value)),
            ("direction", lambda: viz.search(rows, direction=value)),
            ("unit", lambda: search.Training(fill("digits"), unit=value)),
            ("optimiser", lambda: fill("digits", optimizer=value)),
            ("schedule", lambda: fill("digits", schedule=value)),
            ("model", lambda: models.build(value, (1, 8, 8), 10)),
            ("durability", lambda: ELSEWHERE["deep.Training"](folder)(durability=value)),
        ):
            refused(call, name, value, ValueError)
        assert list(folder.iterdir()) == []


@settings(deadline=None, max_examples=40)
@given(value=st.one_of(NO_WORD, st.sampled_from(["meen", "autos", ""])).filter(lambda value: not callable(value)))
@pytest.mark.parametrize("name", ["ConvClassifier", "ConvRegressor"])
def test_what_is_no_word_is_refused_by_estimators(name, value):
    pytest.importorskip("sklearn")
    for part in ("model", "loss", "optimizer", "schedule"):
        given = {"model": "linear", part: value}
        refused(lambda: estimator(name)(None)(**given), part, value, ValueError, TypeError)  # noqa: B023


def test_a_value_that_is_long_is_shortened():
    with pytest.raises(ValueError, match=r"^MSELoss: .* got an integer of 16,610 bits$"):
        nn.MSELoss(HUGE)
    with pytest.raises(ValueError, match=r"^Dropout: p is larger than any float, got 1000+\.\.\.0+$") as found:
        nn.Dropout(10**400)
    assert len(str(found.value)) < 130
    with pytest.raises(TypeError, match=r"^Linear: bias must be True or False, got 'a'$"):
        nn.Linear(2, 2, bias="a")


@settings(deadline=None, max_examples=40)
@given(value=st.one_of(st.text(max_size=200), st.none(), OTHERS, st.sampled_from([-1, -HUGE, 1.5])))
@pytest.mark.parametrize("name", ["ConvClassifier", "ConvRegressor"])
def test_verbose_is_any_whole_number_as_in_scikit_learn(name, value):
    pytest.importorskip("sklearn")
    refused(lambda: estimator(name)(None)(verbose=value), "verbose", value, TypeError, ValueError)
    for said in (False, 0, np.bool_(True), 2, np.int64(10)):
        estimator(name)(None)(verbose=said)

"""Tables: what files of rows are read as, what is refused, and what the commands make of them."""

import csv
import io
import json
import re
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fastconv import data
from fastconv.cli import main
from fastconv.data import TargetScale, read_table
from fastconv.data.tables import load_table
from fastconv.train import find_runs, read_record
from fastconv.train.mistakes import residuals
from fastconv.train.run import load_run
from fastconv.train.setup import fill, prepare

FLOATS = st.floats(-1e6, 1e6, width=32)
NAMES = st.text("abcdefgh_ äß,;\"'", min_size=1, max_size=6).map(str.strip).filter(lambda name: name)


def ran(*words, code=0):
    """Run a command in this process; return what it wrote."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def written(path, rows, head=None, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(([head] if head else []) + rows)
    return path


@pytest.fixture
def houses(tmp_path):
    """A table of numbers to predict: a plane with some noise, 240 rows, far from scale 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3)) * (1, 100, 0.01) + (5, -300, 0)
    y = 2000 + 300 * (x[:, 0] - 5) - 2 * (x[:, 1] + 300) + 9000 * x[:, 2] + rng.normal(size=240)
    rows = [[*map(repr, map(float, row)), repr(float(price))] for row, price in zip(x, y, strict=True)]
    return written(tmp_path / "houses.csv", rows, ["rooms", "place", "noise", "price"])


@pytest.fixture
def flowers(tmp_path):
    """A table of three classes by name, without a head."""
    rng = np.random.default_rng(1)
    labels = np.arange(150) % 3
    x = rng.normal(size=(150, 4)) + 3 * labels[:, None]
    names = ("rose", "daisy", "tulip")
    rows = [[*map(repr, map(float, row)), names[k]] for row, k in zip(x, labels, strict=True)]
    return written(tmp_path / "flowers.csv", rows)


# ---- reading


@given(
    st.data(), st.integers(1, 4), st.integers(2, 12), st.sampled_from(",;\t"), st.booleans(),
    st.sampled_from(["numbers", "whole", "text"]),
)  # fmt: skip
def test_a_written_table_is_read_again(tmp_path_factory, drawn, columns, count, delimiter, named, kind):
    path = tmp_path_factory.mktemp("t") / "a.csv"

    def some(of, size):
        return drawn.draw(st.lists(of, min_size=size, max_size=size))

    x = np.array([some(FLOATS, columns) for _ in range(count)])
    if kind == "text":
        labels = ["a b", "c", *some(st.sampled_from(["a b", "c", "ü"]), count - 2)]
    elif kind == "whole":
        labels = [10, -2, *some(st.sampled_from([10, -2, 7]), count - 2)]
    else:
        labels = [value + 0.5 for value in some(st.integers(-99, 99), count)]
    head = [f"column {i}, \"{i}\"" for i in range(columns + 1)] if named else None
    at = drawn.draw(st.integers(0, columns))
    rows = [[*map(repr, map(float, row))] for row in x]
    for row, label in zip(rows, labels, strict=True):
        row.insert(at, str(label))
    written(path, rows, head, delimiter)
    table = read_table(path, head[at] if head else str(at + 1))
    np.testing.assert_array_equal(table.x, x.astype(np.float32))
    if kind == "numbers":
        assert table.classes == ()
        np.testing.assert_array_equal(table.y, labels)
    else:
        assert table.classes == tuple(map(str, sorted(set(labels))))
        assert [table.classes[k] for k in table.y] == list(map(str, labels))
    if head:
        assert table.columns == tuple(name for i, name in enumerate(head) if i != at)
        assert table.target == head[at]


@given(st.data(), st.integers(1, 4), st.integers(2, 12), st.sampled_from(["f4", "f8", "i8", "u1", "?"]), st.booleans())
def test_arrays_of_a_file_are_read_again(tmp_path_factory, drawn, columns, count, dtype, parted):
    path = tmp_path_factory.mktemp("t") / "a.npz"
    rng = np.random.default_rng(drawn.draw(st.integers(0, 99)))
    x = rng.integers(0, 2, (count, columns)).astype(dtype)
    kind = drawn.draw(st.sampled_from(["f8", "i4", "?", "U"]))
    y = np.arange(count) % 2
    y = np.array(["no", "yes"])[y] if kind == "U" else y.astype(kind)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:1], "y_test": y[:1]} if parted else {"x": x, "y": y}
    (np.savez if drawn.draw(st.booleans()) else np.savez_compressed)(path, **arrays)
    table = read_table(path)
    np.testing.assert_array_equal(table.x, x.astype(np.float32))
    assert len(table.classes) == (0 if kind == "f8" else 2)
    assert table.y.tolist() == (np.arange(count) % 2).tolist()
    assert (table.test is not None) == parted
    if parted:
        assert table.test[0].tolist() == x[:1].astype(np.float32).tolist()


def test_names_in_a_file_of_arrays(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"feature_names": np.array(["u", "v"]), "target_names": np.array(["no", "yes", "never"])}
    np.savez(path, x=np.zeros((4, 2)), y=np.array([0, 1, 1, 0]), **arrays)
    table = read_table(path)
    assert (table.columns, table.classes, table.y.tolist()) == (("u", "v"), ("no", "yes", "never"), [0, 1, 1, 0])


def test_a_fifth_of_each_class_is_for_the_test(flowers):
    table = load_table(flowers)
    assert table.classes == ("daisy", "rose", "tulip")
    assert np.bincount(table.train.labels).tolist() == [40] * 3
    assert np.bincount(table.test.labels).tolist() == [10] * 3
    both = np.concatenate([table.train.images, table.test.images])
    assert len(np.unique(both.reshape(150, 4), axis=0)) == 150
    assert (load_table(flowers).test.images == table.test.images).all()
    assert repr(table).endswith("3 classes, 120 training and 30 test rows of 4 columns)")


WRONG = {
    "": "no rows",
    "a,b\n": "no rows",
    "a,b\n1,2\n3\n": "line 3 has 1 cells, the first 2",
    "a,b\n1,x\n,y\n": "line 3, column 'a' is empty",
    "a,b\n1,x\nred,y\n": "line 3, column 'a' holds 'red', which is no number",
    "a,b\n1,x\nnan,y\n": "line 3, column 'a' holds 'nan'",
    "a,b\n1,x\n1e39,y\n": "line 3, column 'a' holds '1e39'",
    "a,b\n1,x\n2,x\n": "all rows are of class 'x'; two are the least",
    "a,a\n1,x\n2,y\n": "two columns are called 'a'",
    "a\n1\n2\n": "one column alone",
    "a,b\n1,2.5\n2,inf\n": "holds inf in row 2",
    'a,b\n1,"x\n': "not a CSV file",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_bad_table_is_refused_with_the_place(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=WRONG[text]) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    said = ran("train", "--dataset", path, code=2)
    assert WRONG[text] in said
    assert len(said.splitlines()) == 1


def test_other_bad_tables(tmp_path, houses):
    with pytest.raises(ValueError, match=r"no column 'prise'; .*did you mean 'price'"):
        read_table(houses, "prise")
    with pytest.raises(ValueError, match="is no number to predict"):
        read_table(written(tmp_path / "t.csv", [["1", "a"], ["2", "b"]]), task="regression")
    with pytest.raises(ValueError, match=r"200 different values in 200 rows, too many for classes.*--task regression"):
        read_table(written(tmp_path / "i.csv", [[0.5 * i, i] for i in range(200)]))
    whole = read_table(written(tmp_path / "i.csv", [[0.5 * i, i] for i in range(200)]), task="regression")
    assert whole.y.tolist() == list(range(200))
    with pytest.raises(ValueError, match="no column '3'; it has 2, without names"):
        read_table(tmp_path / "i.csv", "3")
    (tmp_path / "latin.csv").write_bytes("größe,b\n1,x\n2,y\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a text in UTF-8"):
        read_table(tmp_path / "latin.csv")
    with pytest.raises(ValueError, match="too few to set some of them apart"):
        load_table(written(tmp_path / "two.csv", [["1", "a"], ["2", "b"]]))


def arrays_of(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_bad_arrays_are_refused(tmp_path):
    path, x, y = tmp_path / "a.npz", np.zeros((4, 2)), np.arange(4) % 2
    for arrays, said in (
        ({"x": x}, "no array y"),
        ({"x_train": x, "y_train": y}, "no array x_test and y_test"),
        ({"x": x, "y": y[:3]}, "4 rows in x, 3 targets in y"),
        ({"x": np.zeros((4, 2, 2)), "y": y}, "must hold rows of numbers"),
        ({"x": x * 1j, "y": y}, "must hold rows of numbers"),
        ({"x": np.full((4, 2), np.nan), "y": y}, "4 rows hold NaN"),
        ({"x": np.full((4, 2), 1e300), "y": y}, "beyond float32"),
        ({"x": x, "y": np.stack([y, y], 1)}, "a number or a text for each row"),
        ({"x": x, "y": np.array([None, 1, 2, 3], object)}, "neither numbers nor text"),
        ({"x": x, "y": y, "feature_names": np.array(["a"])}, "must hold 2 names"),
        ({"x_train": x, "y_train": y, "x_test": x[:, :1], "y_test": y}, "fits y_test and x_train"),
    ):
        with pytest.raises(ValueError, match=said):
            read_table(arrays_of(path, **arrays))
    with pytest.raises(ValueError, match="whose targets are its array y"):
        read_table(arrays_of(path, x=x, y=y), "price")
    whole = path.read_bytes()
    for raw in (b"", whole[:40], whole[: len(whole) // 2], b"PK\x03\x04" * 9, np.random.default_rng(0).bytes(400)):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"not an \.npz file"):
            read_table(path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_taken(tmp_path):
    path, made = tmp_path / "a.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 8)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", made.getvalue())
        archive.writestr("y.npy", made.getvalue())
    with pytest.raises(ValueError, match="the file is too small for that"):
        read_table(path)


@given(st.lists(st.floats(-1e30, 1e30).map(lambda value: value if abs(value) > 1e-99 else 0.0), min_size=1, max_size=9))
def test_a_scale_brings_numbers_back(values):
    y = np.array(values)
    scale = TargetScale.fit(y)
    # float32 rounds the distance from the mean, float64 twice what it is added to
    bound = 2**-24 * np.abs(y - scale.mean) + 2**-51 * np.abs(y).max()
    assert (np.abs(scale.back(scale(y)) - y) <= 1.01 * bound).all()


def test_residuals_are_scikit_learn_s():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 50))
    found = residuals(true, predicted)
    assert found["r2"] == pytest.approx(metrics.r2_score(true, predicted), abs=1e-12)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted), abs=1e-12)
    assert found["rmse"] ** 2 == pytest.approx(metrics.mean_squared_error(true, predicted), abs=1e-12)


# ---- commands


def test_numbers_from_training_to_the_page(houses, tmp_path):
    out = tmp_path / "runs" / "houses"
    said = ran("train", "--dataset", houses, "--epochs", 30, "--lr", 0.005, "--out", out, "--json")
    result = json.loads(said.splitlines()[-1])
    assert "numbers (price), rows of 3 columns: 173 to train on, 19 for validation, 48 to test on" in said
    assert result["test_r2"] > 0.9
    assert result["test_accuracy"] is None
    tested = json.loads(ran("eval", out, "--json").splitlines()[-1])
    assert tested["test_mae"] == pytest.approx(result["test_mae"], rel=1e-5)
    assert tested["test_r2"] == pytest.approx(result["test_r2"], rel=1e-5)
    assert tested["test_mae"] < 0.3 * tested["test_mae_of_mean"]
    assert tested["samples"] == 48
    assert "on 48 test rows of" in ran("eval", out)

    # whoever predicts needs no targets, and may have the columns in another order
    table = read_table(houses)
    shuffled = written(tmp_path / "new.csv", table.x[:, ::-1].tolist(), table.columns[::-1])
    rows = json.loads(ran("predict", out, shuffled, "--json").splitlines()[-1])
    assert (rows["target"], len(rows["predictions"])) == ("price", 240)
    predicted = np.array([row["predicted"] for row in rows["predictions"]])
    assert residuals(table.y, predicted)["r2"] > 0.9
    again = json.loads(ran("predict", out, houses, "--json").splitlines()[-1])
    assert [row["predicted"] for row in again["predictions"]] == predicted.tolist()
    assert ran("predict", out, houses).splitlines()[0].split() == ["row", "price"]

    test = json.loads((out / "test.json").read_text())
    assert test["figures"]["r2"] == tested["test_r2"]
    assert len(test["true"]) == len(test["predicted"]) == test["rows"] == 48
    worst = test["worst"][0]
    assert abs(worst["true"] - worst["predicted"]) == max(abs(np.subtract(test["true"], test["predicted"])))
    from fastconv.viz.report.content import describe

    summary, detail = describe(out, "houses")
    assert (summary["usual"], detail["test"]["target"], detail["filters"]) == ("r2", "price", None)
    assert "val r2" in ran("runs", "list", tmp_path / "runs")
    assert "r2 0.9" in ran("runs", "show", out)


def test_classes_from_training_to_predictions(flowers, tmp_path):
    out = tmp_path / "run"
    said = ran("train", "--dataset", flowers, "--epochs", 20, "--out", out)
    assert "3 classes, rows of 4 columns" in said
    assert "of 30 rows)" in said
    assert load_run(out).config["table"] == {"columns": ["x1", "x2", "x3", "x4"], "target": "y"}
    tested = json.loads(ran("eval", out, "--json").splitlines()[-1])
    assert tested["test_accuracy"] > 0.9
    assert set(tested["by_class"]) == {"rose", "daisy", "tulip"}
    assert tested["samples"] == sum(found["samples"] for found in tested["by_class"].values()) == 30
    assert all(set(one) == {"row", "class", "taken_for", "own", "chance"} for one in tested["worst"])
    assert "rows  right" in ran("eval", out)
    from fastconv.viz.report.content import describe

    assert describe(out, "run")[1]["test"]["samples"] == "rows"
    other = written(tmp_path / "other.csv", [["0", "0", "0", "0", "rose"], ["6", "6", "6", "6", "tulip"]])
    whole = json.loads(ran("eval", out, "--dataset", other, "--json").splitlines()[-1])
    assert (whole["test_accuracy"], whole["by_class"]["daisy"]["samples"]) == (1.0, 0)
    for path in (other, written(tmp_path / "bare.csv", [["0"] * 4, ["6"] * 4])):
        rows = json.loads(ran("predict", out, path, "--json", "--top", 2).splitlines()[-1])["predictions"]
        assert [row["class"] for row in rows] == ["rose", "tulip"]
        assert [len(row["top"]) for row in rows] == [2, 2]
    alien = written(tmp_path / "alien.csv", [["0", "0", "0", "0", "orchid"], ["6", "6", "6", "6", "tulip"]])
    assert "'orchid' in row 1, which is none of the classes" in ran("eval", out, "--dataset", alien, code=2)
    short = written(tmp_path / "short.csv", [["0", "0"], ["6", "6"]])
    assert "has 2 columns, mlp takes 4" in ran("predict", out, short, code=2)


def test_a_named_table_without_a_column_is_refused(houses, tmp_path):
    out = tmp_path / "run"
    ran("train", "--dataset", houses, "--epochs", 1, "--out", out)
    wrong = written(tmp_path / "wrong.csv", [["1", "2", "3"]], ["rooms", "place", "colour"])
    assert "has no column noise, which mlp takes" in ran("predict", out, wrong, code=2)
    assert "--invert is for images" in ran("predict", out, houses, "--invert", code=2)
    assert "is no table" in ran("eval", out, "--dataset", tmp_path, code=2)


def test_a_run_goes_on_to_the_same_bits(houses, tmp_path):
    words = ("train", "--dataset", houses, "--schedule", "constant", "--json")
    whole = json.loads(ran(*words, "--epochs", 4).splitlines()[-1])
    ran(*words, "--epochs", 2, "--out", tmp_path / "run")
    on = json.loads(ran("train", "--resume", tmp_path / "run", "--epochs", 4, "--json").splitlines()[-1])
    assert on["state_sha256"] == whole["state_sha256"]
    assert read_record(tmp_path / "run").history[-1]["validation_r2"] is not None


def test_check_speaks_of_rows_and_columns(houses, flowers):
    for path in (houses, flowers):
        said = ran("check", "--dataset", path)
        assert "pixel" not in said
        assert "image" not in said
        assert "Overfitting 20 rows" in said
    assert "training rows of 4 columns" in said


def test_an_exported_net_takes_rows_as_they_are(houses, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    out, file = tmp_path / "run", tmp_path / "net.onnx"
    ran("train", "--dataset", houses, "--epochs", 3, "--out", out)
    assert "rows (N, 3), to numbers (price)" in ran("export", out, "-o", file)
    session, x = runtime.InferenceSession(file), read_table(houses).x
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    rows = json.loads(ran("predict", out, houses, "--json").splitlines()[-1])["predictions"]
    np.testing.assert_allclose(found[:, 0], [row["predicted"] for row in rows], rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metric", "accuracy"], "is for classes, and .* has numbers to predict"),
        (["--mixup", "0.2"], "mixup is for classes"),
        (["--label-smoothing", "0.1"], "label-smoothing is for classes"),
        (["--flip"], "flip is for images"),
        (["--image-size", "8"], "image-size is for folders of images"),
        (["--normalize", "imagenet"], "normalize is for images"),
        (["--model", "resnet20"], "resnet20 is for images; .* take linear, mlp"),
        (["--task", "clasification"], "did you mean 'classification'"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(houses, tmp_path, words, said):
    out = tmp_path / "run"
    assert re.search(said, ran("train", "--dataset", houses, "--out", out, *words, code=2))
    assert not out.exists()


@pytest.mark.parametrize("words", [("train", "--epochs", "1"), ("search", "--trials", "2", "--epochs", "1")])
@pytest.mark.parametrize("share", ["0.1", "0.9"])
def test_a_share_that_leaves_a_part_empty_is_refused_before_anything_is_written(tmp_path, words, share):
    """Four rows to train on: a tenth of them is none, nine tenths are all."""
    pytest.importorskip("optuna")
    table = tmp_path / "few.csv"
    table.write_text("a,b,y\n" + "".join(f"{i},{i * i},{i / 8}\n" for i in range(5)))
    arguments = [*words, "--dataset", str(table), "--validation", share, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    sides = "0 of 4 samples aside and leaves 4" if share == "0.1" else "4 of 4 samples aside and leaves 0"
    assert f"validation {share} sets {sides} to train on" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_options_of_tables_are_for_tables(houses):
    pytest.importorskip("sklearn")
    assert "target is for tables; digits is no table" in ran("train", "--dataset", "digits", "--target", "x", code=2)
    assert "the metric 'r2' is for numbers" in ran("train", "--dataset", "digits", "--metric", "r2", code=2)
    assert "is a table, and this command takes images" in ran("mlp", "train", "--dataset", houses, code=2)
    assert "there is no table" in ran("train", "--dataset", "nowhere.csv", code=2)
    with pytest.raises(ValueError, match="image_size is for folders of images"):
        data.load(houses, image_size=8)


def test_a_search_goes_for_r2(houses, tmp_path):
    pytest.importorskip("optuna")
    words = ("search", "--dataset", houses, "--lr", "1e-4:1e-2", "--trials", 3, "--epochs", 2, "--json")
    found = json.loads(ran(*words, "--out", tmp_path / "tries").splitlines()[-1])
    trials = [read_record(folder) for folder in find_runs(tmp_path / "tries")]
    assert len(trials) == 3
    best = max(max(record.history["validation_r2"]) for record in trials)
    assert found["best_value"] == pytest.approx(best)
    assert "goes for the highest value" in ran(*words, "--metric", "mae", "--out", tmp_path / "no", code=2)


@pytest.mark.parametrize("name", ["curves", "activations", "predictions"])
def test_pictures_of_a_run(houses, tmp_path, name):
    pytest.importorskip("matplotlib")
    from fastconv import viz

    ran("train", "--dataset", houses, "--epochs", 1, "--out", tmp_path / "run")
    assert viz.RunPictures(tmp_path / "run").draw(name).axes
    with pytest.raises(viz.Missing, match="numbers, not classes"):
        viz.RunPictures(tmp_path / "run").draw("confusion")


def test_the_same_seed_gives_the_same_bits_from_either_file(houses, tmp_path):
    table = read_table(houses)
    np.savez(tmp_path / "houses.npz", x=table.x, y=table.y)
    digests = set()
    for path in (houses, tmp_path / "houses.npz"):
        setup = prepare(fill(path, epochs=2), progress=False)
        setup.trainer.fit(setup.train, setup.validation, epochs=2)
        digests.add(tuple(setup.predicted().tolist()))
    assert len(digests) == 1

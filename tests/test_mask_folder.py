"""A folder of images and masks: which belongs to which, both moved together, and nets trained on it."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastconv import config, data, nn, optim
from fastconv.cli import main
from fastconv.data.decode import decode_pair, unfitted
from fastconv.diagnose import Verdict, check
from fastconv.train import evaluate
from fastconv.train.mistakes import Mistakes

Image = pytest.importorskip("PIL.Image")

BRIGHT = 200  # what pixels of class 1 have in images here; those of class 0 have 0


def blocks(rng, height, width, side=4):
    """A mask of blocks of classes 0 and 1."""
    small = rng.integers(0, 2, (-(-height // side), -(-width // side)))
    return np.kron(small, np.ones((side, side), int))[:height, :width].astype(np.uint8)


def put(folder, name, mask, image=None, kind="png"):
    """Write a mask and an image that shows it."""
    for what in ("images", "masks"):
        (folder / what / name).parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.repeat((mask == 1)[..., None] * np.uint8(BRIGHT), 3, 2)
    Image.fromarray(image).save(folder / "images" / f"{name}.{kind}")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture
def folder(tmp_path):
    """Twenty images of blocks, of many sizes."""
    rng = np.random.default_rng(0)
    for i in range(20):
        put(tmp_path / "set", f"{i % 3}/{i:02}", blocks(rng, *rng.integers(12, 40, 2).tolist()))
    return tmp_path / "set"


def agree(image, mask):
    """Whether an image (H, W) or more shows the mask, but for pixels between two classes."""
    sure = (mask != data.IGNORED) & ((image < 0.2 * BRIGHT) | (image > 0.8 * BRIGHT))
    assert sure.sum() > 0.5 * (mask != data.IGNORED).sum()
    np.testing.assert_array_equal((image > BRIGHT / 2)[sure], (mask == 1)[sure])


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_masks_are_resized_as_their_images(folder, resize):
    loaded = data.load(folder, image_size=(24, 18), resize=resize)
    assert loaded.per_pixel
    assert loaded.classes == ("0", "1")
    assert (len(loaded.train.labels), len(loaded.test.labels)) == (16, 4)
    for part in (loaded.train, loaded.test):
        assert part.labels.shape == (len(part.images), 24, 18)
        for image, mask in zip(part.images[:], part.labels[:], strict=True):
            agree(image[0], mask)
            assert (data.IGNORED in mask) <= (resize == "pad")


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 40), width=st.integers(8, 40), own=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    resize=st.sampled_from(["crop", "pad", "stretch"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_predicted_masks_come_back_to_the_image(tmp_path_factory, height, width, own, resize, seed):
    """Fitted and back again, a smooth picture is what it was, to a pixel of the smaller size."""
    folder = tmp_path_factory.mktemp("one")
    rows, columns = np.mgrid[: own[0], : own[1]]
    mask = ((rows * width / own[1] + columns) > (own[0] + own[1]) * 0.4 + seed % 5).astype(np.uint8)
    put(folder, "a", mask)
    fitted = decode_pair(folder / "images/a.png", folder / "masks/a.png", (3, height, width), resize)[..., -1]
    back = unfitted(fitted, own[::-1], resize)
    assert back.shape == own
    seen = back != data.IGNORED
    assert seen.all() or resize == "crop"
    reach = int(np.ceil(max(own[0] / height, own[1] / width))) + 1
    padded = np.pad(mask, reach, mode="edge")
    around = [
        padded[i : i + own[0], j : j + own[1]] for i in range(2 * reach + 1) for j in range(2 * reach + 1)
    ]  # a pixel that has but one class around it has that one
    still = seen & (np.min(around, axis=0) == np.max(around, axis=0))
    np.testing.assert_array_equal(back[still], mask[still])


augments = st.builds(
    data.Augment, shift=st.integers(0, 5), flip=st.booleans(), scale=st.sampled_from([1.0, 0.6]),
    rotation=st.sampled_from([0.0, 30.0, 180.0]), cutout=st.integers(0, 8), brightness=st.sampled_from([0.0, 0.1]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(augment=augments, seed=st.integers(0, 99), batch=st.integers(1, 9))
def test_what_moves_an_image_moves_its_mask(augment, seed, batch):
    rng = np.random.default_rng(seed)
    masks = np.stack([blocks(rng, 24, 20, 6) for _ in range(9)])
    images = (masks * np.uint8(BRIGHT))[:, None]
    batches = data.Batches(images, masks, batch, seed, augment=augment, dtype=np.float32)
    moved = 0
    for x, y in batches:
        assert y.dtype == np.int64
        for image, mask in zip(x[:, 0], y, strict=True):
            agree(image, mask)
            moved += (mask == data.IGNORED).sum()
    if augment.cutout or augment.rotation == 30:
        assert moved
    if not (augment.cutout or augment.rotation or augment.shift or augment.scale < 1):
        assert not moved


@pytest.mark.parametrize("augment", [None, data.Augment(shift=3, flip=True, rotation=20, cutout=5)])
def test_batches_are_those_of_arrays(folder, augment):
    images, labels = data.load(folder, image_size=16, resize="pad").train
    how = {"batch_size": 5, "seed": 3, "augment": augment, "standardize": data.Standardizer.fit(images)}
    lazy, eager = data.Batches(images, labels, **how), data.Batches(images[:], labels[:], **how)
    wide = data.Batches(images[:], labels[:].astype(np.int32), **how)
    for _ in range(2):
        for (x, y), (u, v), (_, w) in zip(lazy, eager, wide, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
            np.testing.assert_array_equal(y, w)


def test_parts_and_names_that_are_there(folder):
    for part in ("train", "val", "test"):
        shutil.copytree(folder, folder.parent / "parts" / part)
    (folder.parent / "parts" / "classes.txt").write_text("ground\nblock\nbird\n")
    loaded = data.load(folder.parent / "parts", image_size=16)
    assert [len(part.labels) for part in (loaded.train, loaded.validation, loaded.test)] == [20, 20, 20]
    assert loaded.classes == ("ground", "block", "bird")
    counts = loaded.train.labels.counts()
    assert counts.sum() == 20 * 16 * 16
    np.testing.assert_array_equal(counts[:2], np.bincount(loaded.train.labels[:].reshape(-1), minlength=2))


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_modes_of_masks(folder, mode):
    mask = blocks(np.random.default_rng(5), 30, 20)
    path = folder / "masks" / "0" / "00.png"
    picture = Image.fromarray(mask)
    if mode == "P":
        picture.putpalette(np.random.default_rng(0).bytes(768))
    elif mode == "1":
        picture = Image.fromarray(mask.astype(bool))
    elif mode == "I;16":
        picture = Image.fromarray(mask.astype(np.uint16))
    picture.save(path)
    shutil.copy(path, folder / "images" / "0" / "00.png")
    loaded = data.load(folder, image_size=(30, 20))
    assert not loaded.damaged
    everything = np.concatenate([loaded.train.labels[:], loaded.test.labels[:]])
    assert (everything == mask).all(axis=(1, 2)).any()


def rewrite(path, array):
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda f: (f / "masks/0/00.png").unlink(), r"1 image has no mask of the same name: images/0/00\.png"),
    (lambda f: (f / "images/0/00.png").unlink(), r"1 mask has no image of the same name: masks/0/00\.png"),
    (lambda f: shutil.rmtree(f / "masks/1"), r"7 images have no mask .*, \.\.\.;"),
    (lambda f: (f / "masks/0/00.png").rename(f / "masks/0/00.jpg"), "a mask is a PNG"),
    (lambda f: shutil.copy(f / "images/0/00.png", f / "images/0/00.jpg"), "one name but for the ending"),
    (lambda f: [rewrite(p, read(p) * 255) for p in f.rglob("masks/*/*")], "write 1 where they"),
    (lambda f: [rewrite(p, read(p) * 7) for p in f.rglob("masks/*/*")], r"numbers 0, 7; classes"),
    (lambda f: (f / "classes.txt").write_text("one\n"), "2 to 255 names of classes, one per line, got 1 names"),
    (lambda f: (f / "classes.txt").write_text("one\none\n"), "one name twice"),
    (lambda f: (f / "classes.txt").write_bytes(b"a\n\xff\n"), "no UTF-8 text"),
    (lambda f: [rewrite(p, np.zeros((9, 9, 3), np.uint8)) for p in f.rglob("masks/*/*")], "not one of 20 .* is RGB"),
])  # fmt: skip
def test_no_data_set_is_one_clear_error(folder, spoil, said):
    spoil(folder)
    with pytest.raises(ValueError, match=said):
        data.load(folder, image_size=12)


def test_masks_that_do_not_fit_are_left_out_and_named(folder):
    (folder / "classes.txt").write_text("ground\nblock\n")
    rewrite(folder / "masks/0/00.png", np.zeros((5, 7), np.uint8))
    rewrite(folder / "masks/0/03.png", np.zeros((20, 20, 3), np.uint8))
    size = read(folder / "images/0/06.png").shape[:2]
    strange = np.zeros(size, np.uint8)
    strange[3, 5] = 2
    rewrite(folder / "masks/0/06.png", strange)
    strange = strange.astype(np.uint16)
    strange[3, 5] = 300
    (folder / "images/0/09.png").write_bytes(b"")
    rewrite(folder / "masks/0/12.png", np.full((9, 9), 300, np.uint16))
    loaded = data.load(folder, image_size=12)
    said = " ".join(loaded.damaged)
    assert len(loaded.damaged) == 5
    for text in (
        "the mask has 7 x 5 pixels", "one number per pixel", "row 3, column 5 is 2, but there are 2 classes",
        "09.png: not a readable image", "0 to 255, found 300",
    ):  # fmt: skip
        assert text in said
    assert len(loaded.train.labels) + len(loaded.test.labels) == 15


def test_cached_masks_are_the_same(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rewrite(folder / "masks/0/00.png", np.zeros((5, 7), np.uint8))
    plain = data.load(folder, image_size=14)
    known = {part: (getattr(plain, part).images[:], getattr(plain, part).labels[:]) for part in ("train", "test")}
    for again in range(3):
        if again == 1:
            monkeypatch.setattr("fastconv.data.pictures.decode_pair", None)  # nothing is decoded a second time
        cached = data.load(folder, image_size=14, cache=True)
        assert cached.damaged == plain.damaged
        for part, (images, masks) in known.items():
            one, two = getattr(plain, part), getattr(cached, part)
            np.testing.assert_array_equal(images, two.images[:])
            np.testing.assert_array_equal(masks, two.labels[:])
            np.testing.assert_array_equal(one.labels.counts(), two.labels.counts())
            assert data.Standardizer.fit(one.images).to_dict() == data.Standardizer.fit(two.images).to_dict()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mask = folder / "masks/1/01.png"
    rewrite(mask, 1 - read(mask))
    os.utime(mask, ns=(1, 1))
    after = data.load(folder, image_size=14, cache=True)
    np.testing.assert_array_equal(after.train.labels[:], data.load(folder, image_size=14).train.labels[:])
    assert (after.train.labels[:] != known["train"][1]).any()


class Looked(nn.Module):
    """Its scores are its input's channels."""

    def forward(self, x):
        return x * 1


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(n=st.integers(1, 9), classes=st.integers(2, 4), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_figures_of_pixels(n, classes, batch, seed):
    """Against counting in plain Python and scikit-learn's Jaccard index; what is of no class counts for nothing."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n, classes, 5, 6)).astype(np.float32)
    masks = rng.choice([*range(classes), data.IGNORED], (n, 5, 6)).astype(np.uint8)
    known = masks != data.IGNORED
    if not known.any():
        return
    mistakes = Mistakes()
    found = evaluate(
        Looked(), nn.CrossEntropyLoss(ignore_index=data.IGNORED), data.Batches(scores, masks, batch, shuffle=False),
        metrics=["iou", "accuracy", "f1_macro"], watch=mistakes,
    )  # fmt: skip
    true, taken = masks[known], scores.argmax(axis=1)[known]
    assert found.accuracy == found.metrics["accuracy"] == np.mean(true == taken)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(true, taken, labels=range(classes)))
    there = np.union1d(true, taken)
    assert found.metrics["iou"] == pytest.approx(metrics.jaccard_score(true, taken, average="macro", labels=there))
    assert found.metrics["f1_macro"] == pytest.approx(metrics.f1_score(true, taken, average="macro", labels=there))
    wrong = ((scores.argmax(axis=1) != masks) & known).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    order = np.argsort(1 - wrong, kind="stable")
    assert [m.row for m in mistakes.worst] == [row for row in order if wrong[row]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Handwritten zeros and ones on photographs; the masks are the strokes."""
    sets = pytest.importorskip("sklearn.datasets")
    rng = np.random.default_rng(0)
    digits, photos = sets.load_digits(), sets.load_sample_images().images
    kinds = [np.flatnonzero(digits.target == k) for k in (0, 1)]
    root = tmp_path_factory.mktemp("scenes") / "scenes"
    for i in range(40):
        photo = photos[i % 2]
        y, x = (int(rng.integers(size - 40)) for size in photo.shape[:2])
        scene, mask = photo[y : y + 40, x : x + 36] // 2, np.zeros((40, 36), np.uint8)
        kind = int(rng.integers(2))
        strokes = np.kron(digits.images[rng.choice(kinds[kind])], np.ones((3, 3))) > 6
        y, x = (int(rng.integers(size - 24)) for size in mask.shape)
        scene[y : y + 24, x : x + 24][strokes] = (250, 240, 200)
        mask[y : y + 24, x : x + 24][strokes] = kind + 1
        mask[0] = data.IGNORED
        put(root, f"{i:02}", mask, scene, "jpg" if i % 3 else "png")
    (root / "classes.txt").write_text("ground\nzero\none\n")
    return root


def call(*args):
    found = CliRunner().invoke(main, [str(arg) for arg in args])
    assert found.exit_code == 0, found.output
    return found.output


HOW = ("--image-size", 32, "--epochs", 4, "--rotation", 10, "--lr", 0.003)


def trained(root, out, *more):
    return json.loads(call("train", "--dataset", root, *HOW, *more, "--json", "--out", out).splitlines()[-1])


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, trained(scenes, out)


def test_strokes_are_found(run):
    """Of four epochs of 29 images; one answer for all pixels would give a mean IoU below a third."""
    _, told = run
    assert told["test_iou"] > 0.4
    assert told["test_accuracy"] > 0.88


def test_same_bits_on_any_threads_cached_killed_and_resumed(scenes, run, tmp_path, monkeypatch):
    _, whole = run
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = config.threads()
    config.threads(1 if before > 1 else 2)
    try:
        other = trained(scenes, tmp_path / "other", "--cache", "--checkpoint-every", 5)
    finally:
        config.threads(before)
    assert other["state_sha256"] == whole["state_sha256"]
    assert other["test_iou"] == whole["test_iou"]
    for name in ("result.json", "model.safetensors"):  # as a kill leaves it
        (tmp_path / "other" / name).unlink()
    sorted((tmp_path / "other" / "checkpoints").iterdir())[-1].unlink()
    again = json.loads(call("train", "--resume", tmp_path / "other", "--json").splitlines()[-1])
    assert again["state_sha256"] == whole["state_sha256"]


def test_what_a_net_is_tested_by(scenes, run):
    out, told = run
    tested = json.loads(call("eval", out, "--json").splitlines()[-1])
    for name in ("test_accuracy", "test_iou", "test_loss", "state_sha256"):
        assert tested[name] == told[name]
    assert set(tested["by_class"]) == {"ground", "zero", "one"}
    ious = [figures["iou"] for figures in tested["by_class"].values()]
    assert np.mean(ious) == pytest.approx(tested["test_iou"])
    assert "mean IoU" in call("eval", out)
    assert tested["samples"] < tested["by_class"]["ground"]["samples"]  # images, and pixels of theirs


def test_masks_are_written(scenes, run, tmp_path):
    out, told = run
    found = json.loads(call("predict", out, scenes / "images", "--out", tmp_path / "seen", "--json").splitlines()[-1])
    assert len(found["predictions"]) == 40
    right = total = 0
    for one in found["predictions"]:
        with Image.open(one["mask"]) as written:
            assert written.mode == "P"
        mask = read(one["mask"])
        assert mask.shape == read(one["image"]).shape[:2]
        assert sum(one["shares"].values()) == pytest.approx(1)
        seen = mask != data.IGNORED
        assert one["shares"]["zero"] == pytest.approx((mask[seen] == 1).mean())
        truth = read(scenes / "masks" / Path(one["mask"]).name)
        known = seen & (truth != data.IGNORED)
        right, total = right + (mask == truth)[known].sum(), total + known.sum()
    assert right / total == pytest.approx(told["test_accuracy"], abs=0.05)
    assert "ground" in call("predict", out, scenes / "images/00.png", "--out", tmp_path / "seen")
    names = (scenes / "images/00.png", scenes / "masks/00.png")
    refused = CliRunner().invoke(main, ["predict", str(out), *map(str, names), "--out", str(tmp_path / "seen")])
    assert refused.exit_code == 2
    assert "would both get the mask" in refused.output
    (tmp_path / "damaged.png").write_bytes(b"none")
    damaged = ["predict", str(out), str(tmp_path / "damaged.png"), "--out", str(tmp_path / "new")]
    refused = CliRunner().invoke(main, damaged)
    assert refused.exit_code == 2
    assert not (tmp_path / "new").exists()
    refused = CliRunner().invoke(main, ["predict", str(out), str(names[0]), "--out", str(scenes / "images")])
    assert refused.exit_code == 2
    assert "would be written over" in refused.output


def test_exported_and_run_as_an_onnx_file(scenes, run, tmp_path):
    pytest.importorskip("onnx")
    out, told = run
    call("export", out, "-o", tmp_path / "net.onnx")
    tested = json.loads(call("eval", tmp_path / "net.onnx", "--dataset", scenes, "--json").splitlines()[-1])
    assert tested["test_iou"] == pytest.approx(told["test_iou"], abs=0.2)  # images are padded there, cut here
    call("predict", tmp_path / "net.onnx", scenes / "images/01.jpg", "--out", tmp_path / "seen")
    assert read(tmp_path / "seen/01.png").shape == (40, 36)
    again = trained(scenes, tmp_path / "again", "--model", out, "--freeze", 12, "--epochs", 1)
    assert again["test_iou"] > 0.4


def test_the_report_shows_masks(run):
    from fastconv.viz.report.mistakes import sheet_of

    out, _ = run
    sheet = sheet_of(out / "test.json")
    assert sheet["samples"] == "pixels"
    assert sheet["worst"]
    assert all(w["width"] == 3 * w["height"] for w in sheet["worst"])


def test_the_check_understands_masks(scenes):
    found = data.load(scenes, image_size=16)
    standardize = data.Standardizer.fit(found.train.images)
    net = nn.Sequential(nn.Conv2d(3, 24, 5, padding=2), nn.ReLU(), nn.Conv2d(24, 3, 3, padding=1))
    report = check(
        net, data.Batches(*found.train, 8, standardize=standardize), loss=nn.CrossEntropyLoss(ignore_index=255),
        optimizer=optim.Adam(net.parameters(), 0.01), seconds=0.2,
    )  # fmt: skip
    told = {finding.step: finding for finding in report.findings}
    counts = told["data"].figures["class_counts"]
    assert counts.tolist() == np.bincount(found.train.labels[:].reshape(-1), minlength=256)[:3].tolist()
    assert f"class 0 alone is right for {counts[0] / counts.sum():.0%} of the pixels" in told["data"].summary
    assert "ln(3) = 1.0986" in told["loss"].summary
    assert str(told["loss"].verdict) == "good"
    assert report.verdict != Verdict.WRONG


@pytest.mark.parametrize(("args", "said"), [
    (("--model", "resnet20"), "resnet20 gives scores for each image; .* has a class for each pixel: take unet"),
    (("--model", "unet", "--dataset", "digits"), "unet gives scores for each pixel; digits has one class an image"),
])  # fmt: skip
def test_nets_of_the_other_kind_are_refused(scenes, args, said):
    found = CliRunner().invoke(main, ["train", "--dataset", str(scenes), *args])
    assert found.exit_code == 2
    assert re.search(said, " ".join(found.output.split()))

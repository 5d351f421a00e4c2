"""A folder of images as a data set: layouts, modes, damage, order, and training on it from the command line."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from fastconv import config, data, locks
from fastconv.cli import main

Image = pytest.importorskip("PIL.Image")


def draw(path, rng, size=(20, 16), mode="RGB", low=0, high=256):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(low, high, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Dark and light noise, twenty of each."""
    rng = np.random.default_rng(0)
    for name, low, high in (("dark", 0, 100), ("light", 130, 256)):
        for i in range(20):
            size = (int(rng.integers(8, 40)), int(rng.integers(8, 40)))
            draw(tmp_path / "set" / name / f"{i}.png", rng, size, low=low, high=high)
    return tmp_path / "set"


def test_classes_are_folders_and_a_fifth_of_each_is_for_the_test(folder):
    loaded = data.load(folder, image_size=12)
    assert loaded.classes == ("dark", "light")
    assert loaded.shape == (3, 12, 12)
    assert np.bincount(loaded.train.labels).tolist() == [16, 16]
    assert np.bincount(loaded.test.labels).tolist() == [4, 4]
    means = loaded.train.images[:].mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(means > 115, loaded.train.labels)


def test_same_images_every_time_by_any_way_of_looking(folder):
    one, two = (data.load(folder, image_size=(9, 11)) for _ in range(2))
    whole = one.train.images[:]
    np.testing.assert_array_equal(whole, np.asarray(two.train.images))
    rows = [3, 0, 3, 7]
    np.testing.assert_array_equal(whole[rows], two.train.images[rows])
    np.testing.assert_array_equal(whole[5], two.train.images[5])
    np.testing.assert_array_equal(whole[-2:], two.train.images[-2:])


def test_batches_are_those_of_an_array(folder):
    images, labels = data.load(folder, image_size=10).train
    how = {"batch_size": 5, "seed": 3, "augment": data.Augment(shift=2, flip=True)}
    for drop in (False, True):
        lazy = data.Batches(images, labels, drop_last=drop, **how)
        eager = data.Batches(images[:], labels, drop_last=drop, **how)
        for _ in range(2):
            for (x, y), (u, v) in zip(lazy, eager, strict=True):
                np.testing.assert_array_equal(x, u)
                np.testing.assert_array_equal(y, v)


def test_statistics_are_those_of_an_array(folder):
    images = data.load(folder, image_size=10).train.images
    assert data.Standardizer.fit(images).to_dict() == data.Standardizer.fit(images[:]).to_dict()
    assert data.Standardizer.fit(images, "pixel").to_dict() == data.Standardizer.fit(images[:], "pixel").to_dict()


def test_parts_that_are_there(folder):
    for part in ("train", "val", "test"):
        shutil.copytree(folder, folder.parent / "parts" / part)
    loaded = data.load(folder.parent / "parts", image_size=8)
    assert [len(part.labels) for part in (loaded.train, loaded.validation, loaded.test)] == [40, 40, 40]
    shutil.rmtree(folder.parent / "parts" / "test")
    loaded = data.load(folder.parent / "parts", image_size=8)
    assert loaded.test.images is loaded.validation.images


def test_damaged_files_are_left_out_and_named(folder):
    (folder / "dark" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    whole = (folder / "light" / "4.png").read_bytes()
    (folder / "light" / "4.png").write_bytes(whole[: len(whole) // 2])
    loaded = data.load(folder, image_size=8)
    assert sorted(text.split(":")[0] for text in loaded.damaged) == [
        str(folder / "dark" / "3.png"), str(folder / "light" / "4.png"),
    ]  # fmt: skip
    assert len(loaded.train.labels) + len(loaded.test.labels) == 38


def test_a_file_that_goes_away_later_is_named(folder):
    images = data.load(folder, image_size=8).train.images
    (folder / "dark" / "5.png").unlink()
    with pytest.raises(OSError, match=r"5\.png could be read when"):
        images[:]


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda f: shutil.rmtree(f / "light"), "at least two"),
    (lambda f: [p.write_bytes(b"") for p in f.rglob("*.png")], "not one of 40 images"),
    (lambda f: [p.unlink() for p in (f / "light").iterdir()], "no image for light"),
    (lambda f: [p.write_bytes(b"") for p in (f / "light").iterdir()], "no image of light to train on"),
])  # fmt: skip
def test_no_data_set_is_one_clear_error(folder, spoil, said):
    spoil(folder)
    with pytest.raises(ValueError, match=said):
        data.load(folder)


def test_from_the_command_line(folder):
    run = folder.parent / "run"
    os.symlink(folder / "dark", folder / "dark" / "again")  # a circle
    options = ["--dataset", str(folder), "--image-size", "8", "--epochs", "2", "--model", "mlp", "--json"]
    (folder / "dark" / "3.png").write_bytes(b"")
    trained = CliRunner().invoke(main, ["train", *options, "--out", str(run)])
    assert trained.exit_code == 0, trained.output
    assert "1 damaged file was left out" in trained.output
    tested = CliRunner().invoke(main, ["eval", str(run), "--json"])
    told = json.loads(tested.output.splitlines()[-1])
    assert told["test_accuracy"] == 1.0
    assert told["by_class"]["dark"]["recall"] == 1.0
    assert told["samples"] == sum(found["samples"] for found in told["by_class"].values())
    guessed = CliRunner().invoke(main, ["predict", str(run), str(folder / "light" / "1.png"), "--json"])
    assert json.loads(guessed.output)["predictions"][0]["class"] == "light"
    listed = CliRunner().invoke(main, ["runs", "list", str(folder.parent)])
    assert " set " in listed.output


def drawn(mode, path):
    """One picture, its left half red, its right half white, in a mode and format; and what it should look like."""
    image = np.full((12, 16, 3), 255, np.uint8)
    image[:, :8] = (200, 0, 0)
    right = image.copy()
    if mode == "I;16":
        grey = np.where(image[..., 1] == 0, 77, 255).astype(np.uint16)
        Image.fromarray(grey * 257).save(path)
        right[:, :8] = 77
    elif mode == "clear":  # transparent where it is white, black below
        alpha = np.where(image[..., 1:2] == 0, 255, 0).astype(np.uint8)
        Image.fromarray(np.concatenate([np.where(alpha, image, 0), alpha], -1).astype(np.uint8)).save(path)
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # the file lies on its side
        Image.fromarray(np.rot90(image).copy()).save(path, exif=exif)
    elif mode in ("L", "1", "LA"):
        Image.fromarray(image).convert("L").convert(mode).save(path)
        grey = np.asarray(Image.open(path).convert("L"))
        right = np.repeat(grey[..., None], 3, -1)
    elif mode == "P":
        Image.fromarray(image).quantize(2).save(path)
    else:
        Image.fromarray(image).convert(mode).save(path)
    return right


@pytest.mark.parametrize(("mode", "kind"), [
    ("RGB", "png"), ("RGB", "bmp"), ("RGB", "tif"), ("RGB", "ppm"), ("P", "png"), ("P", "gif"), ("L", "png"),
    ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("clear", "png"), ("clear", "tif"), ("I;16", "png"), ("I;16", "tif"),
    ("CMYK", "tif"), ("turned", "png"), ("turned", "tif"),
])  # fmt: skip
def test_modes_and_formats(folder, mode, kind):
    right = drawn(mode, folder / "dark" / f"_.{kind}")  # sorted after all digits
    loaded = data.load(folder, image_size=(12, 16))
    assert not loaded.damaged
    everything = np.concatenate([loaded.train.images[:], loaded.test.images[:]]).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(np.abs(everything - right.astype(int)).max(axis=(1, 2, 3)).min(), 0)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_sizes(folder, resize):
    """A picture twice as wide as high, black but for its right quarter."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 30:] = 255
    for path in (folder / "dark").iterdir():
        Image.fromarray(image).save(path)
    loaded = data.load(folder, image_size=20, resize=resize)
    got = loaded.train.images[0][0]
    assert got.shape == (20, 20)
    if resize == "crop":
        assert got.max() == 0
    elif resize == "pad":
        assert got[:5].max() == got[15:].max() == 0
        assert got[10, -1] == 255
    else:
        assert (got[:, -3:] == 255).all()
        assert (got[:, :13] == 0).all()


def test_bombs_are_refused_unread(folder, monkeypatch):
    monkeypatch.setattr("fastconv.data.decode.MAX_PIXELS", 100 * 100)
    Image.new("RGB", (101, 100)).save(folder / "dark" / "bomb.png")
    (text,) = data.load(folder, image_size=8).damaged
    assert "101 x 100 pixels are more than" in text


def test_names_that_are_no_text(folder):
    os.rename(os.fsencode(folder / "light"), os.fsencode(folder) + b"/light\xff\x1b[31m")
    loaded = data.load(folder, image_size=8)
    assert loaded.classes == ("dark", "light��[31m")
    os.mkdir(os.fsencode(folder) + b"/light\xfe\x1b[31m")
    with pytest.raises(ValueError, match="both show as"):
        data.load(folder, image_size=8)


def test_hidden_and_other_files_are_left_alone(folder):
    for name in (".DS_Store", ".hidden.png", "notes.txt", "Thumbs.db"):
        (folder / "dark" / name).write_bytes(b"no picture")
    (folder / ".git").mkdir()
    os.mkfifo(folder / "dark" / "pipe.png")
    os.symlink("/nowhere", folder / "dark" / "broken.png")
    loaded = data.load(folder, image_size=8)
    assert (len(loaded.train.labels), len(loaded.test.labels), loaded.damaged) == (32, 8, ())


def patches(photo, side=48):
    height, width = photo.shape[0] // side * side, photo.shape[1] // side * side
    grid = photo[:height, :width].reshape(height // side, side, width // side, side, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A flower and a monument: scikit-learn's two photographs, cut into patches."""
    samples = pytest.importorskip("sklearn.datasets").load_sample_images()
    root = tmp_path_factory.mktemp("photos")
    for name, photo in zip(("monument", "flower"), samples.images, strict=True):
        (root / name).mkdir()
        for i, patch in enumerate(patches(photo)):
            Image.fromarray(patch).save(root / name / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


PHOTOS = ("--image-size", "24", "--model", "mnist-small", "--epochs", "8", "--scale", "0.5", "--rotation", "15",
          "--contrast", "0.2", "--saturation", "0.2", "--cutout", "6")  # fmt: skip


def trained(root, out, *more):
    done = CliRunner().invoke(main, ["train", "--dataset", str(root), *PHOTOS, *more, "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


@pytest.mark.parametrize("threads", [1, 2])
def test_flowers_and_monuments(photos, tmp_path, monkeypatch, threads):
    """Learned, cached or not, on any number of threads to the same bits; killed and resumed, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = trained(photos, tmp_path / "whole")
    assert whole["test_accuracy"] > 0.9
    before = config.threads()
    config.threads(threads)
    try:
        other = trained(photos, tmp_path / "other", "--cache", "--checkpoint-every", "5")
    finally:
        config.threads(before)
    assert other["state_sha256"] == whole["state_sha256"]
    for name in ("result.json", "model.safetensors"):  # as a kill leaves it
        (tmp_path / "other" / name).unlink()
    newest = sorted((tmp_path / "other" / "checkpoints").iterdir())[-1]
    newest.unlink()
    again = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "other"), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.output.splitlines()[-1])["state_sha256"] == whole["state_sha256"]


class TestCache:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        self.folder = tmp_path / "cache" / "fastconv" / "images"

    @property
    def path(self):
        (path,) = self.folder.iterdir()  # and no draft, no lock
        return path

    def test_same_images_statistics_and_damage(self, folder):
        (folder / "dark" / "3.png").write_bytes(b"")
        plain = data.load(folder, image_size=9)
        for _ in range(2):
            cached = data.load(folder, image_size=9, cache=True)
            assert cached.damaged == plain.damaged
            for part in ("train", "test"):
                one, two = getattr(plain, part), getattr(cached, part)
                np.testing.assert_array_equal(one.images[:], two.images[:])
                np.testing.assert_array_equal(one.labels, two.labels)
                np.testing.assert_array_equal(one.images.sums, two.images.sums)
                np.testing.assert_array_equal(one.images.squares, two.images.squares)

    def test_nothing_is_decoded_a_second_time(self, folder, monkeypatch):
        data.load(folder, image_size=9, cache=True)
        monkeypatch.setattr("fastconv.data.pictures.decode", None)
        assert len(data.load(folder, image_size=9, cache=True).train.images[:]) == 32

    def test_made_anew_when_a_file_changes(self, folder):
        before = data.load(folder, image_size=9, cache=True).train.images[:]
        kept = self.path.read_bytes()
        draw(folder / "dark" / "0.png", np.random.default_rng(9))
        os.utime(folder / "dark" / "0.png", ns=(1, 1))
        after = data.load(folder, image_size=9, cache=True).train.images[:]
        assert (before != after).any()
        assert self.path.read_bytes() != kept
        np.testing.assert_array_equal(after, data.load(folder, image_size=9).train.images[:])

    @pytest.mark.parametrize("at", [0, 9, 4000, -1, -200, -900])
    def test_a_changed_byte_gives_no_wrong_image(self, folder, at):
        right = data.load(folder, image_size=9, cache=True).train.images[:]
        spoilt = bytearray(self.path.read_bytes())
        spoilt[at] ^= 1
        self.path.write_bytes(spoilt)
        images = data.load(folder, image_size=9, cache=True).train.images
        if at == 4000:  # among the pixels, which are looked at when they are read
            with pytest.raises(OSError, match="is damaged"):
                images[:]
        else:
            np.testing.assert_array_equal(images[:], right)

    def test_cut_short_before_and_while_in_use(self, folder):
        right = data.load(folder, image_size=9, cache=True).train.images[:]
        os.truncate(self.path, 5000)
        images = data.load(folder, image_size=9, cache=True).train.images
        np.testing.assert_array_equal(images[:], right)
        os.truncate(self.path, 3000)
        with pytest.raises(OSError, match="cut short"):
            images[:]

    def test_while_another_writes_it_files_are_decoded(self, folder):
        data.load(folder, image_size=9, cache=True)
        path = self.path
        path.unlink()
        with locks.Lock(path, "mine"):
            assert len(data.load(folder, image_size=9, cache=True).train.images[:]) == 32
            assert not path.exists()

    def test_whole_or_not_at_all(self, folder, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            data.load(folder, image_size=9, cache=True)
        assert list(self.folder.iterdir()) == []

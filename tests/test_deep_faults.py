"""Deep nets beside other processes, on full disks, and with files that go away: never torn, never a lost process."""

import os
import random
import shutil
import subprocess
from contextlib import closing, contextmanager, suppress

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastconv.cli import main
from fastconv.data import Dataset, Samples
from fastconv.deep import Paths, Record, Training, create, evaluate, inspect
from fastconv.deep.storage import Mapped
from fastconv.functional.residual import ResidualCore

MODES = {"in place": {}, "every step": {"durability": "step"}, "in memory": {"in_memory": True}}
STEPS = 6
modes = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(8)

    def draw(n):
        return Samples(rng.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8), rng.integers(0, 10, n))

    return Dataset("noise", tuple("0123456789"), draw(60), draw(20))


def new(layers=300, seed=3):
    return Record(4, layers, layers**-0.5, "softsign", 36, 10, seed)


def make(folder, **about):
    paths = Paths.of(folder / "net.bin")
    create(paths, new(**about))
    return paths


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@modes
def test_who_makes_or_reads_a_net_that_is_trained_is_refused(tmp_path, dataset, mode):
    pytest.importorskip("fcntl")
    paths = make(tmp_path)
    with Training(paths, dataset, **mode) as training:
        for _ in range(3):
            training.step()
            before = files(tmp_path)
            with pytest.raises(BlockingIOError, match="another process is training this net"):
                create(paths, new(layers=5), force=True)
            for look in (lambda: evaluate(paths, dataset.test, 255), lambda: inspect(paths)):
                with pytest.raises(BlockingIOError, match="another process is training this net; try again"):
                    look()
            assert files(tmp_path) == before
        training.save()
    assert evaluate(paths, dataset.test, 255)["test_loss"] > 0
    assert inspect(paths)["step"] == 3
    assert sorted(files(tmp_path)) == ["net.bin", "net.bin.head", "net.bin.json"]


@modes
def test_what_was_read_of_a_net_before_it_was_ones_own_must_hold(tmp_path, dataset, mode):
    """Else a second process goes on from where the first was when it looked."""
    paths = make(tmp_path)
    seen = Record.read(paths.record)
    with Training(paths, dataset, seen=seen, **mode) as training:
        training.step()
        training.save()
    before = files(tmp_path)
    with pytest.raises(BlockingIOError, match="another process has changed this net just now"):
        Training(paths, dataset, seen=seen, **mode)
    assert files(tmp_path) == before
    Training(paths, dataset, seen=Record.read(paths.record), **mode).close()


def test_a_net_that_is_read_is_not_changed_meanwhile(tmp_path, dataset):
    pytest.importorskip("fcntl")
    paths, seen = make(tmp_path), []

    def meanwhile(layers):
        for change in (lambda: Training(paths, dataset), lambda: create(paths, new(), force=True)):
            with pytest.raises(BlockingIOError, match="is training this net, or reading it"):
                change()
        seen.append(evaluate(paths, dataset.test, 255)["test_loss"])

    assert evaluate(paths, dataset.test, 255, watch=meanwhile)["test_loss"] in seen


def test_who_works_on_a_net_is_asked_before_images_are_read(tmp_path):
    """Also `--force` is refused at once: here there are no images to read."""
    pytest.importorskip("fcntl")
    paths, nowhere = make(tmp_path), str(tmp_path / "nowhere")
    commands = (["deep", "init", "--force"], ["mlp", "train"])
    for command in commands:
        words = [*command, "--weights", str(paths.weights), "--data-dir", nowhere]
        with paths.lock():
            before = files(tmp_path)
            refused = CliRunner().invoke(main, words)
            assert files(tmp_path) == before
        assert refused.exit_code == 2
        assert "another process is training this net" in refused.stderr
        assert "there is no folder" in CliRunner().invoke(main, words).stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(list(MODES.values())),
    wrong=st.one_of(
        st.fixed_dictionaries({
            "layer_rate": st.sampled_from([0.0, -0.1, float("nan"), float("inf"), -float("inf")])
        }),
        st.fixed_dictionaries({"head_rate": st.sampled_from([0.0, -0.1, float("nan"), float("inf")])}),
        st.fixed_dictionaries({"batch": st.sampled_from([0, -1, 61, 10**9])}),
        st.fixed_dictionaries({"train_limit": st.integers(0, 15)}),
        st.fixed_dictionaries({"chunk": st.integers(-5, 0)}),
        st.fixed_dictionaries({"window": st.integers(-5, 0)}),
        st.fixed_dictionaries({"position": st.sampled_from([(-1, 0), (0, -1)])}),
        st.fixed_dictionaries({"durability": st.sampled_from(["", "always"])}),
    ),
)  # fmt: skip
def test_what_can_be_refused_is_refused_before_a_file_changes(tmp_path, dataset, mode, wrong):
    paths = Paths.of(tmp_path / "net.bin")
    if not paths.record.exists():
        create(paths, new())
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"must be"):
        Training(paths, dataset, **mode | wrong)
    assert files(tmp_path) == before


def test_a_position_behind_an_epoch_is_the_next_one(tmp_path, dataset):
    paths = make(tmp_path)
    with Training(paths, dataset, batch=16, position=(2, 3)) as training:  # three batches per epoch
        assert training.batches.position == (3, 0)


def test_a_mapped_file_may_become_shorter_at_any_moment(tmp_path):
    rng = random.Random(3)
    core = ResidualCore(4, 6000)
    nbytes = core.layers * core.row * 4
    path = tmp_path / "net.bin"
    for writable in (False, True) * 10:
        path.write_bytes(bytes(nbytes))
        with closing(Mapped(core, path, writable=writable)) as mapped:
            first = rng.randrange(core.layers - 1)
            end = rng.randrange(first + 1, core.layers)
            window = mapped.window(first, end, change=writable)
            length = rng.randrange(nbytes)
            os.truncate(path, length)
            assert float(window.sum()) == 0.0
            if writable:
                window[...] = 1.0  # also what is there no more
            gone = end * core.row * 4 > -(-length // 4096) * 4096
            if gone:
                with pytest.raises(ValueError, match=r"net\.bin: the file was truncated while in use"):
                    mapped.done(first, end)
            else:
                mapped.done(first, end)
            with pytest.raises(ValueError, match="truncated while in use"):
                mapped.window(first, end)
            del window


@modes
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_goes_away_is_said_or_written_anew(tmp_path, dataset, mode, how):
    paths = make(tmp_path)
    with Training(paths, dataset, **mode) as training:
        training.step()
        content = paths.weights.read_bytes()
        paths.weights.unlink()
        if how == "replaced":
            paths.weights.write_bytes(content)
        if "in_memory" in mode:
            training.step()
            training.save()
        else:
            with pytest.raises(FileNotFoundError, match=r"net\.bin: the file was removed or replaced while in use"):
                training.step()
    if "in_memory" in mode:
        assert inspect(paths)["step"] == 2


@contextmanager
def disk(folder):
    """A small disk."""
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounts a small tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@modes
def test_on_a_disk_that_gets_full_a_net_is_whole_and_goes_on_to_the_same_bits(tmp_path, dataset, mode):
    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    train(whole, dataset, mode)
    rng = random.Random(1)
    with disk(tmp_path / "small") as small:
        refused = 0
        for _ in range(12):
            folder = small / str(rng.random())
            folder.mkdir()
            paths = make(folder)
            try:
                train(paths, dataset, mode, lambda: fill(small / "filler", rng), rng.randrange(-1, STEPS))
            except OSError as error:
                refused += "No space left" in str(error)
            (small / "filler").unlink(missing_ok=True)
            assert Record.read(paths.record).state == "clean"
            train(paths, dataset, mode)
            assert files(folder) == files(tmp_path / "whole")
            shutil.rmtree(folder)
        assert refused > 0 or mode == {}  # to go on in place takes no room


def train(paths, dataset, mode, incident=lambda: None, moment=None):
    """Up to step 6, of three an epoch; something happens after the step ``moment``, -1 is before the run."""
    step = Record.read(paths.record).step
    if moment == -1:
        incident()
    with Training(paths, dataset, position=divmod(step, 3), **mode) as training:
        for now in range(step, STEPS):
            training.step()
            if now == moment:
                incident()
            if now % 2:
                training.save()
        training.save()


def fill(path, rng):
    """Take the room that the disk has, but for a page or so."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - 4096 * rng.randrange(4)))

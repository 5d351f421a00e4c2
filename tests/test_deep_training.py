"""Deep nets on disk: same bits in memory and streamed, files and records, locks, kills and interrupts."""

import gc
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from fastconv import config
from fastconv.data import Dataset, Samples
from fastconv.deep import DeepNet, Head, Paths, Record, TornError, Training, create, evaluate, inspect
from fastconv.deep.net import fit
from fastconv.functional.residual import ResidualCore, blocks_of


@pytest.fixture(scope="module")
def dataset():
    """Ten noisy patterns of 6x6 pixels."""
    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 200, (10, 1, 6, 6))

    def draw(n):
        labels = rng.integers(0, 10, n)
        images = (patterns[labels] + rng.integers(0, 56, (n, 1, 6, 6))).astype(np.uint8)
        return Samples(images, labels.astype(np.int64))

    return Dataset("patterns", tuple("0123456789"), draw(300), draw(100))


def make(folder, layers=300, width=4, seed=3, activation="softsign"):
    paths = Paths.of(folder / "net.bin")
    create(paths, Record(width, layers, layers**-0.5, activation, 36, 10, seed))
    return paths


def content(paths):
    return paths.weights.read_bytes(), paths.head.read_bytes()


def run(paths, dataset, steps, **options):
    with Training(paths, dataset, **{"batch": 16, "layer_rate": 0.05, "head_rate": 0.1, **options}) as training:
        reports = [training.step() for _ in range(steps)]
        training.save()
    return reports


def test_same_bits_in_memory_streamed_and_with_every_window(tmp_path, dataset):
    found = set()
    for n, options in enumerate(
        [
            {"in_memory": True},
            {"durability": "run"},
            {"durability": "step"},
            {"chunk": 7, "window": 1500},
            {"chunk": 64, "window": 6000, "durability": "step"},
        ]
    ):
        folder = tmp_path / str(n)
        folder.mkdir()
        paths = make(folder)
        for isa in config.available_isas()[-1 - n % 2 :][:1]:
            with config.isa(isa), config.threads(1 + n % 2):
                run(paths, dataset, 7, **options)
        found.add(content(paths))
        assert sorted(p.name for p in folder.iterdir()) == ["net.bin", "net.bin.head", "net.bin.json"]
        assert Record.read(paths.record).step == 7
    assert len(found) == 1


def test_one_step_is_that_of_a_plain_loop(tmp_path, dataset):
    paths = make(tmp_path, layers=5, width=3, activation="tanh")
    weights = np.fromfile(paths.weights, "<f4").astype(np.float64).reshape(5, 12)
    head = np.fromfile(paths.head, "<f4").astype(np.float64)
    w_in, b_in = head[:108].reshape(36, 3), head[108:111]
    w_out, b_out = head[111:141].reshape(3, 10), head[141:]
    with Training(paths, dataset, batch=16, layer_rate=0.5, head_rate=0.25) as training:
        x, labels = (a.copy() for a in training.batches.batch(0, 0))
        report = training.step()
    x = x / 255
    e = np.tanh(x @ w_in + b_in)
    h, _, _ = reference.residual_core(weights, e, np.zeros_like(e), 5**-0.5, "tanh", 0.5)
    logits = h @ w_out + b_out
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert report.loss == pytest.approx(-np.log(p[np.arange(16), labels]).mean(), rel=1e-5)
    g = (p - np.eye(10)[labels]) / 16
    _, new, g_in = reference.residual_core(weights, e, g @ w_out.T, 5**-0.5, "tanh", 0.5)
    g_in = g_in * (1 - e**2)
    parts = [w_in - 0.25 * x.T @ g_in, b_in - 0.25 * g_in.sum(0), w_out - 0.25 * h.T @ g, b_out - 0.25 * g.sum(0)]
    np.testing.assert_allclose(np.fromfile(paths.weights, "<f4"), new.ravel(), rtol=1e-5, atol=1e-7)
    expected = np.concatenate([a.ravel() for a in parts])
    np.testing.assert_allclose(np.fromfile(paths.head, "<f4"), expected, rtol=1e-4, atol=1e-6)


def test_it_learns_and_evaluates(tmp_path, dataset):
    paths = make(tmp_path, width=8, layers=50)
    before = evaluate(paths, dataset.test, dataset.levels)
    reports = run(paths, dataset, 300, in_memory=True, head_rate=0.3)
    after = evaluate(paths, dataset.test, dataset.levels, in_memory=True)
    assert reports[-1].loss < reports[0].loss
    assert after["test_accuracy"] > max(0.8, before["test_accuracy"])
    streamed = evaluate(paths, dataset.test, dataset.levels, window=4000)
    assert (streamed["test_loss"], streamed["test_accuracy"]) == (after["test_loss"], after["test_accuracy"])


def test_resuming_goes_on_where_it_stopped(tmp_path, dataset):
    straight, broken = tmp_path / "a", tmp_path / "b"
    straight.mkdir()
    broken.mkdir()
    paths = make(straight)
    run(paths, dataset, 40, in_memory=True)
    expected = content(paths)
    paths = make(broken)
    for steps in (11, 18, 11):
        sampler = Record.read(paths.record).sampler
        position = (sampler.get("epoch", 0), sampler.get("index", 0))
        run(paths, dataset, steps, in_memory=True, position=position)
    assert content(paths) == expected


def test_bad_files_are_refused(tmp_path, dataset):
    paths = make(tmp_path)
    with pytest.raises(FileExistsError, match=r"net\.bin exists"):
        create(paths, Record.read(paths.record))
    whole = paths.weights.read_bytes()
    for change in (whole[:-4], whole + b"0000"):
        paths.weights.write_bytes(change)
        for options in ({"in_memory": True}, {"durability": "run"}, {"durability": "step"}):
            with pytest.raises(ValueError, match=f"{len(whole)} bytes, the file has {len(change)}"):
                Training(paths, dataset, **options)
        with pytest.raises(ValueError, match="bytes"):
            evaluate(paths, dataset.test, dataset.levels)
        assert paths.weights.read_bytes() == change
    paths.weights.write_bytes(whole)
    paths.record.write_text("{}")
    with pytest.raises(ValueError, match="not a record"):
        Training(paths, dataset)


def test_a_torn_file_is_refused_with_the_way_out(tmp_path, dataset):
    paths = make(tmp_path)
    training = Training(paths, dataset)

    def fail(layers):
        if Record.read(paths.record).state != "clean":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.step(fail)
    training.close()
    assert Record.read(paths.record).state == "torn in step 1"
    for use in (lambda: Training(paths, dataset), lambda: evaluate(paths, dataset.test, dataset.levels)):
        with pytest.raises(TornError, match=r"torn in step 1.*--durability step"):
            use()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize(("name", "message"), [
    ("weights", "net.bin: .*the file has 0"), ("head", "net.bin.head: .*the file has 0"),
    ("record", "its record .*net.bin.json is missing"),
])  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(tmp_path, dataset, name, message):
    paths = make(tmp_path)
    getattr(paths, name).unlink()
    os.mkfifo(getattr(paths, name))
    for use in (lambda: Training(paths, dataset), lambda: evaluate(paths, dataset.test, dataset.levels)):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            use()


def test_a_file_truncated_while_open_is_an_error(tmp_path, dataset):
    paths = make(tmp_path)
    with Training(paths, dataset, window=4000) as training:
        training.step()
        os.truncate(paths.weights, 100)
        with pytest.raises(ValueError, match="truncated while in use"):
            training.step()


def test_an_evaluation_that_is_left_leaves_no_open_file(tmp_path, dataset):
    paths = make(tmp_path)

    def leave(layers):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(paths, dataset.test, dataset.levels, watch=leave)
    small = Samples(dataset.test.images[..., :2], dataset.test.labels)
    with pytest.raises(ValueError, match="pixels, the images have"):
        evaluate(paths, small, dataset.levels)
    gc.collect()  # a file left open would be a ResourceWarning, which is an error here


def test_a_second_trainer_is_refused(tmp_path, dataset):
    pytest.importorskip("fcntl")
    paths = make(tmp_path)
    with Training(paths, dataset), pytest.raises(BlockingIOError, match="another process"):
        Training(paths, dataset)
    with Training(paths, dataset, durability="step") as training:
        training.step()
    with Training(paths, dataset):
        pass


def test_inspect_counts_what_is_there(tmp_path):
    paths = make(tmp_path)
    weights = np.memmap(paths.weights, "<f4", "r+").reshape(300, 20)
    weights[299, 3] = np.nan
    weights[0, 0] = -2
    weights.flush()
    found = inspect(paths, ranges=3)
    assert (found["width"], found["layers"], found["state"]) == (4, 300, "clean")
    assert [r["nan"] for r in found["ranges"]] == [0, 0, 1]
    assert found["ranges"][0]["min"] == -2
    assert found["ranges"][1]["norm"] == pytest.approx(np.linalg.norm(weights[100:200]), rel=1e-6)


def train_until_killed(paths, dataset):
    """In a forked child: go on from the record, for ever."""
    sampler = Record.read(paths.record).sampler
    position = (sampler.get("epoch", 0), sampler.get("index", 0))
    with Training(
        paths, dataset, layer_rate=0.05, head_rate=0.1, durability="step", position=position, window=4000
    ) as training:
        while True:
            training.step()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_fifty_moments_nothing_is_lost(tmp_path, dataset):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = make(tmp_path / "a", layers=500)
    moments = random.Random(1)
    kills = 0
    while kills < 50 or Record.read(paths.record).step <= 10:  # a slow machine gets on less far between kills
        kills += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                train_until_killed(paths, dataset)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0.0, 0.06) * (1 + kills / 50))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert Record.read(paths.record).state == "clean"
    with Training(paths, dataset) as training:  # settles the generations
        steps = training.record.step
    assert steps > 10
    straight = make(tmp_path / "b", layers=500)
    run(straight, dataset, steps, in_memory=True)
    assert content(paths) == content(straight)


def command(*args, cwd, family="deep"):
    return subprocess.Popen(
        [sys.executable, "-m", "fastconv", family, *args],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(*args, cwd, code=0, family="deep", timeout=120):
    words = [sys.executable, "-m", "fastconv", family, *args]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if code == 0 else done.stderr


def test_the_command_line_on_digits(tmp_path):
    pytest.importorskip("sklearn")
    options = ["--dataset", "digits", "--weights", "d.bin", "--json"]
    made = result("init", "--layers", "100", "--width", "2", *options, cwd=tmp_path)
    assert made["bytes"] == 100 * 6 * 4 == (tmp_path / "d.bin").stat().st_size
    trained = result("train", "--steps", "20", "--in-memory", *options, cwd=tmp_path)
    assert trained["steps"] == 20
    assert set(trained) >= {
        "loss", "batch_accuracy", "step_seconds", "layer_samples_per_second", "peak_rss_bytes", "weights_sha256",
    }  # fmt: skip
    tested = result("eval", *options, cwd=tmp_path)
    assert set(tested) == {"test_loss", "test_accuracy", "seconds", "layer_samples_per_second"}
    told = result("inspect", "d.bin", "--json", cwd=tmp_path)
    assert told["step"] == 20
    again = result("train", "--steps", "5", "--resume", "--durability", "step", *options, cwd=tmp_path)
    assert again["step"] == 25
    for bad, message in (
        (["train", "--activation", "relu"], "the record .* says activation softsign"),
        (["train", "--width", "0"], "0 is not in the range 1<=x<=512"),
        (["train", "--memory-limit", "-3"], "'-3' is no size; write 256M or 2G"),
        (["train", "--memory-limit", "inf"], "'inf' is no size"),
        (["train", "--data-dir", "nowhere"], "there is no folder nowhere"),
        (["init"], "d.bin exists"),
    ):
        err = result(*bad, *options, cwd=tmp_path, code=2)
        assert re.search(message, err), err
    assert result("inspect", "d.bin", "--json", cwd=tmp_path)["step"] == 25


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("mode", "number", "code"),
    [
        ([], signal.SIGINT, 130),
        (["--in-memory"], signal.SIGTERM, 143),
        (["--durability", "step"], signal.SIGINT, 130),
    ],
)
def test_an_interrupt_leaves_clean_files(tmp_path, mode, number, code):
    pytest.importorskip("sklearn")
    process = command(
        "train", "--dataset", "digits", "--weights", "d.bin", "--layers", "200000", "--steps", "100000",
        "--report-every", "1", "--json", *mode, cwd=tmp_path,
    )  # fmt: skip
    for _ in range(4):  # the first lines of progress
        assert process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{number.name}: stopping" in err
    found = json.loads(out.splitlines()[-1])
    told = result("inspect", "d.bin", "--json", cwd=tmp_path)
    assert (told["state"], told["step"]) == ("clean", found["step"])
    assert found["step"] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("durability", ["run", "step"])
def test_an_interrupt_in_a_long_step_is_answered_before_it_ends(tmp_path, durability):
    """The answer says when the run ends; the other generation is abandoned at once, an update in place is finished."""
    pytest.importorskip("sklearn")
    process = command(
        "train", "--dataset", "digits", "--weights", "d.bin", "--layers", "3000000", "--steps", "1000",
        "--report-every", "1", "--durability", durability, "--json", cwd=tmp_path,
    )  # fmt: skip
    for _ in range(2):  # what it trains, and the first step
        assert process.stderr.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    lines = iter(process.stderr.readline, "")
    before, answer = 0, next(lines)
    while "stopping" not in answer:
        before, answer = before + 1, next(lines)
    assert before <= 1  # a step that had just ended, and no other
    assert re.search(r"stopping (now|after this step, in about \d+\.\d s \(again: at once, .* torn\))", answer)
    assert "now" in answer or durability == "run"
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert result("inspect", "d.bin", "--json", cwd=tmp_path)["state"] == "clean"


@pytest.mark.skipif(not shutil.which("mount") or os.name != "posix" or os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, dataset):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        with pytest.raises(OSError, match="bytes"):
            make(small, layers=100_000)
        assert list(small.iterdir()) == []
        paths = make(small, layers=8_000)
        before = content(paths)
        with pytest.raises(OSError, match="no room for 640000 bytes"):
            Training(paths, dataset, durability="step")
        assert content(paths) == before
        run(paths, dataset, 1)
    finally:
        subprocess.run(["umount", small], check=True)


@given(
    width=st.integers(1, 24), layers=st.integers(1, 20_000), samples=st.integers(1, 70), threads=st.integers(1, 6),
    files=st.integers(1, 2), nbytes=st.integers(-(10**6), 20 * 10**6), chunk=st.none() | st.integers(1, 20_000),
)  # fmt: skip
def test_a_streamed_step_takes_what_it_was_fitted_to(width, layers, samples, threads, files, nbytes, chunk):
    core = ResidualCore(width, layers)
    with config.threads(threads):
        plan = fit(core, samples, nbytes, chunk=chunk, files=files)
        net = DeepNet(core, Head(1, width, 2), None, plan.chunk, plan.window)
        net._prepare(samples)
    row, state, tapes = core.row * 4, blocks_of(samples) * 64 * width, max(2, min(threads, 4))
    window = max(end - first for first, end in net._ranges) * row
    longest = min(chunk or 0, layers)
    halves = [longest >> k for k in range(longest.bit_length())]
    used = net._marks.nbytes + tapes * 2 * net.chunk * state + files * window
    assert used <= plan.nbytes
    if plan.nbytes > nbytes:  # then no length would do, of those that are not too short to be fast
        for length in halves or [core.chunk(samples) << k for k in range(21)]:
            length = min(length, layers)
            least = (-(-layers // length) + tapes * 2 * length) * state + files * max(1 << 20, length * row)
            assert least > nbytes - 3 * state
    elif chunk:
        for longer in halves[: halves.index(plan.chunk)]:
            assert core.step_bytes(samples, longer, threads) + files * max(1 << 20, longer * row) > nbytes


sanitized = pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="AddressSanitizer's shadow and what it keeps of freed memory are resident too"
)


@sanitized
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs to know what is resident")
def test_what_cannot_be_trained_within_memory_or_samples_is_refused_before_anything_is_written(tmp_path):
    ask = ("train", "--dataset", "digits", "--layers", "100000", "--steps", "1")
    assert "the number of training samples, got 5000" in result(*ask, "--batch", "5000", cwd=tmp_path, code=2)
    err = result(*ask, "--memory-limit", "200", cwd=tmp_path, code=2)
    found = re.search(r"--memory-limit 200: the program and its images take [\d.]+M, a step on batch 16 ([\d.]+)M "
                      r"at least; allow (\d+)M, or take a smaller --batch", err)  # fmt: skip
    assert found, err
    assert float(found[1]) < 2
    assert list(tmp_path.iterdir()) == []
    allowed = int(found[2]) + 4  # the next process may begin with some pages more
    assert result(*ask, "--memory-limit", f"{allowed}M", "--json", cwd=tmp_path)["peak_rss_bytes"] < allowed << 20


def test_images_that_fill_the_usual_memory_limit_raise_it_and_no_other(monkeypatch):
    memory = importlib.import_module("fastconv.cli.memory")
    record = Record(4, 1000, 0.1, "relu", 3072, 10, 0)
    monkeypatch.setattr(memory, "_base_memory", lambda: 300 << 20)
    chunk, window = memory.within(None, record, 16, 256, 1)
    assert ResidualCore(4, 1000).step_bytes(16, chunk, 2) + window <= 64 << 20
    with pytest.raises(ValueError, match=r"--memory-limit 256M: the program and its images take 308.8M.*allow 310M"):
        memory.within(256 << 20, record, 16, 256, 1)


@sanitized
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs to know what is resident")
def test_chunks_that_memory_has_no_room_for_are_shortened(tmp_path):
    """A million layers between two kept states would take 511 MB."""
    pytest.importorskip("sklearn")
    ask = ("train", "--dataset", "digits", "--layers", "1500000", "--width", "2", "--batch", "1", "--steps", "1",
           "--json")  # fmt: skip
    asked = result(*ask, "--weights", "a.bin", "--chunk-layers", "1000000", cwd=tmp_path)
    assert asked["peak_rss_bytes"] < 256 << 20
    assert asked["weights_sha256"] == result(*ask, "--weights", "b.bin", cwd=tmp_path)["weights_sha256"]


@sanitized
@pytest.mark.slow
@pytest.mark.parametrize(("batch", "limit"), [(16, 256), (64, 160)])
def test_a_hundred_million_layers_streamed(tmp_path, batch, limit):
    """2.4 GB of weights, two steps, resident memory under the limit; kept states alone could take 100 MB."""
    pytest.importorskip("sklearn")
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("needs 4 GB of disk")
    found = result(
        "train", "--dataset", "digits", "--weights", "d.bin", "--layers", "100000000", "--width", "2", "--steps", "2",
        "--batch", str(batch), "--memory-limit", f"{limit}M", "--json", cwd=tmp_path, timeout=900,
    )  # fmt: skip
    assert found["steps"] == 2
    assert found["peak_rss_bytes"] < limit << 20


def mlp(*args, cwd):
    return result(*args, "--dataset", "digits", "--json", cwd=cwd, family="mlp")


def test_the_mlp_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("sklearn")

    mlp("train", "--steps", "400", "--lr", "0.3", "--weights", "one", cwd=tmp_path)
    mlp("train", "--steps", "150", "--lr", "0.3", "--weights", "two", cwd=tmp_path)
    assert mlp("train", "--steps", "250", "--lr", "0.3", "--weights", "two", cwd=tmp_path)["step"] == 400
    one, two = mlp("eval", "--weights", "one", cwd=tmp_path), mlp("eval", "--weights", "two", cwd=tmp_path)
    assert one["test_loss"] == two["test_loss"]
    assert one["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("family", "options", "steps"), [("deep", ("--layers", "5"), 2 * (1437 // 32)), ("mlp", (), 2 * (1437 // 32))]
)
def test_lengths_are_those_of_train(tmp_path, family, options, steps):
    pytest.importorskip("sklearn")
    length = ("--epochs", "2", "--batch-size", "32")
    done = result("train", *options, *length, "--dataset", "digits", "--json", cwd=tmp_path, family=family)
    assert done["step"] == steps
    process = command("train", "--weights", "new", "--steps", "5", "--epochs", "2", cwd=tmp_path, family=family)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--steps 5 and --epochs 2 are two lengths of one run; give one of them" in err
    assert not list(tmp_path.glob("new*"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_mlp_after_the_running_step(tmp_path, number, code):
    pytest.importorskip("sklearn")
    process = command(
        "train", "--dataset", "digits", "--steps", "10000000", "--report-every", "10", "--weights", "one", "--json",
        cwd=tmp_path, family="mlp",
    )  # fmt: skip
    assert process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{number.name}: stopping after this step" in err
    steps = json.loads(out.splitlines()[-1])["step"]
    assert mlp("train", "--steps", str(steps), "--weights", "two", cwd=tmp_path)["step"] == steps
    one, two = (mlp("eval", "--weights", name, cwd=tmp_path)["test_loss"] for name in ("one", "two"))
    assert one == two


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be opened here, nor their names waited for")
def test_a_save_is_on_the_disk_before_its_record_counts_and_its_names_after(tmp_path, dataset, monkeypatch):
    paths = make(tmp_path)
    found = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        found.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def watched_replace(source, target):
        found.append(("rename", os.path.basename(target)))
        replace(source, target)

    with Training(paths, dataset, batch=16, layer_rate=0.05, head_rate=0.1, in_memory=True) as training:
        training.step()
        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "replace", watched_replace)
        training.save()
        monkeypatch.undo()
        weights, head = (("sync", path.stat().st_ino) for path in paths.generation(1))
    folder, commit = ("sync", tmp_path.stat().st_ino), ("rename", paths.record.name)
    assert found.count(commit) == 1
    before, after = found[: found.index(commit)], found[found.index(commit) + 1 :]
    assert {weights, head} <= set(before)
    assert folder in before[before.index(head) :]
    assert after == [folder]


def test_a_kill_between_the_two_files_of_an_mlp_loses_a_run_and_nothing_else(tmp_path):
    """The record is replaced first: with the net of before, the step of before counts."""
    pytest.importorskip("sklearn")
    net = tmp_path / "one"
    mlp("train", "--steps", "20", "--weights", "one", cwd=tmp_path)
    before = net.read_bytes()
    mlp("train", "--steps", "30", "--weights", "one", cwd=tmp_path)
    after = net.read_bytes()
    net.write_bytes(before)
    assert mlp("train", "--steps", "30", "--weights", "one", cwd=tmp_path)["step"] == 50
    assert net.read_bytes() == after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing.*give another --weights"), ("a pipe", "is missing.*give another --weights"),
        ("[]", "not the record"), ("{", "not the record"), ("{}", "'step'"),
    ],
)
def test_a_bad_record_of_an_mlp_is_one_line(tmp_path, text, message):
    pytest.importorskip("sklearn")
    mlp("train", "--steps", "1", "--weights", "one", cwd=tmp_path)
    record = tmp_path / "one.json"
    record.unlink()
    if text == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("the system has no pipes with names")
        os.mkfifo(record)
    elif text is not None:
        record.write_text(text)
    err = result("train", "--dataset", "digits", "--weights", "one", cwd=tmp_path, family="mlp", code=2)
    assert re.fullmatch(rf"fastconv mlp train: .*{message}.*\n", err), err

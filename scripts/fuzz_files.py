"""Mutations of every file the package reads: what comes of them is a result or one clear error, never anything else.

    scripts/fuzz_files.py --cases 3000 --seed 0

Each case copies files made beforehand, changes one of them (bits, length, JSON types, depth, huge numbers, links; with
digests and lengths made right again, too) and hands it to the commands and functions that read it. It fails if there
is a traceback, a signal, an answer that takes a minute, more than 1 GB of memory asked for in vain, a file changed
outside of the case's own folder, or a list of runs that lacks the sound one. A case depends on the seed and its number
alone: ``--only N`` repeats one and shows what it says.

Cases run one after another in a few processes, under a limit on their memory; one that dies is begun anew after the
case it died in.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import resource
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from fuzz_mutations import mutate_bytes, mutate_checkpoint, mutate_json, mutate_lines, mutate_model, mutate_onnx

LIMIT = 1 << 30  # bytes that a case may take beyond what the process has
SECONDS = 4.0  # after which a training that goes on is cut short, which is no fault
SILENCE = 60.0  # seconds without an answer that are one
CODES = {0, 2, 3, 4, 130, 143}
CLEAN = (ValueError, OSError, ImportError)


def command(*words):
    """Run the command line in this process; return its exit code and what it wrote."""
    from fastconv.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words], prog_name="fastconv")
        except SystemExit as end:
            code = end.code
    told, complaints = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))
    if "TimeUp" in complaints:  # it came where Python lets nothing through, in a destructor
        raise TimeUp
    if code not in CODES:
        raise AssertionError(f"exit code {code}: {complaints[-300:]}")
    if "Traceback" in complaints or ("\x1b[31m" in told + complaints and "--json" not in words):
        raise AssertionError(f"a traceback or control characters: {complaints[-300:]}")
    return code, told


def listed(*words):
    """A list or page of runs: one that cannot be read takes the others from nobody."""
    code, told = command(*words)
    if code != 0 or ("list" in words and "other" not in told):
        raise AssertionError(f"exit code {code}; the sound run is listed: {'other' in told}")


def function(call):
    with contextlib.suppress(*CLEAN):
        call()


def net(path):
    from fastconv import serialize

    function(lambda: serialize.load(path).predict(np.zeros((1, 1, 8, 8), np.float32)))


def onnx_net(path):
    from fastconv import onnx

    function(lambda: onnx.load(path).predict(np.zeros((2, 3, 12, 12), np.float32)))


def torch_weights(path):
    from fastconv import nn, serialize

    function(lambda: nn.Linear(6, 4).load_state_dict(serialize.load_torch(path)))


def idx(path):
    from fastconv.data import read_idx

    function(lambda: read_idx(path))


def cifar(path):
    from fastconv.data import read_cifar

    function(lambda: read_cifar(path, 3))


def picture(path):
    from fastconv.data import load_image

    for shape in ((1, 8, 8), (3, 32, 32)):
        function(lambda shape=shape: load_image(path, shape))


def table(path):
    from fastconv.data import read_table
    from fastconv.data.tables import load_table

    function(lambda: load_table(path))
    function(lambda: read_table(path, "b", "regression", bare=2))


def kept(folder, name):
    """What a cache of images, or of images and masks, was made of."""
    from fastconv.data.pictures import Files, PairFiles

    names = ("x.png", "rgba.png", "x.npy")
    if name == "cache":
        return Files(folder, names, (3, 9, 9), "crop")
    return PairFiles(folder, names, ("x.png", "x.png", "x.npy"), (4, 9, 9), "crop")


def scenes(path):
    from fastconv.data import load

    def read():
        root = path.parent if path.name == "classes.txt" else path.parent.parent
        for part in (load(root, image_size=8).train, load(root, image_size=8).test):
            assert part.labels[:].shape == (len(part.images), 8, 8)

    function(read)


def cached(path):
    from fastconv.data.image_cache import Cached
    from fastconv.data.image_cache import listed as listing

    def read():
        files = kept(path.parent, path.stem)
        stored, survey = Cached.open(path, files, listing(files))
        assert set(survey.damaged) <= {0, 1, 2}
        for number in range(3):
            stored.decode(number)

    function(read)


def runs(folder):
    """What reads the run in ``done``, beside a sound one."""
    run, image = folder / "done", folder / "x.npy"
    return [
        lambda: listed("runs", "list", folder), lambda: listed("runs", "list", folder, "--json"),
        lambda: listed("report", folder, "-o", folder / "page.html"),
        lambda: command("runs", "show", run), lambda: command("runs", "show", run, "--json"),
        lambda: command("runs", "diff", run, folder / "other"), lambda: command("predict", run, image),
        lambda: command("eval", run), lambda: command("plot", run, "--only", "curves", "--only", "updates"),
        lambda: command("plot", run, "--only", "dead", "--only", "gradients", "--only", "filters"),
        lambda: command("check", "--run", run, "--seconds", "0.02"),
    ]  # fmt: skip


def numbers(folder):
    """What reads the run in ``done``, of a table with numbers to predict."""
    run, rows = folder / "done", folder / "rows.csv"
    return [
        lambda: command("report", folder, "-o", folder / "page.html"), lambda: command("runs", "show", run),
        lambda: command("predict", run, rows), lambda: command("eval", run),
        lambda: command("eval", run, "--dataset", rows), lambda: command("export", run, "-o", folder / "net.onnx"),
        lambda: command("plot", run, "--only", "predictions"),
        lambda: command("check", "--run", run, "--seconds", "0.02"),
    ]  # fmt: skip


def resumed(folder):
    return [lambda: command("train", "--resume", folder / "killed"), lambda: listed("runs", "list", folder)]


def searched(folder):
    return [lambda: command("search", "--out", folder / "search", "--resume")]


def deep(folder):
    weights = ("--dataset", "digits", "--weights", folder / "deep.bin")
    return [
        lambda: command("deep", "inspect", folder / "deep.bin"),
        lambda: command("deep", "eval", *weights, "--limit", 9),
        lambda: command("deep", "train", *weights, "--resume", "--steps", 1),
        lambda: command("deep", "train", *weights, "--resume", "--steps", 1, "--durability", "step"),
    ]  # fmt: skip


def mlp(folder):
    weights = ("--dataset", "digits", "--weights", folder / "mlp.safetensors")
    return [lambda: command("mlp", "train", *weights, "--steps", 1), lambda: command("mlp", "eval", *weights)]


def stepped(folder):
    """What reads the folders of runs that count in steps."""
    deep, mlp = folder / "deep", folder / "mlp"
    return [
        lambda: listed("runs", "list", folder),
        lambda: command("deep", "eval", "--out", deep, "--limit", 9),
        lambda: command("deep", "train", "--resume", "--out", deep, "--steps", 1),
        lambda: command("mlp", "train", "--resume", "--out", mlp, "--steps", 1),
        lambda: command("train", "--resume", mlp),
    ]


def of(read):
    """What reads one file by a function."""
    return lambda path: [lambda: read(path)]


def beside(name, read):
    """What reads one file by a function, when another beside it is changed."""
    return lambda path: [lambda: read(path.with_name(name))]


BY_PATH = {"data", "images", "onnx", "scenes", "tables", "torch"}  # whose readers are given the file itself


# How often, what is copied, which file of it is changed, how, and what reads it (the folder, or the file itself).
TARGETS = [
    *((5, "runs", f"done/{name}.json", "json", runs) for name in ("config", "env", "result", "test")),
    (5, "runs", "done/metrics.jsonl", "lines", runs),
    (4, "runs", "done/model.safetensors", "model", runs),
    (4, "runs", "done/model.safetensors", "model", of(net)),
    *((3, "numbers", f"done/{name}.json", "json", numbers) for name in ("config", "test")),
    (2, "numbers", "rows.csv", "bytes", numbers),
    *((3, "tables", name, "bytes", of(table)) for name in ("a.csv", "a.npz", "packed.npz")),
    *((3, "killed", f"killed/{name}.json", "json", resumed) for name in ("config", "env")),
    (3, "killed", "killed/metrics.jsonl", "lines", resumed),
    (10, "killed", "killed/checkpoints/NEWEST", "checkpoint", resumed),
    (6, "search", "search/search.journal", "lines", searched),
    (6, "deep", "deep.bin.json", "json", deep), (1, "deep", "deep.bin", "bytes", deep),
    (1, "deep", "deep.bin.head", "bytes", deep),
    *((4, "stepped", f"{run}/config.json", "json", stepped) for run in ("deep", "mlp")),
    *((2, "stepped", f"{run}/metrics.jsonl", "lines", stepped) for run in ("deep", "mlp")),
    (2, "stepped", "deep/result.json", "json", stepped),
    (3, "mlp", "mlp.safetensors.json", "json", mlp), (3, "mlp", "mlp.safetensors", "model", mlp),
    *((6, "onnx", name, "onnx", of(onnx_net)) for name in ("saved.onnx", "exported.onnx", "outside.onnx")),
    (1, "onnx", "weights", "bytes", beside("outside.onnx", onnx_net)),
    (3, "torch", "weights.safetensors", "model", of(torch_weights)),
    *((2, "data", name, "bytes", of(idx)) for name in ("images.gz", "labels", "members.gz")),
    *((2, "data", name, "bytes", of(cifar)) for name in ("batch.bin", "batch.bin.gz")),
    *((2, "images", name, "bytes", of(picture)) for name in ("x.npy", "x.png", "rgba.png", "deep.png", "x.jpg")),
    *((1, "images", f"x.{kind}", "bytes", of(picture)) for kind in ("bmp", "gif", "ppm", "tif", "webp")),
    *((3, "images", f"{name}.images", "bytes", of(cached)) for name in ("cache", "masks")),
    *((2, "scenes", name, "bytes", of(scenes)) for name in ("masks/a.png", "images/a.png", "classes.txt")),
]  # fmt: skip

# What reads each folder as it was made.
WHOLE = {
    "runs": runs, "killed": resumed, "deep": deep, "mlp": mlp, "search": searched, "stepped": stepped,
    "numbers": numbers,
    "onnx": lambda folder: of(onnx_net)(folder / "exported.onnx"),
}  # fmt: skip


def make(root):
    """Write one of each file that is read."""
    from PIL import Image
    from safetensors.numpy import save_file

    from fastconv.data.image_cache import listed as listing
    from fastconv.data.image_cache import write

    digits = ("--dataset", "digits")
    short = (*digits, "--model", "mlp", "--epochs", 1, "--batch-size", 256, "--watch-every", 2)
    for folder in ("runs", "killed", "search", "deep", "mlp", "stepped", "data", "images", "onnx", "torch"):
        (root / folder).mkdir(parents=True)
    make_tables(root)
    for words in (
        ("train", *short, "--out", root / "runs" / "done"), ("train", *short, "--out", root / "runs" / "other"),
        ("train", *short, "--epochs", 2, "--chill-out", 1, "--checkpoint-every", 2,
         "--out", root / "killed" / "killed"),
        ("train", "--dataset", root / "numbers" / "rows.csv", "--epochs", 1, "--out", root / "numbers" / "done"),
        ("search", *digits, "--model", "linear", "--epochs", 1, "--trials", 2, "--out", root / "search" / "search"),
        ("deep", "train", *digits, "--layers", 20, "--steps", 2, "--weights", root / "deep" / "deep.bin"),
        ("mlp", "train", *digits, "--hidden", 8, "--steps", 2, "--weights", root / "mlp" / "mlp.safetensors"),
        ("deep", "train", *digits, "--layers", 20, "--steps", 2, "--out", root / "stepped" / "deep"),
        *(("mlp", "train", *digits, "--hidden", 8, "--steps", 2, "--out", root / "stepped" / name)
          for name in ("mlp", "other")),
    ):  # fmt: skip
        code, _ = command(*words)
        assert code == 0, words
    killed = root / "killed" / "killed"
    for name in ("result.json", "model.safetensors"):
        (killed / name).unlink()
    sorted((killed / "checkpoints").iterdir())[-1].unlink()  # so that there is something left to do
    shutil.copytree(root / "runs" / "other", root / "killed" / "other")
    rng = np.random.default_rng(0)
    np.save(root / "runs" / "x.npy", np.zeros((8, 8), np.uint8))
    pixels = rng.integers(0, 256, (40, 30, 4)).astype(np.uint8)
    plain = struct.pack(">HBB3I", 0, 8, 3, 5, 28, 28) + rng.integers(0, 256, 5 * 784).astype(np.uint8).tobytes()
    batch = rng.integers(0, 10, (3, 3073)).astype(np.uint8).tobytes()
    for name, content in {
        "images.gz": gzip.compress(plain), "labels": struct.pack(">HBBI", 0, 8, 1, 300) + bytes(300),
        "members.gz": gzip.compress(plain[:999]) + gzip.compress(plain[999:]),
        "batch.bin": batch, "batch.bin.gz": gzip.compress(batch),
    }.items():  # fmt: skip
        (root / "data" / name).write_bytes(content)
    np.save(root / "images" / "x.npy", rng.integers(0, 17, (8, 8)).astype(np.float32))
    Image.fromarray(pixels[:, :, 0]).save(root / "images" / "x.png")
    Image.fromarray(pixels).save(root / "images" / "rgba.png")
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(root / "images" / "deep.png")
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + bytes(9)
    Image.fromarray(pixels[:, :, :3]).save(root / "images" / "x.jpg", exif=exif)
    for kind in ("bmp", "gif", "ppm", "tif", "webp"):
        Image.fromarray(pixels[:, :, :3]).save(root / "images" / f"x.{kind}")
    for name in "abcde":
        for what, image in (("images", pixels[..., :3]), ("masks", pixels[..., 3] % 3)):
            (root / "scenes" / what).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / "scenes" / what / f"{name}.png")
    (root / "scenes" / "classes.txt").write_text("sky\ntree\nroad\n")
    for name in ("cache", "masks"):
        files = kept(root / "images", name)
        write(root / "images" / f"{name}.images", files, listing(files))
    make_onnx(root / "onnx", rng)
    weights = {"weight": rng.normal(size=(4, 6)).astype(np.float32), "bias": np.zeros(4, np.float16)}
    save_file(weights, root / "torch" / "weights.safetensors")


def make_tables(root):
    """Write a table of classes with names in quotes, one of arrays, plain and packed, and one of numbers."""
    for folder in ("tables", "numbers"):
        (root / folder).mkdir(parents=True)
    x = np.random.default_rng(0).normal(size=(40, 2))
    lines = ['"the ""a"", first",b,class\n', *(f"{a},{b},{'yn'[int(a > 0)]}\n" for a, b in x)]
    (root / "tables" / "a.csv").write_text("".join(lines))
    names = {"feature_names": np.array(["a", "b"]), "target_names": np.array(["n", "y"])}
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "packed.npz")):
        save(root / "tables" / name, x=x, y=(x[:, 0] > 0).astype(int), **names)
    (root / "numbers" / "rows.csv").write_text("a,b,sum\n" + "".join(f"{a},{b},{a + b}\n" for a, b in x))


def make_onnx(folder, rng):
    """Write a net as this package writes it, and one as exporters do, in one file and with its weights in another."""
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    from fastconv import nn
    from fastconv.onnx import load, save

    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(6, 4, 2, 2),
        nn.PReLU(), nn.Flatten(), nn.Linear(576, 5),
    )  # fmt: skip
    save(net, folder / "saved.onnx", (2, 3, 12, 12))
    w, scale = rng.normal(size=(4, 3, 3, 3)).astype(np.float32), np.ones(4, np.float32)
    weights = {
        "w": w, "b": scale, "s": scale, "m": scale, "v": scale, "zero": np.int64([0]), "one": np.int64(0),
        "rest": np.int64([-1]), "sizes": np.float32([1, 1, 2, 2]), "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
        "head": rng.normal(size=(676, 5)).astype(np.float32), "filled": np.int64([5]), "six": np.float32(6),
    }  # fmt: skip
    nodes = [
        make_node("Pad", ["x", "pads"], ["padded"]), make_node("Conv", ["padded", "w", "b"], ["c"], strides=[2, 2]),
        make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]), make_node("Clip", ["n", "", "six"], ["a"]),
        make_node("Resize", ["a", "", "sizes"], ["r"], mode="nearest"),
        make_node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        make_node("Concat", ["p", "p"], ["j"], axis=1), make_node("Split", ["j"], ["k", "l"], axis=1),
        make_node("Add", ["k", "l"], ["q"]), make_node("Softmax", ["q"], ["t"], axis=1),
        make_node("Shape", ["t"], ["shape"]), make_node("Gather", ["shape", "one"], ["count"]),
        make_node("Unsqueeze", ["count", "zero"], ["n1"]), make_node("Concat", ["n1", "rest"], ["flat"], axis=0),
        make_node("Reshape", ["q", "flat"], ["f"]), make_node("MatMul", ["f", "head"], ["h"]),
        make_node("ConstantOfShape", ["filled"], ["bias"]), make_node("Add", ["h", "bias"], ["y"]),
    ]  # fmt: skip
    ends = [make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in (("x", ("n", 3, 12, 12)), ("y", ("n", 5)))]  # fmt: skip
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = make_graph(nodes, "exported", ends[:1], ends[1:], arrays)
    proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "exported.onnx")
    onnx.save(proto, folder / "outside.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    for path in sorted(folder.glob("*.onnx")):
        assert load(path).predict(np.zeros((2, 3, 12, 12), np.float32)).shape == (2, 5), path


def mutate(path, kind, rng, outside):
    """Change a file in its place."""
    if rng.random() < 0.03 and path.parent.name in ("done", "killed", "checkpoints", "search"):  # not named by hand
        path.unlink()
        path.symlink_to(rng.choice([outside / "kept", outside, path, "/dev/null"]))
    elif kind == "checkpoint":
        mutate_checkpoint(path, rng)
    else:
        data = path.read_bytes()
        if kind == "json" and rng.random() < 0.85:
            changed = mutate_json(data.decode(), rng).encode("utf-8", "replace")
        else:
            how = {"lines": mutate_lines, "model": mutate_model, "onnx": mutate_onnx}.get(kind, mutate_bytes)
            changed = how(data, rng)
        path.write_bytes(changed)


class TimeUp(BaseException):
    """A case goes on and on, as a training may."""


class Guard:
    """Notes what is written outside of a folder: what Python writes by an audit hook, the rest by what it changes."""

    def __init__(self, root):
        self.root, self.trespasses = os.path.realpath(root), []
        sys.addaudithook(self._hook)

    def _hook(self, event, args):
        if event == "open":
            path, _mode, flags = args
            if not isinstance(path, str | bytes) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
            paths = [path]
        elif event in ("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "shutil.rmtree"):
            paths = [args[0]] if event in ("os.truncate", "shutil.rmtree") or args[-1] == -1 else []
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = args[1:2]
        else:
            return
        for path in paths:
            if isinstance(path, int):
                continue
            real = os.path.realpath(os.fsdecode(path))
            if not real.startswith((self.root, "/dev/null", "/proc/self")):
                self.trespasses.append(f"{event} {real}")


def case(number, seed, root, guard):
    """Run one case; return its kind and what went wrong, None if nothing did."""
    rng = random.Random(f"{seed} {number}")
    _, source, name, kind, readers = rng.choices(TARGETS, [target[0] for target in TARGETS])[0]
    what, outside = f"{source}/{name.partition('/')[2] or name} {kind}", root / "outside"
    place = root / "scratch"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(root / "made" / source, place)
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    (outside / "kept").write_text('{"kept": 1}\n')
    path = place / name
    if path.name == "NEWEST":
        path = sorted(path.parent.glob("step-*.safetensors"))[-1]
    mutate(path, kind, rng, outside)
    read = rng.choice(readers(path if (name in ("done/model.safetensors",) and readers is not runs) or source in
                              BY_PATH else place))  # fmt: skip
    guard.trespasses.clear()
    guard.root = os.path.realpath(place)
    wrong = None
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except TimeUp:
        what += " (went on)"
    except BaseException as error:
        where = error.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        line = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        wrong = f"{type(error).__name__} in {line}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    guard.root = os.path.realpath(root)
    if wrong is None and guard.trespasses:
        wrong = f"written outside: {guard.trespasses[:3]}"
    if wrong is None and [(p.name, p.read_text()) for p in outside.iterdir()] != [("kept", '{"kept": 1}\n')]:
        wrong = "what was outside is changed"
    return what, wrong


def work(arguments):
    """Run cases and tell of each on standard output: the main function of a worker."""
    root = Path(arguments.root)
    guard = Guard(root)

    def time_up(*_):
        raise TimeUp

    signal.signal(signal.SIGALRM, time_up)
    with os.fdopen(os.dup(1), "w", buffering=1) as told:
        for source, readers in WHOLE.items():
            shutil.copytree(root / "made" / source, root / "scratch")  # so that libraries are there before the limit is
            for read in readers(root / "scratch"):
                read()
                print(json.dumps({"ready": source}), file=told)
            shutil.rmtree(root / "scratch")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in arguments.numbers:
            print(json.dumps({"begun": number}), file=told)
            what, wrong = case(number, arguments.seed, root, guard)
            print(json.dumps({"done": number, "what": what, "wrong": wrong}), file=told)


def watch(process):
    """Yield what a worker tells; end with its end, or kill it after a minute of silence."""
    ready = selectors.DefaultSelector()
    ready.register(process.stdout, selectors.EVENT_READ)
    rest = b""
    while ready.select(SILENCE):
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)
    process.kill()


def fuzz(numbers, seed, root):
    """Run cases in a process of its own, begun anew when it dies; return the kinds and the findings."""
    kinds, findings, numbers = Counter(), {}, list(numbers)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "FASTCONV_NUM_THREADS": "1",
                   "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(root / "mpl"), "PYTHONDONTWRITEBYTECODE": "1",
                   "TMPDIR": str(root)}  # fmt: skip
    while numbers:
        shutil.rmtree(root / "scratch", ignore_errors=True)
        words = [sys.executable, __file__, "--worker", "--seed", str(seed), "--root", str(root)]
        chunk = numbers[:1000]
        process = subprocess.Popen([*words, *map(str, chunk)], stdout=subprocess.PIPE, env=environment, cwd=root)
        begun, done = None, 0
        for told in watch(process):
            if "done" not in told:
                begun = told.get("begun")
                continue
            begun, done = None, done + 1
            kinds[told["what"]] += 1
            if told["wrong"] is not None:
                findings[told["done"]] = f"{told['what']}: {told['wrong']}"
        code = process.wait()
        process.stdout.close()
        if begun is not None:
            findings[begun], done = f"the process ended by {code}", done + 1
            kinds["died"] += 1
        elif code != 0:
            raise RuntimeError(f"a worker ended by {code} outside of a case")
        numbers = numbers[done:]
    return kinds, findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run one case")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("numbers", type=int, nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(os.path.realpath(folder))
        make(root / "made")
        last = arguments.first + arguments.cases
        numbers = range(arguments.first, last) if arguments.only is None else [arguments.only]
        kinds, findings = fuzz(numbers, arguments.seed, root)
    for what, count in sorted(kinds.items()):
        print(f"{count:6} {what}")
    for number, text in sorted(findings.items()):
        print(f"case {number}: {text}")
    print(f"{sum(kinds.values())} cases, seed {arguments.seed}: {len(findings)} findings, "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()

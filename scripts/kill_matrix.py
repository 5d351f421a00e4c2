"""Ends, starves, doubles and robs running commands at drawn moments; what they leave must go on to the same bits.

    python scripts/kill_matrix.py --cases 300 --seed 0

A case is a command (train, also on a folder of images, search, deep in its three modes, mlp, these also in folders of
runs) and what happens to it:

    kill      SIGKILL at a drawn moment
    full      a disk of a drawn size, a tmpfs where one may be mounted, or else a limit on the length of files
    second    another process that wants the same files at a drawn moment
    vanish    one of its files is removed or cut short at a drawn moment

Then the command is gone on with as its messages say. Right is: exit code 0, or 2 with one line and no traceback; a net
that calls itself clean has the bits of an uninterrupted run at its step; at the end the digest (`state_sha256`; of
a search, all trials and theirs) equals an uninterrupted run's. Where that cannot be, a refusal in one line is right
too, if it is one of `REFUSALS`. Commands run as forks of one process that has imported everything: real processes,
which start in milliseconds. The draws depend on the seed alone, the moments on the machine.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # nets are tiny, and a fork has no threads

import argparse
import collections
import contextlib
import hashlib
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import fastconv.cli
import fastconv.deep
import fastconv.diagnose
import fastconv.search
import fastconv.train.setup
from fastconv import data
from fastconv.serialize import load
from fastconv.train import read_record, state_sha256

KINDS = ("kill", "full", "second", "vanish")
TIMEOUT = 120
REFUSALS = {  # by the kinds that may end in them
    r"is torn in step \d+: a run was ended while it updated the file in place": {"kill", "vanish"},
    r"holds no checkpoint to go on from": set(KINDS),
    r"is damaged|not a record|is missing, which says|record .* is missing|No such file": {"vanish"},
    r"take \d+ bytes, the file has|takes? .* bytes": {"vanish"},
    r"not the record of a net|not a safetensors file|holds no search|no journal|not a regular file": {"vanish"},
    r"is there already and not an empty folder": {"vanish"},  # what trials write again is no search
    r"there is no deep net|is not the folder of a run|there is no search": {"vanish"},
    r"--resume: .* tells of no run to resume": set(KINDS),  # killed before its first step
}


class Process:
    """A command, in a fork of this process."""

    def __init__(self, args, log, limit=None):
        self.args, self.log = [str(arg) for arg in args], log
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._run(limit))

    def _run(self, limit):
        for name, number in ((".out", 1), (".err", 2)):
            file = os.open(f"{self.log}{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            fastconv.cli.main(self.args, prog_name="fastconv")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException:
            traceback.print_exc()
            code = 1
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        return code

    def wait(self):
        """Return the exit code, negative for a signal."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
            if time.monotonic() > deadline:
                self.kill()
                deadline += TIMEOUT
            time.sleep(0.002)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    @property
    def out(self):
        return Path(f"{self.log}.out").read_text(errors="replace")

    @property
    def err(self):
        return Path(f"{self.log}.err").read_text(errors="replace")

    @property
    def unclean(self):
        """What is wrong with how it ended, if anything."""
        if self.code not in (0, 2) or "Traceback" in self.err:
            return f"{' '.join(self.args)}: exit code {self.code}: {self.err.strip()[-400:]}"
        said = [line for line in self.err.splitlines() if re.match(r"fastconv[\w ]*: ", line)]
        if self.code == 2 and (len(said) != 1 or not self.err.rstrip().endswith(said[0])):
            return f"{' '.join(self.args)}: {len(said)} lines of an error: {self.err.strip()[-400:]}"
        return None


class Wrong(Exception):
    """What must not be."""


class Refused(Exception):
    """One line that says why the command cannot be gone on with."""


class Command:
    """What is run: `begin` and `again` are its arguments, `look` tells how far it is and with which digest."""

    name = ""
    expected: dict  # from steps to digests
    final: object = "end"

    def rivals(self, folder):
        """Return arguments of processes that want the same."""
        return [self.begin(folder), self.again(folder)]

    def ahead(self, folder, run):
        """Do what comes before the case."""

    def clear(self, folder):
        """Remove all that is there."""
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Train(Command):
    name = "train"

    def begin(self, folder):
        return ["train", "--dataset", "digits", "--model", "linear", "--epochs", 4, "--checkpoint-every", 9,
                "--out", folder / "run"]  # fmt: skip

    def again(self, folder):
        there = (folder / "run").exists()
        return ["train", "--resume", folder / "run"] if there else self.begin(folder)

    def look(self, folder):
        if not (folder / "run" / "result.json").is_file():
            return None, None
        record = read_record(folder / "run")
        if record.result.get("status") != "finished":
            return None, None
        digest = state_sha256(load(folder / "run" / "model.safetensors"))
        if digest != record.result["state_sha256"]:
            raise Wrong(f"the model has the digest {digest}, its result tells of {record.result['state_sha256']}")
        return "end", digest


class Folder(Train):
    """On a folder of images, which is beside the case; the cache of them is the case's own."""

    name = "train folder"

    def ahead(self, folder, run):
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        if not self.images(folder).exists():
            from PIL import Image

            draw = random.Random("images")
            for number in range(60):
                path = self.images(folder) / ("dark", "light")[number % 2] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = bytes(draw.randrange(120) + 130 * (number % 2) for _ in range(24 * 20 * 3))
                Image.frombytes("RGB", (24, 20), pixels).save(path)

    def images(self, folder):
        return folder.parent / "images"

    def begin(self, folder):
        return ["train", "--dataset", self.images(folder), "--image-size", 16, "--cache", "--rotation", 20,
                "--mixup", 0.4, "--model", "linear", "--lr", 0.001, "--batch-size", 8, "--epochs", 4,
                "--checkpoint-every", 4, "--out", folder / "run"]  # fmt: skip


class Search(Command):
    name = "search"

    def begin(self, folder):
        return ["search", "--dataset", "digits", "--model", "linear", "--trials", 3, "--epochs", 2, "--seed", 1,
                "--json", "--out", folder / "run"]  # fmt: skip

    def again(self, folder):
        journal = folder / "run" / "search.journal"
        there = journal.exists() and b'"command"' in journal.read_bytes()  # else it was killed before it began
        return ["search", "--resume", "--json", "--out", folder / "run"] if there else self.begin(folder)

    def look(self, folder):
        return None, None  # its last lines tell: `told`

    def told(self, process, folder):
        trials = json.loads(process.out.splitlines()[-1])["trials"]
        for trial in trials:
            trial.pop("seconds", None)
            run = read_record(folder / "run" / f"trial-{trial['number']:04}")
            trial["state"] = run.result and run.result["state_sha256"]
        return "end", hashlib.sha256(json.dumps(trials, sort_keys=True).encode()).hexdigest()


class Deep(Command):
    steps, more = 120, 7
    final = steps

    def __init__(self, name, *mode):
        self.name, self.mode = f"deep {name}", mode

    def net(self, folder):
        return folder / "net"

    def begin(self, folder):
        return ["deep", "train", "--dataset", "digits", "--layers", 400, "--weights", folder / "net",
                "--steps", self.steps, *self.mode]  # fmt: skip

    def again(self, folder, steps=None):
        record = folder / "net.json"
        if not record.exists():
            return self.begin(folder)
        done = fastconv.deep.Record.read(record).step
        resume = ["--resume"] if done else []
        return ["deep", "train", "--dataset", "digits", "--weights", folder / "net", *resume, *self.mode,
                "--steps", max(1, self.steps - done) if steps is None else steps]  # fmt: skip

    def rivals(self, folder):
        weights = ["--dataset", "digits", "--weights", folder / "net"]
        return [["deep", "train", *weights, "--resume", "--steps", self.more, *self.mode],
                ["deep", "init", *weights, "--force", "--layers", 400], ["deep", "eval", *weights],
                ["deep", "inspect", folder / "net"]]  # fmt: skip

    def look(self, folder):
        paths = fastconv.deep.Paths.of(self.net(folder))
        if not paths.record.exists():
            return None, None
        record = fastconv.deep.Record.read(paths.record)
        if record.state != "clean":
            return None, None
        fastconv.deep.training.load(paths)  # which looks at lengths
        files = fastconv.deep.training.live_files(paths, record)
        return record.step, hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


class DeepOut(Deep):
    """In the folder of a run, whose records have to be there in the end, too."""

    def net(self, folder):
        return folder / "run" / "deep.bin"

    def begin(self, folder):
        return ["deep", "train", "--dataset", "digits", "--layers", 400, "--out", folder / "run",
                "--steps", self.steps, "--report-every", 9, *self.mode]  # fmt: skip

    def again(self, folder):
        if not (folder / "run").exists():
            return self.begin(folder)
        done = fastconv.deep.Record.read(self.net(folder).with_name("deep.bin.json")).step if self.there(folder) else 0
        return ["deep", "train", "--resume", "--out", folder / "run", *self.mode,
                "--steps", max(1, self.steps - done)]  # fmt: skip

    def there(self, folder):
        return self.net(folder).with_name("deep.bin.json").exists()

    def rivals(self, folder):
        out = ["--out", folder / "run"]
        return [["deep", "train", *out, "--resume", "--steps", self.more, *self.mode], ["deep", "eval", *out],
                ["deep", "inspect", self.net(folder)], ["runs", "list", folder], self.begin(folder)]  # fmt: skip

    def look(self, folder):
        step, digest = super().look(folder)
        if step is not None and step >= self.final and (folder / "run" / "result.json").exists():
            records = read_record(folder / "run")
            if records.step != step or records.history["epoch"] != [1, 2]:
                raise Wrong(f"the net is at step {step}, the records at {records.step}: {records.history.records}")
        return step, digest


class Mlp(Command):
    name, final = "mlp", 100

    def begin(self, folder, steps=80):
        return ["mlp", "train", "--dataset", "digits", "--hidden", 8, "--batch", 32, "--weights", folder / "net",
                "--steps", steps]  # fmt: skip

    def ahead(self, folder, run):
        run(self.begin(folder, 20))

    def again(self, folder):
        return self.begin(folder, max(1, self.final - (self.look(folder)[0] or 0)))

    def rivals(self, folder):
        return [self.begin(folder, 7)]

    def look(self, folder):
        if not (folder / "net").exists() or not (folder / "net.json").exists():
            return None, None
        told, digest = json.loads((folder / "net.json").read_text()), state_sha256(load(folder / "net"))
        return told["step" if told["state_sha256"] == digest else "before"], digest


class MlpOut(Mlp):
    """In the folder of a run, which it begins anew where it had not come to a save."""

    name = "mlp run"

    def begin(self, folder):
        return ["mlp", "train", "--dataset", "digits", "--hidden", 8, "--batch", 32, "--out", folder / "run",
                "--steps", self.final]  # fmt: skip

    def ahead(self, folder, run):
        pass

    def again(self, folder):
        if not (folder / "run").exists():
            return self.begin(folder)
        return ["mlp", "train", "--resume", "--out", folder / "run", "--steps", self.final]

    def rivals(self, folder):
        return [self.begin(folder), ["runs", "list", folder]]

    def look(self, folder):
        net = folder / "run" / "mlp.safetensors"
        if not net.exists() or not net.with_name("mlp.safetensors.json").exists():
            return None, None
        told, digest = json.loads(net.with_name("mlp.safetensors.json").read_text()), state_sha256(load(net))
        return told["step" if told["state_sha256"] == digest else "before"], digest


_MODES = {
    "in place": (), "every step": ("--durability", "step"), "in memory": ("--in-memory", "--save-every", 40),
}  # fmt: skip
COMMANDS = (
    Train(), Folder(), Search(), *(Deep(name, *mode) for name, mode in _MODES.items()), Mlp(),
    *(DeepOut(f"run {name}", *mode) for name, mode in _MODES.items()), MlpOut(),
)  # fmt: skip


class Matrix:
    """The cases, and what came of them."""

    def __init__(self, root, seed):
        self.root, self.seed = root, seed
        self.counts = collections.Counter()
        self.seconds, self.used = {}, {}
        self.mounts = _mount(root / "try", 1 << 20)
        if self.mounts:
            _unmount(root / "try")

    def process(self, args, limit=None):
        return Process(args, self.root / "log", limit)

    def run(self, args):
        """Run a command to its end, which must be a clean one."""
        process = self.process(args)
        process.wait()
        if process.unclean:
            raise Wrong(process.unclean)
        return process

    def measure(self):
        """Find time, size and digests of uninterrupted runs."""
        for command in COMMANDS:
            folder = self.folder("whole")
            command.ahead(folder, self.run)
            started = time.monotonic()
            process = self.run(command.begin(folder))
            self.seconds[command.name] = time.monotonic() - started
            self.used[command.name] = sum(path.stat().st_size for path in folder.rglob("*"))
            command.expected = dict([command.told(process, folder) if hasattr(command, "told")
                                     else command.look(folder)])  # fmt: skip
        deep = [command for command in COMMANDS if isinstance(command, Deep)]
        steps = self.all_steps(deep[0], Deep.steps + Deep.more)
        for command in deep:
            if command.expected[Deep.steps] != steps[Deep.steps]:
                raise Wrong(f"{command.name}: its steps at once and one by one differ")
            command.expected = steps
        mlp = next(command for command in COMMANDS if command.name == "mlp")
        for plan in ((20,), (20, 7), (20, 80), (20, 7, 80), (20, 80, 7), (20, 7, 73), (100,), (7,), (7, 80), (80,)):
            folder = self.folder("whole")
            for steps in plan:
                self.run(mlp.begin(folder, steps))
            mlp.expected.update([mlp.look(folder)])

    def all_steps(self, command, steps):
        folder, found = self.folder("whole"), {}
        self.run(["deep", "init", "--dataset", "digits", "--layers", 400, "--weights", folder / "net"])
        found.update([command.look(folder)])
        paths = fastconv.deep.Paths.of(folder / "net")
        with fastconv.deep.Training(paths, data.load("digits")) as training:
            for _ in range(steps):
                training.step()
                found.update([command.look(folder)])
        return found

    def folder(self, name):
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def case(self, number):
        """Run one case; return what came of it."""
        rng = random.Random(f"{self.seed} {number}")
        command, kind = rng.choice(COMMANDS), rng.choice(KINDS)
        self.now = f"case {number}: {command.name}, {kind}"
        folder = self.folder("case")
        size = None
        if kind == "full":
            size = int(rng.uniform(0.1, 2.0) * self.used[command.name] + rng.uniform(0, 200 << 10))
            if self.mounts:
                _mount(folder, size)
        try:
            command.ahead(folder, self.run if kind != "full" else lambda args: self.process(args).wait())
            getattr(self, kind)(command, folder, rng, size)
            if kind == "full" and self.mounts:
                subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
            outcome = self.go_on(command, folder)
        except Refused as refused:
            reasons = [kinds for pattern, kinds in REFUSALS.items() if re.search(pattern, str(refused))]
            if not any(kind in kinds for kinds in reasons):
                raise Wrong(f"refused: {refused}") from None
            outcome = "refused"
        finally:
            if kind == "full" and self.mounts:
                _unmount(folder)
        self.counts[command.name, kind, outcome] += 1

    def kill(self, command, folder, rng, size):
        process = self.process(command.begin(folder))
        self.sleep(command, rng)
        process.kill()
        if process.wait() != -signal.SIGKILL and process.unclean:
            raise Wrong(process.unclean)

    def full(self, command, folder, rng, size):
        process = self.process(command.begin(folder), None if self.mounts else size)
        process.wait()
        if process.unclean:
            raise Wrong(process.unclean)
        if process.code == 2 and not re.search("No space|too large|no room|do not fit", process.err):
            raise Wrong(f"not of the disk: {process.err}")

    def second(self, command, folder, rng, size):
        process = self.process(command.begin(folder))
        self.sleep(command, rng)
        with contextlib.suppress(ValueError, OSError):  # the record was looked at in the middle of a change
            rival = Process(rng.choice(command.rivals(folder)), self.root / "rival")
            rival.wait()
            if rival.unclean:
                process.wait()
                raise Wrong(f"the second: {rival.unclean}")
        process.wait()
        if process.unclean or (process.code and not re.search("another process|is there already", process.err)):
            raise Wrong(process.unclean or f"the first: {process.err}")

    def vanish(self, command, folder, rng, size):
        process = self.process(command.begin(folder))
        self.sleep(command, rng)
        files = sorted(path for path in folder.rglob("*") if not path.name.endswith(".lock"))
        with contextlib.suppress(OSError):
            victim = rng.choice(files or [folder / "none"])
            if victim.is_dir():
                shutil.rmtree(victim)
            elif rng.random() < 0.5:
                victim.unlink()
            else:
                os.truncate(victim, rng.randrange(max(victim.stat().st_size, 1)))
            self.now += f", {victim.relative_to(folder)}"
        process.wait()
        if process.unclean:
            raise Wrong(process.unclean)

    def sleep(self, command, rng):
        time.sleep(rng.uniform(0, 1.05) * self.seconds[command.name])

    def go_on(self, command, folder):
        """Go on to the end as messages say; return how that went: "whole", or "anew" from the beginning."""
        outcome = "whole"
        for _ in range(4):
            step, digest = self.look(command, folder)
            if step is not None and command.expected.get(step) != digest:
                raise Wrong(f"other bits at step {step}")
            if step is not None and (step == "end" or step >= command.final):
                return outcome
            process = self.process(self.again(command, folder))
            process.wait()
            if process.unclean:
                raise Wrong(process.unclean)
            if process.code == 0 and hasattr(command, "told"):
                try:
                    found = command.told(process, folder)
                except (ValueError, OSError) as error:  # the run of a trial that was over is damaged
                    raise Refused(error) from None
                if dict([found]) != command.expected:
                    raise Wrong(f"other trials: {process.out.splitlines()[-1][:2000]}")
                return outcome
            if process.code == 2:
                error = process.err.strip().splitlines()[-1]
                if not re.search("holds no checkpoint|exists; --force replaces|tells of no run|no record", error):
                    raise Refused(error)
                command.clear(folder)
                command.ahead(folder, self.run)
                outcome = "anew"
        raise Wrong(f"still at step {self.look(command, folder)[0]}")

    def look(self, command, folder):
        try:
            return command.look(folder)
        except (ValueError, OSError):  # what is damaged is refused by the command, too
            process = self.process(command.begin(folder))
            process.wait()
            if process.unclean or process.code != 2:
                raise Wrong(process.unclean or f"not refused: {' '.join(process.args)}") from None
            raise Refused(process.err.strip().splitlines()[-1]) from None

    def again(self, command, folder):
        try:
            return command.again(folder)
        except (ValueError, OSError) as error:
            raise Refused(error) from None

    def table(self):
        outcomes = ("whole", "anew", "refused", "WRONG")
        lines = [f"{'command':<16} {'incident':<9}" + "".join(f"{outcome:>9}" for outcome in outcomes)]
        for command in COMMANDS:
            for kind in KINDS:
                counts = [self.counts[command.name, kind, outcome] for outcome in outcomes]
                if any(counts):
                    lines.append(f"{command.name:<16} {kind:<9}" + "".join(f"{count:>9}" for count in counts))
        sums = [sum(n for (*_, outcome), n in self.counts.items() if outcome == name) for name in outcomes]
        return "\n".join([*lines, f"{'all':<26}" + "".join(f"{count:>9}" for count in sums)])


def _mount(folder, size):
    if os.geteuid() != 0 or not shutil.which("mount"):
        return False
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", folder]
    return subprocess.run(command, capture_output=True).returncode == 0


def _unmount(folder):
    subprocess.run(["umount", folder], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None, prefix="kills-") as root:
        matrix = Matrix(Path(root), asked.seed)
        matrix.measure()
        for number in range(asked.first, asked.first + asked.cases):
            try:
                matrix.case(number)
            except Wrong as wrong:
                print(f"WRONG {matrix.now}: {wrong}", flush=True)
                command, kind = matrix.now.split(": ")[1].split(", ")[:2]
                matrix.counts[command, kind, "WRONG"] += 1
        print(matrix.table())
    sys.exit(any(outcome == "WRONG" for *_, outcome in matrix.counts))


if __name__ == "__main__":
    main()

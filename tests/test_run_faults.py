"""The folder of a run under another's hands and on a full disk: written again, said, and gone on with."""

import os
import random
import shutil
import warnings

import pytest
from click.testing import CliRunner
from test_deep_faults import disk, fill

from fastconv.cli import main
from fastconv.locks import Lock
from fastconv.serialize.files import Room
from fastconv.train import Callback, Checkpoint, RunWriter, read_record, state_sha256
from fastconv.train.resume import take_up
from fastconv.train.run import CHECKPOINTS, CONFIG, ENV, METRICS
from fastconv.train.setup import fill as options
from fastconv.train.setup import prepare

EPOCHS = 4


@pytest.mark.parametrize("seed", range(30))
def test_what_is_removed_is_written_again_and_said(tmp_path, seed):
    rng = random.Random(seed)
    folder, wrote, cut = tmp_path / "run", [], False
    with RunWriter.start(folder, {"lr": 0.5}) as run:
        for number in range(12):
            removed = set()
            if rng.random() < 0.4:
                removed = set(rng.sample([CONFIG, ENV, METRICS], rng.randrange(1, 4)))
                for name in removed:
                    (folder / name).unlink()
                if removed == {CONFIG, ENV, METRICS}:
                    shutil.rmtree(folder)
            elif wrote and rng.random() < 0.3:
                size = (folder / METRICS).stat().st_size
                length = rng.randrange(size)
                os.truncate(folder / METRICS, length)
                wrote = wrote[: (folder / METRICS).read_bytes().count(b"\n")]
                cut = True
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run.write({"kind": "step", "step": number})
            wrote.append(number)
            said = "".join(str(warning.message) for warning in caught)
            assert all(name in said for name in removed)
            assert bool(said) == (bool(removed) or cut)
            cut = False
        run.finish({"status": "finished"})
    record = read_record(folder)
    assert (record.status, record.config, [step["step"] for step in record.steps]) == ("finished", {"lr": 0.5}, wrote)
    assert {path.name for path in folder.iterdir()} == {CONFIG, ENV, METRICS, "result.json"}


def test_another_run_in_the_place_of_a_removed_one_is_left_alone(tmp_path):
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    with RunWriter.start(folder, {"lr": 0.5}) as run:
        run.write({"kind": "epoch", "epoch": 1})
        shutil.rmtree(folder)
        with RunWriter.start(folder, {"lr": 0.25}) as other:
            with pytest.raises(BlockingIOError, match="another process"):
                run.write({"kind": "epoch", "epoch": 2})
            other.write({"kind": "epoch", "epoch": 1})
        with pytest.raises(FileExistsError, match="replaced by another"):
            run.write({"kind": "epoch", "epoch": 2})
    assert read_record(folder).config == {"lr": 0.25}


def started(folder):
    saving = Checkpoint(folder / CHECKPOINTS, steps=7, signals=False)
    return prepare(options("digits", model="linear", epochs=EPOCHS, batch_size=256), [saving], progress=False)


class At(Callback):
    """Something happens at a step."""

    def __init__(self, step, incident):
        self.step, self.incident = step, incident

    def on_safe_point(self, trainer):
        if trainer.step == self.step:
            self.incident()


def end(setup, run, resumed=False):
    setup.trainer.callbacks.insert(0, run)
    with run, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of checkpoints
        if resumed:
            setup.trainer.resume(setup.train, setup.validation)
        else:
            setup.trainer.fit(setup.train, setup.validation, epochs=EPOCHS)
        run.finish({"status": "finished"}, setup.model)
    return state_sha256(setup.model)


def test_on_a_disk_that_gets_full_a_run_ends_at_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path):
    pytest.importorskip("sklearn")
    setup = started(tmp_path / "whole")
    expected = end(setup, RunWriter.start(tmp_path / "whole", setup.describe(), setup.model))
    rng, refused = random.Random(2), []
    with disk(tmp_path / "small") as small:
        for number in range(12):
            folder, setup = small / f"run {number}", started(small / f"run {number}")
            run = RunWriter.start(folder, setup.describe(), setup.model)
            moment = rng.randrange(1, 7 * EPOCHS)
            setup.trainer.callbacks.append(At(moment, lambda: fill(small / "filler", rng)))
            try:
                assert end(setup, run) == expected
            except OSError as error:
                refused.append(str(error))
                (small / "filler").unlink()
                assert read_record(folder).status == "killed"
                setup = started(folder)
                assert end(setup, take_up(setup, read_record(folder)), resumed=True) == expected
            (small / "filler").unlink(missing_ok=True)
            record = read_record(folder)
            assert (record.status, len(record.history)) == ("finished", EPOCHS)
            shutil.rmtree(folder)
    assert any("saved at step" in text for text in refused)


def test_without_room_there_is_no_run(tmp_path):
    setup = started(tmp_path / "whole")
    with disk(tmp_path / "small") as small:
        fill(small / "filler", random.Random(1))
        os.truncate(small / "filler", (small / "filler").stat().st_size - 40_000)
        with pytest.raises(OSError, match=r"no room for .* bytes: No space left"):
            RunWriter.start(small / "run", setup.describe(), setup.model)
        assert [path.name for path in small.iterdir()] == ["filler"]


def test_room_is_there_until_it_is_given_up(tmp_path):
    with disk(tmp_path / "small") as small:
        room = Room(small, 512 << 10)
        assert list(small.iterdir()) == []
        with pytest.raises(OSError, match="no room for 600000 bytes"):
            Room(small, 600_000)
        room.close()
        Room(small, 600_000).close()


def said(*words, code=2):
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="fastconv")
    assert result.exit_code == code, result.output
    return result.output


def test_an_mlp_belongs_to_one_process_and_has_room_before_its_first_step(tmp_path):
    pytest.importorskip("sklearn")
    with disk(tmp_path / "small") as small:
        net = small / "net"
        train = ("mlp", "train", "--dataset", "digits", "--hidden", 8, "--steps", 5, "--weights", net)
        fill(small / "filler", random.Random(1))
        text = said(*train)
        assert text.count("\n") == 1
        assert "no room for " in text
        assert [path.name for path in small.iterdir()] == ["filler"]
        (small / "filler").unlink()
        said(*train, code=0)
        before = net.read_bytes(), (small / "net.json").read_bytes()
        with Lock(net, "busy"):
            assert "another process is training this net" in said(*train)
        fill(small / "filler", random.Random(1))
        assert "no room for " in said(*train)
        assert (net.read_bytes(), (small / "net.json").read_bytes()) == before


def test_a_report_on_a_full_disk_is_one_line_and_leaves_the_former_page(tmp_path):
    with RunWriter.start(tmp_path / "runs" / "a", {"options": {}}) as run:
        run.write({"kind": "epoch", "epoch": 1, "loss": 1.0})
        run.finish({"status": "finished"})
    with disk(tmp_path / "small") as small:
        (small / "page.html").write_text("the former one")
        fill(small / "filler", random.Random(1))
        text = said("report", tmp_path / "runs", "-o", small / "page.html")
        assert text == f"fastconv report: {small / 'page.html'}: No space left on device\n"
        assert (small / "page.html").read_text() == "the former one"
        assert sorted(path.name for path in small.iterdir()) == ["filler", "page.html"]

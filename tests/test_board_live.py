"""`fastconv board` as a process: what it prints and answers, and the page that a browser keeps up to date."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from browsing import browser, names, opened, wait_for_charts
from click.testing import CliRunner
from run_folders import HOSTILE, add_epoch, write_run

from fastconv.cli import main

__all__ = ["browser", "opened"]  # fixtures


@contextmanager
def serving(*words, cwd=None):
    """The command itself; yields the process and the address that it printed."""
    command = [sys.executable, "-m", "fastconv", "board", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        line = process.stdout.readline()
        yield process, re.search(r"http://\S+", line)[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class TestCommand:
    def test_it_prints_an_address_answers_and_ends_by_ctrl_c(self, tmp_path):
        pytest.importorskip("waitress")
        write_run(tmp_path / "a")
        before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
        with serving(tmp_path, "--port", "0", "--every", "0.2") as (process, address):
            host, port = re.fullmatch(r"http://(127\.0\.0\.1):(\d+)/[\w-]{32}/", address).groups()
            with urllib.request.urlopen(address + "runs?since=0") as answer:
                assert json.load(answer)["runs"][0]["name"] == "a"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{host}:{port}/")
            for other in ("evil.example", f"evil.example:{port}"):
                with pytest.raises(urllib.error.HTTPError, match="421"):
                    urllib.request.urlopen(urllib.request.Request(address, headers={"Host": other}))
            with urllib.request.urlopen(address.replace("127.0.0.1", "localhost")) as answer:
                assert answer.status == 200
            taken = CliRunner().invoke(main, ["board", str(tmp_path), "--port", port], prog_name="fastconv")
            assert taken.exit_code == 2
            assert taken.stderr.startswith(f"fastconv board: port {port}: Address already in use")
            assert taken.stderr.count("\n") == 1
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out.splitlines()[-1], err) == (0, "ended", "")
        assert sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before

    def test_it_is_on_no_other_address_of_this_machine(self, tmp_path):
        pytest.importorskip("waitress")
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1", "127.0.1.1"}
        write_run(tmp_path / "a")
        with serving(tmp_path) as (_, address):
            port = int(address.split(":")[2].split("/")[0])
            for other in others | {"::1", "127.0.0.2"}:
                family = socket.AF_INET6 if ":" in other else socket.AF_INET
                with socket.socket(family) as connection, pytest.raises(OSError, match=r"refused|assign|reach|support"):
                    connection.connect((other, port))

    @pytest.mark.parametrize("words", [["missing"], ["file"]])
    def test_no_folder_is_one_line(self, tmp_path, words):
        (tmp_path / "file").write_text("")
        done = CliRunner().invoke(main, ["board", str(tmp_path / words[0])], prog_name="fastconv")
        assert done.exit_code == 2
        assert done.stderr == f"fastconv board: {tmp_path / words[0]}: no such folder\n"

    def test_without_waitress_it_names_the_command(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "waitress", None)
        done = CliRunner().invoke(main, ["board", str(tmp_path)])
        assert done.exit_code == 2
        assert "pip install 'fastconv[board]'" in done.stderr

    def test_a_run_that_trains_is_followed(self, tmp_path):
        """Epoch after epoch of a training in another process comes by the board, and its end."""
        pytest.importorskip("waitress")
        with serving(tmp_path, "--every", "0.2") as (_, address), training(tmp_path / "a", 60) as process:
            seen, version, deadline = [], 0, time.monotonic() + 120
            while time.monotonic() < deadline and (not seen or seen[-1][1] != "finished"):
                with urllib.request.urlopen(f"{address}runs?since={version}") as answer:
                    found = json.load(answer)
                version = found["version"]
                seen += [(run["epochs"], run["status"]) for run in found["runs"]]
                time.sleep(0.1)
            assert process.wait(timeout=60) == 0
        assert seen[-1] == (60, "finished")
        counts = [epochs for epochs, status in seen if status == "running"]
        assert counts == sorted(counts)
        assert len(set(counts)) > 3


@contextmanager
def training(folder, epochs):
    words = ["train", "--dataset", "digits", "--epochs", str(epochs), "--threads", "1", "--out", str(folder)]
    command = [sys.executable, "-m", "fastconv", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def served(tmp_path):
    """A folder without a run yet, and the address of its board."""
    pytest.importorskip("waitress", reason="pip install 'fastconv[board]'")
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "runs", "--every", "0.3") as (_, address):
        yield tmp_path / "runs", address


def until(tab, condition, seconds=30):
    """Wait for an expression of the page to be true; Playwright's own waiting is eval, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not tab.evaluate(condition):
        assert time.monotonic() < deadline, condition
        tab.wait_for_timeout(50)


class TestBrowser:
    def test_new_runs_and_points_appear_by_themselves(self, served, opened):
        root, address = served
        tab = opened(address)
        assert "no run in it" in tab.inner_text("#problem")
        tab.evaluate("window.kept = 1")
        write_run(root / "a", seed=1)
        write_run(root / HOSTILE, seed=2)
        tab.wait_for_selector(".card >> nth=1")
        assert not tab.locator("#problem").is_visible()
        assert sorted(names(tab)) == sorted(["a", HOSTILE])
        tab.fill("#filter", "a")
        tab.locator(".card[data-run=a] .pick").focus()
        curve = "document.querySelector('.card[data-run=a] .validation').getAttribute('d')"
        before = tab.evaluate(curve)
        add_epoch(root / "a", 13)
        until(tab, f"{curve} !== {json.dumps(before)}")
        assert tab.evaluate("document.activeElement.className") == "pick"
        shutil.rmtree(root / "a")
        until(tab, "!document.querySelector('.card[data-run=a]')")
        assert tab.evaluate("window.kept") == 1

    def test_a_run_that_trains_is_drawn_on_while_it_is_looked_at(self, served, opened):
        root, address = served
        with training(root / "a", 5000):  # longer than anybody looks
            tab = opened(address)
            tab.wait_for_selector("#run .js-plotly-plot .scatterlayer .trace", timeout=60_000)
            points = "document.querySelector('#run .js-plotly-plot').data[0].x.length"
            tab.locator("summary").first.click()
            until(tab, "document.documentElement.scrollHeight >= window.innerHeight + 150")  # all is drawn by then
            tab.evaluate("window.kept = document.querySelector('#run .js-plotly-plot'); window.scrollTo(0, 150)")
            first = tab.evaluate(points)
            until(tab, f"{points} >= {first + 3}", 60)
            assert tab.evaluate("window.kept === document.querySelector('#run .js-plotly-plot')")
            assert tab.evaluate("window.scrollY") == 150

    def test_all_views_follow(self, served, opened):
        root, address = served
        for i in range(4):
            write_run(root / f"run-{i}", seed=i, lr=10.0**-i, steps=5)
        table, search, compare = (
            opened(address, state) for state in ("#view=table", "#view=search", "#view=compare&pick=run-1&pick=run-2")
        )
        for tab in (search, compare):
            wait_for_charts(tab)
        assert table.locator("#table tbody tr").count() == 4
        assert compare.evaluate("document.querySelector('#compare .js-plotly-plot').data[0].x.length") == 12
        write_run(root / "new", seed=9, lr=0.5)
        add_epoch(root / "run-1", 13)
        add_epoch(root / "run-2", 13)
        until(table, "document.querySelectorAll('#table tbody tr').length === 5")
        until(search, "document.querySelectorAll('.parallel > svg > path').length === 5")
        until(compare, "document.querySelector('#compare .js-plotly-plot').data[0].x.length === 13")

    def test_a_board_that_is_gone_is_said_to_be(self, opened, tmp_path, browser):
        pytest.importorskip("waitress")
        write_run(tmp_path / "a")
        with serving(tmp_path, "--every", "0.3") as (process, address), browser.new_page() as tab:
            tab.goto(address)
            tab.wait_for_selector("#run h2")
            assert tab.inner_text("#written") == "live"
            process.kill()
            until(tab, "document.getElementById('written').textContent.includes('does not answer')")
            assert tab.inner_text("#run h2") == "a"

"""The application behind `fastconv board`: what it answers, and to whom."""

import base64
import gzip
import hashlib
import json
import random
import re
import shutil
import time
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from run_folders import KINDS, add_epoch, write_many, write_odd, write_run

from fastconv.viz.report import folder as folder_module
from fastconv.viz.report.board import Board

HOST = "127.0.0.1:8000"
OTHERS = ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8000.evil.example"]
NO_TOKENS = ["/", "/token", "/toke/", "/tokens/", "/Token/", "//token/", "/tökén/", "/\udcff/", "/token/x"]
NO_VERSIONS = ["", "since=", "since=-1", "since=x", "since=1e9", "since=" + "9" * 5000, "since=²", "a=1"]
NO_RUNS = ["detail/", "detail/x", "detail/-1", "detail/1/2", "../a", "a"]


def ask(app, path, method="GET", query="", host=HOST, **headers):
    """Ask the application as a server does; return status, headers and body."""
    environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, **headers}
    environ["HTTP_HOST"] = host
    setup_testing_defaults(environ)
    if host is None:
        del environ["HTTP_HOST"]
    seen = []
    body = validator(app)(environ, lambda status, headers, error=None: seen.append((status, dict(headers))))
    try:
        found = b"".join(body)
    finally:
        body.close()
    return int(seen[0][0].split()[0]), seen[0][1], found


def board_of(root, every=0.0):
    """A board that looks at every request."""
    app = Board(root, token="token", every=every)
    app.hosts = {HOST}
    return app


def news(app, since=0):
    app._next_look = 0.0
    status, headers, body = ask(app, "/token/runs", query=f"since={since}")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    return json.loads(body)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return board_of(write_odd(tmp_path_factory.mktemp("runs")))


class TestWho:
    @pytest.mark.parametrize("host", [*OTHERS, "", None])
    def test_another_host_is_answered_nothing(self, app, host):
        for path in ("/token/", "/token/runs", "/token/detail/1", "/"):
            status, _, body = ask(app, path, host=host)
            assert status == 421
            assert b"learning" not in body

    @pytest.mark.parametrize("path", NO_TOKENS)
    def test_whoever_does_not_know_the_token_gets_nothing(self, app, path):
        status, _, body = ask(app, path.encode("utf-8", "surrogateescape").decode("latin-1"))
        assert status == 404
        assert b"learning" not in body

    def test_tokens_are_drawn_and_compared_in_constant_time(self, app, tmp_path, monkeypatch):
        drawn = {Board(tmp_path).token for _ in range(20)}
        assert len(drawn) == 20
        assert all(len(token) >= 32 for token in drawn)
        compared = []
        monkeypatch.setattr("secrets.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
        ask(app, "/tok/")
        assert compared == [(b"tok", b"token")]

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_it_can_only_be_read(self, app, method):
        status, headers, _ = ask(app, "/token/", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")

    def test_nobody_else_may_show_keep_or_be_told_of_the_page(self, app):
        status, headers, body = ask(app, "/token/")
        assert status == 200
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "connect-src 'self'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not any(name.startswith("Access-Control") for name in headers)
        assert len(body) < 120_000  # the runs are asked for
        status, headers, none = ask(app, "/token/", method="HEAD")
        assert (status, none, int(headers["Content-Length"])) == (200, b"", len(body))

    def test_the_page_runs_the_scripts_that_its_policy_names(self, app):
        _, headers, body = ask(app, "/token/")
        script = re.search(r"<script>(.*?)</script>", body.decode(), re.S)[1]
        for code in (script.encode(), ask(app, "/token/plotly.js")[2]):
            assert base64.b64encode(hashlib.sha256(code).digest()).decode() in headers["Content-Security-Policy"]

    def test_what_has_not_changed_is_not_sent_again(self, app):
        news(app)
        for path in ("/token/", "/token/plotly.js", "/token/detail/1"):
            _, headers, body = ask(app, path)
            status, again, none = ask(app, path, HTTP_IF_NONE_MATCH=headers["ETag"])
            assert (status, none, again["ETag"]) == (304, b"", headers["ETag"])
            assert ask(app, path, HTTP_IF_NONE_MATCH='"other"')[2] == body

    def test_long_answers_are_compressed_for_who_can_read_that(self, app):
        _, headers, body = ask(app, "/token/runs", query="since=0", HTTP_ACCEPT_ENCODING="br, gzip")
        assert headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(body)) == news(app)


class TestNews:
    def test_the_first_answer_has_all_runs_and_the_next_ones_what_is_new(self, tmp_path):
        for i, kind in enumerate(KINDS):
            write_run(tmp_path / kind, kind, seed=i)
        app = board_of(tmp_path)
        first = news(app)
        assert [run["name"] for run in first["runs"]] == sorted(KINDS)
        assert first["judged"] == "accuracy"
        assert news(app, first["version"]) == {**first, "runs": [], "gone": []}
        add_epoch(tmp_path / "learning", 13)
        second = news(app, first["version"])
        assert [(run["name"], run["epochs"]) for run in second["runs"]] == [("learning", 13)]
        assert second["version"] > first["version"]
        write_run(tmp_path / "new")
        shutil.rmtree(tmp_path / "exploded")
        third = news(app, second["version"])
        assert [run["name"] for run in third["runs"]] == ["new"]
        assert third["gone"] == [run["id"] for run in first["runs"] if run["name"] == "exploded"]
        assert {run["id"] for run in third["runs"]}.isdisjoint(run["id"] for run in first["runs"])

    def test_only_changed_runs_are_read_again(self, tmp_path, monkeypatch):
        write_many(tmp_path, 30, epochs=3)
        app = board_of(tmp_path)
        version = news(app)["version"]
        read = []
        tell = app._runs._tell
        monkeypatch.setattr(app._runs, "_tell", lambda folder, *rest: read.append(folder.name) or tell(folder, *rest))
        news(app, version)
        assert read == []
        add_epoch(tmp_path / "trial-007", 4)
        news(app, version)
        assert read == ["trial-007"]

    def test_several_readers_share_a_look(self, tmp_path, monkeypatch):
        write_run(tmp_path / "a")
        app = board_of(tmp_path, every=60)
        looks = []
        look = app._runs.look
        monkeypatch.setattr(app._runs, "look", lambda: looks.append(1) or look())
        for _ in range(5):
            ask(app, "/token/runs")
        assert len(looks) == 1

    def test_a_folder_without_runs_waits_for_the_first(self, tmp_path):
        app = board_of(tmp_path)
        empty = news(app)
        assert empty["runs"] == []
        assert "no run in it" in empty["problem"]
        write_run(tmp_path / "a")
        found = news(app, empty["version"])
        assert [run["name"] for run in found["runs"]] == ["a"]
        assert found["problem"] is None

    def test_a_folder_that_goes_and_comes_back(self, tmp_path):
        root = tmp_path / "runs"
        write_run(root / "a")
        app = board_of(root)
        first = news(app)
        root.rename(tmp_path / "elsewhere")
        lost = news(app, first["version"])
        assert lost["gone"] == [first["runs"][0]["id"]]
        assert lost["problem"] == f"{root}: no such folder"
        (tmp_path / "elsewhere").rename(root)
        assert [run["name"] for run in news(app, lost["version"])["runs"]] == ["a"]

    @pytest.mark.parametrize("query", NO_VERSIONS)
    def test_whatever_is_asked_is_answered(self, tmp_path, query):
        write_run(tmp_path / "a")
        status, _, body = ask(board_of(tmp_path), "/token/runs", query=query)
        assert status == 200
        assert len(json.loads(body)["runs"]) == 1
        for path in NO_RUNS:
            assert ask(board_of(tmp_path), f"/token/{path}")[0] == 404

    def test_a_detail_is_of_now(self, tmp_path):
        write_run(tmp_path / "a", steps=5)
        app = board_of(tmp_path)
        number = news(app)["runs"][0]["id"]
        _, headers, body = ask(app, f"/token/detail/{number}")
        assert len(json.loads(body)["epochs"]["loss"]) == 12
        add_epoch(tmp_path / "a", 13)
        status, _, body = ask(app, f"/token/detail/{number}", HTTP_IF_NONE_MATCH=headers["ETag"])
        assert (status, len(json.loads(body)["epochs"]["loss"])) == (200, 13)
        shutil.rmtree(tmp_path / "a")
        assert ask(app, f"/token/detail/{number}")[0] == 200  # nobody has looked since
        news(app)
        assert ask(app, f"/token/detail/{number}")[0] == 404

    def test_importances_are_not_weighed_at_every_request(self, tmp_path, monkeypatch):
        write_many(tmp_path, 14, epochs=2)
        app, asked = board_of(tmp_path), []
        slow = lambda runs: asked.append(len(runs)) or time.sleep(0.2)  # noqa: E731
        monkeypatch.setattr("fastconv.viz.report.board.importance", slow)
        for _ in range(3):
            assert ask(app, "/token/importance")[0] == 200
        assert asked == [14]

    @pytest.mark.parametrize("seed", range(4))
    def test_folders_that_are_half_there_or_go_while_they_are_read(self, tmp_path, seed, monkeypatch):
        """Files are cut, filled with noise, removed and put back between and during looks: every answer is one."""
        draw = random.Random(seed)
        sound = write_run(tmp_path / "sound")
        for i in range(6):
            write_run(tmp_path / "runs" / f"run-{i}", KINDS[i % 4], seed=i, steps=4)
        app = board_of(tmp_path / "runs")

        def harm():
            target = tmp_path / "runs" / f"run-{draw.randrange(6)}"
            file = target / draw.choice(["config.json", "env.json", "metrics.jsonl", "result.json"])
            kind = draw.randrange(6)
            if kind == 0:
                shutil.rmtree(target, ignore_errors=True)
            elif kind == 1 and not target.exists():
                shutil.copytree(sound, target)
            elif kind == 2:
                file.unlink(missing_ok=True)
            elif target.is_dir() and file.is_file():
                whole = file.read_bytes()
                noise = draw.randbytes(20) if kind == 3 else b""
                file.write_bytes(whole[: draw.randrange(len(whole) + 1)] + noise)

        def stat_and_harm(folder, files=folder_module.files_of):
            found = files(folder)
            if draw.random() < 0.3:
                harm()
            return found

        monkeypatch.setattr(folder_module, "files_of", stat_and_harm)
        version, known = 0, {}
        for _ in range(30):
            harm()
            found = news(app, version)
            version = found["version"]
            known |= {run["id"]: run for run in found["runs"]}
            for number in found["gone"]:
                known.pop(number, None)
            for number in list(known)[:2]:
                status, _, body = ask(app, f"/token/detail/{number}")
                assert status in (200, 404)
                assert status == 404 or isinstance(json.loads(body), dict)
        monkeypatch.undo()
        found = news(app, version)  # at rest the reader that was told of changes alone knows what a new one is told
        known |= {run["id"]: run for run in found["runs"]}
        for number in found["gone"]:
            known.pop(number, None)
        assert sorted(known.items()) == sorted((run["id"], run) for run in news(app)["runs"])

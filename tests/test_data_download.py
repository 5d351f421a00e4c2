"""Downloads from a server on this machine: mirrors, checksums, and nothing half-done left behind."""

import gzip
import hashlib
import http.server
import io
import re
import sys
import tarfile
import threading

import numpy as np
import pytest
from test_data_load import idx, toy_cifar, toy_mnist

from fastconv.data import catalogue, folders, load

pytest.importorskip("pooch")


@pytest.fixture
def server(monkeypatch):
    """Serve ``server.files`` (path -> bytes) over HTTP; ``server.asked`` lists the paths asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            httpd.asked.append(self.path)
            body = httpd.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (self.path in httpd.cut)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.files, httpd.asked, httpd.cut = {}, [], set()
        httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mnist(server, cache, monkeypatch):
    """Make MNIST tiny and put it on the second of two mirrors; return its files by name."""
    files, counts = toy_mnist()
    archives = tuple(
        catalogue.Archive(
            f"{name}.gz", (name,), len(content), content_sha256=hashlib.sha256(content).hexdigest()
        )
        for name, content in files.items()
    )
    source = catalogue.MNIST._replace(
        train=30,
        test=20,
        test_counts=counts,
        archives=archives,
        mirrors=(f"{server.url}/a/", f"{server.url}/b/"),
    )
    monkeypatch.setitem(catalogue.SOURCES, "mnist", source)
    server.files.update({f"/b/{name}.gz": gzip.compress(content) for name, content in files.items()})
    return files


def failure(name="mnist"):
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    return str(caught.value)


def left_over(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_next_mirror_is_asked_and_files_are_kept(server, cache, mnist):
    dataset = load("mnist")
    assert len(dataset.train.labels) == 30
    assert server.asked[:2] == ["/a/train-images-idx3-ubyte.gz", "/b/train-images-idx3-ubyte.gz"]
    assert left_over(cache) == sorted(mnist)
    for name, content in mnist.items():
        assert (cache / "mnist" / name).read_bytes() == content
    asked = len(server.asked)
    np.testing.assert_array_equal(load("mnist").train.images, dataset.train.images)
    assert len(server.asked) == asked


def test_only_what_is_missing_is_downloaded(server, cache, mnist):
    first = next(iter(mnist))
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist" / first).write_bytes(mnist[first])
    load("mnist")
    assert not any(first in path for path in server.asked)


@pytest.mark.parametrize("level", [0, 1, 9, None])
def test_another_compression_of_the_same_content_is_good(server, cache, mnist, level):
    for name, content in mnist.items():
        server.files[f"/a/{name}.gz"] = content if level is None else gzip.compress(content, level)
    load("mnist")
    assert all(path.startswith("/a/") for path in server.asked)


def spoil_content(content):
    return gzip.compress(content[:-1] + bytes([content[-1] ^ 1]))


def other_images(content):
    return gzip.compress(idx(np.zeros((30, 28, 28), np.uint8)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_content, "SHA-256 .* of the uncompressed .*, expected"),
        (other_images, "SHA-256 .* of the uncompressed .*, expected"),
        (lambda content: gzip.compress(content)[:-9], "truncated"),
        (lambda content: gzip.compress(content) + b"garbage", "7 bytes too many"),
        (lambda content: b"\x1f\x8b" + b"\0" * 50, "damaged gzip data"),
        (lambda content: gzip.compress(content + bytes(10**7)), "goes on after its expected end"),
        (lambda content: bytes(3 << 20), "larger than"),
        (lambda content: b"<html>Log in to the airport's wireless</html>", "SHA-256"),
        (lambda content: b"", "SHA-256"),
    ],
)
def test_a_bad_copy_is_refused(server, cache, mnist, spoil, message):
    name = "train-images-idx3-ubyte"
    server.files[f"/a/{name}.gz"] = spoil(mnist[name])
    good = server.files.pop(f"/b/{name}.gz")
    error = failure()
    assert f"could not download {name}.gz" in error
    assert "404" in error.split("/b/")[1]
    first = error.split("/a/")[1].split("\n")[0]
    assert re.search(message, first), first
    assert left_over(cache) == []
    server.files[f"/b/{name}.gz"] = good
    load("mnist")


def test_connection_cut_in_the_middle(server, cache, mnist):
    name = "train-images-idx3-ubyte"
    server.cut.add(f"/b/{name}.gz")
    assert f"/b/{name}.gz: " in failure()
    assert left_over(cache) == []


def test_no_server_there(server, cache, mnist, monkeypatch):
    source = catalogue.SOURCES["mnist"]._replace(mirrors=("http://127.0.0.1:9/",))
    monkeypatch.setitem(catalogue.SOURCES, "mnist", source)
    error = failure()
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz: " in error
    assert "the data set 'digits'" in error


def test_download_not_allowed(server, cache, mnist):
    with pytest.raises(FileNotFoundError, match="downloading was not allowed"):
        load("mnist", download=False)
    assert server.asked == []


def test_without_pooch(server, cache, mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert "pip install 'fastconv[data]'" in failure()
    assert left_over(cache) == []


def test_without_a_checksum_nothing_is_asked_for(server, cache, mnist, monkeypatch):
    source = catalogue.SOURCES["mnist"]
    archives = (source.archives[0]._replace(content_sha256=None), *source.archives[1:])
    monkeypatch.setitem(catalogue.SOURCES, "mnist", source._replace(archives=archives))
    assert "no checksum of train-images-idx3-ubyte.gz is known" in failure()
    assert server.asked == []


def test_folder_that_cannot_be_written(server, cache, mnist):
    cache.write_text("a file where the folder should be")
    assert str(cache) in failure()


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def serve_cifar(server, monkeypatch, members, sha256=None):
    packed = tar(members)
    archive = catalogue.CIFAR10.archives[0]._replace(
        nbytes=30_730, sha256=sha256 or hashlib.sha256(packed).hexdigest()
    )
    source = catalogue.CIFAR10._replace(
        train=50, test=10, test_counts=(1,) * 10, archives=(archive,), mirrors=(f"{server.url}/",)
    )
    monkeypatch.setitem(catalogue.SOURCES, "cifar10", source)
    server.files[f"/{archive.name}"] = packed


def below(files):
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def test_cifar_archive(server, cache, monkeypatch):
    files = toy_cifar()
    extra = {"../../evil": b"evil", "/evil": b"evil", "link": None, "readme.html": b"hello"}
    serve_cifar(server, monkeypatch, {**extra, **below(files)})
    dataset = load("cifar10")
    assert len(dataset.train.labels) == 50
    assert left_over(cache.parent) == sorted(files)
    for name, content in files.items():
        assert (cache / "cifar10" / name).read_bytes() == content


def test_cifar_archive_of_another_checksum(server, cache, monkeypatch):
    serve_cifar(server, monkeypatch, below(toy_cifar()), sha256="0" * 64)
    assert f"of the archive, expected {'0' * 64}" in failure("cifar10")
    assert left_over(cache) == []


@pytest.mark.parametrize("replacement", [None, b"short"])
def test_cifar_archive_that_lacks_a_file(server, cache, monkeypatch, replacement):
    files = {**toy_cifar(), "test_batch.bin": replacement}
    serve_cifar(server, monkeypatch, below(files))
    assert "the archive lacks test_batch.bin" in failure("cifar10")
    assert not (cache / "cifar10" / "test_batch.bin").exists()


def test_every_set_has_checksums_and_mirrors():
    for source in catalogue.SOURCES.values():
        assert len(source.mirrors) > 1
        assert all(mirror.endswith("/") for mirror in source.mirrors)
        for archive in source.archives:
            digest = archive.sha256 or archive.content_sha256
            assert len(bytes.fromhex(digest)) == 32


def test_real_mnist_by_its_real_checksums(server, cache, monkeypatch, data_root):
    monkeypatch.setenv("FASTCONV_DATA", data_root)
    paths = folders.find(catalogue.MNIST)
    if paths is None:
        pytest.skip("no MNIST below FASTCONV_DATA")
    monkeypatch.delenv("FASTCONV_DATA")
    monkeypatch.setitem(catalogue.SOURCES, "mnist", catalogue.MNIST._replace(mirrors=(f"{server.url}/",)))
    server.files.update({f"/{name}.gz": path.read_bytes() for name, path in paths.items()})
    assert len(load("mnist").train.labels) == 60_000
    assert left_over(cache) == sorted(catalogue.IDX_FILES)

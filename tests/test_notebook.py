"""What a notebook shows of things, and what Ctrl-C in a cell leaves."""

import html.parser
import importlib.util
import sys
import xml.etree.ElementTree as tree

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import data, nn, optim
from fastconv._html import picture, table
from fastconv.diagnose import Report, Verdict
from fastconv.diagnose.report import Finding
from fastconv.train import History, Trainer, evaluate

X = np.random.default_rng(0).normal(size=(64, 1, 6, 6)).astype(np.float32)
Y = (X.mean((1, 2, 3)) > 0).astype(np.int64)


def net():
    fastconv.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))


def trainer(**given):
    model = net()
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model, lr=0.1), progress=False, **given)


class _Read(html.parser.HTMLParser):
    """Text of the cells, and whether every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.cells, self.tags = [], [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("rect", "circle", "polyline"):  # which end themselves
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, text):
        self.cells.append(text)


def test_models_and_plans():
    model = net()
    model[0].requires_grad_(False)
    read = _Read(model._repr_html_())
    assert "Sequential: 86 parameters" in read.cells
    assert read.cells[read.cells.index("0") :][:4] == ["0", repr(model[0]), "20", "frozen"]
    plan = model.plan((64, 1, 6, 6))
    read = _Read(plan._repr_html_())
    assert "Conv2d + ReLU" in read.cells
    assert any("together" in cell for cell in read.cells)
    for row in plan.rows:
        assert "×".join(map(str, row.output)) in read.cells


def test_histories_and_evaluations():
    run = trainer(metrics="f1_macro")
    history = run.fit(X, Y, (X, Y), epochs=14)
    page = history._repr_html_()
    read = _Read(page)
    assert {"svg", "polyline", "table"} <= read.tags
    assert page.count("<svg") == 3  # loss, accuracy, f1_macro
    assert page.count("<tr>") == 1 + 12
    for svg in page.split("<svg")[1:]:
        tree.fromstring("<svg" + svg.split("</svg>")[0] + "</svg>")
    assert _Read(History()._repr_html_()).cells == ["History of 0 epochs"]
    found = evaluate(run.model, nn.CrossEntropyLoss(), [(X, Y)], metrics="iou")
    assert repr(found).startswith(f"Evaluation(loss={found.loss:.4g}, accuracy={found.accuracy:.4g}, iou=")
    cells = _Read(found._repr_html_()).cells
    assert [str(n) for n in found.confusion[0]] == cells[cells.index("0", cells.index("label") + 3) + 1 :][:2]


def test_reports_are_coloured_and_escaped():
    finding = Finding("data", "Data <b>", summary="a < b & c")
    finding.wrong("<script>alert(1)</script>", "do not")
    page = Report([finding])._repr_html_()
    read = _Read(page)
    assert "script" not in read.tags
    assert "WRONG" in read.cells
    assert f'<b style="color:#c62828">{str(Verdict.WRONG).upper()}</b>' in page
    assert "".join(read.cells) == str(Report([finding]))
    assert "script" not in _Read(table("<script>", [["<script>"], ["<i>"]])).tags
    assert "script" not in _Read(picture("<script>", {'"<script>': [1, 2]})).tags


def test_pictures_of_what_is_missing():
    assert picture("loss", {"a": [None, float("nan")]}) == ""
    page = picture("loss", {"a": [1.0, None, 2.0, 3.0, float("inf"), 2.5]})
    assert (page.count("<circle"), page.count("<polyline")) == (2, 1)
    assert picture("loss", {"a": [2.0, 2.0]}).count("<polyline") == 1


def test_short_reprs():
    batches = data.Batches(X, Y, 16, seed=3)
    assert repr(batches) == "Batches(4 batches of 16, (64, 1, 6, 6) float32, seed=3)"
    assert repr(data.Samples(X, Y)) == "Samples(images (64, 1, 6, 6) float32, labels (64,) int64)"
    run = trainer()
    assert repr(run) == "Trainer(Sequential, CrossEntropyLoss, SGD lr=0.1: 0 epochs, 0 steps)"
    run.fit(X, Y, (X, Y), epochs=2)
    assert f"2 epochs, 2 steps, best epoch {run.best_epoch})" in repr(run)


def test_an_interrupted_fit_goes_on():
    run, plain = trainer(keep_best=False), trainer(keep_best=False)
    steps = []

    def interrupt(trained):
        steps.append(trained.epoch)
        if len(steps) == 2:
            raise KeyboardInterrupt

    run.callbacks.append(type("Stop", (fastconv.train.Callback,), {"on_epoch_end": lambda _, t: interrupt(t)})())
    with pytest.raises(KeyboardInterrupt):
        run.fit(X, Y, epochs=5)
    assert [module.training for module in run.model.modules()] == [module.training for module in plain.model.modules()]
    plain.fit(X, Y, epochs=2)
    for p, q in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        assert_array_equal(p.data, q.data)
    before = run.history[-1]["loss"]
    run.fit(X, Y, epochs=3)
    assert run.history[-1]["loss"] < before


CELLS = [
    """
import numpy as np, fastconv, gc
from fastconv import nn, optim, data
from fastconv.train import Trainer
x = np.random.default_rng(0).normal(size=(512, 1, 8, 8)).astype("float32")
y = (x.mean((1, 2, 3)) > 0).astype("int64")
fastconv.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model, lr=0.1))
model
""",
    "trainer.fit(x, y, (x, y), epochs=2)",
    """
import _thread, threading
threading.Timer(1.0, _thread.interrupt_main).start()
trainer.fit(x, y, epochs=1_000_000)
""",
    "trainer.fit(x, y, epochs=1)[-1]['loss'] < trainer.history[0]['loss']",
    """
def objects():
    gc.collect()
    return len(gc.get_objects())
def cell():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model, lr=0.1), progress=False).fit(x, y, epochs=1)
for _ in range(5): cell()
first = objects()
for _ in range(50): cell()
objects() - first
""",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_in_a_notebook():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    manager = nbclient.NotebookClient(notebook, timeout=300, allow_errors=True, kernel_name="python3")
    manager.create_kernel_manager()
    manager.km.kernel_spec.argv[0] = sys.executable
    manager.execute()
    shown = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in notebook.cells]
    errors = [[output.ename for output in cell.outputs if output.output_type == "error"] for cell in notebook.cells]
    assert errors == [[], [], ["KeyboardInterrupt"], [], []]
    assert "text/html" in shown[0]
    assert "text/html" in shown[1]
    printed = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert printed.count("\n") == 3  # a heading, and a line per epoch
    results = [o for cell in notebook.cells[3:] for o in cell.outputs if o.output_type == "execute_result"]
    better, left = (output["data"]["text/plain"] for output in results)
    assert better == "True"
    assert int(left) < 50  # cells that are run again leave nothing behind
    if importlib.util.find_spec("ipywidgets"):
        assert "application/vnd.jupyter.widget-view+json" in shown[1]

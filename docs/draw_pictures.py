"""Draw the pictures of ``babysitting.md`` and ``your_own_tables.md`` into ``docs/pictures``.

``python docs/draw_pictures.py`` takes some seconds.
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import fastconv
from fastconv import data, diagnose, models, nn, optim, viz
from fastconv.train import Trainer, evaluate
from fastconv.train.mistakes import residuals
from fastconv.train.setup import fill, prepare

FOLDER = Path(__file__).parent / "pictures"


def main() -> None:
    """Train a small net on handwritten digits, and look at it."""
    fastconv.manual_seed(0)
    digits = data.load("digits")
    train, aside = data.split(digits.train, 0.1)
    standardize = data.Standardizer.fit(train.images)
    model = models.build("mnist-small", digits.shape, len(digits.classes))
    test = diagnose.range_test(model, data.Samples(standardize(train.images), train.labels))
    loss = nn.CrossEntropyLoss()
    trainer = Trainer(model, loss, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), progress=False)
    batches = data.Batches(*train, 32, standardize=standardize)
    trainer.fit(batches, data.Batches(*aside, 500, shuffle=False, standardize=standardize), epochs=12)
    tested = evaluate(model, loss, [(standardize(digits.test.images), digits.test.labels)])
    pictures = {
        "curves": viz.curves(trainer.history),
        "rates": viz.learning_rate_range(test.rates, test.losses, test.accuracies, test.suggestion),
        "confusion": viz.confusion(tested.confusion, digits.classes),
        "filters": viz.filters(model),
        "initialisations": viz.activation_histograms(viz.initialisations()),
    }
    pictures["predictions"] = of_numbers()
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.savefig(FOLDER / f"{name}.png", dpi=80)


def of_numbers() -> Figure:
    """Train a net on a table, and draw what it predicts."""
    x, y = load_diabetes(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "diabetes.npz"
        np.savez(path, x=x, y=y)
        setup = prepare(fill(path, epochs=20, lr=3e-4), progress=False)
    setup.trainer.fit(setup.train, setup.validation, epochs=setup.options.epochs)
    print(residuals(setup.dataset.test.labels, setup.predicted()))
    return viz.predictions(setup.dataset.test.labels, setup.predicted(), "progression")


if __name__ == "__main__":
    main()

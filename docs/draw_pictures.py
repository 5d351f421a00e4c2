"""Draw the pictures of ``babysitting.md`` into ``docs/pictures``: ``python docs/draw_pictures.py``."""

from pathlib import Path

import fastconv
from fastconv import data, diagnose, models, nn, optim, viz
from fastconv.train import Trainer, evaluate

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
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.savefig(FOLDER / f"{name}.png", dpi=80)


if __name__ == "__main__":
    main()

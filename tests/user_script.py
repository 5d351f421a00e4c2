"""A user's script, as mypy --strict and pyright see it."""

import numpy as np
import numpy.typing as npt

import fastconv
from fastconv import data, diagnose, functional, models, nn, optim, schedule, serialize, train


class Skip(nn.Module):
    def __init__(self, channels: int) -> None:
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        out: npt.NDArray[np.float32] = functional.relu(x + self.conv2(functional.gelu(self.conv1(x))))
        return out


class Print(train.Callback):
    def on_epoch_end(self, trainer: train.Trainer) -> None:
        print(trainer.history[-1]["loss"], trainer.step)


def halve(trainer: train.Trainer) -> None:
    trainer.base_lr /= 2


def main() -> float:
    fastconv.manual_seed(0)
    digits = data.load("digits")
    part, aside = data.split(digits.train, 0.1)
    standardize = data.Standardizer.fit(part.images)
    batches = data.Batches(*part, 32, standardize=standardize, augment=data.Augment(shift=1))
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), Skip(16), nn.Flatten(), nn.Linear(16 * 8 * 8, 10))
    model.append(nn.Identity())
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    other = optim.Adam(model)
    trainer = train.Trainer(
        model, loss, optimizer, schedule=schedule.Cosine(100), callbacks=[Print(), halve, train.EarlyStopping(3)],
        metrics=["f1_macro"], monitor="f1_macro", clip_norm=1.0, progress=False,
    )  # fmt: skip
    history = trainer.fit(batches, data.Batches(*aside, 100, shuffle=False, standardize=standardize), epochs=2)
    best: float = history.best("loss")["loss"]
    x = standardize(digits.test.images)
    scores: npt.NDArray[np.float32] = model.predict(x)
    value = loss(model(x[:9]), digits.test.labels[:9])
    value.backward()
    other.step()
    found = train.evaluate(model, loss, [(x, digits.test.labels)])
    serialize.save(model, "net.safetensors")
    again = serialize.load("net.safetensors")
    again.eval()
    report = diagnose.check(models.build("mlp", digits.shape, 10), batches)
    print(report.verdict, best, scores.argmax(axis=1)[:5], found.accuracy, model.plan((8, 1, 8, 8)))
    for name, parameter in model.named_parameters():
        print(name, parameter.data.shape, parameter.grad.sum(), parameter.numel())
    return float(value)


if __name__ == "__main__":
    main()

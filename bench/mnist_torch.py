"""Train LeNet-5 on MNIST until the test set is right to the given share: PyTorch's side of cold_start.py."""

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

BATCH, EVERY, LR, MOMENTUM, MOST = 64, 100, 0.02, 0.9, 5000


def read(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    folder = Path(os.environ["FASTCONV_DATA"], "mnist")
    arrays = []
    for name, header in ((f"{part}-images-idx3-ubyte", 16), (f"{part}-labels-idx1-ubyte", 8)):
        plain = folder / name
        raw = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
        arrays.append(np.frombuffer(raw, np.uint8, offset=header))
    images, labels = arrays
    return torch.tensor(images.reshape(-1, 1, 28, 28)), torch.tensor(labels, dtype=torch.int64)


def accuracy_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(images.split(256), labels.split(256), strict=True)
        )
    model.train()
    return right / len(labels)


def main(goal: float, seed: int) -> None:
    torch.manual_seed(seed)
    if "FASTCONV_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["FASTCONV_NUM_THREADS"]))
    images, labels = read("train")
    test_images, test_labels = read("t10k")
    images, test_images = images.float(), test_images.float()
    mean, deviation = images.mean(), images.std()
    images, test_images = (images - mean) / deviation, (test_images - mean) / deviation
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    step, accuracy = 0, 0.0
    while accuracy < goal and step < MOST:
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                accuracy = accuracy_of(model, test_images, test_labels)
                if accuracy >= goal:
                    break
    print(step, accuracy)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))

"""Train LeNet-5 on MNIST until the test set is right to the given share: fastconv's side of cold_start.py."""

import sys

import fastconv
from fastconv import data, models, nn, optim
from fastconv.train import evaluate

BATCH, EVERY, LR, MOMENTUM, MOST = 64, 100, 0.02, 0.9, 5000


def main(goal: float, seed: int) -> None:
    fastconv.manual_seed(seed)
    mnist = data.load("mnist")
    standardize = data.Standardizer.fit(mnist.train.images)
    train = data.Batches(*mnist.train, BATCH, seed, standardize=standardize)
    test = data.Batches(*mnist.test, 256, shuffle=False, standardize=standardize)
    model = models.build("lenet5", mnist.shape, len(mnist.classes))
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    step, accuracy = 0, 0.0
    while accuracy < goal and step < MOST:
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y)
            model.backward(loss.backward())
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                accuracy = evaluate(model, loss, test).accuracy
                model.train()
                if accuracy >= goal:
                    break
    print(step, accuracy)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))

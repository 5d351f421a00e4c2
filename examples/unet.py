"""A U-Net that says for every pixel which digit it belongs to, on masks made of the digits themselves.

The net is written as one would write it for PyTorch: layers as attributes, a forward of calls, `cat` for the skip
connections. Its backward follows.
"""

import numpy as np

import fastconv
from fastconv import data, nn, optim
from fastconv import functional as F


class Double(nn.Module):
    """Two convolutions of 3x3, each with batch normalisation and ReLU."""

    def __init__(self, inputs, outputs):
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class UNet(nn.Module):
    """O. Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015."""

    def __init__(self, channels, classes, width=16):
        self.down1, self.down2 = Double(channels, width), Double(width, 2 * width)
        self.bottom = Double(2 * width, 4 * width)
        self.up2, self.merge2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2), Double(4 * width, 2 * width)
        self.up1, self.merge1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2), Double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.merge2(F.cat([self.up2(c), b], 1))
        a = self.merge1(F.cat([self.up1(b), a], 1))
        return self.head(a)


def segmented(samples):
    """Return digits of 16x16 pixels and their masks: 0 for paper, 1 to 10 for the ink of 0 to 9."""
    images = np.kron(samples.images, np.ones((2, 2), np.float32)).astype(np.float32) / 16
    return images - images.mean(), np.where(images[:, 0] > 0.3, samples.labels[:, None, None] + 1, 0)


def main(epochs=4, batch_size=32):
    fastconv.manual_seed(0)
    digits = data.load("digits")
    x, y = segmented(digits.train)
    model, loss = UNet(1, 11), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(x))
        losses = []
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            losses.append(loss(model(x[rows]), y[rows]))
            model.backward(loss.backward())
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    x, y = segmented(digits.test)
    found = model.predict(x).argmax(axis=1)
    ink = y > 0
    print(f"test: {(found == y).mean():.1%} of all pixels, {(found == y)[ink].mean():.1%} of the ink")


if __name__ == "__main__":
    main()

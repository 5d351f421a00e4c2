"""Draw the pictures of the examples' gallery into ``docs/pictures/examples``.

    FASTCONV_DATA=folder python docs/draw_gallery.py [NAME...]

Each is what the script itself draws with ``--picture``. Some are drawn from less than the script does by itself, so
that all take some five minutes of processor time; the pages say with which options. ``FASTCONV_DATA`` holds MNIST and
CIFAR-10, and efficientnet_lite0.onnx lies where this is run. What builds the site takes the pictures as they are: some
examples run for half an hour, so that no build could run them all.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "pictures" / "examples"
OPTIONS = {
    "initialisation_study": [],
    "batchnorm_rescues": [],
    "unet": [],
    "random_vs_grid": [],
    "linear_cifar10": [],
    "mnist_augmented": ["--epochs", "2"],
    "cifar_small": ["--epochs", "1"],
    "cifar10_best": ["--quick"],  # drawn before it trains
    "finetune_efficientnet": [
        "--weights", "efficientnet_lite0.onnx", "--images", "2000", "--test", "1000", "--size", "96", "--epochs", "2"
    ],
}  # fmt: skip
"""What each script is called with."""


def main() -> None:
    """Run the scripts that are named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or OPTIONS:
        script = FOLDER.parents[2] / "examples" / f"{name}.py"
        words = [sys.executable, str(script), *OPTIONS[name], "--picture", str(FOLDER / f"{name}.png")]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        print(FOLDER / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()

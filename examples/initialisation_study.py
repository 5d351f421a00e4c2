"""How a signal fares through ten layers, by the scale of the initial weights.

1000 samples of N(0, 1) in 500 dimensions pass ten layers of 500 units; the table gives the deviation of each
layer's output. Too small weights let the signal vanish, too large ones saturate tanh (every output is -1 or 1, so no
gradient passes); 1/sqrt(fan_in), Xavier's rule, suits tanh; ReLU drops half of the signal at every layer and needs
He's 1/sqrt(fan_in / 2). The study is that of the CS231n lecture on training neural networks; the rules are those of
X. Glorot and Y. Bengio (2010) and K. He et al. (2015).

    python examples/initialisation_study.py --picture initialisation.png

Measured:

    deviation after layer         1        2        3        4        5        6        7        8        9       10
    tanh, 0.01                0.214   0.0479   0.0107   0.0024 0.000534  0.00012 2.67e-05 5.97e-06 1.33e-06 2.97e-07
    tanh, 1                   0.982    0.982    0.982    0.982    0.982    0.982    0.982    0.982    0.982    0.982
    tanh, Xavier              0.628    0.487    0.408    0.358    0.321    0.295    0.272    0.255    0.239    0.227
    ReLU, Xavier              0.585    0.417    0.304    0.225    0.162    0.117   0.0805   0.0585   0.0409   0.0298
    ReLU, He                  0.828    0.835    0.859    0.899    0.917    0.939     0.91    0.936    0.925    0.953

Seed 0, 1.5 s of processor time, 2 threads on a 2-core AMD EPYC (AVX2), 2026-11-21.
"""

import argparse

from fastconv import init, nn, random
from fastconv.diagnose import activation_statistics

UNITS, LAYERS, SAMPLES = 500, 10, 1000
CASES = {
    "tanh, 0.01": (nn.Tanh, 0.01),
    "tanh, 1": (nn.Tanh, 1.0),
    "tanh, Xavier": (nn.Tanh, init.std_caffe(UNITS, UNITS)),
    "ReLU, Xavier": (nn.ReLU, init.std_caffe(UNITS, UNITS)),
    "ReLU, He": (nn.ReLU, init.std_he(UNITS, UNITS)),
}


def build(activation: type[nn.Module], deviation: float, seed: int) -> nn.Sequential:
    """A net without biases whose weights are normal with this deviation."""
    layers: list[nn.Module] = []
    for depth in range(LAYERS):
        linear = nn.Linear(UNITS, UNITS, bias=False)
        rng = random.generator(seed, f"weights of layer {depth}")
        linear.weight.data[...] = deviation * rng.standard_normal((UNITS, UNITS))
        layers += [linear, activation()]
    return nn.Sequential(*layers)


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", metavar="FILE", help="draw histograms of all outputs (fastconv[plot])")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    args = parser.parse_args(argv)
    samples = SAMPLES // 10 if args.quick else SAMPLES
    x = random.generator(args.seed, "samples").standard_normal((samples, UNITS)).astype("float32")

    nets = {name: build(activation, deviation, args.seed) for name, (activation, deviation) in CASES.items()}
    deviations: dict[str, list[float]] = {}
    for name, net in nets.items():
        found = activation_statistics(net, x)
        deviations[name] = [figures.std for figures in found.values() if figures.layer != "Linear"]

    print(f"{'deviation after layer':22}" + "".join(f"{depth:>9}" for depth in range(1, LAYERS + 1)))
    for name, row in deviations.items():
        print(f"{name:22}" + "".join(f"{value:9.3g}" for value in row))
    if args.picture:
        from fastconv import viz

        outputs = {name: viz.layer_outputs(net, x, (nn.Tanh, nn.ReLU)).values() for name, net in nets.items()}
        named = {name: {f"layer {i}": y for i, y in enumerate(row, start=1)} for name, row in outputs.items()}
        viz.activation_histograms(named).savefig(args.picture)
    return deviations


if __name__ == "__main__":
    main()

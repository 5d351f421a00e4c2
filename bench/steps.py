"""Time whole training steps and inference of small nets against PyTorch.

A step sets gradients to zero, runs forward and backward and updates the weights by SGD with momentum. PyTorch
runs eager and with torch.compile, each in both of its memory formats, and the best of the four counts.

With --data other than normal there is no PyTorch: fastconv on such numbers runs against fastconv on normal ones.
"""

import argparse
import shutil
from typing import Any

from harness import Peak, Table, arguments, header, load_peer, selected, take_turns, with_direct
from nets import DATA, NETS, Net, check_same, flops, inference, torch_sides, train_step


def contest(net: Net, batch: int, training: bool, torch: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what runs in turns: ours and the ways of the peer, or ours on other data."""
    make = {True: lambda x, y: train_step(net.build(), x, y), False: lambda x, y: inference(net.build(), x)}[training]
    x, y = net.data(batch, args.data)
    sides = with_direct({"ours": make(x, y)}, lambda: make(x, y), args)
    if args.data != "normal":
        sides["on normal data"] = make(*net.data(batch))
    elif torch:
        sides |= torch_sides(torch, net, x, y, training, args.compile == "yes")
    return sides


def compiler(args: argparse.Namespace) -> str:
    """Say whether torch.compile takes part; it needs a C++ compiler."""
    if args.compile == "yes" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        args.compile = "no"
        return "without torch.compile: no C++ compiler found"
    return "with torch.compile" if args.compile == "yes" else "without torch.compile"


def main() -> None:
    args = arguments(
        __doc__,
        both=True,
        data={"choices": list(DATA), "default": "normal", "help": "numbers in the images (default: %(default)s)"},
        compile={"choices": ["yes", "no"], "default": "yes", "help": "time torch.compile too (default: %(default)s)"},
    )
    nets = selected(NETS, args)
    torch = None if args.data != "normal" else load_peer(args)
    peak = Peak.measure(args.threads)
    header(args, peak, torch, f"fastconv on normal data, this on {args.data}" if args.data != "normal" else None)
    if torch:
        print(compiler(args) + "\n")
    table = Table(args, peak)
    for net in nets:
        if torch:
            check_same(torch, net)
        for part, batch in (("step", net.batch), ("inference", net.batch), ("batch 1", 1)):
            training = part == "step"
            sides = contest(net, batch, training, torch, args)
            work = flops(net.build(), net.data(batch)[0], training)
            table.add(str(net), part, take_turns(sides, args.seconds), flops=work)
    table.close()


if __name__ == "__main__":
    main()

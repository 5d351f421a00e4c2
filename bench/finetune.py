"""Fine-tuning EfficientNet-Lite0 beside the same net in PyTorch: features of the frozen body, and steps of all layers.

    python bench/finetune.py --size 128 --batch 50

Outputs and gradients are compared first. Both then run in turns; figures are processor time, on one thread unless
asked otherwise, best of several. Needs PyTorch; weights are drawn.
"""

import argparse
import json
import os
import time

import numpy as np
import torch
from torch import nn as tn
from torch.nn import functional as TF

import fastconv
from fastconv import config, models, nn, optim
from fastconv.models.efficientnet import STAGES


class Same(tn.Conv2d):
    """TensorFlow's padding."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x):
        missing = [
            max((-(-n // s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        if any(missing):
            down, right = missing
            x = TF.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(x)


def norm(channels):
    return tn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(tn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        wide, self.residual = inputs * expansion, stride == 1 and inputs == outputs and expansion > 1
        if expansion == 1:
            self.conv_dw, self.bn1 = Same(wide, wide, kernel, stride, wide), norm(wide)
            self.conv_pw, self.bn2 = Same(wide, outputs, 1), norm(outputs)
            self.pairs = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
        else:
            self.conv_pw, self.bn1 = Same(inputs, wide, 1), norm(wide)
            self.conv_dw, self.bn2 = Same(wide, wide, kernel, stride, wide), norm(wide)
            self.conv_pwl, self.bn3 = Same(wide, outputs, 1), norm(outputs)
            self.pairs = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))

    def forward(self, x):
        y = x
        for i, (conv, bn) in enumerate(self.pairs, 1):
            y = getattr(self, bn)(getattr(self, conv)(y))
            y = TF.relu6(y) if i < len(self.pairs) else y
        return x + y if self.residual else y


class Lite(tn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv_stem, self.bn1 = Same(3, 32, 3, 2), norm(32)
        stages, inputs = [], 32
        for expansion, outputs, depth, kernel, stride in STAGES:
            blocks = []
            for step in (stride, *[1] * (depth - 1)):
                blocks.append(Block(inputs, outputs, kernel, step, expansion))
                inputs = outputs
            stages.append(tn.Sequential(*blocks))
        self.blocks = tn.Sequential(*stages)
        self.conv_head, self.bn2 = Same(inputs, 1280, 1), norm(1280)
        self.drop, self.classifier = tn.Dropout(0.2), tn.Linear(1280, classes)

    def forward(self, x):
        x = TF.relu6(self.bn2(self.conv_head(self.blocks(TF.relu6(self.bn1(self.conv_stem(x)))))))
        return self.classifier(self.drop(x.mean((2, 3))))


still = {}  # modules of a net that stay in evaluation mode


def calm(net):
    for module in still.get(net, ()):
        module.eval()


def agree(ours, theirs, size):
    """Compare outputs and gradients of all parameters, in evaluation mode: no batch of few images is divided by."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3, size, size)).astype(np.float32), np.array([0, 3, 1, 2])
    theirs.double().eval()
    reference = theirs(torch.tensor(x, dtype=torch.float64))
    TF.cross_entropy(reference, torch.tensor(y)).backward()
    loss = nn.CrossEntropyLoss()
    scores = ours.eval()(x)
    error = np.abs(scores - reference.detach().numpy()).max()
    loss(scores, y)
    ours.backward(loss.backward())
    grads = dict(theirs.named_parameters())
    worst = max(
        np.abs(p.grad - grads[name].grad.numpy()).max() / np.abs(grads[name].grad.numpy()).max()
        for name, p in ours.named_parameters()
    )
    if not (error < 1e-3 and worst < 1e-2):
        raise SystemExit(f"outputs differ by {error:.2g}, gradients by {worst:.2g} of their largest")
    print(f"outputs agree to {error:.1e}, gradients to {worst:.1e} of their largest, float32 against PyTorch's float64")
    theirs.float().zero_grad()
    ours.train().zero_grad()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--freeze", type=int, default=0, metavar="N", help="stem and N stages stay")
    args = parser.parse_args()
    config.threads(args.threads)
    torch.set_num_threads(args.threads)

    fastconv.manual_seed(0)
    ours, theirs = models.efficientnet_lite0(10), Lite(10)
    theirs.load_state_dict({name: torch.from_numpy(a) for name, a in ours.state_dict().items()})
    agree(ours, theirs, 64)
    theirs.to(memory_format=torch.channels_last)
    for net, norms in ((ours, nn.BatchNorm2d), (theirs, tn.BatchNorm2d)):
        if args.freeze:  # as examples/finetune_efficientnet.py: all normalisations keep their statistics
            for part in (net.conv_stem, net.bn1, *list(net.blocks)[: args.freeze]):
                part.requires_grad_(False)
            still[net] = [module for module in net.modules() if isinstance(module, norms)]
    calm(ours)

    x = np.random.default_rng(1).standard_normal((args.batch, args.size, args.size, 3)).astype(np.float32)
    x, y = x.transpose(0, 3, 1, 2), np.arange(args.batch) % 10  # channels last, as each of them likes it best
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    loss, step = nn.CrossEntropyLoss(), optim.AdamW(ours.parameters(), lr=1e-4)
    their_step = torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def train():
        step.zero_grad()
        loss(ours(x), y)
        ours.backward(loss.backward())
        step.step()

    def their_train():
        theirs.train()
        calm(theirs)
        their_step.zero_grad()
        TF.cross_entropy(theirs(tx), ty).backward()
        their_step.step()

    def their_features():
        theirs.eval()
        with torch.inference_mode():
            theirs(tx)

    found = {}
    for what, pair in (
        ("features", {"fastconv": lambda: ours.predict(x), "torch": their_features}),
        ("training step", {"fastconv": train, "torch": their_train}),
    ):
        best = dict.fromkeys(pair, np.inf)
        for repeat in range(args.repeats + 1):
            for name, run in pair.items():
                begin = time.process_time()
                run()
                if repeat:
                    best[name] = min(best[name], time.process_time() - begin)
        found[what] = {name: 1e3 * seconds / args.batch for name, seconds in best.items()}
        shown = ", ".join(f"{name} {ms:.2f}" for name, ms in found[what].items())
        print(f"{what}: ms an image: {shown}; {found[what]['torch'] / found[what]['fastconv']:.2f} times as fast")
    print(json.dumps({
        "size": args.size, "batch": args.batch, "freeze": args.freeze, "threads": args.threads, "isa": config.isa(),
        "cores": os.cpu_count(), "torch": torch.__version__, "ms_per_image": found,
    }))  # fmt: skip


if __name__ == "__main__":
    main()

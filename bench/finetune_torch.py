"""examples/finetune_efficientnet.py in PyTorch, to the end: the same images in the same order, weights, rates, epochs.

    python bench/finetune_torch.py --weights efficientnet_lite0.onnx

Takes the example's options and prints what the example prints; processor time of one thread. Batches are made by
fastconv, a few per cent of the time. Needs PyTorch. Measured with the example's settings of then (128 pixels, bilinear,
four stages, six epochs): 87.59 % after 740 s, and 97 to test (PyTorch 2.13, AVX-512, a busy machine, 2026-11-28);
fastconv's 87.33 % took 366 and 40 s.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from finetune import Lite
from torch.nn import functional as TF

import fastconv
from fastconv import config, data

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import finetune_efficientnet as example


def tensor(images):
    """Return images as PyTorch likes them best: channels last, as they lie in memory."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def scores(net, images, size):
    net.eval()
    parts, standardize = np.array_split(images, -(-len(images) // example.BATCH)), example.standardizer()
    with torch.inference_mode():
        return torch.cat([net(tensor(example.enlarged(standardize(x), size))) for x in parts]).numpy()


def train_head(head, features, labels, seed):
    made = data.Batches(features, labels, example.BATCH, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=example.HEAD_LR, weight_decay=example.DECAY)
    steps = example.HEAD_EPOCHS * len(made)
    for epoch in range(example.HEAD_EPOCHS):
        for index, (x, y) in enumerate(made):
            rate = fastconv.schedule.Cosine(steps)(epoch * len(made) + index)
            step(optimizer, [example.HEAD_LR * rate], head(torch.from_numpy(x)), y)


def step(optimizer, rates, found, labels):
    loss = TF.cross_entropy(found, torch.from_numpy(labels), label_smoothing=example.SMOOTHING)
    optimizer.zero_grad()
    loss.backward()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.step()
    return loss.item()


def main():
    args = example.settings(None, __doc__)
    config.threads(1)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    train, test = example.samples(args)
    fastconv.manual_seed(args.seed)
    state = example.pretrained(args.weights, 10).state_dict()
    net = Lite(10)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    net.to(memory_format=torch.channels_last)
    begin, cpu = time.perf_counter(), time.process_time()

    head, net.classifier = net.classifier, torch.nn.Identity()
    train_head(head, scores(net, train.images, args.size), train.labels, args.seed)
    net.classifier = head

    for part in (net.conv_stem, net.bn1, *list(net.blocks)[: args.freeze]):
        part.requires_grad_(False)
    groups = []
    for factor, params in (
        (1, [p for name, p in net.named_parameters() if p.requires_grad and not name.startswith("classifier.")]),
        (3, list(head.parameters())),
    ):
        groups += [
            {"params": [p for p in params if p.ndim > 1], "lr": factor * args.lr, "weight_decay": example.DECAY},
            {"params": [p for p in params if p.ndim <= 1], "lr": factor * args.lr, "weight_decay": 0.0},
        ]
    first = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups)
    made = example.batches(args, train)
    rates = example.rates(args.epochs * len(made))
    for epoch in range(args.epochs):
        net.train()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        total = 0.0
        for index, (x, y) in enumerate(made):
            rate = rates(epoch * len(made) + index)
            total += step(optimizer, [rate * lr for lr in first], net(tensor(x)), y) * len(y)
        seconds, work, loss = time.perf_counter() - begin, time.process_time() - cpu, total / len(train.labels)
        print(f"epoch {epoch + 1}: loss {loss:.4f}; {seconds:.0f} s, {work:.0f} s of processor time", flush=True)
    trained = time.process_time() - cpu
    found, mirrored = (scores(net, x, args.size) for x in (test.images, test.images[..., ::-1]))
    example.report(args, test, found, mirrored, trained, time.process_time() - cpu - trained)


if __name__ == "__main__":
    main()

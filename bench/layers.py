"""Time single layers, forward and backward, against PyTorch: convolution and pooling of real nets.

Each problem runs in both of the peer's memory formats and the better one counts. Rates are of useful
operations: 2 a multiply-add (convolution), bytes read and written once (pooling).
"""

import numpy as np
from harness import Peak, Table, arguments, check_close, header, load_peer, selected, take_turns, with_direct
from problems import BENCH

import fastconv.functional as F

POOLING = [
    ("pool 2x2/2 (128,32,32)", (128, 32, 32, 32), 2, 2, 0),
    ("pool 3x3/2 (8,64,112)", (8, 64, 112, 112), 3, 2, 1),
]


def nhwc(rng, shape):
    n, c, h, w = shape
    return rng.standard_normal((n, h, w, c), dtype=np.float32).transpose(0, 3, 1, 2)


def convolution(problem, table, torch, args):
    rng = np.random.default_rng(0)
    x, b = nhwc(rng, problem.input_shape), rng.standard_normal(problem.K, dtype=np.float32)
    w = rng.standard_normal(problem.weight_shape, dtype=np.float32)
    options = problem.options
    y = F.conv2d(x, w, b, *options)
    g = nhwc(rng, y.shape)
    gx, gw, gb = F.conv2d_backward(g, x, w, *options)
    into = {"grad_weight": gw.copy(), "grad_bias": gb.copy()}
    flops = 2.0 * y.size * np.prod(problem.weight_shape[1:])

    sides = {
        "forward": {"ours": lambda: F.conv2d(x, w, b, *options, out=y)},
        "weight grad": {"ours": lambda: F.conv2d_backward(g, x, w, *options, need_input_grad=False, **into)},
        "input grad": {"ours": lambda: F.conv2d_input_grad(g, x.shape, w, *options, out=gx)},
        "backward": {"ours": lambda: F.conv2d_backward(g, x, w, *options, grad_input=gx, **into)},
    }
    if torch:
        for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            tx, tw, tg = (torch.tensor(np.ascontiguousarray(a)).contiguous(memory_format=layout) for a in (x, w, g))
            tb = torch.tensor(b)
            extra = dict(stride=options[0], padding=options[1], dilation=options[2], groups=options[3])

            def forward(tx=tx, tw=tw, tb=tb, extra=extra):
                with torch.no_grad():
                    return torch.nn.functional.conv2d(tx, tw, tb, **extra)

            def backward(mask, tx=tx, tw=tw, tg=tg):
                s, p, d, groups = options
                pair = lambda v: [v, v] if isinstance(v, int) else list(v)  # noqa: E731
                return torch.ops.aten.convolution_backward(
                    tg, tx, tw, [problem.K], pair(s), pair(p), pair(d), False, [0, 0], groups, mask
                )

            terms = int(np.prod(problem.weight_shape[1:]))
            check_close(f"{problem} forward", y, forward().numpy(), terms)
            want = [t.numpy() for t in backward([True, True, True])]
            check_close(f"{problem} input grad", gx, want[0], terms)
            check_close(f"{problem} weight grad", gw, want[1], g[:, 0].size)
            check_close(f"{problem} bias grad", gb, want[2], g[:, 0].size)
            sides["forward"][name] = forward
            sides["weight grad"][name] = lambda backward=backward: backward([False, True, True])
            sides["input grad"][name] = lambda backward=backward: backward([True, False, False])
            sides["backward"][name] = lambda backward=backward: backward([True, True, True])
    for part in sides:
        both = with_direct(sides[part], lambda part=part: sides[part]["ours"], args)
        times = take_turns(both, args.seconds)
        table.add(str(problem), part, times, flops=flops * (2 if part == "backward" else 1))


def pooling(name, shape, kernel, stride, padding, table, torch, seconds):
    rng = np.random.default_rng(0)
    x = nhwc(rng, shape)
    argmax = F.max_pool2d_argmax_like(x, kernel, stride, padding)
    y = F.max_pool2d(x, kernel, stride, padding, argmax=argmax)
    mean = F.avg_pool2d(x, kernel, stride, padding)
    g = nhwc(rng, y.shape)
    gx = F.max_pool2d_backward(g, argmax, x.shape, kernel, stride, padding)
    sides = {
        "max fwd": {"ours": lambda: F.max_pool2d(x, kernel, stride, padding, out=y, argmax=argmax)},
        "max bwd": {"ours": lambda: F.max_pool2d_backward(g, argmax, x.shape, kernel, stride, padding, grad_input=gx)},
        "mean fwd": {"ours": lambda: F.avg_pool2d(x, kernel, stride, padding, out=mean)},
        "mean bwd": {"ours": lambda: F.avg_pool2d_backward(g, x.shape, kernel, stride, padding, grad_input=gx)},
    }
    if torch:
        aten = torch.ops.aten
        k, s, p = [kernel] * 2, [stride] * 2, [padding] * 2
        for layout_name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            tx, tg = (torch.tensor(np.ascontiguousarray(a)).contiguous(memory_format=layout) for a in (x, g))
            out, where = aten.max_pool2d_with_indices(tx, k, s, p)
            check_close(name, y, out.numpy(), 1)
            check_close(name, mean, aten.avg_pool2d(tx, k, s, p).numpy(), kernel * kernel)
            sides["max fwd"][layout_name] = lambda tx=tx: aten.max_pool2d_with_indices(tx, k, s, p)
            sides["max bwd"][layout_name] = lambda tx=tx, tg=tg, where=where: aten.max_pool2d_with_indices_backward(
                tg, tx, k, s, p, [1, 1], False, where
            )
            sides["mean fwd"][layout_name] = lambda tx=tx: aten.avg_pool2d(tx, k, s, p)
            sides["mean bwd"][layout_name] = lambda tx=tx, tg=tg: aten.avg_pool2d_backward(
                tg, tx, k, s, p, False, True, None
            )
    for part, both in sides.items():
        table.add(name, part, take_turns(both, seconds), nbytes=x.nbytes + y.nbytes)


def main():
    args = arguments(__doc__, both=True)
    torch = load_peer(args)
    peak = Peak.measure(args.threads)
    header(args, peak, torch)
    table = Table(args, peak)
    names = [str(p) for p in BENCH] + [p[0] for p in POOLING]
    chosen = set(selected(names, args))
    for problem in BENCH:
        if str(problem) in chosen:
            convolution(problem, table, torch, args)
    for row in POOLING:
        if row[0] in chosen:
            pooling(*row, table, torch, args.seconds)
    table.close()


if __name__ == "__main__":
    main()

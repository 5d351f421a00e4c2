"""What a plan tells before a step runs."""

import numpy as np
import pytest

import fastconv
from fastconv import models, nn

LENET = """\
Sequential, training step on (64, 1, 28, 28) of float32

layers                 output       parameters  MFLOP  activations  gradients
─────────────────────────────────────────────────────────────────────────────
0-1     Conv2d + ReLU  64×6×28×28          156   30.1     1.15 MiB          –
2       MaxPool2d      64×6×14×14            –      –      368 KiB   1.15 MiB
3-4     Conv2d + ReLU  64×16×10×10       2,416   92.2      400 KiB    294 KiB
5       MaxPool2d      64×16×5×5             –      –      125 KiB    400 KiB
6       Flatten        64×400                –      –      100 KiB    100 KiB
7-8     Linear + ReLU  64×120           48,120   18.4       30 KiB    100 KiB
9-10    Linear + ReLU  64×84            10,164   3.87       21 KiB     30 KiB
11      Linear         64×10               850  0.323      2.5 KiB     21 KiB
─────────────────────────────────────────────────────────────────────────────
total                                   61,706    145     2.17 MiB   2.07 MiB

parameters and their gradients     482 KiB
"""


def test_a_plan_is_a_table():
    plan = models.build("lenet5", (1, 28, 28), 10).plan((64, 1, 28, 28))
    text = str(plan)
    assert text.startswith(LENET)
    assert [line.split("  ")[0] for line in text.splitlines()[-4:]] == [
        "parameters and their gradients", "activations and gradients", "scratch", "together",
    ]  # fmt: skip
    assert text.splitlines()[-3].endswith("they share memory; most is in use at 2")
    assert plan.peak == "2"
    assert plan.total == plan.parameter_nbytes + plan.arena + plan.scratch
    assert max(row.activations + row.gradients for row in plan.rows) < plan.arena < plan.activations + plan.gradients
    assert plan.parameter_nbytes == 2 * 4 * 61_706


def test_flops_are_those_of_the_products_each_way():
    model = nn.Sequential(nn.Conv2d(3, 8, 5, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 7))
    conv, linear = 2 * 4 * 8 * 6 * 6 * 3 * 25, 2 * 4 * 8 * 36 * 7
    assert model.plan((4, 3, 10, 10), training=False).flops == conv + linear
    assert model.plan((4, 3, 10, 10)).flops == 3 * (conv + linear)
    spared = nn.Sequential(*model, input_grad=False)
    assert spared.plan((4, 3, 10, 10)).flops == 3 * (conv + linear) - conv
    assert nn.Conv2d(8, 8, 3, groups=4).plan((2, 8, 5, 5), training=False).flops == 2 * 2 * 8 * 9 * 2 * 9


def test_evaluation_holds_no_gradients():
    plan = models.build("mnist-small", (1, 28, 28), 10).plan((1, 1, 28, 28), training=False)
    assert plan.gradients == 0
    assert "evaluation on (1, 1, 28, 28)" in str(plan)


def test_blocks_show_what_they_are_made_of():
    plan = models.build("resnet20", (3, 16, 16), 10).plan((2, 3, 16, 16))
    rows = {row.name: row for row in plan.rows}
    assert rows["1-2"].layers == rows["3.body.1-2"].layers == ("BatchNorm2d", "ReLU")
    assert rows["6.shortcut.0"].output == (2, 32, 8, 8)
    assert rows["3.body.4-activation"].layers == ("BatchNorm2d", "add", "ReLU")
    assert rows["3.body.4-activation"].activations == 2 * 16 * 16 * 16 * 4 + 2 * 16 * 4  # and its statistics
    assert plan.parameters == sum(p.data.size for p in models.build("resnet20", (3, 16, 16), 10).parameters())


def test_planning_leaves_the_model_as_it_was():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()).eval()
    before, extra = model.state_dict(), model.extra_state()
    grads = [p.grad for p in model.parameters()]
    model.plan((2, 3, 8, 8))
    assert not model.training
    assert not any("_storage" in vars(module) or "_tree" in vars(module) for module in model.modules())
    assert model.extra_state() == extra
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(p.grad is grad and not grad.any() for p, grad in zip(model.parameters(), grads, strict=True))
    with pytest.raises(RuntimeError, match="called before forward"):
        model.backward(np.ones((2, 4, 6, 6), np.float32))


def test_kernels_run_again_after_a_plan_even_a_failed_one():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    expected = model(np.ones((2, 3), np.float32)).copy()
    with pytest.raises(ValueError, match="weight expects 3 features, input has 4"):
        model.plan((2, 4))
    np.testing.assert_array_equal(model(np.ones((2, 3), np.float32)), expected)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, -1)])
def test_shapes_must_be_whole(shape):
    with pytest.raises(ValueError, match="plan: input_shape must be"):
        nn.Linear(3, 2).plan(shape)

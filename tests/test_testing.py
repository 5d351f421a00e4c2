"""The gradient checker: it finds what is wrong, says where, and leaves the layer alone."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn
from fastconv.testing import GradientError, gradcheck, numerical_gradient

pytestmark = pytest.mark.gradients


class Wrong(nn.Linear):
    """A linear layer with one mistake in its backward."""

    def __init__(self, mistake, size=1e-5):
        super().__init__(5, 4)
        self.mistake, self.size = mistake, size

    def backward(self, grad_output):
        grad = super().backward(grad_output)
        if self.mistake == "input":
            grad[1, 2] += self.size
        elif self.mistake == "weight":
            self.weight.grad[3, 1] *= 1 + self.size
        elif self.mistake == "nan":
            self.bias.grad[2] = np.nan
        elif self.mistake == "shape":
            return grad[:1]
        elif self.mistake == "nothing":
            return None
        return grad


def test_a_right_layer_passes_and_the_report_says_what_was_compared():
    fastconv.manual_seed(0)
    report = gradcheck(nn.Linear(30, 4), (3, 30), samples=50)
    assert report.ok
    assert [(e.name, e.shape, e.checked) for e in report.entries] == [
        ("input", (3, 30), 50), ("weight", (4, 30), 50), ("bias", (4,), 4)
    ]  # fmt: skip
    assert all(e.error <= e.tolerance < 1e-7 for e in report.entries)
    assert str(report).startswith("gradients of Linear(in_features=30, out_features=4, bias=True)\n  ok  input")


@pytest.mark.parametrize(
    ("mistake", "where"),
    [
        ("input", r"input \(2, 5\): worst of 10 at \(1, 2\)"),
        ("weight", r"weight \(4, 5\): worst of 20 at \(3, 1\)"),
        ("nan", r"bias \(4,\): worst of 4 at \(2,\): backward nan"),
    ],
)
def test_one_wrong_element_is_found_and_named(mistake, where):
    fastconv.manual_seed(0)
    layer = Wrong(mistake)
    with pytest.raises(GradientError, match="BAD " + where):
        gradcheck(layer, (2, 5))
    report = gradcheck(layer, (2, 5), raise_error=False)
    assert [e.name for e in report.entries if not e.ok] == ["bias" if mistake == "nan" else mistake]


@pytest.mark.parametrize(("mistake", "shape"), [("shape", r"\(1, 5\)"), ("nothing", "None")])
def test_a_gradient_of_the_wrong_shape_is_an_error(mistake, shape):
    with pytest.raises(GradientError, match=rf"gradient of input has shape {shape}, input \(2, 5\)"):
        gradcheck(Wrong(mistake), (2, 5))


def test_kinks_within_the_step_raise_no_alarm():
    x = np.array([[-1e-4, -6e-5, -4e-5, -2e-5, 0, 1e-5, 3e-5, 5e-5, 9e-5, 1.0]])
    x[0, 4] = 2e-9
    assert gradcheck(nn.ReLU(), x.shape, input=x).ok
    assert gradcheck(nn.MaxPool2d(2), (1, 1, 2, 2), input=np.array([[[[1, 1 + 3e-5], [0, 1 - 8e-5]]]])).ok


def test_the_layer_stays_as_it_was():
    fastconv.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.4), input_grad=False)
    state, extra = layer.state_dict(), layer.extra_state()
    assert gradcheck(layer, (4, 6)).ok
    assert layer.extra_state() == extra
    for name, array in layer.state_dict().items():
        assert_array_equal(array, state[name])
    assert not any(p.grad.any() for p in layer.parameters())


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad = False
    assert [e.name for e in gradcheck(layer, (2, 3)).entries] == ["input", "bias"]


def test_arguments():
    with pytest.raises(ValueError, match=r"input has shape \(2, 3\), input_shape is \(3, 3\)"):
        gradcheck(nn.ReLU(), (3, 3), input=np.ones((2, 3)))
    with pytest.raises(TypeError, match="x must be float64, got float32"):
        numerical_gradient(np.sum, np.ones(3, np.float32))


def test_numerical_gradient_of_a_cubic():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    gradient, doubt = numerical_gradient(lambda a: float((a**3).sum()), x)
    np.testing.assert_allclose(gradient, 3 * x.reshape(-1) ** 2, atol=1e-9)
    assert (doubt < 1e-7).all()
    assert_array_equal(x, [[1.0, -2.0], [0.5, 3.0]])
    some, _ = numerical_gradient(lambda a: float((a**3).sum()), x, indices=[3])
    np.testing.assert_allclose(some, [27.0], atol=1e-9)
    assert numerical_gradient(np.sum, np.ones((0,)))[0].shape == (0,)

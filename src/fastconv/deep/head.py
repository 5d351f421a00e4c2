"""The two dense layers around a residual core: pixels -> tanh(x W + b) before it, state -> classes after it."""

from pathlib import Path

import numpy as np

from fastconv import functional as F
from fastconv import random
from fastconv.deep.files import check_length, overwrite
from fastconv.functional._check import flag


class Head:
    """Input layer (D, pixels) with tanh and output layer (classes, D), trained by plain SGD.

    Parameters
    ----------
    inputs, width, classes : int

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import deep
    >>> head = deep.Head(inputs=4, width=3, classes=2).initialize(seed=0)
    >>> x = np.array([[0.0, 0.5, 0.5, 1.0]], np.float32)
    >>> h = head.embed(x)  # what goes into the core
    >>> h.round(2), head.logits(h).shape
    (array([[ 0.54, -0.15,  0.58]], dtype=float32), (1, 2))
    """

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        self.inputs, self.width, self.classes = inputs, width, classes
        self.w_in, self.b_in = np.zeros((width, inputs), np.float32), np.zeros(width, np.float32)
        self.w_out, self.b_out = np.zeros((classes, width), np.float32), np.zeros(classes, np.float32)

    def initialize(self, seed: int) -> "Head":
        """Draw Glorot-uniform weights (Glorot & Bengio 2010, eq. 16); biases 0.

        Parameters
        ----------
        seed : int

        Returns
        -------
        Head
        """
        rng = random.generator(seed, "deep head")
        for w in (self.w_in, self.w_out):
            bound = np.sqrt(6.0 / sum(w.shape))
            w.T[...] = rng.uniform(-bound, bound, w.T.shape)
        return self

    @property
    def arrays(self) -> list[np.ndarray]:
        """The parameters in the order and orientation of the file."""
        return [self.w_in.T, self.b_in, self.w_out.T, self.b_out]

    @property
    def nbytes(self) -> int:
        """Length of the file."""
        return self.size(self.inputs, self.width, self.classes)

    @staticmethod
    def size(inputs: int, width: int, classes: int) -> int:
        """Return the length that the file of such a head has.

        Parameters
        ----------
        inputs, width, classes : int
        """
        return 4 * (width * (inputs + 1) + classes * (width + 1))

    def write(self, path: Path, sync: bool = True) -> None:
        """Write the parameters as little-endian float32, in the room that the file has; ``sync``: wait for the disk.

        Parameters
        ----------
        path : Path
        sync : bool
        """
        sync = flag("Head.write: sync", sync)
        overwrite(path, [np.ascontiguousarray(a, "<f4").data for a in self.arrays], sync)

    @classmethod
    def load(cls, path: Path, inputs: int, width: int, classes: int) -> "Head":
        """Read a head from its file.

        Parameters
        ----------
        path : Path
        inputs, width, classes : int

        Returns
        -------
        Head

        Raises
        ------
        ValueError
            If the file has another length; no memory has been taken then.
        """
        what = f"the weights of a head of {inputs} inputs, width {width} and {classes} classes"
        check_length(path, cls.size(inputs, width, classes), what)
        head, values = cls(inputs, width, classes), np.fromfile(path, "<f4")
        for a in head.arrays:
            a[...] = values[: a.size].reshape(a.shape)
            values = values[a.size :]
        return head

    def embed(self, x: np.ndarray) -> np.ndarray:
        """Return the core's input (N, D) for pixels (N, inputs).

        Parameters
        ----------
        x : ndarray of shape (N, inputs), float32
            Pixels in [0, 1].
        """
        return F.tanh(F.linear(x, self.w_in, self.b_in))

    def logits(self, h: np.ndarray) -> np.ndarray:
        """Return the class scores (N, classes) of the core's output (N, D).

        Parameters
        ----------
        h : ndarray of shape (N, D), float32
        """
        return F.linear(h, self.w_out, self.b_out)

    def descend_output(self, h: np.ndarray, grad: np.ndarray, rate: float) -> np.ndarray:
        """Take the output layer a step along; return the gradient of h, taken before it.

        Parameters
        ----------
        h : ndarray of shape (N, D), float32
        grad : ndarray of shape (N, classes)
            Gradient of the scores.
        rate : float
            Learning rate.
        """
        grad_h, dw, db = F.linear_backward(grad, h, self.w_out)
        assert grad_h is not None
        self._step(self.w_out, dw, self.b_out, db, rate)
        return grad_h

    def descend_input(self, x: np.ndarray, h: np.ndarray, grad: np.ndarray, rate: float) -> None:
        """Take the input layer a step along; h is what `embed` gave, grad its gradient.

        Parameters
        ----------
        x : ndarray of shape (N, inputs), float32
            Pixels in [0, 1].
        h, grad : ndarray of shape (N, D), float32
        rate : float
            Learning rate.
        """
        _, dw, db = F.linear_backward(F.tanh_backward(grad, h), x, self.w_in, need_input_grad=False)
        self._step(self.w_in, dw, self.b_in, db, rate)

    @staticmethod
    def _step(w: np.ndarray, dw: np.ndarray, b: np.ndarray, db: np.ndarray | None, rate: float) -> None:
        assert db is not None
        w -= np.float32(rate) * dw
        b -= np.float32(rate) * db

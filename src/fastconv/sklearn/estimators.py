"""`ConvClassifier` and `ConvRegressor`: what they take and tell."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from fastconv import functional as F
from fastconv.sklearn import parts
from fastconv.sklearn.net import Net, described
from fastconv.sklearn.parameters import takes_nested


@described(
    outputs="classes",
    losses='"cross_entropy" or "multi_margin"; its output is (N, classes), its targets are numbers of classes',
    class_weight="""
    class_weight : dict, "balanced" or None
        What samples of a label weigh; "balanced" gives all classes the same weight.""",
)
class ConvClassifier(ClassifierMixin, Net):
    """A net that tells classes, as an estimator of scikit-learn.

    PARAMETERS
    classes_ : ndarray, shape (classes,)
        The labels, sorted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from fastconv.sklearn import ConvClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0)
    >>> net = ConvClassifier(image_shape=(8, 8), optimizer__lr=0.003, random_state=0)
    >>> net.fit(X, y).score(X_test, y_test) > 0.95
    True
    """

    _losses = parts.CLASS_LOSSES
    _checks: ClassVar[dict[str, Any]] = {}

    @takes_nested
    def __init__(
        self,
        model: Any = "auto",
        *,
        model_params: Any = None,
        loss: Any = "cross_entropy",
        loss_params: Any = None,
        optimizer: Any = "adam",
        optimizer_params: Any = None,
        trainer_params: Any = None,
        image_shape: Any = None,
        epochs: int = 20,
        batch_size: int = 64,
        schedule: Any = "constant",
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        callbacks: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.model_params = model_params
        self.loss = loss
        self.loss_params = loss_params
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.trainer_params = trainer_params
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch more, the first time from new weights; the optimiser's state stays from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like, optional
            All labels there will be; the first call needs them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the first call does not tell the classes, or data do not fit those before.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.sklearn import ConvClassifier
        >>> X, y = np.array([[0.0], [1.0]] * 20), np.array(["low", "high"] * 20)
        >>> net = ConvClassifier("linear", optimizer__lr=0.1, random_state=0)
        >>> for _ in range(5):  # five parts of a set that does not fit into memory, say
        ...     _ = net.partial_fit(X, y, classes=["high", "low"])
        >>> net.predict([[0.0], [1.0]])
        array(['low', 'high'], dtype='<U4')
        """
        where = type(self).__name__
        if isinstance(self.class_weight, str):
            raise ValueError(f"{where}.partial_fit: class_weight={self.class_weight!r} needs all labels; give a dict")
        if classes is None and not hasattr(self, "trainer_"):
            raise ValueError(f"{where}.partial_fit: the first call needs classes=, all labels there will be")
        return self._fit_once(X, y, sample_weight, classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes: (N, classes), in the order of ``classes_``, of the net's dtype.

        Parameters
        ----------
        X : array_like of shape (N, ...)
            As `fit` takes it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.sklearn import ConvClassifier
        >>> X, y = np.array([[0.0], [1.0]] * 20), np.array(["low", "high"] * 20)
        >>> net = ConvClassifier("linear", optimizer__lr=0.1, random_state=0).fit(X, y)
        >>> net.classes_, net.predict_proba([[0.0], [0.5], [1.0]]).round(1)
        (array(['high', 'low'], dtype='<U4'), array([[0.1, 0.9],
               [0.5, 0.5],
               [0.9, 0.1]]))
        """
        return F.softmax(self._raw(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each sample: (N,), of the dtype of the labels.

        Parameters
        ----------
        X : array_like of shape (N, ...)
            As `fit` takes it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.sklearn import ConvClassifier
        >>> X, y = np.array([[0.0], [1.0]] * 20), np.array(["low", "high"] * 20)
        >>> ConvClassifier("linear", optimizer__lr=0.1, random_state=0).fit(X, y).predict([[0.2], [0.9]])
        array(['low', 'high'], dtype='<U4')
        """
        found = self.predict_proba(X)
        return self.classes_[found.argmax(axis=1)]

    def _learn_target(
        self, y: np.ndarray, weight: np.ndarray | None, fresh: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        where = type(self).__name__
        check_classification_targets(y)
        given = np.unique(y if classes is None else classes)
        if fresh:
            if len(given) < 2:
                raise ValueError(f"{where}: there is 1 class, {given[0]!r}; there must be at least 2 classes")
            self.classes_, self.n_outputs_ = given, len(given)
        elif classes is not None and not np.array_equal(given, self.classes_):
            raise ValueError(f"{where}.partial_fit: classes={given} are not those of the first call, {self.classes_}")
        known = np.isin(y, self.classes_)
        if not known.all():
            raise ValueError(f"{where}: y holds {y[~known][0]!r}, which is none of the classes {self.classes_[:20]}")
        codes = np.searchsorted(self.classes_, y)
        if self.class_weight is None:
            return codes, weight
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            sums = np.bincount(codes, weight, len(self.classes_))
            of_class = sums.sum() / (np.count_nonzero(sums) * np.where(sums > 0, sums, 1))
        else:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_)
        return codes, of_class[codes] * (1.0 if weight is None else weight)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return y


@described(
    outputs="outputs",
    losses='"mse", "l1", "smooth_l1" or "huber"; its output and its targets are (N, outputs)',
    class_weight="",
)
class ConvRegressor(RegressorMixin, Net):
    """A net that tells numbers, as an estimator of scikit-learn.

    It learns the targets as they are; of targets far from 0, or much larger than 1, it learns little until they are
    scaled, as `sklearn.compose.TransformedTargetRegressor` does it.

    PARAMETERS

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.sklearn import ConvRegressor
    >>> X = np.random.default_rng(0).normal(size=(400, 3))
    >>> ConvRegressor(random_state=0).fit(X, X[:, 0] * X[:, 1]).score(X, X[:, 0] * X[:, 1]) > 0.8
    True
    """

    _losses = parts.ELEMENT_LOSSES
    _checks: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}

    @takes_nested
    def __init__(
        self,
        model: Any = "auto",
        *,
        model_params: Any = None,
        loss: Any = "mse",
        loss_params: Any = None,
        optimizer: Any = "adam",
        optimizer_params: Any = None,
        trainer_params: Any = None,
        image_shape: Any = None,
        epochs: int = 20,
        batch_size: int = 64,
        schedule: Any = "constant",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        callbacks: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.model_params = model_params
        self.loss = loss
        self.loss_params = loss_params
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.trainer_params = trainer_params
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch more, the first time from new weights; the optimiser's state stays from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data do not fit those before.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.sklearn import ConvRegressor
        >>> X = np.linspace(-1, 1, 64)[:, np.newaxis]
        >>> net = ConvRegressor("linear", optimizer__lr=0.2, random_state=0)
        >>> for _ in range(60):
        ...     _ = net.partial_fit(X, 3 * X[:, 0] + 1)
        >>> net.predict([[0.0], [1.0]]).round(1)
        array([1., 4.])
        """
        return self._fit_once(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Return the numbers of each sample: (N,), or (N, outputs) where the targets were so; of the net's dtype.

        Parameters
        ----------
        X : array_like of shape (N, ...)
            As `fit` takes it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.sklearn import ConvRegressor
        >>> X = np.linspace(-1, 1, 64)[:, np.newaxis]
        >>> y = np.hstack([X, 2 * X])  # two numbers to predict
        >>> net = ConvRegressor("linear", epochs=100, optimizer__lr=0.2, random_state=0).fit(X, y)
        >>> net.predict([[0.5], [1.0]]).round(1)
        array([[0.5, 1. ],
               [1. , 2. ]])
        """
        found = self._raw(X)
        return found[:, 0] if self._flat else found

    def _learn_target(
        self, y: np.ndarray, weight: np.ndarray | None, fresh: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if fresh:
            self._flat, self.n_outputs_ = y.ndim == 1, outputs
        elif outputs != self.n_outputs_:
            raise ValueError(f"{type(self).__name__}: y has shape {y.shape}, was fitted to {self.n_outputs_} outputs")
        return y, weight

    def _target(self, y: np.ndarray) -> np.ndarray:
        dtype = next(iter(self.model_.parameters())).data.dtype
        return np.ascontiguousarray(y.reshape(len(y), self.n_outputs_), dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

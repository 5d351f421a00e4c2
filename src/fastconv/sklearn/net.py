"""What both estimators are: a model, a loss and an optimiser made anew for a fit, a trainer, and their parameters."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastconv import nn
from fastconv.choices import SCHEDULES
from fastconv.functional._check import flag, short, whole
from fastconv.sklearn import parts
from fastconv.sklearn.parameters import Nested
from fastconv.train import Callback, Patience, Trainer
from fastconv.train.setup import schedule_of

_PREDICTION_BATCH = 256


class Net(Nested):
    """What trains and predicts; what is a target, the two estimators say."""

    _losses: ClassVar[dict[str, Any]]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a net.

        Parameters
        ----------
        X : array-like, shape (N, F), (N, H, W) or (N, C, H, W)
            float64 is trained on in float64, all else of up to 16 bits in float32.
        y : array-like, shape (N,)
            Labels of any type; of a regression numbers, also (N, outputs).
        sample_weight : array-like of N numbers, optional
            Not negative. A sample that weighs 2 counts like two of it, one that weighs 0 is left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described.
        fastconv.train.Diverged
            If the loss is not finite any more; scale X, or lower ``optimizer__lr``.
        """
        epochs = whole(f"{type(self).__name__}: epochs", self.epochs)
        early_stopping, warm_start, _ = self._flags()
        fresh = not (warm_start and hasattr(self, "model_"))
        x, y, weight = self._accept(X, y, sample_weight, reset=fresh)
        y, weight = self._learn_target(y, weight, fresh)
        self._seed = self._draw_seed()
        if fresh:
            self.model_ = self._build(x)
        validation = None
        if early_stopping:
            x, y, weight, validation = self._set_aside(x, y, weight)
        self.trainer_ = self._trainer(len(x), epochs)
        self._train(x, y, weight, epochs, validation)
        return self

    def _fit_once(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Train one epoch more."""
        where = type(self).__name__
        if self._flags()[0]:
            raise ValueError(f"{where}.partial_fit: early_stopping needs all data at once; use fit")
        first = not hasattr(self, "trainer_")
        x, y, weight = self._accept(X, y, sample_weight, reset=first)
        y, weight = self._learn_target(y, weight, first, classes)
        if first:
            self._seed = self._draw_seed()
            self.model_ = self._build(x)
            self.trainer_ = self._trainer(len(x), None)
        elif not callable(self.schedule):
            self.trainer_.schedule = schedule_of("constant", 1)  # that of an earlier fit is at its end
        self._train(x, y, weight, 1)
        return self

    def _train(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, epochs: int, validation: Any = None
    ) -> None:
        data = (x, self._target(y), *(() if weight is None else (weight,)))
        self.trainer_.fit(data, epochs=epochs, validation=validation, batch_size=self.batch_size, seed=self._seed)
        self.history_ = self.trainer_.history
        self.n_iter_ = len(self.history_)

    # ---- data

    def _accept(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return samples as the net takes them, targets, and weights; those that weigh nothing are left out."""
        rows, shape = self._rows(X)
        rows, y = validate_data(self, rows, y, reset=reset, dtype="numeric", **self._checks)
        x = self._laid_out(rows, shape, reset)
        if sample_weight is None:
            return x, y, None
        weight = np.asarray(sample_weight, np.float64)
        where = type(self).__name__
        if weight.shape != (len(x),):
            raise ValueError(f"{where}: sample_weight must have shape ({len(x)},), got {weight.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError(f"{where}: sample_weight must be finite and at least 0")
        counts = weight > 0
        if not counts.any():
            raise ValueError(f"{where}: sample_weight is zero for all samples; there is nothing to learn from")
        return (x, y, weight) if counts.all() else (x[counts], y[counts], weight[counts])

    @staticmethod
    def _rows(X: Any) -> tuple[Any, tuple[int, ...] | None]:
        """Return images as rows of numbers, and the shape they had; all else as it is."""
        ndim = np.ndim(X) if isinstance(X, list | tuple) else getattr(X, "ndim", 2)
        if ndim <= 2:
            return X, None
        images = np.asarray(X)
        return images.reshape(len(images), -1) if len(images) else images.reshape(0, 0), images.shape

    def _laid_out(self, rows: np.ndarray, given: tuple[int, ...] | None, reset: bool) -> np.ndarray:
        """Return rows in the shape of the net's input, of float32 or float64."""
        shape = parts.shape_of(type(self).__name__, given or rows.shape, self.image_shape)
        if reset:
            self.image_shape_ = shape
        elif given is not None and shape != self.image_shape_:
            fitted = "rows of numbers" if self.image_shape_ is None else f"images {self.image_shape_}"
            raise ValueError(f"{type(self).__name__}: was fitted to {fitted}, X has images {shape}")
        x = rows.reshape(len(rows), *(self.image_shape_ or rows.shape[1:]))
        wide = np.result_type(x.dtype, np.float32).itemsize > 4
        return x.astype(np.float64 if wide else np.float32, copy=False)

    def _set_aside(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[np.ndarray, ...]]:
        """Return what is left to train on, and what is set aside, as a trainer takes it."""
        share = self.validation_fraction
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"{type(self).__name__}: validation_fraction must be in (0, 1), got {short(share)}")
        taken = (x, y) if weight is None else (x, y, weight)
        found = train_test_split(*taken, test_size=share, random_state=self._seed, stratify=self._strata(y))
        (x, y, *rest), aside = found[::2], found[1::2]
        return x, y, rest[0] if rest else None, (aside[0], self._target(aside[1]), *aside[2:])

    def _flags(self) -> tuple[bool, bool, bool]:
        """Return early_stopping, warm_start and verbose, which the constructor takes as they are."""
        where = type(self).__name__
        early_stopping, warm_start = (flag(f"{where}: {n}", getattr(self, n)) for n in ("early_stopping", "warm_start"))
        verbose = bool(self.verbose) if isinstance(self.verbose, np.bool_) else self.verbose
        return early_stopping, warm_start, whole(f"{where}: verbose", verbose, 0) > 0

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    # ---- parts

    def _build(self, x: np.ndarray) -> nn.Module:
        where, outputs = type(self).__name__, self.n_outputs_
        model = parts.build(where, self.model, self.model_params, x.shape[1:], outputs, self._seed, x.dtype)
        found = model.predict(x[:1])
        if not isinstance(found, np.ndarray) or found.shape != (1, outputs):
            got = f"shape {found.shape}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
            raise ValueError(f"{where}: the model must return (N, {outputs}), got {got} for one sample {x.shape[1:]}")
        return model

    def _trainer(self, samples: int, epochs: int | None) -> Trainer:
        """Return a trainer of the model; without ``epochs`` its rate is constant."""
        where = type(self).__name__
        batch_size = whole(f"{where}: batch_size", self.batch_size)
        schedule = self.schedule
        if not callable(schedule):
            parts.choose(where, "schedule", schedule, dict.fromkeys(SCHEDULES))
            schedule = schedule_of(schedule if epochs else "constant", -(-samples // batch_size) * (epochs or 1))
        callbacks: list[Callback] = list(self.callbacks or ())
        early_stopping, _, verbose = self._flags()
        if early_stopping:
            callbacks.insert(0, Patience(self.n_iter_no_change))
        return Trainer(
            self.model_,
            parts.loss_of(where, self.loss, self.loss_params, self._losses),
            parts.optimizer_of(where, self.optimizer, self.optimizer_params, self.model_),
            **{
                "schedule": schedule, "callbacks": callbacks, "keep_best": early_stopping,
                "progress": verbose, **parts.settings(where, "trainer", self.trainer_params),
            },
        )  # fmt: skip

    def _raw(self, X: Any) -> np.ndarray:
        """Return what the net gives for samples: (N, outputs)."""
        check_is_fitted(self, "model_")
        rows, shape = self._rows(X)
        rows = validate_data(self, rows, reset=False, dtype="numeric")
        found: np.ndarray = self.model_.predict(self._laid_out(rows, shape, reset=False), batch_size=_PREDICTION_BATCH)
        return found

    # ---- what the two differ in

    _checks: ClassVar[dict[str, Any]]

    def _learn_target(
        self, y: np.ndarray, weight: np.ndarray | None, fresh: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return targets to train on and what samples weigh; ``fresh``: after noting what kind of targets they are."""
        raise NotImplementedError

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """Return what the validation data shall have the same shares of."""

    def _target(self, y: np.ndarray) -> np.ndarray:
        """Return targets as the loss takes them."""
        return y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


_PARAMETERS = """Parameters
    ----------
    model : str, Module or callable
        A name of `fastconv.models.ZOO`, or "auto": "cifar-small" for images, "mlp" for rows of numbers and tiny images.
        A module: every fit trains a copy of it, from the weights it has. Or a function that is called with the shape of
        one sample, (C, H, W) or (F,), and the number of {outputs}, and returns a module.
    model_params : dict, optional
        Further arguments of that function, also as ``model__NAME``.
    loss : str, loss or class of losses
        {losses}.
    loss_params : dict, optional
        Also as ``loss__NAME``.
    optimizer : str or class of optimisers
        "sgd", "adam", "adamw", "rmsprop" or "adagrad"; the model is its first argument.
    optimizer_params : dict, optional
        Also as ``optimizer__lr`` and its like.
    trainer_params : dict, optional
        Further arguments of `fastconv.train.Trainer`, also as ``trainer__clip_norm`` and its like.
    image_shape : tuple of int, optional
        (H, W) or (C, H, W): the images that rows of X are. Images that come as such need none.
    epochs, batch_size : int
    schedule : str or callable
        "constant", "step", "inverse", "cosine", "restarts" or "one-cycle", over the updates of a fit; or a function
        from the number of updates to a factor on the rate.{class_weight}
    early_stopping : bool
        Set a share of the samples aside, stop when figures on it have not improved for so many epochs, and keep the
        weights of the best.
    validation_fraction : float
        That share, in (0, 1).
    n_iter_no_change : int
        Those epochs.
    warm_start : bool
        Whether a fit goes on from the weights of the one before, with a new optimiser.
    callbacks : sequence of fastconv.train.Callback or function, optional
    random_state : int, RandomState or None
        Of initial weights, of the order of the samples and of those set aside. The same number gives the same bits.
    verbose : int
        Whether there is a bar and a line per epoch: 0 or False, else they are; larger numbers say no more.
    **nested
        ``part__name`` for the four parts above.

    Attributes
    ----------
    model_ : Module
        The trained net.
    trainer_ : Trainer
        What trained it; `partial_fit` goes on with it.
    history_ : History
        A record per epoch.
    n_iter_ : int
        Epochs of the last fit, those of `partial_fit` added.
    image_shape_ : tuple of int or None
        (C, H, W); None for rows of numbers.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn; of images the numbers of one.
    n_outputs_ : int
        Numbers that the net gives for a sample."""


def described(**words: str) -> Any:
    def describe(kind: Any) -> Any:
        kind.__doc__ = kind.__doc__.replace("PARAMETERS", _PARAMETERS.format(**words))
        return kind

    return describe

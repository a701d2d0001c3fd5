"""A quadratic model of the objective saves most of the evaluations of a smooth one.

The natural gradient of order zero is the least-squares fit of f on the statistics
(1, z, z zᵀ), see `ngvi.mirror.estimates`. With the points of earlier generations in the
fit it is a model of f,

    f(m + A z) ≈ c + gᵀz + ½ zᵀHz,   each error weighted by 1/(1 + ‖z‖²/D),

since what a smooth f differs by from a polynomial grows with the distance. It serves
twice. Its lowest point takes the place of the draw it thinks least of. And it ranks the
draws: the ones it thinks best are evaluated, and more of them until it orders those
rightly that have been; the others have its values. So a generation costs one evaluation
where f is nearly quadratic and all of them where it is not; then the model rests, ever
longer.

Source: Hansen (2019), A global surrogate assisted CMA-ES.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from ngvi.families import Gaussian
from ngvi.nes.draws import longest

_AGREEMENT, _CHANCE = 0.5, 0.4
"""Kendall's τ from which on the model's order is believed: 0.5 + 0.4/D. In few
dimensions, where populations are small, a wrong model is right by chance more often."""
_COMPARED = 15
"""Recent values with which new ones are compared, or a population if that is more."""
_ARCHIVE = 2.0
"""Points remembered, over the model's coefficients."""
_ENOUGH = 1.1
"""Points needed, over the coefficients."""
_LONGEST_REST = 50
"""Generations."""
_CLOSER = 0.5
"""A run without prospects is left when σ has fallen so far."""

ValuesOf = Callable[[Int[np.ndarray, "k"]], Float[np.ndarray, "k"]]


class Frame(NamedTuple):
    """Where a generation is drawn: y = m + A z."""

    mean: Float[np.ndarray, "d"]
    inverse_root: Float[np.ndarray, "d d"]
    """A."""
    root: Float[np.ndarray, "d d"]
    """A⁻ᵀ."""

    @classmethod
    def of(cls, q: Gaussian) -> Self:
        """Of a Gaussian with a dense precision."""
        arrays = (q.mean, q.precision.inverse_root, q.precision.root)
        return cls(*(np.asarray(array, float) for array in arrays))

    def place(self, z: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
        """y."""
        return self.mean + z @ self.inverse_root.T

    def whiten(self, y: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
        """z."""
        return (y - self.mean) @ self.root


@dataclass(frozen=True)
class Model:
    """c + gᵀz + ½ zᵀHz in a frame."""

    frame: Frame
    constant: float
    slope: Float[np.ndarray, "d"]
    hessian: Float[np.ndarray, "d d"]

    def __call__(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
        z = self.frame.whiten(y)
        return self.constant + z @ self.slope + ((z @ self.hessian) * z).sum(1) / 2

    def lowest(self) -> Float[np.ndarray, "d"] | None:
        """y at the minimum; None where the model has none."""
        curvatures, axes = np.linalg.eigh(self.hessian)
        if not curvatures[0] > 0:
            return None
        return self.frame.place(-axes @ ((axes.T @ self.slope) / curvatures))


def _fit(
    y: Float[np.ndarray, "n d"], values: Float[np.ndarray, "n"], frame: Frame
) -> Model | None:
    """The model with all of H, or its diagonal if that is all the points can tell."""
    count, dim = y.shape
    if count < _ENOUGH * (2 * dim + 1):
        return None
    z = frame.whiten(y)
    weight = 1 / (1 + (z**2).sum(1, keepdims=True) / dim)
    full = count >= _ENOUGH * _coefficients(dim)
    rows, columns = np.triu_indices(dim) if full else np.diag_indices(dim)
    ones = np.ones((count, 1))
    features = weight * np.concatenate([ones, z, z[:, rows] * z[:, columns]], 1)
    scale = np.maximum(np.sqrt((features**2).sum(0)), np.finfo(float).tiny)
    features /= scale
    least = values.min()
    gram = features.T @ features
    # Enough for a factor to exist, too little to be seen in it.
    gram[np.diag_indices_from(gram)] += 1e-12 * len(gram)
    target = features.T @ (weight[:, 0] * (values - least))
    try:
        factor = scipy.linalg.cho_factor(gram, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    found = scipy.linalg.cho_solve(factor, target, check_finite=False) / scale
    if not np.isfinite(found).all():
        return None
    half = np.zeros((dim, dim))
    half[rows, columns] = found[dim + 1 :]
    return Model(frame, found[0] + least, found[1 : dim + 1], half + half.T)


def _coefficients(dim: int) -> int:
    return (dim + 1) * (dim + 2) // 2


class Surrogate:
    """The points and values of a run so far, and what they say of others.

    Args:
        dim: D.
        popsize: points of a generation.
    """

    def __init__(self, dim: int, popsize: int) -> None:
        self.dim = dim
        self._room = int(_ARCHIVE * _coefficients(dim)) + popsize
        self.y, self.values = np.empty((0, dim)), np.empty(0)
        self.model: Model | None = None
        self.share = 1.0
        """Of a generation, to be evaluated before the model is judged."""
        self.rest, self.patience = 0, 0
        """Generations without the model: still to come, and of the last time."""
        self.foreseen: float | None = None
        """The least value to be expected: the model's, if it is believed and draws are
        where it is."""
        self.doubt: tuple[float, float] | None = None
        """The best value and σ when the model began to foresee no new best of all."""

    def improve(self, eps: Float[np.ndarray, "n d"], frame: Frame) -> int | None:
        """Put the model's lowest point in the place of the draw it thinks least of.

        Returns:
            The row of `eps` that was overwritten; None if there is no such point.
        """
        self.foreseen = None
        if self.rest:
            self.rest -= 1
            self.model = None
            return None
        self.model = self.model or _fit(self.y, self.values, frame)
        lowest = None if self.model is None else self.model.lowest()
        if self.model is None or lowest is None:
            return None
        z, farthest = frame.whiten(lowest), longest(self.dim)
        length = float(np.linalg.norm(z))
        if length <= farthest:
            self.foreseen = float(self.model(lowest[None])[0])
        row = int(self.model(frame.place(eps)).argmax())
        eps[row] = z * min(1.0, farthest / max(length, 1e-30))
        return row

    def evaluate(
        self, eps: Float[np.ndarray, "n d"], frame: Frame, values_of: ValuesOf
    ) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        """The values of a generation, as few of them evaluated as will do.

        Args:
            eps: its draws, after `improve`.
            frame: they were drawn in.
            values_of: rows of them ↦ their values, NaN for a failure.

        Returns:
            The values, and which of them are the objective's. The others are the
            model's, but larger than the least that is known.
        """
        y, count = frame.place(eps), len(eps)
        values, known = np.full(count, np.nan), np.zeros(count, bool)
        model = self.model
        enough = count if model is None else max(1, int(self.share * count))
        while True:
            guesses = np.zeros(count) if model is None else model(y)
            order = np.where(known, np.inf, guesses).argsort(kind="stable")
            new = order[: enough - int(known.sum())]
            values[new] = values_of(new)
            known[new] = True
            believed = model is not None and self._agrees(
                model, y[known], values[known]
            )
            self._remember(y[new], values[new])
            if model is not None:
                model = _fit(self.y, self.values, frame) or model
            if believed or known.all():
                break
            enough = min(count, math.ceil(1.5 * enough) + 1)
        if model is None:
            return values, known
        self.share = max(2 / 3 * float(known.mean()), 1 / count)
        if not believed:
            self.foreseen = None
        if known.all():
            self.patience = min(2 * self.patience + 1, _LONGEST_REST)
            self.rest = self.patience
        else:
            self.patience = 0
            above = np.nextafter(np.nanmin(values).astype(eps.dtype), np.inf)
            values = np.where(known, values, np.maximum(model(y), above))
        self.model = model
        return values, known

    def sees_no_prospects(self, value: float, sigma: float, best: float) -> bool:
        """Whether the valley ends, by the model, far above the best value of earlier
        runs, and the run has been closing in on its end.

        Args:
            value: the best one of the run.
            sigma: the size of the distribution.
            best: the best value of earlier runs.
        """
        if self.foreseen is None or not np.isfinite(best):
            self.doubt = None
            return False
        # What has been gained meanwhile counts too: a winding valley is slow.
        from_value, from_sigma = self.doubt or (value, sigma)
        if from_value - self.foreseen >= 0.1 * (value - best):
            self.doubt = None
            return False
        self.doubt = from_value, from_sigma
        return sigma < _CLOSER * from_sigma

    def _agrees(
        self, model: Model, y: Float[np.ndarray, "k d"], values: Float[np.ndarray, "k"]
    ) -> bool:
        """Whether the model orders new values rightly, and them and recent ones."""
        finite = np.isfinite(values)
        recent = slice(-max(_COMPARED, len(y)), None)
        truth = np.concatenate([values[finite], self.values[recent]])
        guess = model(np.concatenate([y[finite], self.y[recent]]))
        new = int(finite.sum())
        same = np.sign(truth[:new, None] - truth) * np.sign(guess[:new, None] - guess)
        pairs = same[np.arange(len(truth)) > np.arange(new)[:, None]]
        return bool(pairs.size and pairs.mean() >= _AGREEMENT + _CHANCE / self.dim)

    def _remember(
        self, y: Float[np.ndarray, "k d"], values: Float[np.ndarray, "k"]
    ) -> None:
        good = np.isfinite(values)
        self.y = np.concatenate([self.y, y[good]])[-self._room :]
        self.values = np.concatenate([self.values, values[good]])[-self._room :]

    # -- for a file -------------------------------------------------------------------

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that it has come to."""
        numbers = np.array([self.share, self.rest, self.patience])
        arrays = {"y": self.y, "values": self.values, "numbers": numbers}
        arrays["doubt"] = np.array(self.doubt or ())
        if self.model is not None:
            of_model = {**self.model.frame._asdict(), **vars(self.model)}
            del of_model["frame"]
            arrays |= {f"model/{name}": np.asarray(a) for name, a in of_model.items()}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the place of the one that these arrays are of."""
        self.y, self.values = arrays["y"], arrays["values"]
        share, rest, patience = arrays["numbers"].tolist()
        self.share, self.rest, self.patience = share, int(rest), int(patience)
        self.doubt = tuple(arrays["doubt"].tolist()) or None
        of_model = {
            name.removeprefix("model/"): array
            for name, array in arrays.items()
            if name.startswith("model/")
        }
        self.model = None
        if of_model:
            frame = Frame(*(of_model[name] for name in Frame._fields))
            constant, slope, hessian = (
                of_model[name] for name in ("constant", "slope", "hessian")
            )
            self.model = Model(frame, float(constant), slope, hessian)

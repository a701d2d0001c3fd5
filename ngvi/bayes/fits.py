"""Many fits of one model: what `ngvi.fit_many` takes and what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.bayes.numpyro_model import ModelTarget, model_target
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.problem import Problem
from ngvi.bayes.record import FitRecord
from ngvi.bayes.structure import Structure
from ngvi.bayes.summaries import columns
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.mirror import loop
from ngvi.names import scalar_names

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 512
"""From each q, for the means and sds of all fits."""


class Each:
    """One value for each of the fits of `ngvi.fit_many`.

    Args:
        values: an array whose first axis is that of the fits, or a sequence of numbers
            or of arrays of one shape.

    Raises:
        ValueError: the values have different shapes, or there is none.
    """

    def __init__(self, values: Any) -> None:
        if not isinstance(values, jax.Array):
            try:
                values = np.asarray(values)
            except ValueError as error:
                raise ValueError(
                    "Each needs values of one shape, as one program fits them all: "
                    f"{error}"
                ) from error
        if values.ndim == 0 or not len(values):
            raise ValueError("Each needs a sequence of values, one for each fit.")
        self.values = values

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Series:
    """What all fits share, and what each has of its own, along a first axis."""

    problem: Problem
    structure: Structure
    own: tuple[bool, ...]
    """Of the arrays of the data, which have a first axis of fits."""
    own_draws: bool
    """The same of the draws."""
    seeds: tuple[int, ...]


class Fits(Sequence[Posterior]):
    """What `ngvi.fit_many` returns: `fits[i]` is a posterior as `ngvi.fit` returns it.

    Attributes:
        elbo: of each fit, (n,).
        converged: whether each has, (n,).
        iterations: trial steps of each, (n,).
    """

    def __init__(
        self,
        series: Series,
        states: loop.State,
        name: str,
        seconds: tuple[float, float],
    ) -> None:
        self._series, self._states, self.name = series, states, name
        self._seconds = seconds
        self._posteriors: dict[int, Posterior] = {}
        last = np.maximum(np.asarray(states.iteration) - 1, 0)
        gap = np.where(np.isfinite(states.gap), states.gap, 0.0)
        of_last = np.take_along_axis(np.asarray(states.trace.elbo), last[:, None], 1)
        self.elbo: np.ndarray = of_last[:, 0] - gap
        self.converged: np.ndarray = np.asarray(states.status) == loop.CONVERGED
        self.iterations: np.ndarray = np.asarray(states.iteration)

    def __len__(self) -> int:
        return len(self.elbo)

    @overload
    def __getitem__(self, index: int) -> Posterior: ...
    @overload
    def __getitem__(self, index: slice) -> list[Posterior]: ...
    def __getitem__(self, index: int | slice) -> Posterior | list[Posterior]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        if i not in self._posteriors:
            self._posteriors[i] = self._posterior(i)
        return self._posteriors[i]

    def __iter__(self) -> Iterator[Posterior]:
        return (self[i] for i in range(len(self)))

    def _posterior(self, i: int) -> Posterior:
        problem, series = self._series.problem, self._series
        target, data = problem.target, data_of(problem.data, series.own, i)
        state = jax.tree.map(lambda x: x[i], self._states)
        record = FitRecord.of(
            state,
            name=self.name,
            structure=series.structure,
            seed=series.seeds[i],
            seconds=(self._seconds[0] / len(self), self._seconds[1] / len(self)),
            stop_reason=None,
        )
        trace = None
        if isinstance(target, ModelTarget):
            args, kwargs = target.arguments.join(data)
            trace = model_target(target.model, args, kwargs, None)[3]
        return Posterior(target, data, state.q, record, trace)

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """Of every site, (n, *site shape), from 512 draws of each q."""
        return self._moments[0]

    @property
    def sd(self) -> dict[str, np.ndarray]:
        """The same of standard deviations."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        problem, q = self._series.problem, self._states.q
        half = np.random.default_rng(0).standard_normal((_DRAWS // 2, q.mean.shape[-1]))
        eps = jnp.asarray(np.concatenate([half, -half]), q.mean.dtype)
        found = _moments(problem.target, self._series.own, problem.data, q, eps)
        mean, sd = jax.device_get(found)
        return mean, sd

    def summary(self) -> pd.DataFrame:
        """A row for each fit: its ELBO, whether it has converged, its steps, and the
        mean and sd of every scalar quantity."""
        import pandas as pd

        table = {
            "elbo": self.elbo,
            "converged": self.converged,
            "iterations": self.iterations,
        }
        shapes = {site: values.shape[1:] for site, values in self.mean.items()}
        names = [n for k, shape in shapes.items() for n in scalar_names(k, shape)]
        for word, values in (("mean", self.mean), ("sd", self.sd)):
            for name, column in zip(names, columns(values).T, strict=True):
                table[f"{word} {name}"] = column
        return pd.DataFrame(table, index=pd.RangeIndex(len(self), name="fit"))

    def __repr__(self) -> str:
        done = f"{int(self.converged.sum())} converged"
        return f"{len(self)} fits of {self.name}, {done}\n{self.summary()}"


def data_of(every: Data, own: tuple[bool, ...], i: Any) -> Data:
    """The data of one fit."""
    arrays = zip(every.arrays, own, strict=True)
    return Data(tuple(a[i] if o else a for a, o in arrays))


@partial(jax.jit, static_argnums=(0, 1))
def _moments(
    target: Target,
    own: tuple[bool, ...],
    data: Data,
    q: Gaussian,
    eps: Float[Array, "s d"],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Means and sds of every site under each q."""

    def one(each: tuple[Int[Array, ""], Gaussian]) -> tuple[Any, Any]:
        i, q = each
        mine = data_of(data, own, i)
        sites = jax.vmap(partial(target.constrain, mine))(q.place(eps))
        real = {k: v for k, v in sites.items() if jnp.isrealobj(v)}
        mean = {name: value.mean(0) for name, value in real.items()}
        return mean, {name: value.std(0) for name, value in real.items()}

    return jax.lax.map(one, (jnp.arange(q.mean.shape[0]), q))

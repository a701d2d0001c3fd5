"""What a model says of its observations: replicated data and log likelihoods.

Both are as large as draws times observations, so they are computed a chunk of draws at
a time and gathered on the host, and thinned where even the host should not hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from numpyro import handlers
from numpyro.infer import Predictive, log_likelihood
from numpyro.primitives import Messenger

from ngvi.bayes.model_trace import is_observed
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.target import Data

MOST_NUMBERS = 50_000_000
"""Numbers kept in one group: draws times observations."""
CHUNK_NUMBERS = 4_000_000
"""Numbers on the device at one time, apart from what the model itself needs."""

Draws = dict[str, np.ndarray]


def kept_draws(draws: int, numbers_per_draw: int) -> np.ndarray:
    """Indices of evenly spaced draws that together hold at most `MOST_NUMBERS`."""
    stride = 1
    while stride < draws and draws // stride * numbers_per_draw > MOST_NUMBERS:
        stride *= 2
    return np.arange(0, draws, stride)


class _FullShape(Messenger):
    """Gives the distribution of an observed site the shape of its observations.

    Without a plate a scalar distribution may stand for many observations; replicated
    data would then be one number.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"] or not is_observed(msg):
            return
        fn = msg["fn"]
        value = np.shape(msg["value"])
        batch = value[: len(value) - fn.event_dim]
        if len(batch) > len(fn.batch_shape):
            msg["fn"] = fn.expand(batch)


def generative(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with its observations forgotten but not their shapes."""
    return handlers.uncondition(_FullShape(model))


@partial(jax.jit, static_argnums=(0, 1))
def _replicated(
    target: ModelTarget,
    sites: tuple[str, ...],
    data: Data,
    key: Key[Array, ""],
    latent: dict[str, Array],
) -> dict[str, Array]:
    args, kwargs = target.arguments.join(data)
    predict = Predictive(
        generative(target.program), latent, return_sites=sites, parallel=True
    )
    return predict(key, *args, **kwargs)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _from_prior(
    target: ModelTarget,
    sites: tuple[str, ...],
    num_samples: int,
    data: Data,
    key: Key[Array, ""],
) -> dict[str, Array]:
    args, kwargs = target.arguments.join(data)
    predict = Predictive(
        generative(target.program),
        num_samples=num_samples,
        return_sites=sites,
        parallel=True,
    )
    return predict(key, *args, **kwargs)


@partial(jax.jit, static_argnums=(0, 1))
def _log_likelihood(
    target: ModelTarget, sites: tuple[str, ...], data: Data, latent: dict[str, Array]
) -> dict[str, Array]:
    args, kwargs = target.arguments.join(data)
    model = handlers.seed(target.program, 0)
    every = log_likelihood(model, latent, *args, parallel=True, **kwargs)
    return {name: every[name] for name in sites}


def _gathered(
    function: Callable[[int, int], dict[str, Array]],
    sites: tuple[str, ...],
    draws: int,
    numbers_per_draw: int,
) -> Draws:
    """Concatenate function(start, stop) over chunks of equal size, on the host.

    Equal sizes need one compilation. `draws` need not be a multiple of the chunk: the
    last one overlaps the one before and is cut.
    """
    size = int(np.clip(CHUNK_NUMBERS // max(numbers_per_draw, 1), 1, draws))
    parts = []
    for start in range(0, draws, size):
        first = min(start, draws - size)
        chunk = jax.device_get(function(first, first + size))
        parts.append({name: chunk[name][start - first :] for name in sites})
    return {name: np.concatenate([p[name] for p in parts]) for name in sites}


def replicated(
    target: ModelTarget,
    data: Data,
    latent: Mapping[str, np.ndarray],
    sites: tuple[str, ...],
    numbers_per_draw: int,
    seed: int,
) -> Draws:
    """Observed sites drawn anew, one data set for each draw of the latent sites.

    Args:
        target: the model.
        data: its arrays.
        latent: draws of the latent sites, (S, *site shape).
        sites: the observed sites.
        numbers_per_draw: observations in all.
        seed: of the noise.

    Returns:
        For each observed site an array (S, *site shape).
    """
    draws = len(next(iter(latent.values())))
    key = jax.random.key(seed)

    def chunk(start: int, stop: int) -> dict[str, Array]:
        part = {name: value[start:stop] for name, value in latent.items()}
        return _replicated(target, sites, data, jax.random.fold_in(key, start), part)

    return _gathered(chunk, sites, draws, numbers_per_draw)


def log_likelihoods(
    target: ModelTarget,
    data: Data,
    latent: Mapping[str, np.ndarray],
    sites: tuple[str, ...],
    numbers_per_draw: int,
) -> Draws:
    """log p(yᵢ | draw) of each observation: for each observed site (S, *batch shape).

    The arguments are those of `replicated`.
    """
    draws = len(next(iter(latent.values())))

    def chunk(start: int, stop: int) -> dict[str, Array]:
        part = {name: value[start:stop] for name, value in latent.items()}
        return _log_likelihood(target, sites, data, part)

    return _gathered(chunk, sites, draws, numbers_per_draw)


def from_prior(
    target: ModelTarget,
    data: Data,
    num_samples: int,
    sites: tuple[str, ...],
    numbers_per_draw: int,
    seed: int,
) -> Draws:
    """Draws of any sites of the model from its prior, (S, *site shape).

    Raises:
        NotImplementedError: a prior is improper, or cannot be sampled.
    """
    key = jax.random.key(seed)

    def chunk(start: int, stop: int) -> dict[str, Array]:
        key_ = jax.random.fold_in(key, start)
        return _from_prior(target, sites, stop - start, data, key_)

    return _gathered(chunk, sites, num_samples, numbers_per_draw)

"""Ensembles: the same training from several starts, all in one program.

Source: Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive
uncertainty estimation using deep ensembles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Key

from ngvi.fisher.batches import count
from ngvi.fisher.problem import Apply
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.baselines.descent import Descent
from ngvi.nets.baselines.point import maximum_a_posteriori
from ngvi.nets.mixture import Mixture


def ensemble(
    algorithm: Algorithm | Descent,
    params: Any,
    data: tuple[Any, Any],
    key: Key[Array, ""],
    *,
    epochs: int,
    batch_size: int,
) -> Mixture:
    """The mixture of the posteriors that are reached from several starts.

    Args:
        algorithm: a row of `ngvi.nets.rows`, or a baseline.
        params: the starts, a pytree like the parameters with a leading axis; as
            `jax.vmap(net.init)(keys)` gives it.
        data: (x, y), all N examples.
        key: split for the members, each of which has its own order and draws.
        epochs, batch_size: as in `ngvi.nets.train.run_epochs`.
    """
    run: Any = partial(algorithm.run, epochs=epochs, batch_size=batch_size)
    states = jax.vmap(lambda start: algorithm.init(start, data))(params)
    keys = jax.random.split(key, count(params))
    trained, _ = jax.vmap(run, (0, None, 0))(states, data, keys)
    return Mixture.stacked(algorithm.posterior(trained))


def deep_ensemble(
    apply: Apply,
    likelihood: Any,
    init: Callable[[Key[Array, ""]], Any],
    data: tuple[Any, Any],
    key: Key[Array, ""],
    *,
    members: int = 5,
    epochs: int,
    batch_size: int,
    **settings: Any,
) -> Mixture:
    """Nets trained each by itself to the mode of their posterior.

    Args:
        apply, likelihood: as in `ngvi.nets.vogn`.
        init: key ↦ parameters to start from.
        data: (x, y), all N examples.
        key: of the starts, the orders of the examples, and all that is drawn.
        members: K.
        epochs, batch_size: as in `ngvi.nets.train.run_epochs`.
        **settings: of `maximum_a_posteriori`.
    """
    of_starts, of_training = jax.random.split(key)
    starts = jax.vmap(init)(jax.random.split(of_starts, members))
    training = maximum_a_posteriori(apply, likelihood, count(data[0]), **settings)
    return ensemble(
        training, starts, data, of_training, epochs=epochs, batch_size=batch_size
    )

"""Training as one compiled program, for those who have no loop of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from ngvi.fisher.batches import count
from ngvi.fisher.prepare import as_key
from ngvi.nets.optimizers.optimizer import CurvatureOptimizer, anchored
from ngvi.nets.optimizers.pieces import checked
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import Info, State
from ngvi.nets.optimizers.step import step
from ngvi.nets.train import shuffled_batches


def train(
    optimizer: CurvatureOptimizer,
    params: Any,
    data: tuple[Any, Any],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    anchor_every: int | None = None,
    key: Key[Array, ""] | int = 0,
) -> tuple[State, Info]:
    """So many steps, compiled once for the optimiser's rule and the shapes.

    Args:
        optimizer: made by a function of `ngvi.nets.optimizers`.
        params: where it starts; or a `State`, to go on from.
        data: all examples (x, y).
        steps: how many; or
        epochs: how often all data are gone through.
        batch_size: of shuffled batches; None for all data at every step.
        anchor_every: reduce the variance of the batches' gradients by a gradient of all
            data every so many steps, see `CurvatureOptimizer.anchored`.
        key: of the order of the examples, and of all that is drawn; a seed or a key.

    Returns:
        The state, with `state.params`, and the `Info` of every step along a first axis.

    Raises:
        ValueError: neither or both of steps and epochs, or numbers below 1; and what
            `CurvatureOptimizer.init` raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.fisher import MLP
        >>> from ngvi.nets.optimizers import kfac, train
        >>> net, x = MLP((2, 8, 2)), jax.random.normal(jax.random.key(0), (64, 2))
        >>> y = (x[:, 0] * x[:, 1] > 0).astype(int)
        >>> params = net.init(jax.random.key(1))
        >>> state, info = train(kfac(net, "categorical"), params, (x, y), steps=60)
        >>> bool(info.loss[-1] < info.loss[0] / 4)
        True
    """
    given = {"steps": steps, "epochs": epochs}
    if (steps is None) == (epochs is None):
        raise ValueError(f"give either steps or epochs, got {given}")
    given |= {"batch_size": batch_size, "anchor_every": anchor_every}
    for name, value in given.items():
        if value is not None:
            checked(name, value, 1)
    x, y = jax.tree.map(jnp.asarray, data)
    lengths = {len(leaf) for leaf in jax.tree.leaves((x, y))}
    if len(lengths) > 1:
        raise ValueError(
            f"x and y must have as many examples, got lengths {sorted(lengths)}"
        )
    state = params if isinstance(params, State) else optimizer.init(params, (x, y))
    size = count(x) if batch_size is None else min(batch_size, count(x))
    per_epoch = count(x) // size
    number = steps if epochs is None else epochs * per_epoch
    assert number is not None
    if anchor_every is not None and state.anchor is None:
        state = anchored(state, x, y, 1)
    keys = as_key(key)
    return _run(optimizer.rule, state, x, y, keys, number, size, anchor_every)


@partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _run(
    rule: Settings,
    state: State,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    steps: int,
    size: int,
    anchor_every: int | None,
) -> tuple[State, Info]:
    n = count(x)
    of_order, of_steps = jax.random.split(key)

    def one(state: State, of_step: tuple[Any, Key[Array, ""]]) -> tuple[State, Info]:
        rows, key = of_step
        if anchor_every is not None:
            state = jax.lax.cond(
                state.steps % anchor_every == 0,
                lambda state: anchored(state, x, y, 1),
                lambda state: state,
                state,
            )
        batch = x, y
        if rows is not None:
            batch = jax.tree.map(lambda leaf: leaf[rows], batch)
        return step(rule, state, *batch, key)

    batches: Int[Array, "steps b"] | None = None
    if size < n:
        epochs = -(-steps // (n // size))
        batches = shuffled_batches(of_order, n, epochs, size)[:steps]
    return jax.lax.scan(one, state, (batches, jax.random.split(of_steps, steps)))

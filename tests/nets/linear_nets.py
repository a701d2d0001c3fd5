"""Nets without a hidden layer, of which everything about q(f) is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.fisher import MLP
from ngvi.linalg import Dense
from ngvi.nets import WeightPosterior, full

DELTA = 0.5


def design(n: int = 12, features: int = 2) -> Any:
    """Rows with the bias last, as in the layout of a dense layer."""
    return jax.random.normal(jax.random.key(3), (n, features))


def posterior_of(likelihood: Any, y: Any, outputs: int = 1) -> tuple[MLP, Any, Any]:
    """A net, rows, and q before the first step."""
    net, x = MLP((2, outputs)), design(len(y))
    algorithm = full(net, likelihood, len(y), prior_precision=DELTA)
    state = algorithm.init(net.init(jax.random.key(0)), (x, y))
    return net, x, algorithm.posterior(state)


def exact(sd: float, y: Any) -> tuple[MLP, Any, WeightPosterior, np.ndarray]:
    """The exact posterior of Bayesian linear regression, and its features."""
    from ngvi.fisher.likelihoods import Gaussian

    net, x, begun = posterior_of(Gaussian(jnp.asarray(sd)), y)
    # The outputs are linear in w: their Jacobian is the design, in w's order.
    layout = begun.prior.layout
    rows = jax.jacobian(lambda w: net(layout.tree(w), x)[:, 0])(begun.mean)
    precision = rows.T @ rows / sd**2 + DELTA * jnp.eye(3)
    mean = jnp.linalg.solve(precision, rows.T @ y[:, 0] / sd**2)
    dense = Dense.from_moments(jnp.linalg.inv(precision))
    return net, x, replace(begun, mean=mean, precision=dense), np.asarray(rows)

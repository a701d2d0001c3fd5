"""blackjax's variational methods, as Gaussians on the unconstrained space.

Each is a function (log density, start, key) ↦ candidates, of which the best is shown; a
candidate is (mean, covariance, gradients, note), found by a call that is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

LogDensity = Callable[[jax.Array], jax.Array]
Found = tuple[jax.Array, jax.Array, int]
"""Mean, covariance, gradients."""
Candidate = tuple[str, Callable[[], Found]]
DRAWS = 10
"""At every step of Adam."""


def installed() -> bool:
    """Whether blackjax is."""
    try:
        import blackjax  # noqa: F401
    except ImportError:
        return False
    return True


def pathfinder(
    log_density: LogDensity, start: jax.Array, key: jax.Array, steps: int, rates: Any
) -> Iterator[Candidate]:
    """Up to 100 iterations of L-BFGS, 200 draws at each; of its gradients those of line
    searches are not told, so that the count is a lower bound. The draws of all
    iterations are held at once: with 1,000 of them and 3,000 rows, 5 GB an array."""
    from blackjax.vi.pathfinder import approximate

    def work() -> Found:
        state, info = approximate(key, log_density, start, maxiter=100)
        covariance = jnp.diag(state.alpha) + state.beta @ state.gamma @ state.beta.T
        mean = state.position - covariance @ state.grad_position
        return mean, covariance, int(jnp.isfinite(info.path.elbo).sum())

    yield "", work


def _by_adam(name: str, covariance_of: Callable[[Any], jax.Array]) -> Any:
    def candidates(
        log_density: LogDensity,
        start: jax.Array,
        key: jax.Array,
        steps: int,
        rates: Any,
    ) -> Iterator[Candidate]:
        import blackjax
        import optax

        for rate in rates:
            vi = getattr(blackjax, name)(log_density, optax.adam(rate), DRAWS)

            def work(vi: Any = vi) -> Found:
                def step(state: Any, key: jax.Array) -> tuple[Any, None]:
                    return vi.step(key, state)[0], None

                @jax.jit
                def run() -> Any:
                    keys = jax.random.split(key, steps // DRAWS)
                    return jax.lax.scan(step, vi.init(start), keys)[0]

                state = run()
                return state.mu, covariance_of(state), steps

            yield f"rate {rate:g}", work

    return candidates


def _of_root(state: Any) -> jax.Array:
    """The logs of the root's diagonal come first, then what is below it, by rows."""
    dim = state.mu.size
    below = jnp.zeros((dim, dim)).at[jnp.tril_indices(dim, -1)]
    root = below.set(state.chol_params[dim:]) + jnp.diag(
        jnp.exp(state.chol_params[:dim])
    )
    return root @ root.T


def _of_scales(state: Any) -> jax.Array:
    return jnp.diag(jnp.exp(2 * state.rho))


PEERS: dict[str, Any] = {
    "Pathfinder": pathfinder,
    "mean field": _by_adam("meanfield_vi", _of_scales),
    "full rank": _by_adam("fullrank_vi", _of_root),
}

"""A value function fitted to what was earned, by damped Gauss–Newton steps.

    V(s) = v_φ(s),   minimise ½ mean (v_φ(s_t) − R_t)²,
    φ⁺ = φ − (JᵀJ/N + λ I)⁻¹ Jᵀ(v − R)/N

with λ adapted as Levenberg and Marquardt have it, and a step that raises the loss not
taken. Where v is linear in φ one step without damping is the least-squares fit.

Source: Marquardt (1963), An algorithm for least-squares estimation of nonlinear
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.fisher.engine import StructureName, fisher
from ngvi.fisher.likelihoods import Gaussian
from ngvi.fisher.problem import Apply
from ngvi.fisher.trust_region import adapted_damping
from ngvi.pytrees import inner, pytree


@pytree
class ValueState:
    """A value function's weights, and the damping of their next step."""

    params: Any
    damping: Float[Array, ""]


@dataclass(frozen=True)
class GaussNewtonBaseline:
    """V(s) = apply(φ, s), and how it is fitted.

    Args:
        apply: (φ, observations (n, o)) ↦ values (n,).
        steps: of every fit.
        damping: λ of the first step.
        structure: of JᵀJ/N, see `ngvi.fisher.fisher`.
        iterations: of conjugate gradients, at most, where it is matrix-free.
    """

    apply: Apply
    steps: int = 5
    damping: float = 1e-2
    structure: StructureName = "matrix-free"
    iterations: int = 20

    def init(self, params: Any) -> ValueState:
        """Before the first fit.

        Args:
            params: φ, a pytree of floating arrays.
        """
        params = jax.tree.map(jnp.asarray, params)
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return ValueState(params, jnp.asarray(self.damping, dtype))

    def fit(
        self,
        state: ValueState,
        observations: Float[Array, "n o"],
        targets: Float[Array, "n"],
    ) -> ValueState:
        """The next steps, towards these targets R."""
        free = self.structure == "matrix-free"
        options = {"max_iterations": self.iterations} if free else {}

        def loss(params: Any) -> Float[Array, ""]:
            return ((self.apply(params, observations) - targets) ** 2).mean() / 2

        def step(state: ValueState, _: None) -> tuple[ValueState, None]:
            before, gradient = jax.value_and_grad(loss)(state.params)
            curvature = fisher(
                self.apply,
                state.params,
                observations,
                likelihood=Gaussian(),
                structure=self.structure,
            )
            change = curvature.solve(gradient, damping=state.damping, **options)
            moved = jax.tree.map(jnp.subtract, state.params, change)
            fall = before - loss(moved)
            # Of (F + λ) d = g: the model's fall is gᵀd − ½ dᵀ F d = ½ (gᵀd + λ dᵀd).
            promised = inner(gradient, change) + state.damping * inner(change, change)
            eps = jnp.finfo(before.dtype).eps
            # Where nothing is left to gain, the ratio says nothing of the damping.
            ratio = jnp.where(promised < eps * before, 0.5, 2 * fall / promised)
            damping = adapted_damping(state.damping, ratio, 4, minimum=float(eps))
            params = jax.tree.map(
                lambda new, old: jnp.where(fall > 0, new, old), moved, state.params
            )
            return ValueState(params, damping.astype(state.damping.dtype)), None

        return jax.lax.scan(step, state, length=self.steps)[0]

"""What a step of a policy is about, near the policy that acted.

    L(θ′) = −(1/N) Σ A_t π_θ′(a_t | s_t) / π_θ(a_t | s_t)
    KL(θ′) = (1/N) Σ KL(π_θ(· | s_t) ‖ π_θ′(· | s_t)),    its Hessian at θ is F

At θ′ = θ the gradient of L is that of the policy, −(1/N) Σ A_t ∇log π_θ(a_t | s_t);
further away L estimates what θ′ would earn, by importance weights.

Source: Kakade and Langford (2002), Approximately optimal approximate reinforcement
learning; Schulman et al. (2015), Trust region policy optimization, section 3.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.curvature import Curvature
from ngvi.fisher.engine import KindName, StructureName, fisher
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.pytrees import pytree


class PolicyBatch(NamedTuple):
    """What a policy saw and did, and how good it was."""

    observations: Any
    """s_t, N of them along the first axis of every leaf."""
    actions: Any
    """a_t, drawn from the policy."""
    advantages: Float[Array, "n"]
    """A_t: larger is better."""


@pytree
class Surrogate:
    """L and KL as functions of θ′."""

    likelihood: Likelihood
    params: Any
    """θ."""
    batch: PolicyBatch
    outputs: Any
    """f_θ(s_t)."""
    log_probs: Float[Array, "n"]
    """log π_θ(a_t | s_t)."""
    apply: Apply = field(metadata={"static": True})

    @classmethod
    def of(
        cls, apply: Apply, likelihood: Likelihood, params: Any, batch: PolicyBatch
    ) -> Self:
        """At the policy that acted."""
        outputs = apply(params, batch.observations)
        log_probs = jax.vmap(likelihood.log_prob)(outputs, batch.actions)
        return cls(likelihood, params, batch, outputs, log_probs, apply)

    def loss(self, params: Any) -> Float[Array, ""]:
        """L(θ′)."""
        outputs = self.apply(params, self.batch.observations)
        log_probs = jax.vmap(self.likelihood.log_prob)(outputs, self.batch.actions)
        return -(self.batch.advantages * jnp.exp(log_probs - self.log_probs)).mean()

    def kl(self, params: Any) -> Float[Array, ""]:
        """KL(θ′), in nats."""
        outputs = self.apply(params, self.batch.observations)
        return jax.vmap(self.likelihood.kl)(self.outputs, outputs).mean()

    def curvature(
        self,
        kind: KindName,
        structure: StructureName,
        stride: int,
        key: Key[Array, ""],
    ) -> Curvature:
        """F, the mean over every so many-th state.

        The actions come from the policy, so its "empirical" Fisher matrix is an
        unbiased estimate here: it is the "sampled" one.
        """
        x, y = jax.tree.map(
            lambda leaf: leaf[::stride], (self.batch.observations, self.batch.actions)
        )
        return fisher(
            self.apply,
            self.params,
            (x, y),
            likelihood=self.likelihood,
            kind=kind,
            structure=structure,
            key=key,
        )

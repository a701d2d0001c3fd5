"""Policy gradients: a rule applied to a policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from ngvi.fisher.engine import KindName, StructureName
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.nets.algorithm import checked_net
from ngvi.nets.optimizers.pieces import checked
from ngvi.nets.optimizers.policy.rules import (
    NaturalGradient,
    PlainGradient,
    PolicyInfo,
    PolicyRule,
    TrustRegion,
    Turn,
)
from ngvi.nets.optimizers.policy.surrogate import PolicyBatch, Surrogate
from ngvi.nets.schedules import Number
from ngvi.pytrees import pytree


@pytree
class PolicyState:
    """A policy between two steps."""

    params: Any
    likelihood: Likelihood
    kept: Any
    """By the rule, such as optax's state."""
    steps: Int[Array, ""]


@dataclass(frozen=True)
class PolicyOptimizer:
    """A rule, applied to a policy. Made by `policy_gradient`, `natural_policy_gradient`
    and `trpo`.

        state = optimizer.init(params, batch)
        state, info = optimizer.step(state, batch, key)

    A batch is a `PolicyBatch`, of actions drawn from the policy as it is in the state.
    `ngvi.nets.optimizers.PolicyTrainer` collects them from an environment.

    Args:
        apply: (θ, observations) ↦ outputs f, the examples first.
        likelihood: what f says of the actions, π_θ(a | s) = p(a | f), such as
            "categorical" with logits, "heteroscedastic_gaussian" with (mean, log sd).
        rule: how the policy moves.
    """

    apply: Apply
    # The state has it, with arrays that a program would be compiled for.
    likelihood: Any = field(compare=False)
    rule: PolicyRule

    def init(self, params: Any, batch: PolicyBatch) -> PolicyState:
        """Before the first step.

        Args:
            params: θ, a pytree of floating arrays.
            batch: observations and actions, of which only the shapes matter, and that
                they are what they must be.

        Raises:
            ValueError: parameters that are not floating or not used, numbers that are
                not finite, actions outside of the likelihood's support, outputs that
                do not fit it.
        """
        observations, actions, _ = jax.tree.map(jnp.asarray, batch)
        params = jax.tree.map(jnp.asarray, params)
        _, used = checked_net(
            self.apply, self.likelihood, params, observations, actions
        )
        return PolicyState(params, used, self.rule.init(params), jnp.asarray(0))

    def step(
        self, state: PolicyState, batch: PolicyBatch, key: Key[Array, ""]
    ) -> tuple[PolicyState, PolicyInfo]:
        """One step.

        Args:
            state: before it.
            batch: what the policy of this state saw and did.
            key: of labels drawn, where the curvature draws any.
        """
        return _step(self, state, batch, key)


@partial(jax.jit, static_argnums=0)
def _step(
    optimizer: PolicyOptimizer,
    state: PolicyState,
    batch: PolicyBatch,
    key: Key[Array, ""],
) -> tuple[PolicyState, PolicyInfo]:
    surrogate = Surrogate.of(optimizer.apply, state.likelihood, state.params, batch)
    turn = Turn(surrogate, state.kept, state.steps, key)
    params, kept, info = optimizer.rule.move(turn)
    return replace(state, params=params, kept=kept, steps=state.steps + 1), info


def policy_gradient(
    apply: Apply,
    likelihood: Any,
    *,
    learning_rate: Number = 1e-2,
    optimizer: Any = None,
) -> PolicyOptimizer:
    """REINFORCE: θ⁺ = θ + α (1/N) Σ A_t ∇log π_θ(a_t | s_t).

    Args:
        apply: (θ, observations) ↦ outputs.
        likelihood: of the actions.
        learning_rate: α, a number or a schedule.
        optimizer: a transformation of optax in place of the plain step; it has its own
            rate.

    Source: Williams (1992), Simple statistical gradient-following algorithms for
    connectionist reinforcement learning.
    """
    return PolicyOptimizer(apply, likelihood, PlainGradient(learning_rate, optimizer))


def natural_policy_gradient(
    apply: Apply,
    likelihood: Any,
    *,
    max_kl: Number | None = 0.01,
    learning_rate: Number | None = None,
    damping: Number = 1e-2,
    structure: StructureName = "dense",
    kind: KindName = "true",
    stride: int = 1,
    **solve: Any,
) -> PolicyOptimizer:
    """θ⁺ = θ − α (F + λ I)⁻¹ ∇L, F the Fisher matrix of the policy in the states seen.

    α is such that the step has the length ½ sᵀ F s = δ; with a learning rate α is that,
    unless the step would be longer; with a learning rate alone it is always that.

    Args:
        apply: (θ, observations) ↦ outputs.
        likelihood: of the actions.
        max_kl: δ in nats, a number or a schedule; None for steps of any length.
        learning_rate: α, a number or a schedule.
        damping: λ, a number or a schedule.
        structure: of F, see `ngvi.fisher.fisher`.
        kind: of F; "empirical" takes the actions for labels, and is unbiased as they
            were drawn from the policy.
        stride: F is the mean over every so many-th state.
        **solve: options of a matrix-free structure, see `ngvi.fisher.Curvature.damp`.

    Raises:
        ValueError: nothing says how long the steps are, or a stride below one.

    Source: Kakade (2002), A natural policy gradient; its normalised step: Rajeswaran et
    al. (2017), Towards generalization and simplicity in continuous control, section 3.
    """
    checked("stride", stride, 1)
    if max_kl is None and learning_rate is None:
        raise ValueError(
            "nothing says how long a step is: give max_kl, learning_rate or both"
        )
    rule = NaturalGradient(
        learning_rate=learning_rate,
        max_kl=max_kl,
        damping=damping,
        structure=structure,
        kind=kind,
        stride=stride,
        options=tuple(solve.items()),
    )
    return PolicyOptimizer(apply, likelihood, rule)


def trpo(
    apply: Apply,
    likelihood: Any,
    *,
    max_kl: Number = 0.01,
    damping: Number = 1e-2,
    structure: StructureName = "matrix-free",
    stride: int = 1,
    max_halvings: int = 10,
    **solve: Any,
) -> PolicyOptimizer:
    """Trust region policy optimisation.

    s = −√(2δ / dᵀ F d) d with (F + λ I) d = ∇L, halved until the mean KL(π_θ ‖ π_{θ+s})
    is at most δ and L is lower; a step of which nothing is left is not taken.

    Args:
        apply: (θ, observations) ↦ outputs.
        likelihood: of the actions.
        max_kl: δ in nats, a number or a schedule.
        damping: λ, a number or a schedule.
        structure: of F. By default it is known by its products alone, and d is found by
            ten steps of conjugate gradients.
        stride: F is the mean over every so many-th state.
        max_halvings: after as many the step is given up.
        **solve: options of a matrix-free structure, see `ngvi.fisher.Curvature.damp`.

    Raises:
        ValueError: a stride below one.

    Source: Schulman et al. (2015), Trust region policy optimization, appendix C.
    """
    checked("stride", stride, 1)
    if structure == "matrix-free":
        solve = {"max_iterations": 10, **solve}
    rule = TrustRegion(
        max_kl=max_kl,
        damping=damping,
        structure=structure,
        stride=stride,
        max_halvings=max_halvings,
        options=tuple(solve.items()),
    )
    return PolicyOptimizer(apply, likelihood, rule)

"""Objectives of a net's weights, descended by an optimiser of optax.

With draws w_i that depend on the variables v, and a penalty of them in nats,

    (1/s) Σ_i ℓ̄(w_i(v)) + (κ/N) penalty(v)

is estimated from a batch and stepped on. A point estimate has one draw, v itself, and
the penalty −log prior; Bayes by backprop draws from N(m, diag σ²) with v = (m, σ), and
its penalty is the KL divergence. The model, its checks and its settings are those of
`ngvi.nets.rows`, noise that is learned among them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.extras import extra
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.linalg import PositiveDefinite
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.net import Net
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.prior import Prior
from ngvi.nets.rows import noisy_adam
from ngvi.nets.state import Info
from ngvi.nets.train import shuffled_steps
from ngvi.pytrees import pytree

if TYPE_CHECKING:
    from optax import GradientTransformation

Variables = Any
"""What is descended in: a pytree of arrays."""


class Objective(ABC):
    """What is descended; hashable, so that `jit` knows it."""

    @abstractmethod
    def begin(self, mean: Float[Array, "p"], precision: PositiveDefinite) -> Variables:
        """The variables at q = N(m, S⁻¹)."""

    @abstractmethod
    def draws(
        self, variables: Variables, key: Key[Array, ""], layout: Layout
    ) -> Float[Array, "s p"]:
        """Weights, as a differentiable function of the variables."""

    @abstractmethod
    def penalty(self, variables: Variables, prior: Prior) -> Float[Array, ""]:
        """In nats."""

    @abstractmethod
    def posterior(self, state: DescentState) -> Any:
        """What the variables stand for."""

    def learned(self, variables: Variables, prior: Prior) -> Prior:
        """The prior after a step, where its precisions are learned."""
        return prior


@dataclass(frozen=True)
class DescentRule:
    """An objective, and how it is descended.

    Args:
        objective: what.
        learning_rate: a number, or a function of the number of steps taken.
        optimizer: "adam", "sgd", or a transformation of optax, which has its own rate.
        noise_rate: ρ of the noise's posterior, where it is learned.
    """

    objective: Objective
    learning_rate: float | Callable[[Int[Array, ""]], Any] = 1e-3
    optimizer: Any = "adam"
    noise_rate: float = 0.01

    def transformation(self) -> GradientTransformation:
        """The optimiser.

        Raises:
            ValueError: a name that is not known.
        """
        with extra("nets", "ngvi.nets.baselines"):
            import optax

        known: dict[str, Callable[..., Any]] = {"adam": optax.adam, "sgd": optax.sgd}
        if not isinstance(self.optimizer, str):
            return self.optimizer
        if self.optimizer not in known:
            raise ValueError(
                "optimizer must be 'adam', 'sgd' or a transformation of optax, got "
                f"{self.optimizer!r}"
            )
        return known[self.optimizer](self.learning_rate)


@pytree
class DescentState:
    """Where the descent is; a pytree, that goes through `jit`, `scan` and `vmap`."""

    variables: Variables
    optimizer: Any
    """The state of optax."""
    prior: Prior
    likelihood: Likelihood
    noise: ObservationNoise | None
    scale: Float[Array, ""]
    """N/κ."""
    data_size: Float[Array, ""]
    net: Net = field(metadata={"static": True})


@dataclass(frozen=True)
class Descent:
    """A rule, applied to a model: the counterpart of `ngvi.nets.Algorithm`.

    Args:
        model: whose model, prior and start are taken; its own rule is not.
        rule: what is descended, and how.
    """

    model: Algorithm
    rule: DescentRule

    @classmethod
    def of(
        cls,
        apply: Apply,
        likelihood: Any,
        data_size: int,
        objective: Objective,
        settings: dict[str, Any],
    ) -> Descent:
        """With the settings of `DescentRule`, and of `Algorithm`, by their names."""
        of_rule = [field.name for field in fields(DescentRule)]
        own = {name: settings.pop(name) for name in of_rule if name in settings}
        model = noisy_adam(apply, likelihood, data_size, **settings)
        return cls(model, DescentRule(objective, **own))

    def init(self, params: Any, batch: tuple[Any, Any]) -> DescentState:
        """Before the first step; arguments and errors as of `Algorithm.init`."""
        begun = self.model.init(params, batch)
        variables = self.rule.objective.begin(begun.mean, begun.precision)
        return DescentState(
            variables=variables,
            optimizer=self.rule.transformation().init(variables),
            prior=begun.prior,
            likelihood=begun.likelihood,
            noise=begun.noise,
            scale=begun.scale,
            data_size=begun.data_size,
            net=begun.net,
        )

    def step(
        self, state: DescentState, batch: tuple[Any, Any], key: Key[Array, ""]
    ) -> tuple[DescentState, Info]:
        """One step, on a batch (x, y) whose mean stands for that of all examples."""
        return descent_step(self.rule, state, *batch, key)

    def run(
        self,
        state: DescentState,
        data: tuple[Any, Any],
        key: Key[Array, ""],
        *,
        epochs: int,
        batch_size: int,
    ) -> tuple[DescentState, Float[Array, "steps"]]:
        """Epochs of shuffled batches, and the loss of every step; see `descend`."""
        return descend(
            self.rule, state, *data, key, epochs=epochs, batch_size=batch_size
        )

    def posterior(self, state: DescentState) -> Any:
        """What the variables stand for now; of stacked states, stacked."""
        return self.rule.objective.posterior(state)


@partial(jax.jit, static_argnums=0)
def descent_step(
    rule: DescentRule, state: DescentState, x: Any, y: Any, key: Key[Array, ""]
) -> tuple[DescentState, Info]:
    """One step of the optimiser, then of the noise's posterior."""
    import optax

    def value(variables: Variables) -> tuple[Float[Array, ""], tuple]:
        ws = rule.objective.draws(variables, key, state.net.layout)
        each, outputs = jax.vmap(
            lambda w: state.net.loss(w, state.likelihood, x, y),
        )(ws)
        penalty = rule.objective.penalty(variables, state.prior)
        return each.mean() + penalty / state.scale, (each.mean(), outputs)

    gradient, (loss, outputs) = jax.grad(value, has_aux=True)(state.variables)
    change, optimizer = rule.transformation().update(
        gradient, state.optimizer, state.variables
    )
    variables = optax.apply_updates(state.variables, change)
    prior = rule.objective.learned(variables, state.prior)
    state = replace(state, variables=variables, optimizer=optimizer, prior=prior)
    if state.noise is not None:
        noise = state.noise.step_on_batch(outputs, y, state.scale, rule.noise_rate)
        state = replace(state, noise=noise, likelihood=noise.likelihood)
    return state, Info(loss)


@partial(jax.jit, static_argnames=("rule", "epochs", "batch_size"))
def descend(
    rule: DescentRule,
    state: DescentState,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    *,
    epochs: int,
    batch_size: int,
) -> tuple[DescentState, Float[Array, "steps"]]:
    """Some epochs, and the loss of every step; arguments as of `run_epochs`."""

    def one(
        state: DescentState, of_step: tuple[Array, Array]
    ) -> tuple[DescentState, Float[Array, ""]]:
        rows, key = of_step
        x_batch, y_batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], (x, y))
        state, info = descent_step(rule, state, x_batch, y_batch, key)
        return state, info.loss

    return jax.lax.scan(one, state, shuffled_steps(key, x, y, epochs, batch_size))

"""Environments in JAX: pure functions of a state, made to be batched and scanned.

    cart and pole, θ = 0 upright, push = (F + m l ω² sin θ) / M:
        θ̈ = (g sin θ − push cos θ) / (l (4/3 − m cos²θ / M)),
        ẍ = push − m l θ̈ cos θ / M

    pendulum, θ = 0 upright:
        θ̈ = (3g / 2l) sin θ + 3u / (m l²)

Constants, order of integration, rewards and time limits are those of Gymnasium's
CartPole-v1 and Pendulum-v1.

Source: Barto, Sutton and Anderson (1983), Neuronlike adaptive elements that can solve
difficult learning control problems; Towers et al. (2024), Gymnasium.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class Environment(ABC):
    """A Markov decision process with a time limit: a frozen dataclass of constants.

    All methods are about one of many; `jax.vmap` makes batches.
    """

    @property
    @abstractmethod
    def max_steps(self) -> int:
        """The time limit of an episode."""

    @abstractmethod
    def reset(self, key: Key[Array, ""]) -> Any:
        """The state in which an episode begins, a pytree."""

    @abstractmethod
    def observe(self, state: Any) -> Float[Array, "o"]:
        """What a policy is told of the state."""

    @abstractmethod
    def advance(
        self, state: Any, action: Array
    ) -> tuple[Any, Float[Array, ""], Bool[Array, ""]]:
        """The next state, the reward, and whether the episode has come to its end.

        A time limit is no such end: the value of what would follow still counts.
        """


@dataclass(frozen=True)
class CartPole(Environment):
    """A pole to be balanced on a cart by pushes to the left (0) and to the right (1).

    A step earns 1; an episode ends where the pole leans by more than 12° or the cart
    is more than 2.4 from the middle, and after 500 steps.

    The state is x, ẋ, θ, θ̇, all observed.

    Example:
        >>> import jax
        >>> cart = CartPole()
        >>> state = cart.reset(jax.random.key(0))
        >>> _, reward, ended = cart.advance(state, 1)
        >>> float(reward), bool(ended)
        (1.0, False)
    """

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    """Of the pole."""
    force: float = 10.0
    time_step: float = 0.02
    max_position: float = 2.4
    max_angle: float = math.radians(12)
    max_steps: int = 500

    def reset(self, key: Key[Array, ""]) -> Float[Array, "4"]:
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def observe(self, state: Float[Array, "4"]) -> Float[Array, "4"]:
        return state

    def advance(
        self, state: Float[Array, "4"], action: Int[Array, ""]
    ) -> tuple[Float[Array, "4"], Float[Array, ""], Bool[Array, ""]]:
        _, velocity, _, spin = state
        force = jnp.where(action == 1, self.force, -self.force)
        push, turn = self.accelerations(state, force)
        state = state + self.time_step * jnp.stack([velocity, push, spin, turn])
        return state, jnp.ones((), state.dtype), self.has_failed(state)

    def accelerations(
        self, state: Float[Array, "4"], force: Float[Array, ""]
    ) -> tuple[Array, Array]:
        """ẍ and θ̈."""
        _, _, angle, spin = state
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        mass, moment = (
            self.cart_mass + self.pole_mass,
            self.pole_mass * self.half_length,
        )
        push = (force + moment * spin**2 * sin) / mass
        inertia = self.half_length * (4 / 3 - self.pole_mass * cos**2 / mass)
        turn = (self.gravity * sin - cos * push) / inertia
        return push - moment * turn * cos / mass, turn

    def has_failed(self, state: Float[Array, "4"]) -> Bool[Array, ""]:
        """Whether the cart is off the track or the pole is falling."""
        position, _, angle, _ = jnp.abs(state)
        return (position > self.max_position) | (angle > self.max_angle)


@dataclass(frozen=True)
class Pendulum(Environment):
    """A pendulum to be swung up, and held, by a torque too weak to lift it.

    A step costs θ² + θ̇²/10 + u²/1000, the angle θ between −π and π and the torque u
    within its limits; an episode takes 200 steps. Observed are cos θ, sin θ and θ̇.

    Example:
        >>> import jax.numpy as jnp
        >>> _, reward, _ = Pendulum().advance(jnp.array([jnp.pi / 2, 0.0]), 2.0)
        >>> round(float(reward), 4)
        -2.4714
    """

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    time_step: float = 0.05
    max_torque: float = 2.0
    max_spin: float = 8.0
    max_steps: int = 200

    def reset(self, key: Key[Array, ""]) -> Float[Array, "2"]:
        high = jnp.array([math.pi, 1.0])
        return jax.random.uniform(key, (2,), minval=-high, maxval=high)

    def observe(self, state: Float[Array, "2"]) -> Float[Array, "3"]:
        angle, spin = state
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), spin])

    def advance(
        self, state: Float[Array, "2"], action: Float[Array, ""]
    ) -> tuple[Float[Array, "2"], Float[Array, ""], Bool[Array, ""]]:
        angle, spin = state
        torque = jnp.clip(action, -self.max_torque, self.max_torque)
        lean = jnp.mod(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(lean**2 + 0.1 * spin**2 + 0.001 * torque**2)
        fall = 1.5 * self.gravity / self.length * jnp.sin(angle)
        turn = fall + 3 * torque / (self.mass * self.length**2)
        spin = jnp.clip(spin + self.time_step * turn, -self.max_spin, self.max_spin)
        state = jnp.stack([angle + self.time_step * spin, spin])
        return state, reward.astype(state.dtype), jnp.asarray(False)

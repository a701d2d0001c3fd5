"""What a model's outputs say of its labels: p(y | f), and the curvature of it.

A likelihood turns the outputs f of a model for one example into a distribution of that
example's label y. The Fisher matrix of the model is the mean of Jᵀ Λ J, where J = ∂f/∂θ
and

    Λ(f) = E[s sᵀ],  s = ∂ log p(y | f)/∂f,  y ~ p(· | f),
         = the Hessian of KL(p(· | f) ‖ p(· | g)) in g, at g = f.

Λ is never formed: a likelihood multiplies by it, and gives a root S with S Sᵀ = Λ, both
in closed form. Where f are natural parameters the Hessian of −log p does not depend on
y and is Λ: then Gauss-Newton and the Fisher matrix are one.

All methods are about ONE example; `jax.vmap` makes batches. f is an array or a pytree
of arrays of any shape; entries of y are independent given f unless a class says
otherwise.

Source: Martens (2020), New insights and perspectives on the natural gradient method,
sections 5 and 9.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.domains import Domain
from ngvi.families.parameters import check_fixed

Outputs = Any
"""The outputs for one example: a pytree of floating arrays."""

Labels = Any
"""The label of one example: an array or a pytree of arrays."""


class Likelihood(ABC):
    """p(y | f) of one example: a frozen dataclass whose arrays are pytree leaves."""

    def __post_init__(self) -> None:
        check_fixed(self)

    @property
    def natural(self) -> bool:
        """Whether f are natural parameters, so that −∂² log p/∂f² = Λ whatever y is."""
        return False

    @abstractmethod
    def log_prob(self, f: Outputs, y: Labels) -> Float[Array, ""]:
        """log p(y | f)."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], f: Outputs) -> Labels:
        """A label drawn from p(· | f)."""

    @abstractmethod
    def mean(self, f: Outputs) -> Any:
        """E[y | f], shaped like y; of classes, their probabilities."""

    @abstractmethod
    def fisher_mv(self, f: Outputs, v: Outputs) -> Outputs:
        """Λ(f) v."""

    @abstractmethod
    def root_columns(self, f: Outputs) -> Outputs:
        """S with S Sᵀ = Λ(f): leaves like f with a leading axis, one entry a column."""

    @abstractmethod
    def kl(self, f: Outputs, g: Outputs) -> Float[Array, ""]:
        """KL(p(· | f) ‖ p(· | g))."""

    def gradient(self, f: Outputs, y: Labels) -> Outputs:
        """∂ log p(y | f)/∂f."""
        return jax.grad(self.log_prob)(f, y)

    def hessian_mv(self, f: Outputs, y: Labels, v: Outputs) -> Outputs:
        """−∂² log p(y | f)/∂f² v."""
        _, change = jax.jvp(lambda g: self.gradient(g, y), (f,), (v,))
        return jax.tree.map(jnp.negative, change)

    @abstractmethod
    def check_outputs(self, outputs: Outputs) -> None:
        """Hold a batch of outputs (or their shapes) to what this likelihood reads.

        Raises:
            ValueError: their number, widths or dtypes do not fit.
        """

    @abstractmethod
    def check_labels(self, outputs: Outputs, y: Labels) -> None:
        """Hold a batch of labels to the outputs' shapes and the likelihood's support.

        Raises:
            ValueError: a shape does not fit, there are no examples, or a label lies
                outside the support.
        """

    @property
    def _name(self) -> str:
        return type(self).__name__


def block_columns(
    columns: Float[Array, "*e r *o"], event: tuple[int, ...]
) -> Float[Array, "k *e *o"]:
    """The root of a block-diagonal matrix, a block for every entry of an event.

    Args:
        columns: what the r columns of each entry's own root are, shape (*e, r, *o).
        event: e.

    Returns:
        Shape (entries · r, *e, *o): each column is zero at all entries but its own.
    """
    entries = int(np.prod(event))
    axes = columns.shape[len(event) :]
    each = columns.reshape(entries, *axes)
    own = jnp.eye(entries, dtype=columns.dtype).reshape(
        entries, 1, entries, *(1,) * (len(axes) - 1)
    )
    spread = own * jnp.expand_dims(jnp.moveaxis(each, 1, 0), 0)
    return spread.reshape(entries * axes[0], *event, *axes[1:])


def like(value: Any, f: Array) -> Array:
    """A parameter as an array of the outputs' dtype."""
    return jnp.asarray(value, f.dtype)


def one_example(outputs: Outputs) -> Outputs:
    """The shapes and dtypes of one example's outputs, from those of a batch."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), outputs
    )


# -- checks of batches ---------------------------------------------------------------


def check_floating(name: str, what: str, output: Any) -> None:
    """Hold one leaf of a batch of outputs to being a floating array with an axis N."""
    if not hasattr(output, "shape") or not hasattr(output, "dtype"):
        kind = type(output).__name__
        raise ValueError(f"{name}: {what} must be an array, got a {kind}")
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(
            f"{name}: {what} must be floating numbers, got dtype {output.dtype}"
        )
    if not output.shape:
        raise ValueError(
            f"{name}: {what} must have a leading axis of examples, got one number"
        )


def check_parameter_fits(name: str, what: str, value: Any, output: Any) -> None:
    """Hold a parameter to broadcasting with the outputs of one example."""
    shape, event = np.shape(value), output.shape[1:]
    try:
        fits = np.broadcast_shapes(shape, event) == event
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: {what} has shape {shape}, which does not fit outputs of shape "
            f"{event} an example"
        )


def check_support(
    name: str, domain: Domain, y: Any, shape: tuple[int, ...], what: str = "labels"
) -> None:
    """Hold an array of labels to a shape and to a domain.

    Args:
        name: the likelihood's.
        domain: where each label must lie.
        y: the labels of a batch.
        shape: what theirs must be, N first.
        what: what to call them.
    """
    values = np.asarray(y)
    if values.shape != shape:
        raise ValueError(
            f"{name}: {what} have shape {values.shape}, the outputs need {shape}"
        )
    if shape[0] == 0:
        raise ValueError(f"{name}: there are no examples (N = 0)")
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        # bfloat16 and its kin are no NumPy numbers, and become some.
        values = np.asarray(jnp.asarray(y).astype(jnp.float32))
    wrong = ~np.asarray(domain.holds(values, np))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = index[0] if len(index) == 1 else index
        raise ValueError(
            f"{name}: {what} must be {domain.description}, got "
            f"{values[index]} at index {where} ({int(wrong.sum())} such in all)"
        )


def check_each(
    name: str,
    inside: Callable[[Outputs, Labels], Array],
    support: Callable[[Outputs], str],
    outputs: Outputs,
    y: Labels,
) -> None:
    """Hold a batch of labels to a support that may depend on the outputs.

    Args:
        name: the likelihood's.
        inside: of one example's outputs and label, whether the label is in the support.
        support: of one example's outputs, what the label must be, in words.
        outputs: of a batch.
        y: of a batch.
    """
    counts = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves((outputs, y))}
    if len(counts) != 1:
        raise ValueError(f"{name}: outputs and labels are of {counts} examples")
    if counts == {0}:
        raise ValueError(f"{name}: there are no examples (N = 0)")
    holds = jax.vmap(inside)(outputs, y)
    if not bool(holds.all()):
        index = int(jnp.argmin(holds))
        f, label = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], (outputs, y))
        value = jax.tree.map(lambda leaf: leaf.tolist(), label)
        raise ValueError(
            f"{name}: labels must be {support(f)}, got {value} at index {index} "
            f"({int((~holds).sum())} such in all)"
        )

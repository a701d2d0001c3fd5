"""Any exponential family of `ngvi.families` as a likelihood of its natural parameters.

    f = λ,   Λ = F(λ) = ∇²A(λ),   S = the root of F.

f is laid out as `natural_params` is. A batch of members is an event of independent
labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import ExponentialFamily
from ngvi.families.parameters import family as record
from ngvi.families.parameters import fixed
from ngvi.fisher.likelihoods.base import (
    Labels,
    Likelihood,
    Outputs,
    block_columns,
    check_each,
    check_floating,
    one_example,
)


@record
class NaturalParameters(Likelihood):
    """Labels of an exponential family whose natural parameters are the outputs.

    Args:
        family: a class of `ngvi.families`.
        constants: what of it is no natural parameter, as (name, value) pairs.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.families import Bernoulli
        >>> likelihood = NaturalParameters(Bernoulli)
        >>> float(likelihood.fisher_mv(jnp.array(0.0), jnp.array(1.0)))
        0.25
    """

    family: type[ExponentialFamily] = fixed(
        "a class of ngvi.families",
        lambda c: isinstance(c, type) and issubclass(c, ExponentialFamily),
    )
    constants: tuple[tuple[str, Any], ...] = fixed(
        "pairs of names and values", lambda c: isinstance(c, tuple), default=()
    )

    natural: ClassVar[bool] = True

    @classmethod
    def of(cls, member: ExponentialFamily) -> NaturalParameters:
        """Of the family that a member belongs to, what is fixed included."""
        return cls(type(member), tuple(sorted(member.fixed.items())))

    def member(self, f: Outputs) -> ExponentialFamily:
        """The member with these natural parameters."""
        return self.family.from_natural(f, **dict(self.constants))

    def log_prob(self, f: Outputs, y: Labels) -> Float[Array, ""]:
        return self.member(f).log_prob(y).sum()

    def sample(self, key: Key[Array, ""], f: Outputs) -> Labels:
        return self.member(f).sample(key)

    def mean(self, f: Outputs) -> Any:
        return self.member(f).mean

    def fisher_mv(self, f: Outputs, v: Outputs) -> Outputs:
        product = self.member(f).fisher_product(v)
        return jax.tree.map(lambda leaf, p: p.astype(leaf.dtype), f, product)

    def root_columns(self, f: Outputs) -> Outputs:
        member = self.member(f)
        batch = member.batch_shape
        fisher = member.fisher
        size = fisher.dim
        # Row i of Bᵀ applied to the basis is row i of B.
        basis = jnp.eye(size, dtype=member.dtype)
        basis = basis.reshape(size, *[1] * len(batch), size)
        root = jnp.broadcast_to(fisher.whiten(basis), (size, *batch, size))
        columns = jax.vmap(member.unflatten)(jnp.moveaxis(root, (-1, 0), (0, -1)))

        def placed(leaf: Array, column: Array) -> Array:
            # (r, *batch, *o) to (*batch, r, *o), and from there to blocks.
            each = jnp.moveaxis(column, 0, len(batch)).astype(leaf.dtype)
            return block_columns(each, batch)

        return jax.tree.map(placed, f, columns)

    def kl(self, f: Outputs, g: Outputs) -> Float[Array, ""]:
        return self.member(f).kl(self.member(g)).sum()

    def check_outputs(self, outputs: Outputs) -> None:
        name = f"{self._name}({self.family.__name__})"
        for leaf in jax.tree.leaves(outputs):
            check_floating(name, "each output", leaf)
        one = one_example(outputs)
        try:
            found = jax.eval_shape(lambda f: self.member(f).natural_params, one)
        except Exception as error:
            raise ValueError(
                f"{name}: the outputs are no natural parameters of the family: {error}"
            ) from error
        wanted, given = (
            jax.tree.map(lambda a: tuple(a.shape), tree) for tree in (found, one)
        )
        if wanted != given:
            raise ValueError(
                f"{name}: the outputs of an example must be natural parameters of "
                f"shapes {wanted}, got {given}"
            )

    def check_labels(self, outputs: Outputs, y: Labels) -> None:
        name = f"{self._name}({self.family.__name__})"

        def inside(f: Outputs, label: Labels) -> Array:
            member = self.member(f)
            holds = member.support.holds(member.as_floats(label))
            if holds.shape != member.batch_shape:
                raise ValueError(
                    f"{name}: the labels of an example have batch shape {holds.shape}, "
                    f"the outputs need {member.batch_shape}"
                )
            return holds.all()

        def support(f: Outputs) -> str:
            return self.member(f).support.description

        check_each(name, inside, support, outputs, y)

"""What a family defines, and what it may have: the interface of all families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ngvi.families.coordinates import Params
from ngvi.families.domains import Domain, Joint
from ngvi.families.parameters import (
    check_parameters,
    fixed_fields,
    parameter_fields,
)


class Lacking:
    """An attribute that some families have; reading it in another says so.

    Not a property: a family may have a field of the same name.
    """

    def __init__(self, meaning: str) -> None:
        self.__doc__ = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, member: Any, owner: type) -> Any:
        if member is None:
            return self
        raise NotImplementedError(f"{owner.__name__} has no {self.name}")


class Interface(ABC):
    """What each family says of itself; see `ExponentialFamily`."""

    general_matrices: ClassVar[bool | tuple[bool, ...]] = False
    """Whether matrices among λ lack symmetry, all of them or leaf by leaf; symmetric
    ones have d(d+1)/2 entries."""

    natural_everywhere: ClassVar[bool] = False
    """Whether every λ of the family's layout is a member's."""

    numpyro_names: ClassVar[tuple[str, ...]] = ()
    """The classes of `numpyro.distributions` that `from_numpyro` takes."""

    def __post_init__(self) -> None:
        check_parameters(self)

    # -- what a family defines -----------------------------------------------------

    @property
    @abstractmethod
    def support(self) -> Domain | Joint:
        """The set that observations lie in."""

    @property
    @abstractmethod
    def natural_params(self) -> Params:
        """λ."""

    @classmethod
    @abstractmethod
    def from_natural(cls, params: Params, *args: Any, **fixed: Any) -> Self:
        """The member with natural parameters λ, given what is fixed, by keyword."""

    @classmethod
    @abstractmethod
    def from_mean(cls, params: Params, *args: Any, **fixed: Any) -> Self:
        """The member with mean parameters μ, given what is fixed, by keyword."""

    @classmethod
    def natural_from_mean(cls, params: Params, *args: Any, **fixed: Any) -> Params:
        """λ of the member with mean parameters μ, given what is fixed, by keyword.

        A family overrides it where the way through its own parameters is longer.
        """
        return cls.from_mean(params, *args, **fixed).natural_params

    @abstractmethod
    def log_partition(self, params: Params) -> Float[Array, "*b"]:
        """A(λ), for any λ of this family's layout."""

    @abstractmethod
    def sufficient_statistics(self, x: Any) -> Params:
        """T(x); leading axes of x are leading axes of every leaf too."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws of shape `shape + batch shape + event shape`."""

    @property
    def base_size(self) -> int:
        """How many standard normals `place` makes one draw of."""
        raise self._lacks("draws placed by normals")

    def place(self, eps: Float[Array, "*b n"]) -> Any:
        """Where base draws ε ~ N(0, I) lie under this distribution.

        At fixed ε a smooth function of the parameters where x is continuous, so that
        an expectation over fixed draws is one too.

        Args:
            eps: shape (*sample, *batch, `base_size`).
        """
        raise self._lacks("draws placed by normals")

    def log_base_measure(self, x: Any) -> Float[Array, "*b"]:
        """log h(x); zero by default."""
        return jnp.zeros(self.support.batch_shape(x), self.dtype)

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        """E_q[log h(x)]; zero by default."""
        return jnp.zeros(self.batch_shape, self.dtype)

    def narrower_domains(self) -> dict[str, Domain]:
        """By name, of parameters that others hold to less than their own domains."""
        return {}

    def relations(self) -> list[tuple[Array, Bool[Array, "*b"], str]]:
        """What must hold between parameters, besides each one's own domain: a value to
        show, whether it is right, and a message such as "loc needs two entries"."""
        return []

    # -- shapes and copies -----------------------------------------------------------

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a batch of members; () for one."""
        first = parameter_fields(self)[0]
        shape = jnp.shape(getattr(self, first.name))
        return shape[: len(shape) - first.metadata["domain"].ndim]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one observation; a number by default."""
        return ()

    @property
    def dtype(self) -> Any:
        """The floating dtype of the parameters."""
        return jax.tree.leaves(self)[0].dtype

    @property
    def fixed(self) -> dict[str, Any]:
        """What is not part of λ, as the keywords of `from_natural` and `from_mean`."""
        return {f.name: getattr(self, f.name) for f in fixed_fields(self)}

    def with_natural_params(self, params: Params) -> Self:
        """The member of the same family, fixed parameters included, with these λ."""
        return type(self).from_natural(params, **self.fixed)

    def with_mean_params(self, params: Params) -> Self:
        """The member of the same family, fixed parameters included, with these μ."""
        return type(self).from_mean(params, **self.fixed)

    def same_family(self, other: Interface) -> None:
        """Check that another member shares T, h and A with this one.

        Raises:
            TypeError: it belongs to another family, or to one of another dimension.
            ValueError: it has other fixed parameters.
        """
        if type(other) is not type(self):
            raise TypeError(
                f"expected another {type(self).__name__}, got {type(other).__name__}"
            )
        if self._sizes() != other._sizes():
            raise TypeError(
                f"two {type(self).__name__} members must have the same shapes, got "
                f"{self._sizes()} and {other._sizes()}"
            )
        mine, theirs = (
            {f.name: getattr(q, f.name) for f in fixed_fields(q)} for q in (self, other)
        )
        if mine != theirs:
            raise ValueError(
                f"two {type(self).__name__} members need the same fixed parameters, "
                f"got {mine} and {theirs}"
            )

    def _sizes(self) -> Any:
        """The shapes of one member's parameters."""
        batch = len(self.batch_shape)
        return {
            f.name: getattr(self, f.name).shape[batch:] for f in parameter_fields(self)
        }

    # -- moments of x: where a family has them -----------------------------------------

    mean: Any = Lacking("E[x], shape (*batch, *event)")
    variance: Any = Lacking("Var[x], entry by entry, shape (*batch, *event)")
    mode: Any = Lacking("where the density is largest; NaN where it is unbounded")

    def cdf(self, x: Array) -> Float[Array, "*b"]:
        """P(X ≤ x), for numbers."""
        raise self._lacks("cdf")

    def to_numpyro(self) -> Any:
        """The same distribution of `numpyro.distributions`.

        By default the first of `numpyro_names`, with parameters of the same names.
        """
        import numpyro.distributions as dist

        if not self.numpyro_names:
            raise self._lacks("counterpart in numpyro.distributions")
        names = [f.name for f in parameter_fields(self)]
        counterpart = getattr(dist, self.numpyro_names[0])
        return counterpart(**{name: getattr(self, name) for name in names})

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        """The member equal to a distribution named in `numpyro_names`."""
        names = [f.name for f in parameter_fields(cls)]
        return cls(*(getattr(distribution, name) for name in names))

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {what}")

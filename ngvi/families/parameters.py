"""What a family's parameters may be, checked where a person can read the answer.

A field of a family is a `parameter`, an array with a domain, or `fixed`: a plain number
that is the same for a whole batch and is no part of λ (a count, a shape). The decorator
`family` makes the class a frozen dataclass and a pytree of all that is not fixed.

Outside `jit` a value outside its domain raises a ValueError that names it. Inside,
where nothing can be raised, the member becomes NaN: never a silent finite answer.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.families.domains import Domain

Class = TypeVar("Class", bound=type)


def parameter(domain: Domain) -> Any:
    """A field that holds an array of shape (*batch, *the domain's axes)."""
    return dataclasses.field(metadata={"domain": domain})


def branch() -> Any:
    """A field that holds a pytree checked elsewhere: a structured matrix, families."""
    return dataclasses.field()


def fixed(description: str, holds: Callable[[Any], bool], **default: Any) -> Any:
    """A static field: part of the family, not of its natural parameters."""
    metadata = {"fixed": description, "holds": holds}
    return dataclasses.field(metadata=metadata, **default)


def parameter_fields(cls: Any) -> list[dataclasses.Field]:
    """The fields that are arrays with a domain, in order."""
    return [f for f in dataclasses.fields(cls) if "domain" in f.metadata]


def domains(member: Any) -> dict[str, Domain]:
    """Where each parameter of a member lies, by name and in order."""
    own = {f.name: f.metadata["domain"] for f in parameter_fields(member)}
    return own | member.narrower_domains()


def fixed_fields(cls: Any) -> list[dataclasses.Field]:
    """The static fields, in order."""
    return [f for f in dataclasses.fields(cls) if "fixed" in f.metadata]


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, branch, fixed))
def family(cls: Class) -> Class:
    """A frozen dataclass, and a pytree of all but its `fixed` fields."""
    made: Any = dataclass(frozen=True, eq=False)(cls)
    static = [f.name for f in fixed_fields(made)]
    leaves = [f.name for f in dataclasses.fields(made) if f.name not in static]
    keys = [jax.tree_util.GetAttrKey(name) for name in leaves]
    flatten, unflatten = _flattener(leaves, static), _unflattener(made, leaves, static)

    def flatten_with_keys(member: Any) -> tuple[tuple, tuple]:
        children, aux = flatten(member)
        return tuple(zip(keys, children, strict=True)), aux

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


# Both of these run at every call of a compiled program that takes or gives a member:
# the most common shapes of one are written out, which saves half of the time.


def _flattener(
    leaves: list[str], static: list[str]
) -> Callable[[Any], tuple[tuple, tuple]]:
    """Of a member, the values of its leaves and of its static fields."""
    if static or not leaves:
        return lambda member: (
            tuple([getattr(member, name) for name in leaves]),
            tuple([getattr(member, name) for name in static]),
        )
    values = operator.attrgetter(*leaves)
    if len(leaves) > 1:
        return lambda member: (values(member), ())
    return lambda member: ((values(member),), ())


def _unflattener(
    cls: type, leaves: list[str], static: list[str]
) -> Callable[[tuple, Iterable[Any]], Any]:
    """The member with these values, not through the constructor: they may be axes,
    specifications or gradients."""
    new, first, others = object.__new__, (leaves or [""])[0], leaves[1:]

    def one(_: tuple, children: Iterable[Any]) -> Any:
        member: Any = new(cls)
        (member.__dict__[first],) = children
        return member

    def two(_: tuple, children: Iterable[Any]) -> Any:
        member: Any = new(cls)
        values = member.__dict__
        values[first], values[second] = children
        return member

    def any_number(aux: tuple, children: Iterable[Any]) -> Any:
        member: Any = new(cls)
        member.__dict__.update(zip(leaves, children, strict=True))
        member.__dict__.update(zip(static, aux, strict=True))
        return member

    if static or not leaves or len(others) > 1:
        return any_number
    if not others:
        return one
    second = others[0]
    return two


def is_concrete(*values: Any) -> bool:
    """Whether the numbers are there to be looked at: not while a function is traced,
    nor where other processes hold some of them."""
    return not any(isinstance(v, jax.core.Tracer) or _is_elsewhere(v) for v in values)


def _is_elsewhere(value: Any) -> bool:
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        return False
    return not value.is_fully_replicated


def as_floats(*values: Any) -> list[Array]:
    """Arrays of one floating dtype: the widest given, the default for Python's."""
    values = tuple(jnp.asarray(v) if isinstance(v, list) else v for v in values)
    dtype = jnp.result_type(*values)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [jnp.asarray(v, dtype) for v in values]


def check_parameters(member: Any, batch_shape: tuple[int, ...] = ()) -> None:
    """Broadcast a new member's parameters to one batch and hold them to their domains.

    Args:
        member: as its constructor left it.
        batch_shape: the batch of what else it holds, to broadcast with.

    Raises:
        ValueError: a value has too few axes, does not broadcast with the others or,
            outside `jit`, lies outside its domain.
    """
    check_fixed(member)
    _broadcast(member, batch_shape)
    valid = _validity(member)
    if not is_concrete(valid):
        # One invalid parameter makes the whole member NaN, also what ignores it.
        for f in parameter_fields(member):
            mask = jnp.expand_dims(valid, tuple(range(-f.metadata["domain"].ndim, 0)))
            value = jnp.where(mask, getattr(member, f.name), jnp.nan)
            object.__setattr__(member, f.name, value)


def _broadcast(member: Any, batch_shape: tuple[int, ...]) -> None:
    """Make the parameters arrays of one dtype and one batch."""
    fields = parameter_fields(member)
    values = as_floats(*(getattr(member, f.name) for f in fields))
    batches = [_batch(member, f, v) for f, v in zip(fields, values, strict=True)]
    try:
        batch = jnp.broadcast_shapes(batch_shape, *batches)
    except ValueError:
        shapes = {f.name: v.shape for f, v in zip(fields, values, strict=True)}
        raise ValueError(
            f"{_name(member)}: the parameters' shapes do not broadcast: {shapes}"
        ) from None
    for f, value in zip(fields, values, strict=True):
        shape = (*batch, *value.shape[value.ndim - f.metadata["domain"].ndim :])
        value = value if value.shape == shape else jnp.broadcast_to(value, shape)
        object.__setattr__(member, f.name, value)


def _validity(member: Any) -> Array:
    """Which members of a batch hold what traced parameters must; known ones raise."""
    valid = jnp.ones((), bool)
    for name, domain in domains(member).items():
        value = getattr(member, name)
        message = f"{_name(member)}: {name} must be {domain.description}"
        if is_concrete(value):
            _explain(np.asarray(value), domain.holds(np.asarray(value), np), message)
        else:
            valid = valid & domain.holds(value)
    for value, holds, message in member.relations():
        if is_concrete(value, holds):
            _explain(np.asarray(value), holds, f"{_name(member)}: {message}")
        else:
            valid = valid & holds
    return valid


def checked(value: Any, domain: Domain, name: str) -> Array:
    """An array held to a domain: for arguments that are not fields.

    Args:
        value: what was given.
        domain: where it must lie.
        name: what to call it, such as "Bernoulli: probs".

    Raises:
        ValueError: outside `jit`, it does not; inside, the array is NaN there.
    """
    (array,) = as_floats(value)
    return only_if(array, domain, name, array)


def only_if(value: Array, domain: Domain, name: str, result: Array) -> Array:
    """What follows from an array held to a domain: `checked` where the array itself is
    of no use. Masking what is computed, not what it is computed from, leaves the
    compiler a simpler loop.

    Args:
        value: what was given.
        domain: where it must lie.
        name: what to call it.
        result: what it gave, of the same shape.
    """
    if value.ndim < domain.ndim:
        raise ValueError(
            f"{name} must be {domain.description}, got shape {value.shape}"
        )
    if is_concrete(value):
        message = f"{name} must be {domain.description}"
        _explain(np.asarray(value), domain.holds(np.asarray(value), np), message)
        return result
    mask = jnp.expand_dims(domain.holds(value), tuple(range(-domain.ndim, 0)))
    return jnp.where(mask, result, jnp.nan)


def _explain(value: np.ndarray, holds: Any, message: str) -> None:
    wrong = ~np.asarray(holds)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f" at batch index {index}" if index else ""
        raise ValueError(f"{message}, got {_brief(value[index])}{where}")


def check_fixed(member: Any) -> None:
    """Hold a new member's fixed fields to what they must be, by a ValueError."""
    for f in fixed_fields(member):
        value = getattr(member, f.name)
        try:
            right = f.metadata["holds"](value)
        except TypeError:
            right = False
        if not right:
            raise ValueError(
                f"{_name(member)}: {f.name} must be {f.metadata['fixed']}, "
                f"got {value!r}"
            )


def _batch(member: Any, f: dataclasses.Field, value: Array) -> tuple[int, ...]:
    ndim = f.metadata["domain"].ndim
    if value.ndim < ndim:
        raise ValueError(
            f"{_name(member)}: {f.name} must be {f.metadata['domain'].description} "
            f"and so needs {ndim} axes or more, got shape {value.shape}"
        )
    return value.shape[: value.ndim - ndim]


def _name(member: Any) -> str:
    return type(member).__name__


def _brief(value: np.ndarray) -> str:
    return np.array2string(value, threshold=8, precision=6).replace("\n", "")

"""What happens to a layer's outputs before anything else reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax import lax
from jaxtyping import Array

from ngvi.fisher.layers.trace import Atom, Equation, Value
from ngvi.fisher.layers.use import Read, Use, without_repeats
from ngvi.fisher.layers.views import View, do, follow

Readers = Mapping[Value, Sequence[Equation | None]]
Change = Callable[[Array, Read], Array]


def multiplied(
    equation: Equation, use: Use, readers: Readers, views: Mapping[Atom, View]
) -> tuple[Equation, Use]:
    """A scale with all the factors that only it meets: z = (w ∘ a) ∘ c = w ∘ (a ∘ c).

    A norm may multiply its scale by 1/deviation before it multiplies the activations;
    its shift is added after both.
    """
    while use.kind == "scale_shift":
        value = equation.outputs[0]
        reader = _only(readers, value)
        if reader is None:
            break
        step = _product(reader, value, views)
        shape = reader.outputs[0].shape
        if step is None or any(
            shape[step[0][axis]] != use.shape[axis] for axis in use.axes[1]
        ):
            break
        equation, use = reader, use.later(shape, *step)
    return equation, use


def _product(
    equation: Equation, value: Value, views: Mapping[Atom, View]
) -> tuple[Sequence[int], Change] | None:
    """The axes that a value's become and what it becomes, if that is a multiple."""
    if equation.name == "broadcast_in_dim":
        shape, axes = equation.outputs[0].shape, equation.params["broadcast_dimensions"]
        return axes, lambda array, read: lax.broadcast_in_dim(array, shape, axes)
    if equation.name != "mul":
        return None
    factor = equation.inputs[1 - equation.inputs.index(value)]
    if factor in views:
        return None
    return range(len(value.shape)), lambda array, read: array * read(factor)


def added_leaf(
    equation: Equation, use: Use, readers: Readers, views: Mapping[Atom, View]
) -> tuple[int, Equation, float] | None:
    """The leaf that is a layer's bias, the equation that adds it, and its factor.

    Its gradient is Σ_t g_t if entry c of the leaf meets all that is of output c and
    nothing else: numbering both and moving the numbers along shows whether.
    """
    if use.kind not in ("dense", "convolution", "scale_shift"):
        return None
    (value,), columns = equation.outputs, use.columns()
    while True:
        reader = _only(readers, value)
        if reader is None:
            return None
        operand = reader.inputs.index(value)
        if reader.name == "add":
            break
        step = follow(reader, operand, View(-1, value.shape, value.shape))
        if step is None or step.factor != 1.0:
            return None
        columns = do(step.moves, columns)
        (value,) = reader.outputs
    view = views.get(reader.inputs[1 - operand])
    if view is None or math.prod(view.origin) != use.outputs:
        return None
    shape = reader.outputs[0].shape
    numbers, axes = without_repeats(np.broadcast_to(columns, shape))
    places, bias_axes = without_repeats(view.places(shape))
    if axes != bias_axes or not np.array_equal(numbers, places):
        return None
    return view.leaf, reader, view.factor


def _only(readers: Readers, value: Value) -> Equation | None:
    """The one equation that reads a value, if it is one and no more."""
    reader, *others = readers.get(value, [None])
    return None if others else reader

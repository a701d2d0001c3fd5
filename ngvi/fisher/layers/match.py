"""What kind of layer an equation is: one small function per kind, in a table.

A layer is an equation z = z(a, W) that is linear in a parameter W and in which every
entry of z (and so of its cotangent g) belongs to one *position* t and one *output*:

    dense, convolution, embedding:   z_t = Wᵀ a_t      ∂/∂W = Σ_t a_t g_tᵀ
    scale                            z_t = w ∘ a_t     ∂/∂w = Σ_t a_t ∘ g_t
    shift                            z_t = w + u_t     ∂/∂w = Σ_t g_t

Positions are all that the output axes are not: places of a sequence or picture, rows of
a batch. To teach a new kind, write a function that takes the equation, the operand that
is a parameter and the parameter's view, returns a `Use` or says in words why not, and
enter it in `MATCHERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ngvi.fisher.layers.convolution import patches
from ngvi.fisher.layers.trace import Constant, Equation
from ngvi.fisher.layers.views import Move, Shape, View

Values = Sequence[Array]
Arrangement = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, eq=False)
class Use:
    """An equation that is a layer in the parameter at `leaf`.

    Args:
        kind: the layer's kind; "shift" for a parameter that is only added.
        moves: from the leaf to the matrix (rows, outputs).
        factor: of the parameter before it meets the inputs.
        axes: those of z that are positions and those that are outputs.
        rows_of: the (positions, rows) of inputs a_t from the equation's inputs;
            (positions, outputs) of a scale; row numbers, (positions,), of an embedding.
    """

    kind: str
    leaf: int
    moves: tuple[Move, ...]
    factor: float
    rows: int
    outputs: int
    shape: Shape
    axes: Arrangement
    rows_of: Callable[[Values], Array]

    @property
    def positions(self) -> int:
        return math.prod(self.shape[axis] for axis in self.axes[0])

    def spread(self, matrix: Float[Array, "positions outputs"]) -> Array:
        """The array in the layout of z."""
        order = [*self.axes[0], *self.axes[1]]
        apart = matrix.reshape([self.shape[axis] for axis in order])
        return apart.transpose(np.argsort(order).tolist())

    def columns(self) -> np.ndarray:
        """The number of the output that each entry of z belongs to, in z's layout."""
        sizes = [self.shape[axis] for axis in self.axes[1]]
        numbers = np.arange(self.outputs).reshape(sizes)
        order = [*self.axes[0], *self.axes[1]]
        whole = np.broadcast_to(numbers, [self.shape[axis] for axis in order])
        return whole.transpose(np.argsort(order).tolist())


def match(equation: Equation, operand: int, view: View, leaf_shape: Shape) -> Use | str:
    """The layer that the equation is in the parameter `view`, or why it is none.

    The caller answers for the other operands: none may be a view of a parameter.
    """
    matcher = MATCHERS.get(equation.name)
    if matcher is None:
        return WORDS.get(equation.name, f"used by `{equation.name}`, which is no layer")
    return matcher(equation, operand, view, leaf_shape)


def _dense(
    equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    """z = a W, with any axes summed over (inputs) and free (outputs)."""
    contracted, batch = equation.params["dimension_numbers"]
    if view.repeats:
        return "repeated before its matrix product"
    if any(view.shape[axis] != 1 for axis in batch[operand]):
        return "one kernel for each of several groups (a batched matrix product)"
    other = 1 - operand
    rows = (*batch[operand], *contracted[operand])
    columns = _others(len(view.shape), rows)
    summed, shared = contracted[other], batch[other]
    kept = (*shared, *_others(_rank(equation, other), summed, shared))
    # z's axes are those of the batch, the free ones of the left, those of the right.
    start = len(shared) if operand == 0 else len(kept)
    outputs = tuple(range(start, start + len(columns)))
    positions = _others(len(equation.outputs[0].shape), outputs)
    size = math.prod(view.shape[axis] for axis in rows)

    def rows_of(values: Values) -> Float[Array, "positions rows"]:
        arranged = values[other].transpose((*kept, *summed))
        return arranged.reshape(math.prod(arranged.shape[: len(kept)]), size)

    axes = (positions, outputs)
    return _use("dense", equation, view, rows, columns, axes, rows_of)


def _convolution(
    equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    """z = a * W: a matrix product with the patch under the kernel at each place."""
    params = equation.params
    if operand == 0:
        return "convolved as a picture, not as a kernel"
    if view.repeats:
        return "repeated before its convolution"
    if params["feature_group_count"] * params["batch_group_count"] > 1:
        return "a grouped convolution, whose channels do not share one matrix"
    numbers = params["dimension_numbers"]
    out_channel, in_channel, *places = numbers.rhs_spec
    batch, channel, *spatial = numbers.out_spec
    size = [view.shape[axis] for axis in places]

    def rows_of(values: Values) -> Array:
        return patches(values[0].transpose(numbers.lhs_spec), size, params)

    axes = ((batch, *spatial), (channel,))
    rows = (in_channel, *places)
    return _use("convolution", equation, view, rows, (out_channel,), axes, rows_of)


def _embedding(
    equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    """z_t = the row of a table at the index of t."""
    params = equation.params
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if operand != 0 or view.repeats:
        return "used by `gather`, which is no layer here"
    if view.factor != 1.0:
        return "multiplied by a number before its rows are looked up"
    pairs = list(zip(sizes, view.shape, strict=True))
    cut = [axis for axis, (taken, whole) in enumerate(pairs) if taken != whole]
    if not cut:  # a table of one row
        cut = list(numbers.collapsed_slice_dims)
    mapped = list(numbers.start_index_map)
    if len(cut) != 1 or sizes[cut[0]] != 1 or cut[0] not in mapped:
        return "only a part of it is used (by `gather`)"
    (axis,) = cut
    height, component = view.shape[axis], mapped.index(axis)
    clips = params["mode"] == lax.GatherScatterMode.CLIP
    if numbers.operand_batching_dims or (len(mapped) > 1 and not clips):
        return "used by `gather` along more than one axis"

    def rows_of(values: Values) -> Int[Array, " positions"]:
        index = values[1][..., component].reshape(-1)
        if clips:
            return jnp.clip(index, 0, height - 1)
        # What lies outside is filled in and no row of the table: `height` is no row.
        return jnp.where((index < 0) | (index >= height), height, index)

    outputs = tuple(numbers.offset_dims)
    positions = _others(len(equation.outputs[0].shape), outputs)
    columns = _others(len(view.shape), (axis,))
    axes = (positions, outputs)
    return _use("embedding", equation, view, (axis,), columns, axes, rows_of)


def _scale(
    equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    return _elementwise("scale_shift", equation, operand, view, leaf_shape)


def _shift(
    equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    return _elementwise("shift", equation, operand, view, leaf_shape)


def _elementwise(
    kind: str, equation: Equation, operand: int, view: View, leaf_shape: Shape
) -> Use | str:
    """z = w ∘ a or w + u: outputs are the axes along which w changes."""
    compact, outputs = without_repeats(view.places(leaf_shape))
    if not np.array_equal(compact, np.arange(compact.size)):
        return "meets the activations in another order than its own"
    shape = equation.outputs[0].shape
    axes = (_others(len(shape), outputs), outputs)
    order = (*axes[0], *axes[1])

    def rows_of(values: Values) -> Float[Array, "positions outputs"]:
        other = jnp.broadcast_to(values[1 - operand], shape)
        return other.transpose(order).reshape(-1, compact.size)

    rows = 1 if kind == "scale_shift" else 0
    moves = View(view.leaf, leaf_shape).as_matrix((), range(len(leaf_shape)))
    return Use(
        kind,
        view.leaf,
        moves,
        view.factor,
        rows,
        compact.size,
        shape,
        axes,
        rows_of,
    )


def without_repeats(array: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The entries, flat, along the axes on which the array changes, and those axes."""
    axes = []
    for axis, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        # What NumPy repeats has stride zero; what was copied must be compared.
        if size > 1 and stride != 0 and not (array == first).all():
            axes.append(axis)
        else:
            array = first
    return array.reshape(-1), tuple(axes)


def _use(
    kind: str,
    equation: Equation,
    view: View,
    rows: Sequence[int],
    columns: Sequence[int],
    axes: Arrangement,
    rows_of: Callable[[Values], Array],
) -> Use:
    return Use(
        kind,
        view.leaf,
        view.as_matrix(rows, columns),
        view.factor,
        math.prod(view.shape[axis] for axis in rows),
        math.prod(view.shape[axis] for axis in columns),
        equation.outputs[0].shape,
        axes,
        rows_of,
    )


def _others(rank: int, *taken: Sequence[int]) -> tuple[int, ...]:
    gone = {axis for axes in taken for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in gone)


def _rank(equation: Equation, operand: int) -> int:
    atom = equation.inputs[operand]
    return np.ndim(atom.value) if isinstance(atom, Constant) else len(atom.shape)


MATCHERS: dict[str, Callable[[Equation, int, View, Shape], Use | str]] = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _embedding,
    "mul": _scale,
    "add": _shift,
}

PART = "only a part of it is used (by `{}`)"
OWN = "used inside a function with a derivative of its own (`{}`)"
WORDS = {
    **{name: PART.format(name) for name in ("slice", "dynamic_slice", "split")},
    **{name: OWN.format(name) for name in ("custom_jvp_call", "custom_vjp_call")},
    "concatenate": "joined to other arrays before its use (by `concatenate`)",
    "stop_gradient": "its derivative is stopped (by `stop_gradient`)",
    "cond": "used inside a branch (`cond`)",
    "while": "used inside a `while` loop",
}

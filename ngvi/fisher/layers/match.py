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

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ngvi.fisher.layers.convolution import patches
from ngvi.fisher.layers.trace import Equation, rank
from ngvi.fisher.layers.use import Arrangement, Read, Use, others, without_repeats
from ngvi.fisher.layers.views import View

Matcher = Callable[[Equation, int, View], Use | str]


def match(equation: Equation, operand: int, view: View) -> Use | str:
    """The layer that the equation is in the parameter `view`, or why it is none.

    The caller answers for the other operands: none may be a view of a parameter.
    """
    matcher = MATCHERS.get(equation.name)
    if matcher is None:
        return WORDS.get(equation.name, f"used by `{equation.name}`, which is no layer")
    return matcher(equation, operand, view)


def _dense(equation: Equation, operand: int, view: View) -> Use | str:
    """z = a W, with any axes summed over (inputs) and free (outputs)."""
    contracted, batch = equation.params["dimension_numbers"]
    if view.repeats:
        return "repeated before its matrix product"
    if any(view.shape[axis] != 1 for axis in batch[operand]):
        return "one kernel for each of several groups (a batched matrix product)"
    other = 1 - operand
    rows = (*batch[operand], *contracted[operand])
    columns = others(len(view.shape), rows)
    summed, shared = contracted[other], batch[other]
    kept = (*shared, *others(rank(equation.inputs[other]), summed, shared))
    # z's axes are those of the batch, the free ones of the left, those of the right.
    start = len(shared) if operand == 0 else len(kept)
    outputs = tuple(range(start, start + len(columns)))
    size = math.prod(view.shape[axis] for axis in rows)

    def rows_of(read: Read) -> Float[Array, "positions rows"]:
        arranged = read(equation.inputs[other]).transpose((*kept, *summed))
        return arranged.reshape(math.prod(arranged.shape[: len(kept)]), size)

    axes = (others(len(equation.outputs[0].shape), outputs), outputs)
    return _matrix("dense", equation, view, rows, columns, axes, rows_of)


def _convolution(equation: Equation, operand: int, view: View) -> Use | str:
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
    example, channels, *across = numbers.lhs_spec
    size = [view.shape[axis] for axis in places]

    def rows_of(read: Read) -> Float[Array, "positions rows"]:
        picture = read(equation.inputs[0]).transpose((example, *across, channels))
        return patches(picture, size, params)

    axes = ((batch, *spatial), (channel,))
    rows = (*places, in_channel)
    return _matrix("convolution", equation, view, rows, (out_channel,), axes, rows_of)


def _embedding(equation: Equation, operand: int, view: View) -> Use | str:
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

    def rows_of(read: Read) -> Int[Array, " positions"]:
        index = read(equation.inputs[1])[..., component].reshape(-1)
        if clips:
            return jnp.clip(index, 0, height - 1)
        # What lies outside is filled in and no row of the table: `height` is no row.
        return jnp.where((index < 0) | (index >= height), height, index)

    outputs = tuple(numbers.offset_dims)
    columns = others(len(view.shape), (axis,))
    axes = (others(len(equation.outputs[0].shape), outputs), outputs)
    return _matrix("embedding", equation, view, (axis,), columns, axes, rows_of)


def _elementwise(equation: Equation, operand: int, view: View) -> Use | str:
    """z = w ∘ a or u + w or u - w: outputs are the axes along which w changes."""
    shape = equation.outputs[0].shape
    compact, outputs = without_repeats(view.places(shape))
    single = view.before_repeats()
    if not np.array_equal(compact, single.places().reshape(-1)):
        return "repeated in an order that mixes its entries"
    subtracted = equation.name == "sub" and operand == 1
    scales = equation.name == "mul"

    def rows_of(read: Read) -> Float[Array, "positions outputs"]:
        return use.gather(read(equation.inputs[1 - operand]))

    use = Use(
        kind="scale_shift" if scales else "shift",
        leaf=view.leaf,
        moves=single.as_row(),
        factor=-view.factor if subtracted else view.factor,
        rows=1 if scales else 0,
        outputs=compact.size,
        shape=shape,
        axes=(others(len(shape), outputs), outputs),
        rows_of=rows_of,
    )
    return use


def _matrix(
    kind: str,
    equation: Equation,
    view: View,
    rows: Sequence[int],
    columns: Sequence[int],
    axes: Arrangement,
    rows_of: Callable[[Read], Array],
) -> Use:
    """The use of a view whose axes are a matrix's rows and columns."""
    return Use(
        kind=kind,
        leaf=view.leaf,
        moves=view.as_matrix(rows, columns),
        factor=view.factor,
        rows=math.prod(view.shape[axis] for axis in rows),
        outputs=math.prod(view.shape[axis] for axis in columns),
        shape=equation.outputs[0].shape,
        axes=axes,
        rows_of=rows_of,
    )


MATCHERS: dict[str, Matcher] = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _embedding,
    "mul": _elementwise,
    "add": _elementwise,
    "sub": _elementwise,
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

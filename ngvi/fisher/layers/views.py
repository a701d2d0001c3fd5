"""A parameter on its way to the equation that uses it.

Between the tree of parameters and the matrix product, a kernel may be cast, transposed,
reshaped, reversed, repeated or multiplied by a number. All of these keep its numbers
apart, so that the path can be walked forwards, from the leaf to a layer's matrix, and,
where nothing was repeated, back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.fisher.layers.trace import Constant, Equation

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """One rearrangement of an array of shape `before`.

    `kind` is "transpose" (`argument`: the permutation), "reshape" (the new shape),
    "reverse" (the axes) or "repeat" (a shape that the array broadcasts to).
    """

    kind: str
    argument: Shape
    before: Shape

    def do(self, array: Any) -> Any:
        if self.kind == "transpose":
            return array.transpose(self.argument)
        if self.kind == "reshape":
            return array.reshape(self.argument)
        if self.kind == "reverse":
            return array[self._reversal()]
        return np.broadcast_to(array, self.argument)

    def undo(self, array: Array) -> Array:
        """The array before; a repetition has no way back."""
        if self.kind == "transpose":
            return array.transpose(tuple(np.argsort(self.argument).tolist()))
        if self.kind == "reshape":
            return array.reshape(self.before)
        assert self.kind == "reverse"
        return array[self._reversal()]

    def _reversal(self) -> tuple[slice, ...]:
        axes = range(len(self.before))
        return tuple(slice(None, None, -1 if a in self.argument else 1) for a in axes)


def do(moves: Sequence[Move], array: Any) -> Any:
    """The array after all the moves; NumPy's and JAX's alike."""
    for move in moves:
        array = move.do(array)
    return array


def undo(moves: Sequence[Move], array: Array) -> Array:
    """The array before all the moves."""
    for move in reversed(moves):
        array = move.undo(array)
    return array


@dataclass(frozen=True)
class View:
    """factor · (the numbers of a leaf of shape `origin`, moved to `shape`)."""

    leaf: int
    origin: Shape
    shape: Shape
    moves: tuple[Move, ...] = ()
    factor: float = 1.0

    def moved(self, kind: str, argument: Sequence[int], shape: Shape) -> View:
        if kind == "reshape" and shape == self.shape:
            return self
        move = Move(kind, tuple(map(int, argument)), self.shape)
        return replace(self, shape=shape, moves=(*self.moves, move))

    def scaled(self, factor: float) -> View:
        return replace(self, factor=self.factor * factor)

    @property
    def repeats(self) -> bool:
        return any(move.kind == "repeat" for move in self.moves)

    def as_matrix(
        self, rows: Sequence[int], columns: Sequence[int]
    ) -> tuple[Move, ...]:
        """The moves from the leaf to a matrix with these axes as rows and columns."""
        shape = tuple(self.shape[axis] for axis in (*rows, *columns))
        view = self
        if (*rows, *columns) != tuple(range(len(self.shape))):
            view = view.moved("transpose", (*rows, *columns), shape)
        matrix = (math.prod(shape[: len(rows)]), math.prod(shape[len(rows) :]))
        return view.moved("reshape", matrix, matrix).moves

    def as_row(self) -> tuple[Move, ...]:
        """The moves from the leaf to a matrix of one row."""
        return self.as_matrix((), range(len(self.shape)))

    def before_repeats(self) -> View:
        """The view before the repetitions that end its moves."""
        moves = list(self.moves)
        shape = self.shape
        while moves and moves[-1].kind == "repeat":
            shape = moves.pop().before
        return replace(self, moves=tuple(moves), shape=shape)

    def places(self, shape: Shape | None = None) -> np.ndarray:
        """Where in the leaf (row by row) each number comes from.

        Args:
            shape: what the view is broadcast to where it is used, if it is.
        """
        numbers = np.arange(math.prod(self.origin)).reshape(self.origin)
        array = do(self.moves, numbers)
        return array if shape is None else np.broadcast_to(array, shape)


def follow(equation: Equation, operand: int, view: View) -> View | None:
    """The view after an equation that only moves it; None if the equation uses it."""
    move = MOVES.get(equation.name)
    if move is None or len(equation.outputs) != 1:
        return None
    if not jnp.issubdtype(equation.outputs[0].dtype, jnp.floating):
        return None
    return move(equation, operand, view)


def _keep(equation: Equation, operand: int, view: View) -> View:
    return view


def _transpose(equation: Equation, operand: int, view: View) -> View:
    axes = equation.params["permutation"]
    return view.moved("transpose", axes, equation.outputs[0].shape)


def _reshape(equation: Equation, operand: int, view: View) -> View | None:
    if equation.name == "reshape" and equation.params["dimensions"] is not None:
        return None
    shape = equation.outputs[0].shape
    return view.moved("reshape", shape, shape)


def _broadcast(equation: Equation, operand: int, view: View) -> View:
    shape, axes = equation.outputs[0].shape, equation.params["broadcast_dimensions"]
    lined_up = [1] * len(shape)
    for size, axis in zip(view.shape, axes, strict=True):
        lined_up[axis] = size
    view = view.moved("reshape", lined_up, tuple(lined_up))
    return view if view.shape == shape else view.moved("repeat", shape, shape)


def _reverse(equation: Equation, operand: int, view: View) -> View:
    return view.moved("reverse", equation.params["dimensions"], view.shape)


def _negate(equation: Equation, operand: int, view: View) -> View:
    return view.scaled(-1.0)


def _multiply(equation: Equation, operand: int, view: View) -> View | None:
    number = _number(equation, 1 - operand)
    return None if number is None else view.scaled(number)


def _divide(equation: Equation, operand: int, view: View) -> View | None:
    number = _number(equation, 1) if operand == 0 else None
    return None if not number else view.scaled(1.0 / number)


def _number(equation: Equation, operand: int) -> float | None:
    """The value of an operand that is one number, written into the computation."""
    atom = equation.inputs[operand]
    if not isinstance(atom, Constant) or isinstance(atom.value, jax.core.Tracer):
        return None
    return float(atom.value) if np.ndim(atom.value) == 0 else None


MOVES: dict[str, Callable[[Equation, int, View], View | None]] = {
    "convert_element_type": _keep,
    "copy": _keep,
    "sharding_constraint": _keep,
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "rev": _reverse,
    "neg": _negate,
    "mul": _multiply,
    "div": _divide,
}

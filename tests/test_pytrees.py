"""Classes that JAX takes apart stay what they are."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import field, replace
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import ngvi
from ngvi.pytrees import pytree


@pytree
class Added:
    x: jax.Array
    by: float = field(default=1.0, metadata={"static": True})

    def value(self) -> jax.Array:
        return self.x + self.by


@pytree
class Subtracted(Added):
    def value(self) -> jax.Array:
        return self.x - self.by


def registered() -> list[type]:
    """Every dataclass of the library that is a pytree."""
    found = set()
    root = Path(ngvi.__file__).parent
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        if "register_dataclass" in (text := path.read_text()):
            assert name == "ngvi.pytrees", f"{name}: use `pytree`"
        if "@pytree" in text:
            classes = inspect.getmembers(import_module(name), inspect.isclass)
            found |= {cls for _, cls in classes if "pytree_type" in vars(cls)}
    return sorted(found, key=lambda cls: cls.__qualname__)


def test_structures_of_two_classes_differ() -> None:
    # JAX alone takes them for equal, and would run either's program on the other.
    first, second = Added(jnp.ones(2)), Subtracted(jnp.ones(2))
    assert jax.tree.structure(first) != jax.tree.structure(second)
    assert jax.tree.structure(first) == jax.tree.structure(replace(first, x=2.0))
    compiled = jax.jit(lambda made: made.value())
    assert [float(compiled(made)[0]) for made in (first, second)] == [2.0, 0.0]


def test_every_class_knows_itself() -> None:
    classes = registered()
    assert len(classes) > 30
    for cls in classes:
        assert cls.pytree_type is cls  # type: ignore[attr-defined]


def test_the_class_is_no_visible_field() -> None:
    made = Subtracted(1.0, by=3.0)  # type: ignore[arg-type]
    assert repr(made) == "Subtracted(x=1.0, by=3.0)"
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(AttributeError):
        made.x = 2.0  # type: ignore[misc]

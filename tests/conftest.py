"""Double precision, so that identities are checked to rounding; few, quick examples."""

from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

settings.register_profile("ngvi", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("ngvi")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """A suite that compiles hundreds of fits would hold gigabytes of programs."""
    yield
    jax.clear_caches()

"""Double precision, so that identities are checked to rounding; few, quick examples.

Most of a test's time is XLA's: programs are compiled without LLVM's optimisations, in
half the time, unless XLA_FLAGS are given.
"""

import os
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):  # later versions have no such flag
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)

jax.config.update("jax_enable_x64", True)

settings.register_profile("ngvi", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("ngvi")


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """A suite that compiles hundreds of fits would hold gigabytes of programs."""
    yield
    jax.clear_caches()

"""Double precision, so that identities are checked to rounding; few, quick examples."""

import jax
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

settings.register_profile("ngvi", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("ngvi")

"""Strictness for every test: no implicit dtype or rank promotion, no random deadlines."""

import hypothesis
import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property far slower than the others.
hypothesis.settings.register_profile("optzoo", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("optzoo")

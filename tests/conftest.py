"""Strictness for every test: no implicit dtype or rank promotion, no random deadlines."""

import os

# Tests compile far more than they run: LLVM's passes cost more than they save. XLA's own passes,
# which fuse and rearrange, stay. By the environment, so that child processes do as this one does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example of a property far slower than the others.
hypothesis.settings.register_profile("optzoo", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("optzoo")

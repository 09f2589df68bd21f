"""What a caller may claim about a transformation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """Claims about a transformation, each verified; None claims nothing.

    Attributes:
      needs_params: `update` cannot do without the parameters.
      averages: `eval_params(state, params)` differs from the parameters in training.
      stochastic: the update depends on a random key in the state.
      needs: the extra arguments that `update` cannot do without, some of "value", "value_fn",
        "outputs_fn", "loss_fn", "gradients" and "values"; the kit hands them over.
      couples_leaves: the update of one leaf depends on the gradients of others.
      shape_dependent: cutting or flattening a leaf changes the update of its numbers.
      takes_complex: complex parameters work.
      collectives: the largest number of collective operations in one step whose parameters are
        sharded over eight devices; None: none for a rule that is element-wise, any for others.
      static: numeric arguments that choose the program and so cannot be traced.
    """

    needs_params: bool | None = None
    averages: bool | None = None
    stochastic: bool | None = None
    needs: tuple[str, ...] | None = None
    couples_leaves: bool | None = None
    shape_dependent: bool | None = None
    takes_complex: bool | None = None
    collectives: int | None = None
    static: tuple[str, ...] = ()

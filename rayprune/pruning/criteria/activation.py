"""Importance scores from what flows through the weights (Wanda)."""

from __future__ import annotations

from torch import Tensor


def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """Score a weight by its magnitude times its input's, ``|w_ij| * ||x_j||``.

    Sun et al. 2024 (arXiv:2306.11695). They let the weights of one output compete; here the scope
    is the distribution's, as for every criterion (`wanda_rows` competes by output).

    Args:
        weight: layer weight, shape ``(out, in, ...)``.
        input_norm: L2 norm of each input over the observations (of a Conv's patches, of a
            recurrent layer's steps), broadcast over the outputs.

    Returns:
        Scores shaped like ``weight``, in units of the layer's output.
    """
    return weight.abs() * input_norm


def wanda_rows(weight: Tensor, input_norm: Tensor) -> Tensor:
    """Score a weight by the share of its output's weights that `wanda` puts below it.

    The comparison group of the paper (arXiv:2306.11695): whatever the scope is, every row of the
    weight loses the same share, but for rounding. Equal weights rank by index.

    Args:
        weight: layer weight, shape ``(out, in, ...)``.
        input_norm: as for `wanda`.

    Returns:
        Scores shaped like ``weight``, without unit, in [0, 1).
    """
    rows = wanda(weight, input_norm).flatten(1)
    # Descending and stable: among equals the lower index comes first, and so is kept first.
    order = rows.argsort(dim=1, descending=True, stable=True)
    places = order.argsort(dim=1, stable=True)
    return (1 - (places + 1).to(weight.dtype) / rows.shape[1]).view_as(weight)

"""Attention of many layers rolled up into one map from outputs to inputs: rollout and flow (Abnar & Zuidema,
arXiv:2005.00928).

Both take half of each layer's mean weights and half of the residual connection, A = (W + I) / 2. Rollout multiplies
the layers. Flow is the maximum flow from an output at the top to an input at the bottom, with A as capacities.

L layers, T tokens.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

LONGEST_FLOW = 24
"""Most tokens for which flow is computed: its cost grows with their fourth power."""
_UNIT = 10**6
"""Units of flow that a capacity of 1 is divided into: the library's flows are whole numbers."""


def with_residual(weights: Float[np.ndarray, "L T T"]) -> Float[np.ndarray, "L T T"]:
    """Return (W + I) / 2 of each layer's mean weights, with rows that sum to 1."""
    mixed = 0.5 * weights + 0.5 * np.eye(weights.shape[-1])
    return mixed / mixed.sum(-1, keepdims=True)


def rollout(weights: Float[np.ndarray, "L T T"]) -> Float[np.ndarray, "T T"]:
    """Return the product of all layers: the share of each input in each output, if layers only mixed."""
    found = np.eye(weights.shape[-1])
    for layer in with_residual(weights):
        found = layer @ found
    return found


def flow(weights: Float[np.ndarray, "L T T"]) -> Float[np.ndarray, "T T"] | None:
    """Return the maximum flow from each output to each input, rows scaled to sum to 1.

    None where scipy is missing or the text is longer than ``LONGEST_FLOW`` tokens.
    """
    L, T, _ = weights.shape
    if T > LONGEST_FLOW:
        return None
    try:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_flow
    except ImportError:
        return None
    capacities = np.rint(_UNIT * with_residual(weights)).astype(np.int32)
    rows, columns, values = _edges(capacities)
    graph = csr_matrix((values, (rows, columns)), shape=((L + 1) * T,) * 2)
    found = np.array([[maximum_flow(graph, L * T + i, j).flow_value for j in range(T)] for i in range(T)])
    return found / np.maximum(found.sum(-1, keepdims=True), 1)


def _edges(capacities: np.ndarray) -> Sequence[np.ndarray]:
    """Return rows, columns and capacities of the edges from each layer's outputs to its inputs."""
    layer, i, j = capacities.nonzero()
    T = capacities.shape[-1]
    return (layer + 1) * T + i, layer * T + j, capacities[layer, i, j]

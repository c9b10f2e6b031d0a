"""ITI, inference-time intervention (Li et al. 2023, formulas.md §5.7).

A logistic probe for each head tells right answers from wrong ones by what enters the attention's
output projection at their last token. Of the K heads whose probes are most accurate on held-out
pairs, each is moved by α·σ along its mean difference θ (of unit length), from the last token of the
prompt on; σ is the standard deviation of the head's values along θ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prunelib.identity import seed_of
from prunelib.interventions.contrast import Contrast
from prunelib.interventions.steering import Edit, Steering, packed

Array = NDArray[np.float64]
#: Share of the queries whose pairs a probe is judged by.
HELD_OUT = 0.2
_ITERATIONS = 1000


def iti(contrast: Contrast, heads: int, alpha: float) -> Steering:
    """The steering of the ``heads`` heads whose probes are best.

    Of equally accurate probes those with the lower loss come first: on few pairs many are equal.
    """
    layers, count = contrast.accuracies.shape
    order = np.lexsort((contrast.losses.ravel(), -contrast.accuracies.ravel()))[:heads]
    means = contrast.means["head"].reshape(layers, count, -1)
    edits: dict[int, list[tuple[int, Array]]] = {}
    for row, head in ((int(i) // count, int(i) % count) for i in order):
        length = np.linalg.norm(means[row, head])
        direction = means[row, head] / length if length else means[row, head]
        shift = alpha * contrast.spreads[row, head] * direction
        edits.setdefault(row, []).append((head, shift))
    return Steering.of(_edit(contrast.layers[row], sorted(found, key=lambda each: each[0]))
                       for row, found in edits.items())


def _edit(layer: int, found: list[tuple[int, Array]]) -> Edit:
    size = len(found[0][1])
    return Edit(layer, "head", tuple(head * size + i for head, _ in found for i in range(size)),
                packed(np.concatenate([shift for _, shift in found])))


def held_out(queries: list[str]) -> NDArray[np.bool_]:
    """Which pairs judge the probes: those of a fifth of the queries, one at least, ``[pairs]``."""
    different = sorted(set(queries), key=lambda query: seed_of("probes", query))
    kept = set(different[: max(1, round(HELD_OUT * len(different)))])
    return np.array([query in kept for query in queries])


def probe(right: Array, wrong: Array, judging: NDArray[np.bool_]) -> tuple[float, float]:
    """Accuracy and loss of one head's probe on the pairs that judge it.

    Args:
        right: the head's values after right answers, ``[pairs, size]``.
        wrong: the same after wrong ones.
        judging: as of :func:`held_out`; the probe is fitted on the others.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    values = np.stack([right, wrong], 1)
    labels = np.broadcast_to([1, 0], values.shape[:2])
    width = values.shape[2]
    with threadpool_limits(1):  # rounding depends on how a product is split over threads
        fitted = LogisticRegression(max_iter=_ITERATIONS).fit(
            values[~judging].reshape(-1, width), labels[~judging].ravel())
        asked, known = values[judging].reshape(-1, width), labels[judging].ravel()
        logs = fitted.predict_log_proba(asked)
    return (float((logs.argmax(1) == known).mean()),
            float(-logs[np.arange(len(known)), known].mean()))


def spread(right: Array, wrong: Array, mean: Array) -> float:
    """Standard deviation of a head's values, right and wrong, along its mean difference."""
    length = np.linalg.norm(mean)
    along = np.concatenate([right, wrong]) @ (mean / length) if length else np.zeros(1)
    return float(along.std())

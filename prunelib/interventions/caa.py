"""CAA, contrastive activation addition (Rimsky et al. 2024, formulas.md §5.8).

The mean difference of right and wrong answers in the residual stream after one layer is added
there, times a multiplier, from the last token of the prompt on.
"""

from __future__ import annotations

from prunelib.interventions.contrast import Contrast
from prunelib.interventions.steering import Edit, Steering, packed


def caa(contrast: Contrast, layer: int, multiplier: float) -> Steering:
    """The steering of one layer: ``multiplier`` times the mean difference is added to its output.

    It is added once, and not rescaled, as there is one behaviour.
    """
    mean = contrast.means["stream"][contrast.layers.index(layer)]
    return Steering.of([Edit(layer, "stream", shift=packed(multiplier * mean))])

"""Components: what can be switched off, addressed by layer, site and index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``mlp_hidden``: a neuron feeding the MLP's output projection; off means that its value entering
#: that projection is zero, bias included. ``mlp_row``: the same neuron, in the papers'
#: projection; off means that its weight row is zero and its bias stays, so that it holds the
#: activation of its bias (formulas.md §6, row 5); without a bias the same function as
#: ``mlp_hidden``. ``mixer_in``: an output of a Mamba mixer's input projection; off means that
#: this output is zero. ``mlp_out``: an output of the MLP's output projection; off means that the
#: MLP adds nothing to that dimension of the stream. ``head``: an attention (query) head; off
#: means that its output entering the attention's output projection is zero (formulas.md §3.1).
#: ``ffn``: a whole MLP, index 0; off means that it adds nothing to the stream, the bias of its
#: output included.
Site = Literal["mlp_hidden", "mlp_row", "mlp_out", "mixer_in", "head", "ffn"]


@dataclass(frozen=True, order=True)
class Component:
    """Something that can be switched off; ``index`` counts within the layer and site, from 0."""

    layer: int
    site: Site
    index: int

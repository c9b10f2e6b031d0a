"""Scores of a model's components: as a table, as what is to be switched off, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunelib.components import Component, Site
from prunelib.errors import UserError
from prunelib.search.selection import count_at, in_order

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Scores:
    """Scores of one kind of component in some layers.

    Attributes:
        about: what was scored and how, in words.
        site: where the components are switched off.
        values: layer → scores, ``[components]``, in units of what is attributed.
        errors: layer → standard errors over queries, ``[components]``; nan where not known.
        rank: which scores come first: the ``top``, the ``bottom`` or the largest ``absolute`` ones.
    """

    about: str
    site: Site
    values: Mapping[int, Array]
    errors: Mapping[int, Array]
    rank: str = "top"

    def frame(self) -> pd.DataFrame:
        """One line per component, the first to be switched off first.

        Columns ``layer``, ``site``, ``index``, ``score`` and ``standard_error`` (over queries).
        """
        import pandas as pd

        order = self._order(None)
        return pd.DataFrame({
            "layer": [c.layer for c in order],
            "site": self.site,
            "index": [c.index for c in order],
            "score": [float(self.values[c.layer][c.index]) for c in order],
            "standard_error": [float(self.errors[c.layer][c.index]) for c in order],
        })

    def top(self, how_many: int | float, layer: int | None = None) -> tuple[Component, ...]:
        """The components that come first, to be switched off.

        Args:
            how_many: a number of components, or as a ``float`` a share of them: 0.05 is what the
                rate 5% of a search switches off.
            layer: of this layer alone; by default of all layers that were scored.

        Raises:
            UserError: the number, the share or the layer is not to be had.
        """
        order = self._order(layer)
        if isinstance(how_many, float):
            if not 0 < how_many <= 1:
                raise UserError(f"top({how_many}): a share lies between 0 and 1; give a number of "
                                "components as an int")
            return order[: count_at(how_many, len(order))]
        if not 1 <= how_many <= len(order):
            raise UserError(f"top({how_many}): there are {len(order)} components to choose from")
        return order[:how_many]

    def _order(self, layer: int | None) -> tuple[Component, ...]:
        if layer is not None and layer not in self.values:
            known = ", ".join(map(str, self.values))
            raise UserError(f"layer {layer} was not scored; scored: {known}")
        layers = sorted(self.values) if layer is None else [layer]
        places = [Component(i, self.site, index)
                  for i in layers for index in range(len(self.values[i]))]
        joined = np.concatenate([self.values[i] for i in layers])
        return tuple(places[place] for place in in_order(joined, self.rank))

    def plot(self, mark: int = 30) -> Figure:
        """Scores by layer: heads as a map, other components as dots, the first ``mark`` in red."""
        from prunelib.results.figures.score_panels import dots, head_map

        if self.site == "head":
            return head_map(np.stack([self.values[i] for i in sorted(self.values)]),
                            sorted(self.values), self.about)
        first = self.top(min(mark, len(self._order(None))))
        return dots(self.values, [(c.layer, c.index) for c in first], self.about)

    def __len__(self) -> int:
        return sum(map(len, self.values.values()))

    def __repr__(self) -> str:
        first = self._order(None)[0]
        return (f"scores of {len(self)} components at {self.site} in {len(self.values)} layers, "
                f"{self.about}; first: {first.layer}.{first.site}.{first.index}, "
                f"{self.values[first.layer][first.index]:.3g}")

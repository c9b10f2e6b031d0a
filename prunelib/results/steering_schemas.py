"""The table that steerings are made of."""

from __future__ import annotations

from prunelib.results.columns import LAYER, MODEL, REALS, SMALL, TEXT, UNIT, column, table

CONTRASTS = table(
    "contrasts",
    "one row per place and layer, for a block of prompts: how what a model holds after a right "
    "answer differs from what it holds after a wrong one; steerings are made of it",
    MODEL,
    column("place", TEXT, "stream: what a layer gives to the next one; mlp_out, mlp_hidden, head: "
           "as the sites of components"),
    LAYER,
    column("start", SMALL, "first prompt of the block"),
    column("pairs", SMALL, "prompts, each with a right and a wrong answer"),
    column("sums", REALS, "difference of each dimension, summed over the pairs"),
    column("accuracies", REALS, "of each head's probe on the pairs that judge it; empty without "
           "probes, as the next two"),
    column("losses", REALS, "mean negative log-likelihood (natural) of the same"),
    column("spreads", REALS, "standard deviation of each head's values along its difference"),
    UNIT,
)

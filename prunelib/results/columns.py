"""What the schemas of all tables are made of: columns with their meaning, and common ones."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from prunelib import vocabulary

#: Goes up whenever a table or a column changes its meaning; stands in every file.
SCHEMA_VERSION = 3

TEXT, FLAG, REAL = pa.string(), pa.bool_(), pa.float64()
SMALL, LARGE = pa.int32(), pa.int64()
TIME = pa.timestamp("us", tz="UTC")
INTS, REALS, TEXTS = pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.string())
SINGLES = pa.list_(pa.float32())


def column(name: str, kind: pa.DataType, description: str, null: bool = False) -> pa.Field:
    """A column with its meaning; ``null``: whether it may hold nothing."""
    return pa.field(name, kind, nullable=null, metadata={"description": description})


def words_column(name: str, description: str, words: Mapping[vocabulary.Word, str]) -> pa.Field:
    """A column that holds the words of a vocabulary only."""
    return pa.field(name, TEXT, nullable=False, metadata={
        "description": description + vocabulary.described(words), "words": " ".join(words)})


def table(name: str, description: str, *columns: pa.Field) -> pa.Schema:
    """The schema of a table."""
    meta = {"table": name, "description": description, "schema_version": str(SCHEMA_VERSION)}
    return pa.schema(columns, metadata=meta)


UNIT = column("unit_id", TEXT, "unit of work that wrote the row")
MODEL = column("model", TEXT, "model as the recipe names it")
LAYER = column("layer", SMALL, "layer, from 0")
INTERVENTION = column("intervention", TEXT, "digest of what is done to the model; that of the "
                      "empty ablation is the untouched model")

"""Rows as the bytes of a Parquet file, and back."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.results.outcomes import notes
from prunelib.results.storage.manifest import Piece

#: Bytes of a row group, uncompressed: what reading one unit of a merged file costs at least.
_ROW_GROUP = 16 << 20


def parquet(table: str, content: pa.Table) -> bytes:
    """Rows of a table as the bytes of a Parquet file, predictions with their summary."""
    sink = pa.BufferOutputStream()
    rows = _ROW_GROUP * len(content) // max(1, content.nbytes)
    with pq.ParquetWriter(sink, content.schema, compression="zstd", write_page_checksum=True
                          ) as writer:
        writer.write_table(content, row_group_size=max(1, rows))
        if table == "predictions":
            writer.add_key_value_metadata(notes(content))
    return bytes(sink.getvalue())


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema; those that an earlier version did not write are null."""
    return pa.Table.from_arrays(
        [rows[field.name].cast(field.type) if field.name in rows.column_names
         else pa.nulls(len(rows), field.type) for field in schema],
        names=schema.names)


def rows_of_pieces(file: pq.ParquetFile, pieces: list[Piece], columns: Sequence[str] | None
                   ) -> dict[Piece, pa.Table]:
    """Rows of pieces of one merged file; row groups that hold nothing of them are not read."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    first = min(piece.start for piece in pieces)
    last = max(piece.start + piece.rows for piece in pieces)
    groups, skipped, end = [], 0, 0
    for group, size in enumerate(sizes):
        end += size
        if end <= first:
            skipped = end
        elif end - size < last:
            groups.append(group)
    content = file.read_row_groups(groups, columns).replace_schema_metadata(None)
    return {piece: content.slice(max(0, piece.start - skipped), piece.rows) for piece in pieces}

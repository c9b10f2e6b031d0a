"""Results: one explicit schema per table, an atomic Parquet store, and SQL over both."""

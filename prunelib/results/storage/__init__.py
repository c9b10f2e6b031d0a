"""Where results are kept: Parquet files on disks and object stores."""

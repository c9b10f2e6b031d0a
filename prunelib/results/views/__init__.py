"""Every reported number as SQL over the tables: one file a topic."""

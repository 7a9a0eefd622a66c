"""The schema's history as SQL: one file a version, in order, never edited once released."""

"""Text, tables, progress and JSON: the only place that prints."""

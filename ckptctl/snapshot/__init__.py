"""Dump and restore as explicit steps with undo."""

"""Snapshots on disk: layout, manifest, commit, locks, journal, integrity."""

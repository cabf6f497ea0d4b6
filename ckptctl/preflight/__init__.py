"""Checks: facts to findings to remedies."""

"""Warnings that the machine is about to be taken away: where they are found, and a watch over all of them."""

"""Driving the criu program: finding it, its options, its images, its log."""

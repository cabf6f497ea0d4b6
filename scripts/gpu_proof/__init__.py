"""The parts of scripts/gpu-proof."""

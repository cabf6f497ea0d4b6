"""What a live process tree holds, and acting on processes whose identity is checked."""

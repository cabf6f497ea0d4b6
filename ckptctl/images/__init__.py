"""CRIU's image stream: the memory of a job through pipes into a container of checked blocks, and back."""

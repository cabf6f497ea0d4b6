"""The CUDA checkpoint interface of the NVIDIA driver."""

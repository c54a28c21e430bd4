"""Kernels in C, for operations where PyTorch or NumPy is slow.

The system's C compiler compiles a kernel when it is first needed. Where a kernel is not available,
PyTorch or NumPy does the work, more slowly.
"""

"""C code for where PyTorch is slow. It is compiled when it is first needed, with the system's
compiler; where that is not to be had, PyTorch does the work, in more time."""

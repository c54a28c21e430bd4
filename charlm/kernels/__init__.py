"""C code for where PyTorch or numpy is slow. It is compiled when it is first needed, with the
system's compiler; where that is not to be had, they do the work, in more time."""

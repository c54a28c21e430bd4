"""The networks of charlm.sampling.numpy in C, on the CPU."""

from __future__ import annotations

from charlm.kernels.build import NoKernelError
from charlm.sampling.native.gpt import NativeGPT
from charlm.sampling.native.recurrent import NativeRecurrent
from charlm.sampling.numpy import Network
from charlm.sampling.numpy.gpt import GPT
from charlm.sampling.numpy.mlp import MLP

NativeNetwork = NativeRecurrent | NativeGPT


def native(network: Network) -> NativeNetwork:
    """The same network in C, with no state.

    Args:
        network: made with numpy arrays. Its weights are shared, not copied.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """
    if isinstance(network, MLP):
        raise NoKernelError("there is no C for an mlp")
    return NativeGPT(network) if isinstance(network, GPT) else NativeRecurrent(network)

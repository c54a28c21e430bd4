"""The networks of charlm.sampling.numpy in C, on the CPU."""

from __future__ import annotations

from charlm.sampling.native.gpt import NativeGPT
from charlm.sampling.native.recurrent import NativeRecurrent
from charlm.sampling.numpy import Network
from charlm.sampling.numpy.gpt import GPT

NativeNetwork = NativeRecurrent | NativeGPT


def native(network: Network) -> NativeNetwork:
    """The same network in C, with no state.

    Args:
        network: made with numpy arrays. Its weights are shared, not copied.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """
    return NativeGPT(network) if isinstance(network, GPT) else NativeRecurrent(network)

"""The networks of charlm.sampling.numpy in C, for one text or many on a CPU."""

from __future__ import annotations

from charlm.sampling.native.gpt import NativeGPT
from charlm.sampling.native.recurrent import NativeRecurrent
from charlm.sampling.numpy import Network
from charlm.sampling.numpy.gpt import GPT

NativeNetwork = NativeRecurrent | NativeGPT


def native(network: Network) -> NativeNetwork:
    """The same network in C, at the beginning of a text.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """
    return NativeGPT(network) if isinstance(network, GPT) else NativeRecurrent(network)

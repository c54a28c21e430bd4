"""The networks of charlm.sampling.numpy in C, on the CPU."""

from __future__ import annotations

from charlm.sampling.native.gpt import NativeGPT
from charlm.sampling.native.mlp import NativeMLP
from charlm.sampling.native.recurrent import NativeRecurrent
from charlm.sampling.numpy import Network
from charlm.sampling.numpy.gpt import GPT
from charlm.sampling.numpy.mlp import MLP
from charlm.sampling.numpy.recurrent import Recurrent

NativeNetwork = NativeRecurrent | NativeGPT | NativeMLP


def native(network: Network) -> NativeNetwork:
    """The same network in C, with no state.

    Args:
        network: made with numpy arrays. Its weights are shared, not copied.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """
    match network:
        case GPT():
            return NativeGPT(network)
        case MLP():
            return NativeMLP(network)
        case Recurrent():
            return NativeRecurrent(network)

"""Puts the kernels into a wheel, compiled for every kind of CPU of this architecture.

Without a C compiler the wheel has none and is for all systems. Then kernels are compiled when they
are first used, as they are in a checkout and in an editable installation.
"""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

sys.path.insert(0, str(Path(__file__).parent))
from charlm.kernels.build import NoKernelError, compile_packaged
from charlm.kernels.variants import Variant, packaged_kernels


class Wheel(bdist_wheel):
    def run(self) -> None:
        self.run_command("build")
        folder = Path(self.get_finalized_command("build").build_lib, "charlm", "kernels", "lib")
        shutil.rmtree(folder, ignore_errors=True)  # those of an earlier build
        folder.mkdir(parents=True)

        def compile_one(kernel: tuple[str, Variant]) -> str:
            name, variant = kernel
            try:
                compile_packaged(name, variant.flags, folder)
            except NoKernelError as error:
                return f"no {name} for {variant.name} in the wheel: {error}"
            return ""

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for error in filter(None, pool.map(compile_one, packaged_kernels())):
                self.warn(error)
        self.root_is_pure = not any(folder.iterdir())
        if not self.root_is_pure:  # the libraries belong to a system, but to no version of Python
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, system = super().get_tag()
        return (python, abi, system) if self.root_is_pure else ("py3", "none", system)


setup(cmdclass={"bdist_wheel": Wheel})

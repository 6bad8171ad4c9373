"""Generates the protobuf modules into the wheel; everything else is in pyproject.toml."""
import os
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import generate  # noqa: E402


class BuildWithProtos(build_py):
    def run(self):
        super().run()
        generate.generate(self.build_lib)


setup(cmdclass={"build_py": BuildWithProtos})

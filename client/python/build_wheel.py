#!/usr/bin/env python3
"""Builds the wheel of the package `sluice` without any network: prints its path.

    .venv/bin/python client/python/build_wheel.py FOLDER

Needs setuptools from 77 on and protoc (generate.py). It is built in a copy, so that the tree stays clean and nothing
of an earlier build gets in; equal sources give equal bytes, as all times in it are $SOURCE_DATE_EPOCH, by default the
first that a zip file can hold.
"""
import contextlib
import os
import shutil
import sys
import tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FIRST_ZIP_TIME = "315532800"  # 1980-01-01


def build_wheel(folder):
    """Returns the path of the wheel in `folder`."""
    from setuptools import build_meta
    os.makedirs(folder, exist_ok=True)
    folder = os.path.abspath(folder)
    os.environ.setdefault("SOURCE_DATE_EPOCH", FIRST_ZIP_TIME)
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(os.path.join(TOP, "proto"), os.path.join(copy, "proto"))
        package = os.path.join(copy, "client", "python")
        shutil.copytree(os.path.join(TOP, "client", "python"), package,
                        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "*_pb2.py*"))
        shutil.copy(os.path.join(TOP, "LICENSE"), package)
        for parent, _, names in os.walk(copy):  # the modes of a checkout depend on its umask
            for name in names:
                os.chmod(os.path.join(parent, name), 0o644)
        try:
            os.chdir(package)
            with contextlib.redirect_stdout(sys.stderr):
                name = build_meta.build_wheel(folder)
        finally:
            os.chdir(home)
    return os.path.join(folder, name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(build_wheel(sys.argv[1]))

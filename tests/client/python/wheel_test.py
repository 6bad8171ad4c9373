"""The wheel: builds offline, is the same each time, holds what it should, and imports in a fresh environment.
Installs it into $SLUICE_PYTHON_SITE for the other tests."""
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

import support

VENV_SITE = os.path.join(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")


def run(*argv, **environment):
    """Standard output; an AssertionError with what was said if it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
                          env={**clean, **environment})
    if done.returncode != 0:
        raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder):
    return run(sys.executable, os.path.join(support.TOP, "client", "python", "build_wheel.py"), folder).strip()


class WheelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = os.path.dirname(support.SITE)
        cls.wheel = build(cls.folder)
        shutil.rmtree(support.SITE, ignore_errors=True)
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target",
            support.SITE, cls.wheel)

    def test_it_is_named_by_the_projects_version_for_any_python_3(self):
        with open(os.path.join(support.TOP, "CMakeLists.txt"), encoding="utf-8") as file:
            version = re.search(r"project\(sluice VERSION ([\d.]+)", file.read()).group(1)
        self.assertEqual(os.path.basename(self.wheel), f"sluice-{version}-py3-none-any.whl")

    def test_it_is_typed_and_holds_the_licence_and_the_generated_modules(self):
        names = set(zipfile.ZipFile(self.wheel).namelist())
        for name in ("sluice/py.typed", "sluice/encoder.py", "sluice/v1/job_pb2.py", "sluice/v1/job_pb2.pyi",
                     "sluice/v1/spec_pb2.py", "sluice/mirror/__main__.py", "sluice/inference/open_inference_pb2.py"):
            self.assertIn(name, names)
        self.assertTrue(any(name.endswith("LICENSE") for name in names), names)
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        self.assertEqual(zipfile.ZipFile(self.wheel).read(points).decode().split(),
                         ["[console_scripts]", "sluice-mirror", "=", "sluice.mirror.__main__:main"])

    def test_what_it_needs_is_what_the_tests_pin(self):
        (metadata,) = [name for name in zipfile.ZipFile(self.wheel).namelist() if name.endswith("/METADATA")]
        needs = re.findall(r"^Requires-Dist: ([\w-]+)([^;\n]*)$", zipfile.ZipFile(self.wheel).read(metadata).decode(), re.MULTILINE)
        self.assertEqual(sorted(name for name, _ in needs), ["PyYAML", "grpcio", "protobuf"])
        with open(os.path.join(support.TOP, "tests", "client", "python", "requirements.txt"), encoding="utf-8") as file:
            pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)$", file.read(), re.MULTILINE))
        for name, least in needs:
            version, least = ([int(part) for part in text.split(".")[:2]] for text in (pinned[name.lower()], least.removeprefix(">=")))
            self.assertGreaterEqual(version, least, name)

    def test_equal_sources_give_equal_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(build(folder), "rb") as again, open(self.wheel, "rb") as first:
                self.assertEqual(hashlib.sha256(again.read()).hexdigest(), hashlib.sha256(first.read()).hexdigest())

    def test_its_types_are_right_for_every_python_it_is_for(self):
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not installed")
        with tempfile.TemporaryDirectory() as cache:
            for version in ("3.11", "3.14"):
                run(sys.executable,
                    "-m",
                    "mypy",
                    "--cache-dir",
                    cache,
                    "--python-version",
                    version,
                    "--config-file",
                    os.path.join(support.TOP, "client", "python", "pyproject.toml"),
                    *[
                        os.path.join(support.SITE, "sluice", folder, n)
                        for folder in ("", "mirror")
                        for n in sorted(os.listdir(os.path.join(support.SITE, "sluice", folder)))
                        if n.endswith(".py") and n != "encoder.py"
                    ],
                    MYPYPATH=support.SITE)

    def test_it_leaves_nothing_in_the_tree(self):
        folder = os.path.join(support.TOP, "client", "python")
        self.assertFalse([n for n in os.listdir(folder) if n in ("build", "dist") or n.endswith(".egg-info")])

    def test_a_protoc_whose_modules_old_runtimes_refuse_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            protoc = os.path.join(folder, "protoc")
            with open(protoc, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\necho libprotoc 30.2\n")
            os.chmod(protoc, 0o755)
            done = subprocess.run(
                [sys.executable, os.path.join(support.TOP, "client", "python", "generate.py"), folder],
                capture_output=True,
                text=True,
                env={
                    **os.environ, "PROTOC": protoc
                })
            self.assertEqual(done.returncode, 1)
            self.assertIn("want protoc 3.20 or 3.21", done.stderr)

    def test_it_imports_in_a_fresh_environment(self):
        if importlib.util.find_spec("grpc") is None:
            self.skipTest("grpcio is not installed")
        with tempfile.TemporaryDirectory() as folder:
            run(sys.executable, "-m", "venv", "--without-pip", folder)
            python = os.path.join(folder, "bin", "python")
            run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
                self.wheel)
            site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
            # Its dependencies, from where they are installed already: nothing is fetched.
            with open(os.path.join(site, "installed.pth"), "w", encoding="utf-8") as file:
                file.write(VENV_SITE + "\n")
            said = run(python, "-c", "import sluice, sys; assert 'grpc' not in sys.modules\n"
                       "c = sluice.Client('127.0.0.1:1'); print(sluice.__file__, c)")
            self.assertTrue(said.startswith(site), said)

    def test_the_encoder_needs_no_grpc(self):
        if importlib.util.find_spec("torch") is None:
            self.skipTest("torch is not installed")
        program = ("import sys; sys.modules['grpc'] = None; sys.modules['google.protobuf'] = None\n"
                   f"sys.path.insert(0, {support.SITE!r})\n"
                   "from unittest import mock\n"
                   "sys.modules['torch'] = mock.Mock()\n"  # loading the real one takes a second and CUDA's libraries
                   "import sluice.encoder; print(sluice.encoder.leaf_of.__name__)")
        self.assertEqual(run(sys.executable, "-c", program).strip(), "leaf_of")


if __name__ == "__main__":
    setuptools = importlib.util.find_spec("setuptools")
    if setuptools is None:
        support.skip("setuptools is not installed")
    import setuptools
    if int(setuptools.__version__.split(".")[0]) < 77:
        support.skip(f"setuptools is {setuptools.__version__}, building needs 77; './sluice setup' installs it")
    if shutil.which("protoc") is None and "PROTOC" not in os.environ:
        support.skip("protoc is not installed")
    support.main()

"""`./sluice test --gpu` on a machine without a GPU: one plain sentence, an exit code, and nothing installed."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class GpuTestsTest(unittest.TestCase):
    def test_without_a_driver_nothing_is_installed(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / "sluice", folder)
            # A linker cache without the driver, whatever this machine has.
            tools = pathlib.Path(folder, "tools")
            tools.mkdir()
            linker = tools / "ldconfig"
            linker.write_text("#!/bin/sh\necho '1 libs found in cache'\necho '\tlibc.so.6 (libc6,x86-64) => /lib/libc.so.6'\n")
            linker.chmod(0o755)
            environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", LD_LIBRARY_PATH=folder)
            answer = subprocess.run(["bash", f"{folder}/sluice", "test", "--gpu"], env=environment, text=True,
                                    capture_output=True, timeout=60)
            self.assertEqual(answer.returncode, 4, answer.stderr)
            self.assertIn("no NVIDIA driver", answer.stderr)
            self.assertEqual(answer.stdout, "")
            self.assertFalse(pathlib.Path(folder, ".venv").exists())
            self.assertFalse(pathlib.Path(folder, ".sluice").exists())

    def test_a_driver_in_the_library_path_is_found(self):
        # It goes on to set up, which stops where apt-get is not there: before anything is installed.
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / "sluice", folder)
            tools = pathlib.Path(folder, "tools")
            tools.mkdir()
            for name in ("bash", "dirname", "readlink", "grep", "mkdir", "flock"):
                (tools / name).symlink_to(shutil.which(name))
            pathlib.Path(folder, "libcuda.so.1").touch()
            answer = subprocess.run([str(tools / "bash"), f"{folder}/sluice", "test", "--gpu"], text=True, timeout=60,
                                    env={"PATH": str(tools), "LD_LIBRARY_PATH": folder}, capture_output=True)
            self.assertNotEqual(answer.returncode, 0)
            self.assertNotIn("no NVIDIA driver", answer.stderr)
            self.assertIn("no apt-get", answer.stderr)


if __name__ == "__main__":
    unittest.main()

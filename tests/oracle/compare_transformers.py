#!/usr/bin/env python3
"""Compares Sluice with Hugging Face's transformers.

    compare_transformers.py CHECK --tools FOLDER --work FOLDER

CHECK names a file check_<CHECK>.py beside this one with a function check(Oracle). Ends with 0 if it agrees, 1 if not,
77 (skipped) with the reason if transformers or the tools that make torch's stand-ins are not installed. Packages are
pinned in requirements.txt; `./sluice test` installs them.
"""
import argparse
import importlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
READY = "SLUICE_ORACLE_READY"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def torch_libraries():
    """Folders of torch's own libraries and of the CUDA runtime beside it, without importing torch."""
    torch_spec = importlib.util.find_spec("torch")
    if torch_spec is None or importlib.util.find_spec("transformers") is None:
        skip(f"torch and transformers are not installed for {sys.executable}: "
             "pip install --no-deps -r tests/oracle/requirements.txt")
    site = pathlib.Path(torch_spec.origin).parent.parent
    return site / "torch" / "lib", site / "nvidia" / "cu13" / "lib"


def restart_with_stand_ins(work):
    """LD_LIBRARY_PATH is read when a process starts, so this one starts again with it."""
    torch_folder, cuda_folder = torch_libraries()
    for tool in ("cc", "readelf", "nm"):
        if shutil.which(tool) is None:
            skip(f"{tool} is not installed")
    stand_ins = work / "cuda_stand_ins"
    subprocess.run([sys.executable, str(HERE / "cuda_stand_ins.py"), str(torch_folder), str(cuda_folder),
                    str(stand_ins)], check=True)
    environment = dict(os.environ)
    folders = [str(stand_ins), str(cuda_folder), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, folders))
    environment.update({READY: "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("check")
    parser.add_argument("--tools", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if READY not in os.environ:
        restart_with_stand_ins(arguments.work)

    sys.path.insert(0, str(HERE))
    import torch
    import oracle
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix=f"{arguments.check}_", dir=arguments.work) as folder:
        importlib.import_module(f"check_{arguments.check}").check(oracle.Oracle(folder, arguments.tools))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Generates the protobuf modules of the package `sluice` from proto/ of this repository.

    python3 client/python/generate.py FOLDER

writes FOLDER/sluice/v1/*_pb2.py and FOLDER/sluice/inference/*_pb2.py, with .pyi beside them; building the wheel does
the same. protoc is $PROTOC or the one on the path. Modules of protoc 3.20 and 3.21 run with every protobuf runtime from
4.21 on, and those of later releases refuse older runtimes, so nothing else is taken: Debian 12 has 3.21.12, and the
same protoc writes the same bytes.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "proto")
V1 = ("data", "job", "spec", "spec_options")


def find_protoc():
    """Path of a protoc that writes what every runtime reads; a SystemExit with the remedy otherwise."""
    protoc = os.environ.get("PROTOC") or shutil.which("protoc")
    if not protoc:
        sys.exit("sluice: no protoc on the path; install protobuf-compiler (3.21), or name one in PROTOC")
    said = subprocess.run([protoc, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if not re.fullmatch(r"libprotoc 3\.2[01]\.\d+", said):
        sys.exit(f"sluice: want protoc 3.20 or 3.21, whose modules run with old and new protobuf, got '{said}'")
    return protoc


def generate(folder):
    """Writes the modules below `folder`, replacing what is there."""
    protoc = find_protoc()
    with tempfile.TemporaryDirectory() as protos:
        os.makedirs(os.path.join(protos, "sluice", "inference"))
        shutil.copytree(os.path.join(PROTO, "sluice", "v1"), os.path.join(protos, "sluice", "v1"))
        # Message names are not on the wire, and a process may hold another package's messages of this protocol
        # (tritonclient's, say): protobuf allows one message a name, so these get a name of their own.
        with open(os.path.join(PROTO, "inference", "open_inference.proto"), encoding="utf-8") as file:
            text, count = re.subn(r"(?m)^package inference;$", "package sluice.inference;", file.read())
        if count != 1:
            sys.exit("sluice: open_inference.proto: want one line 'package inference;'")
        with open(os.path.join(protos, "sluice", "inference", "open_inference.proto"), "w", encoding="utf-8") as file:
            file.write(text)
        files = [f"sluice/v1/{name}.proto" for name in V1] + ["sluice/inference/open_inference.proto"]
        os.makedirs(folder, exist_ok=True)
        subprocess.run([protoc, f"--proto_path={protos}", f"--python_out={folder}", f"--pyi_out={folder}", *files],
                       check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    generate(sys.argv[1])

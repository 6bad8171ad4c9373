"""Inputs that are small and claim to be huge: a header of 10^9 rows, a tensor of 2^63 bytes, lists a million levels deep, a
spec whose aliases double, a line without end. Each is refused in time, in words, and without the memory it asks for.
"""

import hashlib
import json
import os
import resource
import shutil
import struct
import time

from experiment import harness, main
from harness import INTEGRITY, PERMISSION, USAGE

MEMORY_BYTES = 1536 << 20  # LibTorch alone takes 200 MB
LIMIT_S = 60
DEEP = 1_000_000


def refused(x, what, values, codes=(INTEGRITY, PERMISSION, USAGE)):
    x.bombs = getattr(x, "bombs", 0) + 1
    started = time.monotonic()
    process, folder = x.start_job(values, "--address", "127.0.0.1:0", name=f"bomb-{x.bombs}")
    x.assertIn(process.wait(LIMIT_S), codes, f"{what}: {process.said()[-2000:]}")
    print(f"{what} {time.monotonic() - started:.1f} s")
    x.slowest = max(getattr(x, "slowest", (0, "")), (time.monotonic() - started, what))
    said = process.said()
    x.assertNotIn("terminate called", said, what)
    x.assertLess(len(said), 100_000, f"{what}: it prints the bomb")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    x.assertLess(peak, MEMORY_BYTES, what)
    x.assertFalse(os.path.exists(os.path.join(folder, "results.json")), what)
    x.processes.remove(process)


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return path


def specs(x):
    """A spec whose aliases of aliases are 10^9 values, one that is deep, one that is one long line."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9)]
    for what, text in (("aliases", "kind: rl\n" + "\n".join(levels)), ("deep", "kind: " + "[" * DEEP),
                       ("flow maps", "{a: " * (DEEP // 10)), ("indented", "\n".join(" " * i + "a:" for i in range(3000))),
                       ("long", "name: " + "x" * (900 << 10)), ("large", "#" * (40 << 20))):
        path = write(x.path("bomb.yaml"), text.encode())
        process = x.start("bomb", "sluice-learner", "run", path, "--run-folder", x.path("bomb"))
        x.assertIn(process.wait(LIMIT_S), (INTEGRITY, USAGE), f"{what}: {process.code()} {process.said()[-2000:]}")
        x.assertLess(len(process.said()), 100_000 if what != "long" else 2 << 20, f"{what}: it prints the bomb")
        x.processes.remove(process)


def events(x):
    output = x.path("bomb-data")
    cases = {
        "deep.json": b"[" * DEEP,
        "deep-object.json": b'{"a":' * DEEP,
        "number.json": b'{"u": [' + b"9" * 1_000_000 + b"]}",
        "line.csv": b"user,item,timestamp\n" + b"x" * (64 << 20),
        "columns.csv": b"user,item,timestamp" + b",c" * 2_000_000 + b"\n",
        "digits.csv": b"user,item,timestamp\na,b," + b"9" * 1_000_000 + b"\n",
        "zeros.csv": b"\0" * (8 << 20),
    }
    for name, content in cases.items():
        write(x.path(name), content)
        refused(x, name, harness.prepare_spec(x.path(name), output))
        os.remove(x.path(name))


def resigned(x, data, name, content):
    """A copy of the data set with another file, vouched for by its manifest."""
    folder = x.path("signed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(data, folder)
    path = os.path.join(folder, "manifest.json")
    manifest = harness.read_json(path)

    def sign(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == name:
                    digest = hashlib.sha256(content).hexdigest()
                    node[key] = {**value, "sha256": digest, "bytes": len(content)} if isinstance(value, dict) else digest
                else:
                    sign(value)
    sign(manifest)
    write(os.path.join(folder, name), content)
    write(path, json.dumps(manifest).encode())
    return folder


def npy(descr, shape):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def data_files(x):
    cases = [("event_item.npy", npy("<i4", "(1000000000,)") + b"\0" * 64),
             ("event_item.npy", npy("<i4", "(9223372036854775807,)")),
             ("event_item.npy", npy("<i4", "(4294967296, 4294967296)")),
             ("event_item.npy", npy("<i4", "(" + "1," * 10_000 + ")")),
             ("first_event.npy", npy("<i8", "(-1,)"))]
    for name, content in cases:
        refused(x, f"{name} {content[10:60]!r}", x.rl() | {"data": resigned(x, x.data, name, content)})


def models(x):
    _, sft = x.run_job({"name": "sft", "kind": "sft", "data": x.data, "model": harness.model_spec(),
                        "sft": {"passes": 1, "validation": {"users": 10, "beams": 10}}})
    model = os.path.join(sft, "export", "best")
    evaluate = {"name": "evaluate", "kind": "evaluate", "data": x.data, "model": {"path": sft}}

    def tensors(header):
        return struct.pack("<Q", len(header)) + header
    cases = {
        "model.safetensors": [struct.pack("<Q", 2**63), struct.pack("<Q", 100 << 20) + b"{", tensors(b"[" * DEEP),
                              tensors(b'{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}}') + b"\0" * 4,
                              tensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,18446744073709551615]}}')],
        "config.json": [b"[" * DEEP, b'{"a":' * DEEP, b'{"hidden_size": 1e308}',
                        json.dumps({**harness.read_json(model, "config.json"), "hidden_size": 2**40}).encode(),
                        json.dumps({**harness.read_json(model, "config.json"), "num_hidden_layers": 2**31 - 1}).encode()],
    }
    for name, contents in cases.items():
        path = os.path.join(model, name)
        whole = open(path, "rb").read()
        for content in contents:
            write(path, content)
            refused(x, f"{name} {content[:40]!r}", evaluate)
        write(path, whole)


def run(x):
    specs(x)
    events(x)
    data_files(x)
    models(x)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    x.note(f"{x.bombs} bombs, largest process {peak} MiB, slowest {x.slowest[1]} {x.slowest[0]:.1f} s")


if __name__ == "__main__":
    main(__file__, run)

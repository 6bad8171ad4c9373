#!/usr/bin/env python3
"""Lets Python import the CUDA wheel of torch on a machine without the CUDA libraries.

    cuda_stand_ins.py TORCH_LIB_FOLDER CUDA_LIB_FOLDER OUT

torch's Python module names cuDNN, cuBLAS, NCCL and more (several GB of wheels), also where nothing but the processor
is used. This makes an empty library in OUT for each one that is not there. It defines the symbols that torch's
libraries leave undefined, with their versions, and each of them ends the process if it is ever called. Put OUT and
CUDA_LIB_FOLDER (cudart and cupti, which are real) on LD_LIBRARY_PATH.

Does nothing if OUT was made for the same libraries before. Needs cc, readelf and nm.
"""
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = "libtorch_python.so"
# The driver's library is looked up at run time: if a stand-in were found, torch would believe in a GPU.
NEVER = {"libcuda.so.1"}


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed_by(library):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "-W", "-d", str(library)))


def system_folders():
    """Folders of the dynamic linker's cache."""
    cache = output_of("/sbin/ldconfig", "-p")
    return {pathlib.Path(path).parent for path in re.findall(r"=> (/\S+)", cache)}


def resolve(torch_folder, cuda_folder):
    """Libraries that importing torch loads: found ones by path, and the names of those that are nowhere."""
    folders = [torch_folder, cuda_folder, *sorted(system_folders())]
    found, missing, queue = {}, {}, [ROOT]
    while queue:
        name = queue.pop()
        if name in found or name in missing or name in NEVER:
            continue
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        if path is None:
            missing[name] = True
        else:
            found[name] = path
            queue += needed_by(path)
    return found, sorted(missing)


def symbols(library, *options):
    """Pairs of name and version ('' if it has none) of a library's dynamic symbols."""
    pairs = []
    for line in output_of("nm", "-D", *options, str(library)).splitlines():
        fields = line.split()
        kind, name = fields[-2], fields[-1]
        if kind in "wv":  # weak: may stay undefined
            continue
        name, _, version = name.partition("@")
        pairs.append((name, version.lstrip("@")))
    return pairs


def versions_wanted(library):
    """{version: library it is wanted from} of a library's version needs."""
    wanted, file = {}, None
    for line in output_of("readelf", "-W", "-V", str(library)).splitlines():
        if match := re.search(r"File: (\S+)", line):
            file = match.group(1)
        elif (match := re.search(r"Name: (\S+)\s+Flags:", line)) and file:
            wanted[match.group(1)] = file
    return wanted


def assign(found, missing, torch_folder):
    """{stand-in: {version: names}}. Unversioned symbols may come from any library: the first stand-in has them."""
    ours = [path for path in found.values() if path.parent == torch_folder]
    defined = {name for path in found.values() for name, _ in symbols(path, "--defined-only")}
    result = {name: collections.defaultdict(set) for name in missing}
    for path in ours:
        wanted = versions_wanted(path)
        for name, version in symbols(path, "--undefined-only"):
            if name in defined:
                continue
            library = wanted.get(version) if version else missing[0]
            if library in result:
                result[library][version].add(name)
    return result


def build(name, by_version, out):
    source, script = out / "stand_in.c", out / "stand_in.map"
    names = sorted({symbol for group in by_version.values() for symbol in group})
    source.write_text("#include <stdlib.h>\n" + "".join(f"void {symbol}(void) {{ abort(); }}\n" for symbol in names))
    script.write_text("".join(f"{version} {{ global: {' '.join(symbol + ';' for symbol in sorted(group))} }};\n"
                              for version, group in sorted(by_version.items()) if version))
    command = ["cc", "-shared", "-fPIC", "-w", "-nostartfiles", f"-Wl,-soname,{name}", str(source), "-o", str(out / name)]
    if script.stat().st_size:
        command.append(f"-Wl,--version-script={script}")
    subprocess.run(command, check=True)
    source.unlink()
    script.unlink()


def main():
    torch_folder, cuda_folder, out = (pathlib.Path(argument) for argument in sys.argv[1:4])
    stamp = out / "made_for.json"
    made_for = json.dumps([str(torch_folder), (torch_folder / ROOT).stat().st_mtime, (torch_folder / ROOT).stat().st_size])
    if stamp.exists() and stamp.read_text() == made_for:
        return
    out.mkdir(parents=True, exist_ok=True)
    found, missing = resolve(torch_folder, cuda_folder)
    if missing:
        for name, by_version in assign(found, missing, torch_folder).items():
            build(name, by_version, out)
    stamp.write_text(made_for)


if __name__ == "__main__":
    main()

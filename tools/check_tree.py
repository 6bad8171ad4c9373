#!/usr/bin/env python3
"""Checks what the compiler cannot: who may include whom, and what no tracked file may hold.

    python3 tools/check_tree.py [ROOT]

The rules are those of docs/architecture.md, section "Who may include whom". A folder's kind comes from its
CMakeLists.txt: sluice_cc_library(... TORCH) is (T), (... RPC) is (R), anything else a core. Prints one line per
breach, as file:line: sentence, and ends with 1 if there is any. Needs Python's standard library alone.
"""

import os
import re
import subprocess
import sys

PROCESSES = ("actor", "learner", "reward_server", "client")
OWN_TOPS = frozenset(PROCESSES + ("common", "tests"))
FOUNDATIONS = ("status", "failpoint", "sync", "time", "random", "log", "file", "metrics", "types")

TORCH_HEADER = re.compile(r"^(torch|ATen|c10|caffe2|gloo)/")
RPC_HEADER = re.compile(r"^(grpc|grpcpp|grpc\+\+|google/protobuf|sluice/v1|sluice/inference|inference)/")
# A torch header of 1 CPU second; the others cost 5 to 11 in every file that includes one (style of (T) headers).
HEAVY_TORCH_HEADER = re.compile(r"^(torch/(torch|all)\.h|ATen/ATen\.h)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CMAKE_CALL = re.compile(r"\b(sluice_cc_library|sluice_cc_test|sluice_cc_binary)\s*\(([^)]*)\)")

# Written in pieces, so that this file passes its own check.
MACHINE_PATHS = re.compile(r"(?<![\w.$}/-])/(" + "|".join(("work", "tmp", "root", "home")) + r")/\w")
REGISTRY_HOSTS = re.compile("|".join(re.escape(a + b) for a, b in (
    ("pypi", ".org"), ("python", "hosted.org"), ("deb.", "debian.org"), ("download.", "pytorch.org"),
    ("archive.", "ubuntu.com"), ("conda.", "anaconda.org"), ("registry.", "npmjs.org"))))
BINARY_SUFFIXES = (".png", ".jpg", ".gif", ".ico", ".npy", ".bin", ".safetensors", ".gz", ".zst", ".pb")


def tracked_files(root):
    """Paths relative to root: what git tracks, or every file if root is no repository."""
    answer = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            capture_output=True)
    if answer.returncode == 0:
        paths = answer.stdout.decode().split("\0")
        return sorted(p for p in paths if p and os.path.isfile(os.path.join(root, p)))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f != "build" and not f.startswith(".")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def read_text(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()


class Tree:
    """The C++ files, the kinds of their folders, and the breaches found so far."""

    def __init__(self, root):
        self.root = root
        self.files = tracked_files(root)
        self.text = {p: read_text(root, p) for p in self.files if not p.endswith(BINARY_SUFFIXES)}
        self.kinds = {}        # folder of a library -> set of "TORCH", "RPC"
        self.test_kinds = {}   # folder of tests -> the same
        self.named_sources = set()
        self.breaches = []
        self.read_cmake()

    def read_cmake(self):
        for path, text in self.text.items():
            if os.path.basename(path) != "CMakeLists.txt":
                continue
            folder = os.path.dirname(path)
            text = re.sub(r"#.*", "", text)
            for match in CMAKE_CALL.finditer(text):
                words = match.group(2).split()
                kind = {w for w in words if w in ("TORCH", "RPC")}
                if match.group(1) == "sluice_cc_library":
                    self.kinds[folder] = kind
                    if words[0] != folder:
                        self.breach(path, 1, f"this folder's library must be named {folder}, not {words[0]}")
                elif match.group(1) == "sluice_cc_test":
                    self.test_kinds.setdefault(folder, set()).update(kind)
            for word in re.findall(r"[\w./{}$-]+\.cc\b", text):
                self.named_sources.add(os.path.normpath(os.path.join(folder, word)))

    def breach(self, path, line, sentence):
        self.breaches.append(f"{path}:{line}: {sentence}")

    def includes(self, path):
        for number, line in enumerate(self.text[path].splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1) == '"', match.group(2)

    def library_of(self, path):
        """The library folder that a file belongs to: the nearest one upwards."""
        folder = os.path.dirname(path)
        while folder and folder not in self.kinds:
            folder = os.path.dirname(folder)
        return folder


def is_cpp(path):
    return path.endswith((".cc", ".h"))


def process_of(path):
    top = path.split("/", 1)[0]
    return top if top in PROCESSES else None


def is_wiring(path):
    """main.cc and its helpers, at the top of a process: they join its parts, so they see all of them."""
    return process_of(path) is not None and path.count("/") == 1


def check_production_file(tree, path):
    kind = tree.kinds.get(tree.library_of(path), set())
    everything = is_wiring(path)
    process = process_of(path)
    foundation = path.startswith("common/") and path.split("/")[1] in FOUNDATIONS
    for line, quoted, header in tree.includes(path):
        if TORCH_HEADER.match(header):
            if not everything and "TORCH" not in kind:
                tree.breach(path, line, f"only a (T) folder may include {header}; this folder is not TORCH in CMake")
            if path.endswith(".h") and HEAVY_TORCH_HEADER.match(header):
                tree.breach(path, line, f"headers include <ATen/core/Tensor.h> and say at::Tensor, not {header}")
        elif RPC_HEADER.match(header):
            if not everything and "RPC" not in kind:
                tree.breach(path, line, f"only an (R) folder may include {header}; this folder is not RPC in CMake")
        elif header.startswith("spdlog/"):
            if "TORCH" in kind or path.endswith(".h"):
                tree.breach(path, line, "spdlog and LibTorch do not compile in one file: use common/log/log.h")
        elif quoted and header.split("/", 1)[0] in OWN_TOPS | {header}:
            check_own_header(tree, path, line, header, kind, process, foundation, everything)


def check_own_header(tree, path, line, header, kind, process, foundation, everything):
    if header not in tree.text:
        tree.breach(path, line, f"includes start at the root of the tree, and there is no {header}")
        return
    library = tree.library_of(header)
    header_kind = tree.kinds.get(library, set())
    header_process = process_of(header)
    if header.startswith("tests/"):
        tree.breach(path, line, f"production code may not include {header}")
    elif header_process is not None and header_process != process:
        place = "common/" if process is None else f"{process}/"
        tree.breach(path, line, f"{place} may not include {header}: processes meet in proto/ and common/")
    elif foundation and not (header.startswith("common/") and header.split("/")[1] in FOUNDATIONS):
        tree.breach(path, line, f"a foundation may only include foundations, not {header}")
    elif not everything and library != tree.library_of(path):
        for mark, name in (("TORCH", "(T)"), ("RPC", "(R)")):
            if mark in header_kind and mark not in kind:
                tree.breach(path, line, f"{header} is {name}, this folder is not: depend on an interface instead")


def check_test_file(tree, path):
    folder = os.path.dirname(path)
    kind = tree.test_kinds.get(folder)
    place = path.split("/")[1]
    for line, quoted, header in tree.includes(path):
        if kind is not None and path.endswith("_test.cc"):
            if RPC_HEADER.match(header) and "RPC" not in kind:
                tree.breach(path, line, f"{header} needs sluice_cc_test(... RPC) in {folder}/CMakeLists.txt")
            if TORCH_HEADER.match(header) and "TORCH" not in kind:
                tree.breach(path, line, f"{header} needs sluice_cc_test(... TORCH) in {folder}/CMakeLists.txt")
        other = process_of(header) if quoted else None
        if place in PROCESSES and other is not None and other != place:
            tree.breach(path, line, f"tests of {place} may not include {header}: such tests live in tests/integration")


def check_guard(tree, path):
    if "no include guard" in tree.text[path].lower():  # a body that is included more than once, and says so
        return
    want = "SLUICE_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"
    if f"#ifndef {want}" not in tree.text[path]:
        tree.breach(path, 1, f"want the include guard {want}")


def check_cycles(tree):
    """Libraries form no cycle by their includes."""
    edges = {}
    for path in filter(is_cpp, tree.text):
        source = tree.library_of(path)
        if not source or path.startswith("tests/"):
            continue
        for line, quoted, header in tree.includes(path):
            target = tree.library_of(header) if quoted and header in tree.text else ""
            if target and target != source:
                edges.setdefault(source, {}).setdefault(target, (path, line))
    done, path_now = set(), []

    def visit(library):
        if library in path_now:
            ring = path_now[path_now.index(library):] + [library]
            file, line = edges[ring[-2]][library]
            tree.breach(file, line, "libraries include one another in a ring: " + " -> ".join(ring))
            return
        if library in done:
            return
        path_now.append(library)
        for target in sorted(edges.get(library, {})):
            visit(target)
        path_now.pop()
        done.add(library)

    for library in sorted(edges):
        visit(library)


def check_table(tree):
    """Every library has its folder in the table of docs/architecture.md."""
    page = tree.text.get("docs/architecture.md")
    if page is None:
        return
    listed = set()
    for row in re.findall(r"^\| `.*$", page, re.MULTILINE):
        names = re.findall(r"`([\w/]+)`", row.split("|")[1])
        parent = os.path.dirname(names[0].rstrip("/"))
        listed.update(n if "/" in n else os.path.join(parent, n) for n in (name.rstrip("/") for name in names))
    for library in sorted(tree.kinds):
        if library not in listed and os.path.dirname(library) not in listed:
            tree.breach("docs/architecture.md", 1, f"the table of folders lacks {library}")


def check_words(tree, path):
    for number, line in enumerate(tree.text[path].splitlines(), 1):
        found = MACHINE_PATHS.search(line)
        if found and not (number == 1 and line.startswith("#!")):
            tree.breach(path, number, f"'{found.group(0)}...' is a path of one machine: take a folder from the caller, "
                                      "or make a temporary one")
        found = REGISTRY_HOSTS.search(line)
        if found:
            tree.breach(path, number, f"'{found.group(0)}' names a package registry: leave that to the user's settings")


def check(root):
    tree = Tree(root)
    for path in tree.text:
        check_words(tree, path)
        if not is_cpp(path) or path.startswith("cmake/"):
            continue
        if path.startswith("tests/"):
            check_test_file(tree, path)
        elif path.split("/", 1)[0] in PROCESSES + ("common",):
            check_production_file(tree, path)
        if path.endswith(".h"):
            check_guard(tree, path)
        elif path not in tree.named_sources:
            tree.breach(path, 1, "no CMakeLists.txt names this file, so nothing builds it")
    check_cycles(tree)
    check_table(tree)
    return tree.breaches, sum(map(is_cpp, tree.text))


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    breaches, count = check(root)
    for line in breaches:
        print(line)
    if breaches:
        print(f"{len(breaches)} breaches of the rules in docs/architecture.md, section \"Who may include whom\".")
        return 1
    print(f"{count} C++ files keep the include rules, and no file names a machine's path or a registry.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

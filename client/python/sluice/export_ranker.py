"""Exports a torch module as a ranker that the reward server loads without Python.

    python -m sluice.export_ranker my_ranker:make ranker.pt2

`my_ranker.make()` returns an Exportable, or a tuple of what that takes: the module, and one example tensor for each
input, in the order of its arguments.

    from sluice.export_ranker import Exportable

    def make():
        return Exportable(MyRanker().eval(), {
            "user": torch.zeros(2, dtype=torch.int64),
            "history": torch.zeros(2, 20, dtype=torch.int64),
            "item": torch.zeros(2, dtype=torch.int64)}, free={"history": "length"})

The suffix of the file chooses its kind: .pt2 an AOTInductor package (compiled here, which needs g++; for this processor
and this torch alone), .pt TorchScript (slower; torch calls it deprecated, but it still loads everywhere). Beside it comes a
ranker mapping, ranker.yaml, as far as the inputs' names tell what they hold; look it through, and give it golden groups. A
mapping that is there is left alone.

Both kinds are programs: load only files of those whom you would let run commands on that machine.
"""
from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sluice.errors import InvalidRequestError

_SUFFIXES = (".pt2", ".pt")
# What the reward server looks for (reward_server/ranker_torch/exported_model.cc).
_EXTRA_FILE = "sluice.json"
_TORCH_KEY = "sluice_torch"
# The words of a mapping for what an input of this name holds, as far as names tell.
_SOURCES = ("user", "history", "history_length", "history_mask", "item")


@dataclass(frozen=True)
class Exportable:
    """A module and what it is called with.

    module: in eval mode; called with the inputs in their order, it returns a tensor of scores, or a tuple of them.
    inputs: examples by name. All of one size in the first dimension (the pairs, or the users), from 2 on.
    free: names of inputs whose second dimension may have any size too, with a name for that size: inputs of one name have
      the same. Sizes that are not free are those of the examples, always.
    """

    module: Any
    inputs: Mapping[str, Any]
    free: Mapping[str, str] = field(default_factory=dict)


def _check(what: Exportable, path: str) -> None:
    import torch
    if not path.endswith(_SUFFIXES):
        raise InvalidRequestError(f"want a file called *.pt2 (AOTInductor) or *.pt (TorchScript), got '{path}'")
    if not isinstance(what.module, torch.nn.Module) or what.module.training:
        raise InvalidRequestError("want a torch.nn.Module in eval mode; call its eval()")
    if not what.inputs or not all(isinstance(tensor, torch.Tensor) and tensor.dim() >= 1 for tensor in what.inputs.values()):
        raise InvalidRequestError("want an example tensor of one dimension or more for each input")
    if len({id(tensor) for tensor in what.inputs.values()}) < len(what.inputs):
        raise InvalidRequestError("want a tensor of its own for each input: torch takes two names of one for the same input")
    rows = {name: len(tensor) for name, tensor in what.inputs.items()}
    if len(set(rows.values())) != 1 or min(rows.values()) < 2:
        raise InvalidRequestError(f"want examples of the same two or more rows, got {rows}")
    for name in what.free:
        if name not in what.inputs or what.inputs[name].dim() < 2 or what.inputs[name].shape[1] < 2:
            raise InvalidRequestError(f"free: want the name of an input whose second dimension has two or more, got '{name}'")


def export_ranker(what: Exportable, path: str) -> None:
    """Writes the file. InvalidRequestError: what cannot be exported, in words; torch's own errors for what it cannot."""
    import torch
    _check(what, path)
    trace: Any = torch.jit.trace  # untyped in torch
    examples = tuple(what.inputs.values())
    with torch.no_grad():
        if path.endswith(".pt"):
            module = what.module
            if not isinstance(module, torch.jit.ScriptModule):
                module = trace(module, examples)
            module.save(path, _extra_files={_EXTRA_FILE: json.dumps({_TORCH_KEY: torch.__version__})})
            return
        rows = torch.export.Dim("rows", min=1)
        sizes = {name: torch.export.Dim(name, min=1) for name in set(what.free.values())}
        shapes = tuple({0: rows, **({1: sizes[what.free[name]]} if name in what.free else {})} for name in what.inputs)
        program = torch.export.export(what.module, examples, dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(
            program, package_path=path,
            # The server has torch's CPU half alone, and libtorch.so asks for the CUDA half too: the package finds what it needs
            # in the process that loads it.
            inductor_configs={"aot_inductor.metadata": {_TORCH_KEY: torch.__version__}, "aot_inductor.link_libtorch": False})


def mapping_text(what: Exportable, path: str) -> str:
    """A ranker mapping for the file that export_ranker wrote, as far as the names of the inputs tell what they hold."""
    import torch
    types = {torch.bool: "BOOL", torch.int8: "INT8", torch.int16: "INT16", torch.int32: "INT32", torch.int64: "INT64",
             torch.uint8: "UINT8", torch.float16: "FP16", torch.bfloat16: "BF16", torch.float32: "FP32",
             torch.float64: "FP64"}
    name = os.path.basename(path).rsplit(".", 1)[0]
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    kind = "aot_inductor" if path.endswith(".pt2") else "torchscript"
    lines = [f"name: {name}", f"{kind}: {{file: {os.path.basename(path)}, sha256: {digest}}}",
             "inputs:  # in the order of the module's arguments"]
    for key, tensor in what.inputs.items():
        source = key if key in _SOURCES else "TODO"
        length = f", length: {tensor.shape[1]}" if source in ("history", "history_mask") and key not in what.free else ""
        lines.append(f"  {key}: {{from: {source}, type: {types[tensor.dtype]}{length}}}")
    with torch.no_grad():
        answer = what.module(*what.inputs.values())
    count = 1 if isinstance(answer, torch.Tensor) else len(answer)
    lines.append("outputs:")
    lines += [f"  {'score' if i == 0 else f'head_{i}'}: {{output: {i}}}" for i in range(count)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sluice.export_ranker", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", metavar="MODULE:FUNCTION", help="a function without arguments that returns an Exportable")
    parser.add_argument("file", help="*.pt2 (AOTInductor) or *.pt (TorchScript)")
    options = parser.parse_args(arguments)
    module_name, _, function = options.what.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        parser.error(f"{options.what}: {error}")
    what = make()
    if not isinstance(what, Exportable):
        what = Exportable(*what)
    try:
        export_ranker(what, options.file)
    except InvalidRequestError as error:
        print(f"sluice.export_ranker: {error}", file=sys.stderr)
        return error.exit_code
    mapping = options.file.rsplit(".", 1)[0] + ".yaml"
    print(f"wrote {options.file}")
    if os.path.exists(mapping):
        print(f"left {mapping} as it is")
    else:
        with open(mapping, "w", encoding="utf-8") as file:
            file.write(mapping_text(what, options.file))
        print(f"wrote {mapping}: look it through")
    return 0


if __name__ == "__main__":
    # Run as a program this module has two names, and Exportable must be the one of the package.
    from sluice.export_ranker import main as package_main
    sys.exit(package_main())

#!/usr/bin/env python3
"""Validates rendered manifests against strict schemas of several Kubernetes releases; no schema is an error.

    python3 deploy/kubernetes/validate.py deploy/kubernetes/rendered/*.yaml
    python3 deploy/kubernetes/validate.py --crds DIR FILE...     the custom kinds also by your cluster's definitions:
                                                                 DIR holds what `kubectl get crd -o yaml` printed

Built-in kinds: the schemas that the wheel kubernetes-validate brings. Custom kinds: schemas/KIND.json beside this file,
which know the fields that are used here and refuse every other one. Needs tests/deploy/requirements.txt.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate

import yaml

Object = dict[str, Any]
SCHEMAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemas")
MINORS = ("1.35", "1.36", "1.37")


@functools.cache
def own_schema(kind: str) -> Any:
    """The checked-in schema of a custom kind, or None."""
    path = os.path.join(SCHEMAS, f"{kind}.json")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@functools.cache
def minors_of_the_wheel() -> frozenset[str]:
    return frozenset(map(kubernetes_validate.utils.major_minor, kubernetes_validate.utils.all_versions()))


def title(thing: Object) -> str:
    return f"{thing.get('kind', 'an object without kind')}/{(thing.get('metadata') or {}).get('name', '?')}"


def place(error: jsonschema.ValidationError) -> str:
    """The error that explains most, with its path."""
    best = jsonschema.exceptions.best_match([error]) or error
    return f"{'.'.join(map(str, best.absolute_path)) or 'the object'}: {best.message[:200]}"


def by_schema(thing: Object, schema: Any) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(thing):
        yield place(error)


def builtin(thing: Object, minor: str) -> Iterator[str]:
    """Complaints about a built-in kind."""
    group = thing["apiVersion"].split("/")[0]
    # The wheel looks at the group's first word alone: policy.example.com would pass for policy.
    if "/" in thing["apiVersion"] and "." in group and not group.endswith(".k8s.io"):
        yield f"there is no schema for {thing['apiVersion']} {thing['kind']}"
        return
    if minor not in minors_of_the_wheel():  # the wheel itself falls back to another release without a word
        yield f"there are no schemas of Kubernetes {minor} here"
        return
    try:
        kubernetes_validate.validate(thing, minor, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        yield f"there is no schema for {thing['apiVersion']} {thing['kind']} in Kubernetes {minor}"
    except kubernetes_validate.ValidationError as error:
        yield place(error)


def jobs_within(thing: Object) -> Iterator[Object]:
    """The jobs of a JobSet as objects of their own."""
    for job in thing["spec"]["replicatedJobs"]:
        name = f"{thing['metadata']['name']}-{job['name']}"
        yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job["template"]["spec"]}


def problems(thing: Object, minor: str) -> list[str]:
    """What the schemas have against an object."""
    if not isinstance(thing.get("apiVersion"), str) or not isinstance(thing.get("kind"), str):
        return ["want apiVersion and kind"]
    schema = own_schema(thing["kind"])
    if schema is None:
        return list(builtin(thing, minor))
    found = list(by_schema(thing, schema))
    if thing["kind"] == "TrainingRuntime" and not found:
        return problems({"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": thing["metadata"]["name"]},
                         "spec": thing["spec"]["template"]["spec"]}, minor)
    if thing["kind"] == "JobSet" and not found:
        for job in jobs_within(thing):
            found += [f"{title(job)}: {text}" for text in builtin(job, minor)]
    return found


def strict(schema: Any) -> Any:
    """A definition's schema, refusing fields that it does not name; a server would drop them."""
    schema = copy.deepcopy(schema)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
                node.setdefault("additionalProperties", False)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema.get("properties", {}).get("spec", {}))
    return schema


def definitions(folder: str) -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> schema, of all definitions of custom kinds in a folder."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith((".yaml", ".yml")):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            documents = [document for document in yaml.safe_load_all(file) if isinstance(document, dict)]
        for document in [item for one in documents for item in one.get("items", [one])]:
            if document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = strict(
                    version["schema"]["openAPIV3Schema"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Validate rendered manifests against strict schemas.")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--minor", action="append", help=f"Kubernetes release; default: {', '.join(MINORS)}")
    parser.add_argument("--crds", help="folder of the definitions of custom kinds, as your cluster has them")
    args = parser.parse_args()
    known = definitions(args.crds) if args.crds else {}
    bad = 0
    for path in args.files:
        with open(path, encoding="utf-8") as file:
            things = [thing for thing in yaml.safe_load_all(file) if thing]
        for thing in things:
            found = {f"Kubernetes {minor}: {text}" for minor in args.minor or MINORS for text in problems(thing, minor)}
            if args.crds and own_schema(thing["kind"]) is not None:
                schema = known.get((thing["apiVersion"], thing["kind"]))
                found |= ({f"{args.crds} does not define it"} if schema is None
                          else {f"by its definition: {text}" for text in by_schema(thing, schema)})
            bad += len(found)
            for text in sorted(found):
                print(f"{path}: {title(thing)}: {text}")
        print(f"{path}: {len(things)} objects")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""A bill of materials (CycloneDX 1.5, JSON) of an image's folders: Debian's packages, wheels, and Sluice.

The same folders give the same bytes: nothing of the time or the place is in it. Python's standard library alone.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from email.parser import HeaderParser

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMESPACE = uuid.UUID("6f1f7f3e-6d1b-5b0e-9a67-5b1f0f0c2d11")


def version() -> str:
    """Sluice's, as CMake knows it."""
    with open(os.path.join(TOP, "CMakeLists.txt"), encoding="utf-8") as file:
        return re.search(r"project\(sluice VERSION (\S+)", file.read())[1]


def debian(status: str) -> list[dict]:
    """Installed packages of a dpkg status file."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name, of, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        source = (fields.get("Source") or name).split()[0]
        found.append({"type": "library", "bom-ref": f"deb:{name}:{architecture}", "name": name, "version": of,
                      "purl": f"pkg:deb/debian/{name}@{of.replace(':', '%3A').replace('+', '%2B')}?arch={architecture}",
                      "properties": [{"name": "sluice:debian:source", "value": source}]})
    return found


def wheels(folder: str) -> list[dict]:
    """Wheels by their *.dist-info folders."""
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if not name.endswith(".dist-info"):
            continue
        with open(os.path.join(folder, name, "METADATA"), encoding="utf-8", errors="replace") as file:
            fields = HeaderParser().parse(file)
        distribution = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
        entry = {"type": "library", "bom-ref": f"pypi:{distribution}", "name": distribution, "version": fields["Version"],
                 "purl": f"pkg:pypi/{distribution}@{fields['Version']}"}
        licence = fields.get("License-Expression") or fields.get("License")
        if licence and len(licence.splitlines()) == 1:
            entry["licenses"] = [{"license": {"name": licence}}]
        found.append(entry)
    return found


def document(layers: list[str], of: str) -> str:
    """The bill of layers, lowest first: a later one's package list is in the place of an earlier one's."""
    components: dict[str, dict] = {}
    for layer in layers:
        status = os.path.join(layer, "var", "lib", "dpkg", "status")
        if os.path.isfile(status):
            components = {ref: entry for ref, entry in components.items() if not ref.startswith("deb:")}
            with open(status, encoding="utf-8") as file:
                components.update((entry["bom-ref"], entry) for entry in debian(file.read()))
        components.update((entry["bom-ref"], entry) for entry in wheels(os.path.join(layer, "usr", "lib", "sluice")))
    listed = [components[ref] for ref in sorted(components)]
    main = {"type": "application", "bom-ref": "sluice", "name": "sluice", "version": of,
            "licenses": [{"license": {"id": "Apache-2.0"}}]}
    body = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": main},
            "components": [*listed, {**main, "bom-ref": "sluice-binaries"}],
            "dependencies": [{"ref": "sluice", "dependsOn": sorted(components)}]}
    serial = uuid.uuid5(NAMESPACE, json.dumps(body, sort_keys=True))
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", **body},
                      indent=1) + "\n"

"""What cert-manager does, done once at the start: a Secret for each Certificate, of one authority for all of them."""

from __future__ import annotations

import base64
import os
import subprocess

from .manifests import Object

MAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "deploy", "certificates", "make-certificates")
DOMAIN = ".sluice.internal"


def issue(things: list[Object], folder: str) -> None:
    """Appends the Secrets that the Certificates among `things` ask for; nothing if there are none."""
    for thing in [one for one in things if one["kind"] == "Certificate"]:
        names = thing["spec"].get("dnsNames") or []
        if not names:  # the authority's own; its key stays with cert-manager
            continue
        roles = "+".join(name.removesuffix(DOMAIN) for name in names)
        subprocess.run([MAKE, folder, roles], check=True, timeout=60)
        data = {}
        for key, name in (("ca.crt", "ca.crt"), ("tls.crt", f"{roles}.crt"), ("tls.key", f"{roles}.key")):
            with open(os.path.join(folder, name), "rb") as file:
                data[key] = base64.b64encode(file.read()).decode()
        things.append({"kind": "Secret", "data": data,
                       "metadata": {"name": thing["spec"]["secretName"], "namespace": thing["metadata"].get("namespace", "default")}})

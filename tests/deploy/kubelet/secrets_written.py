"""The Secrets that manifests name and do not hold: cert-manager's, once at the start, and the tokens that a person writes."""

from __future__ import annotations

import base64
import os
import subprocess

from .manifests import Object

MAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "deploy", "certificates", "make-certificates")
DOMAIN = ".sluice.internal"
TOKENS, CLIENT_TOKEN = "sluice-tokens", "client-token"  # the coordinator's, and the client's own
NAMESPACE = "sluice"


def secret(name: str, namespace: str, files: dict[str, str]) -> Object:
    """Key -> file that it holds."""
    data = {}
    for key, path in files.items():
        with open(path, "rb") as file:
            data[key] = base64.b64encode(file.read()).decode()
    return {"kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def write(things: list[Object], folder: str, binaries: str) -> None:
    """Appends the Secrets that the objects ask for; CLIENT_TOKEN too where the coordinator asks people for tokens."""
    for thing in [one for one in things if one["kind"] == "Certificate"]:
        names = thing["spec"].get("dnsNames") or []
        if not names:  # the authority's own; its key stays with cert-manager
            continue
        roles = "+".join(name.removesuffix(DOMAIN) for name in names)
        subprocess.run([MAKE, folder, roles], check=True, timeout=60)
        files = {"ca.crt": "ca.crt", "tls.crt": f"{roles}.crt", "tls.key": f"{roles}.key"}
        things.append(secret(thing["spec"]["secretName"], thing["metadata"].get("namespace", "default"),
                             {key: os.path.join(folder, name) for key, name in files.items()}))
    if any((volume.get("secret") or {}).get("secretName") == TOKENS for thing in things
           if thing["kind"] == "StatefulSet" for volume in thing["spec"]["template"]["spec"]["volumes"]):
        tokens, own = os.path.join(folder, "tokens"), os.path.join(folder, "client.token")
        with open(own, "wb") as file:
            subprocess.run([os.path.join(binaries, "sluicectl"), "token", "create", "client", "--scopes", "submit",
                            "--tokens", tokens], check=True, timeout=60, stdout=file)
        things += [secret(TOKENS, NAMESPACE, {"tokens": tokens}), secret(CLIENT_TOKEN, NAMESPACE, {"token": own})]

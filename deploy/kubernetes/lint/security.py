"""Certificates, tokens, secrets: who has which, where they come from, and that no manifest holds one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .facts import BY_HAND, DOMAIN, ROLES, SECRET, TLS
from .objects import Cluster, Container, Findings, Pod, rule, title

PRIVATE_MODES = (0o400, 0o440)
DAY_H = 24


def secret_of(pod: Pod, container: Container, path: str) -> str | None:
    """The Secret that a file comes from; None if it comes from none."""
    mount = container.mount_of(path)
    volume = pod.volumes.get(mount["name"]) if mount else None
    name = ((volume or {}).get("secret") or {}).get("secretName")
    return str(name) if name is not None else None


@rule("secured")
def secured(cluster: Cluster) -> Findings:
    """Whatever listens has the certificate of its role, from a Secret that a Certificate fills; nothing is --insecure."""
    filled = {thing["spec"].get("secretName"): thing["spec"].get("dnsNames") or [] for thing in cluster.kind("Certificate")}
    for pod, container in cluster.containers():
        if "insecure" in container.flags:
            yield pod.title, "--insecure: whoever reaches the port may do everything"
        missing = [flag for flag in TLS if flag not in container.flags]
        if missing:
            yield pod.title, "lacks " + ", ".join(f"--{flag}" for flag in missing)
        for flag in TLS:
            path = container.flags.get(flag, "")
            if not path:
                continue
            names = filled.get(secret_of(pod, container, path))
            if names is None or path.rpartition("/")[2] != TLS[flag]:
                yield pod.title, f"--{flag}={path} is no {TLS[flag]} of a Secret that a Certificate fills"
            elif names != [pod.role + DOMAIN]:
                yield pod.title, f"--{flag}={path} is of a certificate for {', '.join(names) or 'nobody'}"


@rule("tokens-there")
def tokens_there(cluster: Cluster) -> Findings:
    """--tokens is the file of the Secret that a person writes for it."""
    for pod, container in cluster.containers():
        path = container.flags.get("tokens")
        if path is not None and (secret_of(pod, container, path), path.rpartition("/")[2]) not in [
                (name, key) for name, (role, key) in BY_HAND.items() if role == pod.role]:
            yield pod.title, f"--tokens={path} is none of {', '.join(BY_HAND)}"


@rule("secrets-private")
def secrets_private(cluster: Cluster) -> Findings:
    """Secrets go to who needs them, readable by the process alone, never to be written, and whole, so that changes arrive."""
    for pod in cluster.pods:
        for name, volume in pod.volumes.items():
            source = volume.get("secret")
            if source is None:
                continue
            secret = str(source.get("secretName"))
            if secret == "sluice-ca":
                yield pod.title, f"volume {name}: {secret} holds the authority's key, which signs for everybody"
            if BY_HAND.get(secret, (pod.role, ""))[0] != pod.role:
                yield pod.title, f"volume {name}: {secret} is for {BY_HAND[secret][0]} alone"
            if source.get("defaultMode") not in PRIVATE_MODES:
                yield pod.title, f"volume {name}: want defaultMode 0440"
            if source.get("optional"):
                yield pod.title, f"volume {name}: a process without its secret must not start"
            for mount in [one for container in pod.containers for one in container.mounts if one["name"] == name]:
                if not mount.get("readOnly"):
                    yield pod.title, f"volume {name}: want readOnly"
                if "subPath" in mount:
                    yield pod.title, f"volume {name}: a subPath never changes, so a renewed certificate or token is not seen"


def texts(node: Any) -> Iterator[str]:
    """Every string within an object."""
    if isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


@rule("secrets-elsewhere")
def secrets_elsewhere(cluster: Cluster) -> Findings:
    """No manifest holds a secret: no Secret, and no text that looks like one."""
    for thing in cluster.things:
        if thing.get("kind") == "Secret":
            yield title(thing), "a Secret among manifests: cert-manager or a person writes it in the cluster"
        elif any(SECRET.search(text) for text in texts(thing)):
            yield title(thing), "holds what looks like a token or a key"


def hours(value: Any) -> float | None:
    """Of a duration such as 2160h; None for any other form."""
    text = str(value)
    return float(text[:-1]) if text.endswith("h") and text[:-1].isdigit() else None


@rule("certificate-usable")
def certificate_usable(cluster: Cluster) -> Findings:
    """A certificate is of one role, for both ends of a connection, of an issuer that is there, and renewed in good time."""
    certificates = cluster.kind("Certificate")
    secrets = [thing["spec"].get("secretName") for thing in certificates]
    for thing in certificates:
        spec = thing["spec"]
        issuer = cluster.named("Issuer", (spec.get("issuerRef") or {}).get("name", ""))
        if issuer is None:
            yield title(thing), f"there is no Issuer {(spec.get('issuerRef') or {}).get('name')}"
        elif "ca" in issuer["spec"] and issuer["spec"]["ca"].get("secretName") not in secrets:
            yield title(issuer), f"there is no Secret {issuer['spec']['ca'].get('secretName')}"
        if secrets.count(spec.get("secretName")) != 1:
            yield title(thing), f"shares the Secret {spec.get('secretName')}"
        if spec.get("isCA"):
            continue
        names = spec.get("dnsNames") or []
        if len(names) != 1 or names[0] not in [role + DOMAIN for role in (*ROLES, "client")]:
            yield title(thing), f"want the DNS name of one role, got {names}"
        if not {"server auth", "client auth"} <= set(spec.get("usages") or []):
            yield title(thing), "want the usages server auth and client auth: every process serves and calls"
        if (spec.get("privateKey") or {}).get("rotationPolicy") != "Always":
            yield title(thing), "want rotationPolicy Always: a stolen key ends with its certificate"
        lasts, before = hours(spec.get("duration")), hours(spec.get("renewBefore"))
        # The alert CertificateExpiring fires a week before the end, when a renewal has failed for long.
        if lasts is None or before is None or not 7 * DAY_H < before < lasts:
            yield title(thing), f"lasts {spec.get('duration')}, renewed {spec.get('renewBefore')} before: want more than a week"

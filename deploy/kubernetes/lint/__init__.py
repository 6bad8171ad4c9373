"""A linter of Sluice's rendered manifests: what schemas let pass and a cluster, or an ops team, would not.

A rule has a name, a sentence of what must hold (its docstring) and a function over all objects of one overlay. They
are in names, references, pods, probes, program, security, network, jobs and monitoring; what is true of Sluice's processes is in
facts, read from the references and the code. Needs PyYAML.
"""

from __future__ import annotations

from . import jobs, monitoring, names, network, pods, probes, program, references, security  # noqa: F401  # they fill RULES
from .objects import RULES, Cluster, Object, load

SHAPE = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a missing or mistyped field turns into
__all__ = ["RULES", "Cluster", "Object", "findings", "load"]


def findings(things: list[Object]) -> list[tuple[str, str, str]]:
    """(rule, object, what is wrong), over the objects of one overlay.

    Rules rely on the shape that schemas ask for. Where it is missing they cannot judge, which is a finding, not an end.
    """
    found = []
    try:
        cluster = Cluster(things)
    except SHAPE as error:
        return [("shape", "objects", f"no rule can judge them ({error!r}): see what validate.py says")]
    for one in RULES.values():
        try:
            found += [(one.name, where, text) for where, text in one.check(cluster)]
        except SHAPE as error:
            found.append((one.name, "objects", f"cannot be judged ({error!r}): see what validate.py says"))
    return found

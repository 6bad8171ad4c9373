"""Certificates for tests, made by what users make theirs with: deploy/certificates/make-certificates."""

import os
import shutil
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAKE = os.path.join(TOP, "deploy", "certificates", "make-certificates")


def available():
    return shutil.which("openssl") is not None


class Certificates:
    """A certificate authority in a folder, and certificates of all roles."""

    def __init__(self, folder):
        self.folder = folder
        self.issue()

    def issue(self, *roles, days=90):
        """Certificates of these roles ("rank+coordinator" is one for both), by default of all, anew. Other days than
        90: -1 is expired."""
        subprocess.run([MAKE, self.folder, "--days", str(days), *roles], check=True, timeout=60)

    def path(self, name):
        return os.path.join(self.folder, name)

    def flags(self, role):
        """What a process of that role is given."""
        return ("--tls-ca", self.path("ca.crt"), "--tls-cert", self.path(f"{role}.crt"), "--tls-key", self.path(f"{role}.key"))

"""TLS and tokens of the client, against a job service that speaks TLS."""
import os
import sys
import tempfile
import unittest
from unittest import mock

import support

support.require("grpc")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import certificates  # noqa: E402
import grpc  # noqa: E402
import sluice  # noqa: E402
from sluice.v1 import job_pb2  # noqa: E402


def read(path):
    with open(path, "rb") as file:
        return file.read()


@unittest.skipUnless(certificates.available(), "there is no openssl here: apt-get install openssl")
class SecurityTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-security-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.made = certificates.Certificates(self.path("tls"))
        self.metadata = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def serve(self, role="coordinator", require=False, tls=True, made=None):
        """The address of a service with the certificate of a role; require: clients show one too."""
        made = made or self.made
        wire = grpc.ssl_server_credentials([(read(made.path(f"{role}.key")), read(made.path(f"{role}.crt")))],
                                           read(self.made.path("ca.crt")) if require else None, require)

        def answer(request, context):
            self.metadata.append(dict(context.invocation_metadata()))
            return job_pb2.ListResponse()
        service = support.FakeJobs(credentials=wire if tls else None, List=answer)
        self.addCleanup(service.stop)
        return service.address

    def client(self, address, **options):
        client = sluice.Client(address, timeout=20, **options)
        self.addCleanup(client.close)
        return client

    def test_a_coordinator_is_known_by_its_role_wherever_it_is(self):
        self.assertEqual(self.client(self.serve(), tls_ca=self.made.path("ca.crt")).list(), [])

    def test_a_client_shows_its_certificate(self):
        address = self.serve(require=True)
        shown = {f"tls_{name}": self.made.path(file) for name, file in
                 (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))}
        self.assertEqual(self.client(address, **shown).list(), [])
        with self.assertRaisesRegex(sluice.TlsError, "wants a certificate.*SLUICE_TLS_CERT") as raised:
            self.client(address, tls_ca=shown["tls_ca"]).list()
        self.assertEqual(raised.exception.exit_code, 4)

    def test_the_variables_of_sluicectl_are_taken(self):
        token = self.write("token", "sluice_abc\n")
        with mock.patch.dict(os.environ, SLUICE_TLS_CA=self.made.path("ca.crt"), SLUICE_TOKEN_FILE=token):
            self.client(self.serve()).list()
        self.assertEqual(self.metadata[0]["authorization"], "Bearer sluice_abc")

    def test_a_token_is_read_at_every_call_and_goes_to_loopback_too(self):
        token = self.write("token", "sluice_abc\n")
        client = self.client(self.serve(tls=False), token_file=token)
        client.list()
        self.write("token", "sluice_def")
        client.list()
        self.assertEqual([m["authorization"] for m in self.metadata], ["Bearer sluice_abc", "Bearer sluice_def"])

    def test_a_token_does_not_travel_in_the_clear(self):
        token = self.write("token", "sluice_abc\n")
        for address in ("192.0.2.1:7070", "example.com:7070"):
            with self.assertRaisesRegex(sluice.CredentialsError, "over TLS alone"):
                sluice.Client(address, token_file=token)

    def test_files_that_cannot_work_are_named(self):
        for options, text in (({"tls_ca": self.path("none")}, "tls_ca: .*none cannot be read: No such file"),
                              ({"tls_cert": self.path("none")}, "tls_cert and tls_key together"),
                              ({"token_file": self.path("none")}, "token_file: .*none cannot be read"),
                              ({"token_file": self.write("empty", "\n")}, "one token"),
                              ({"token_file": self.write("words", "two words")}, "one token")):
            with self.assertRaisesRegex(sluice.CredentialsError, text) as raised:
                sluice.Client("127.0.0.1:1", **options)
            self.assertEqual(raised.exception.exit_code, 2)

    def test_what_is_wrong_with_tls_is_said(self):
        other = certificates.Certificates(self.path("other"))
        self.made.issue("reward", days=-1)
        ca = self.made.path("ca.crt")
        for address, options, text in (
                (self.serve(), {"tls_ca": other.path("ca.crt")}, "is not from a CA in"),
                (self.serve("rank"), {"tls_ca": ca}, "has no certificate for coordinator.sluice.internal"),
                (self.serve(tls=False), {"tls_ca": ca}, "speaks no TLS")):
            with self.assertRaisesRegex(sluice.TlsError, text):
                self.client(address, **options).list()
        with self.assertRaisesRegex(sluice.ServerDownError, "or expects TLS.*SLUICE_TLS_CA"):
            sluice.Client(self.serve(), timeout=1).list()

    def test_refusals_have_types(self):
        for code, kind in ((grpc.StatusCode.UNAUTHENTICATED, sluice.UnauthenticatedError),
                           (grpc.StatusCode.PERMISSION_DENIED, sluice.PermissionDeniedError)):
            def refuse(request, context, code=code):
                context.abort(code, "why")
            service = support.FakeJobs(List=refuse, Watch=refuse)
            self.addCleanup(service.stop)
            client = self.client(service.address)
            for call in (client.list, lambda: list(sluice.Job(client, "j").watch())):
                with self.assertRaisesRegex(kind, "why") as raised:
                    call()
                self.assertEqual(raised.exception.exit_code, 4)


if __name__ == "__main__":
    support.main()

"""Named coordinators: the file that sluicectl writes, read by the same rules, and by sluicectl itself where that is built."""
import os
import random
import subprocess
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
from harness import BIN, free_address  # noqa: E402
from sluice.contexts import contexts_path  # noqa: E402
from sluice.v1 import job_pb2  # noqa: E402
from sluice.yaml_map import YamlError, read_yaml_map  # noqa: E402

CTL = os.path.join(BIN, "sluicectl")


def tree(value):
    """A YamlMap as a dict of dicts."""
    return {key: tree(below) if hasattr(below, "values") else below for key, below in value.values.items()}


class YamlMapTest(unittest.TestCase):
    GOOD = (
        ("", {}), ("# nothing\n\n", {}), ("---\na: b\n", {"a": "b"}), ("a: b", {"a": "b"}), ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
        ("a:\n  b: 1\n  c:\n    d: x\ne: y\n", {"a": {"b": "1", "c": {"d": "x"}}, "e": "y"}),
        ("a:\n\n  # between\n  b: 1   # behind\n\ne: y\n", {"a": {"b": "1"}, "e": "y"}),
        ("server: lab.example:7070\n", {"server": "lab.example:7070"}), ("a: b#c\n", {"a": "b#c"}),
        ("a: two words\n", {"a": "two words"}), ("a: -1\nb: a-b\n", {"a": "-1", "b": "a-b"}),
        ("a: 'it''s # one: x'\n", {"a": "it's # one: x"}), ('"a b": "q\\"\\\\\\u00e9\\t\\/"\n', {"a b": 'q"\\\u00e9\t/'}),
        ("a:\nb: ~\nc: null\nd: \"\"\ne: 'null'\n", {"a": None, "b": None, "c": None, "d": "", "e": "null"}),
        ("a: {}\n", {"a": {}}), ("a: {b: c, 'd': {e: f}}\n", {"a": {"b": "c", "d": {"e": "f"}}}),
        ('{"current": "lab",\n "contexts": {"lab": {"server": "h:1"}}}\n', {"current": "lab", "contexts": {"lab": {"server": "h:1"}}}),
        ("\ufeffa: b\n", {"a": "b"}), ("  a: b\n  c: d\n", {"a": "b", "c": "d"}),
    )

    def test_maps_and_single_values_are_read(self):
        for text, want in self.GOOD:
            self.assertEqual(tree(read_yaml_map(text.encode(), "x")), want, text)

    def test_whatever_stands_there_is_read_or_refused(self):
        pieces = ["a", "lab", "server", ":", ": ", "  ", "    ", "\n", "\n  ", "\n    ", "#", " # x", "'", '"', "{", "}", ",", ", ",
                  "~", "null", "-", "- ", "\\", "\\n", "\\ud800", "x y", "\r\n", "\t", "1", "h:1", "[", "]", "&", "*", "!", "|", "?", "? ",
                  "%", "@", "`", "''", "\u00e9", "---", "--- ", "...", ">", "<<", "\x07", "\ufeff"]
        good = "current: lab\ncontexts:\n  lab:\n    server: h:1\n    tls_ca: \"a b\"\n  p: {server: 'x', c: {}}\n"
        read = 0
        for seed in range(4000):
            draw = random.Random(seed)
            text = list(good)
            for _ in range(draw.randrange(1, 4)):
                text[draw.randrange(len(text))] = draw.choice(pieces)
            if seed % 2:
                text = [draw.choice(pieces) for _ in range(draw.randrange(1, 14))]
            try:
                tree(read_yaml_map("".join(text).encode(), "x"))
                read += 1
            except YamlError as error:
                self.assertTrue(str(error).startswith("x:"), error)
        self.assertGreater(read, 300)

    def test_more_of_yaml_than_sluice_writes_is_read_as_sluicectl_reads_it(self):
        for text, want in (("a: |\n  b\n", "b\n"), ("a: &b c\n", "c"), ("a: two\n  lines\n", "two lines"), ("'a': >-\n  b\n  c\n", "b c"),
                           ("a: b\n...\n", "b"), ("a: 0x10\n", "0x10"), ("a: yes\n", "yes"), ("a: 2026-01-31\n", "2026-01-31")):
            self.assertEqual(tree(read_yaml_map(text.encode(), "x")), {"a": want}, text)

    def test_what_is_no_such_file_is_refused_with_its_place(self):
        for text, why in (("a: [1]\n", "x:1:4: a list begins here"), ("- a\n", "x:1:1: a list begins here"),
                          ("a:\n  - b\n", "x:2:3: a list begins here"), ("? [a]\n: b\n", "x:1:3: a key must be a plain word"),
                          ("a: &b c\nd: *b\n", "x:2:4: aliases are not allowed here"), ("a: !!str b\n", "x:1:4: tags are not allowed here"),
                          ("a: !!python/object:os.system x\n", "x:1:4: tags are not allowed here"),
                          ("a\n", "x:1:1: want keys and values"), ("a: b: c\n", "x:1:5: not valid YAML: mapping values"),
                          ("a: b\n  c: d\n", "x:2:4: not valid YAML"), ("a:\n   b: 1\n  c: 2\n", "x:3:3: not valid YAML"),
                          ("a:\n\tb: 1\n", "x:2:1: not valid YAML"), ("a: b\tc\n", "x:1:5: not valid YAML"),
                          ("a: {b[: c}\n", "x:1:6: not valid YAML"), ("a: b\na: c\n", "x:2:1: key a is given twice; first on line 1"),
                          ("a: {b: 1,\n    b: 2}\n", "x:2:5: key b is given twice; first on line 1"),
                          ('a: "b\n', "x:1:4: not valid YAML: while scanning a quoted scalar"), ('a: "\\q"\n', "x:1:6: not valid YAML"),
                          ('a: "\\ud800"\n', "x:1:4: an escape here"), ('a: "b" c\n', "x:1:8: not valid YAML"),
                          ("a: {b: c\n", "x:1:4: not valid YAML: while parsing a flow mapping"), ("a: {b: c d: e}\n", "x:1:11: not valid YAML"),
                          ("{a: b} c\n", "x:1:8: not valid YAML"), ("a: b\n---\nc: d\n", "x:2:1: a second document begins here"),
                          ("a: \x07\n", "x: not valid YAML: unacceptable character #x0007")):
            with self.assertRaises(YamlError) as raised:
                read_yaml_map(text.encode(), "x")
            self.assertIn(why, str(raised.exception), text)
        for raw, why in ((b"\xff", "not a text in UTF-8"), (b"a: b\0\n", "byte 4 is zero"), (b" " * (2 << 20), "at most")):
            with self.assertRaisesRegex(YamlError, why):
                read_yaml_map(raw, "x")
        # However deep, and however much aliases would unfold to: neither is followed.
        for deep in ("{a: " * 50, "{a: " * 200000, "".join("  " * i + "a:\n" for i in range(50))):
            with self.assertRaisesRegex(YamlError, "nested deeper than 16"):
                read_yaml_map(deep.encode(), "x")


class ContextsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_TLS") and k not in (
            "SLUICE_SERVER", "SLUICE_CONTEXT", "SLUICE_TOKEN_FILE")}
        environment = mock.patch.dict(os.environ, {**clean, "SLUICE_CONFIG": self.path("contexts.yaml")}, clear=True)
        environment.start()
        self.addCleanup(environment.stop)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, text, name="contexts.yaml"):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def connect(self, context=None, **options):
        client = sluice.connect(context, timeout=20, **options)
        self.addCleanup(client.close)
        return client

    def test_the_file_is_where_sluicectl_has_it(self):
        self.assertEqual(str(contexts_path()), self.path("contexts.yaml"))
        del os.environ["SLUICE_CONFIG"]
        os.environ.update(XDG_CONFIG_HOME="/x", HOME="/h")
        self.assertEqual(str(contexts_path()), "/x/sluice/contexts.yaml")
        del os.environ["XDG_CONFIG_HOME"]
        self.assertEqual(str(contexts_path()), "/h/.config/sluice/contexts.yaml")
        del os.environ["HOME"]
        self.assertIsNone(contexts_path())
        self.assertEqual(self.connect().server, "127.0.0.1:7070")

    def test_without_a_file_there_is_the_default(self):
        self.assertEqual(self.connect().server, "127.0.0.1:7070")
        self.assertEqual(sluice.read_contexts().all, {})
        with self.assertRaisesRegex(sluice.ContextError, "there is no context 'lab'; there are none. 'sluicectl context set"):
            self.connect("lab")

    def test_what_is_named_wins_over_the_environment_and_that_over_the_current_context(self):
        self.write("current: lab\ncontexts:\n  lab:\n    server: lab:7070\n  prod:\n    server: prod:7070\n")
        self.assertEqual(self.connect().server, "lab:7070")
        self.assertEqual(sluice.Client().server, "lab:7070")
        self.assertEqual(self.connect("prod").server, "prod:7070")
        with mock.patch.dict(os.environ, SLUICE_CONTEXT="prod"):
            self.assertEqual(self.connect().server, "prod:7070")
            self.assertEqual(self.connect("lab").server, "lab:7070")
        with mock.patch.dict(os.environ, SLUICE_SERVER="env:7070"):
            self.assertEqual(self.connect().server, "env:7070")
            self.assertEqual(self.connect("prod").server, "env:7070")  # as sluicectl --context prod with that variable
            self.assertEqual(self.connect(server="mine:1").server, "mine:1")
        with self.assertRaisesRegex(sluice.ContextError, "no context 'moon'; there are lab, prod") as raised:
            self.connect("moon")
        self.assertEqual(raised.exception.exit_code, 2)

    def test_every_mistake_has_its_place(self):
        for text, whys in (
                ("curent: lab\ncontexts:\n  lab:\n    sever: lab:7070\n    tls_ca: {a: b}\n  a/b: {}\n",
                 (":1:1: curent: want current: NAME", ":4:5: lab.sever: unknown field", ":5:5: lab.tls_ca: unknown field",
                  ":6:3: a/b: want letters")),
                ("current: [lab]\n", (":1:10: a list begins here",)), ("contexts: lab\n", (":1:1: contexts: want current: NAME",))):
            self.write(text)
            with self.assertRaises(sluice.ContextError) as raised:
                self.connect()
            for why in whys:
                self.assertIn("contexts.yaml" + why, str(raised.exception))
            self.assertEqual(self.connect(server="127.0.0.1:1").server, "127.0.0.1:1")  # the file is not asked
        os.remove(self.path("contexts.yaml"))
        os.mkdir(self.path("contexts.yaml"))
        with self.assertRaisesRegex(sluice.ContextError, "cannot be read: Is a directory"):
            self.connect()

    def test_an_address_in_a_context_is_checked_as_any_other(self):
        self.write("current: lab\ncontexts: {lab: {server: lab}}\n")
        with self.assertRaisesRegex(sluice.InvalidRequestError, "want HOST:PORT .* got 'lab'"):
            self.connect()

    @unittest.skipUnless(certificates.available(), "there is no openssl here: apt-get install openssl")
    def test_a_context_holds_certificates_and_the_token(self):
        made = certificates.Certificates(self.path("tls"))
        seen = []

        def answer(request, context):
            seen.append(dict(context.invocation_metadata()).get("authorization"))
            return job_pb2.ListResponse()

        def read(name):
            with open(made.path(name), "rb") as file:
                return file.read()
        wire = grpc.ssl_server_credentials([(read("coordinator.key"), read("coordinator.crt"))], read("ca.crt"), True)
        service = support.FakeJobs(credentials=wire, List=answer)
        self.addCleanup(service.stop)
        token, other = self.write("sluice_abc\n", "token"), self.write("sluice_def\n", "other")
        self.write(f"schema_version: 1\ncurrent: lab\ncontexts:\n  lab:\n    server: {service.address}\n"
                   f"    tls_ca: {made.path('ca.crt')}\n    tls_cert: {made.path('client.crt')}\n"
                   f"    tls_key: {made.path('client.key')}\n    token_file: {token}\n")
        self.assertEqual(self.connect().list(), [])
        self.assertEqual(self.connect(token_file=other).list(), [])
        with mock.patch.dict(os.environ, SLUICE_TOKEN_FILE=other):
            self.assertEqual(self.connect().list(), [])
        self.assertEqual(seen, ["Bearer sluice_abc", "Bearer sluice_def", "Bearer sluice_def"])
        # Certificate, key and CA go together: of others none of the context's is taken.
        with self.assertRaisesRegex(sluice.TlsError, "wants a certificate"):
            self.connect(tls_ca=made.path("ca.crt")).list()
        # What the context says is for its own coordinator.
        with mock.patch.dict(os.environ, SLUICE_SERVER=free_address()):
            self.assertIsNone(self.connect()._credentials.tls_ca)

    @unittest.skipUnless(os.path.exists(CTL), f"there is no sluicectl in {BIN}")
    def test_what_sluicectl_writes_is_read_and_what_it_refuses_is_refused(self):
        def ctl(*arguments):
            return subprocess.run([CTL, "context", *arguments], capture_output=True, text=True, timeout=60)
        odd = self.path("a b: 'c' # d\u00e9")
        self.assertEqual(ctl("set", "lab", "--server", "lab:7070", "--tls-ca", odd, "--token-file", "/t").returncode, 0)
        self.assertEqual(ctl("set", "prod", "--server", "[::1]:7070").returncode, 0)
        self.assertEqual(ctl("use", "prod").returncode, 0)
        found = sluice.read_contexts()
        self.assertEqual(found.current, "prod")
        self.assertEqual(dict(found.all), {"lab": sluice.Context("lab:7070", tls_ca=odd, token_file="/t"),
                                           "prod": sluice.Context("[::1]:7070")})
        for text in ("curent: lab\n", "contexts: {lab: {sever: x}}\n", "contexts: {a/b: {}}\n", "current: [lab]\n", "a\n",
                     "current: a\ncurrent: b\n"):
            self.write(text)
            self.assertEqual(ctl("list").returncode, 2, text)
            with self.assertRaises(sluice.ContextError):
                sluice.read_contexts()
        for text, _ in YamlMapTest.GOOD:  # none of it is wrong as YAML to sluicectl either
            self.write(text)
            self.assertNotIn("not valid YAML", ctl("list").stderr, text)


if __name__ == "__main__":
    support.main()

"""Messages keep their numbers from release to release."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TOP, "tools"), os.path.join(TOP, "tests", "faults")]
import golden_messages  # noqa: E402  # the folders of these are known from here on
import wire_reference  # noqa: E402
from wire_reference import Reader, WireError, breaches  # noqa: E402

PROTOBUF = importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.protobuf") is not None
if PROTOBUF:
    from messages import Protocol  # noqa: E402


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


class WireTest(unittest.TestCase):
    PROTO = """syntax = "proto3";  // a comment; with } in it
      message A { string a = 1; repeated int32 b = 2 [(x) = {doc: "s; }"}]; map<string, double> c = 3;
        oneof d { B e = 4; } reserved 5, 6; enum E { E_ZERO = 0; } message B { optional bool f = 1; } }
      service S { rpc Call(A) returns (stream A); }"""

    def lines(self, text):
        return Reader(text, "a.proto").file()

    def test_a_proto_is_read_as_it_is_on_the_wire(self):
        self.assertEqual(self.lines(self.PROTO), {
            "A 1": "string a", "A 2": "repeated int32 b", "A 3": "map<string, double> c", "A 4": "B e", "A 5": "reserved",
            "A 6": "reserved", "A.E 0": "E_ZERO", "A.B 1": "bool f", "S.Call": "A -> stream A"})

    def test_what_breaks_is_named_and_what_does_not_is_not(self):
        before = self.lines(self.PROTO)
        for old, new, said in (("string a = 1;", "", "A 1 (string a) is gone"), ("string a = 1", "bytes a = 1", "was 'string a'"),
                               ("repeated int32 b", "int32 b", "was 'repeated int32 b'"), ("string a = 1", "string a = 7", "A 1"),
                               ("reserved 5, 6;", "reserved 5; string g = 6;", "A 6 was 'reserved' and is 'string g'"),
                               ("returns (stream A)", "returns (A)", "S.Call was"), ("E_ZERO = 0", "E_ZERO = 1", "A.E 0 (E_ZERO) is gone")):
            with self.subTest(new or old):
                changed = self.PROTO.replace(old, new)
                self.assertNotEqual(changed, self.PROTO)
                self.assertIn(said, " ".join(breaches(before, self.lines(changed))))
        for old, new in (("string a = 1;", "reserved 1;"), ("string a = 1;", "string a = 1; string h = 9;"),
                         ("string a = 1;", "optional string a = 1;")):
            self.assertEqual(breaches(before, self.lines(self.PROTO.replace(old, new))), [])

    def test_what_is_not_understood_is_an_error(self):
        for text in ("message A { string a 1; }", "message A { reserved 1 to 4; }", "message A {",
                     "message A { string a = 1; string b = 1; }", "banana;"):
            with self.subTest(text), self.assertRaises(WireError):
                self.lines(text)

    def test_the_file_is_in_step_and_nothing_of_it_is_broken(self):
        now = wire_reference.read_protos()
        self.assertEqual(breaches(wire_reference.parse(read("docs/reference/wire.txt")), now), [])
        self.assertEqual(read("docs/reference/wire.txt"), wire_reference.page(now), "run python3 tools/wire_reference.py")

    @unittest.skipUnless(PROTOBUF and shutil.which("protoc"), "there is no protoc, or no protobuf for Python: ./sluice setup")
    def test_the_file_is_what_protoc_reads(self):
        from google.protobuf import descriptor_pb2
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "set")
            names = [f"sluice/v1/{name}" for name in os.listdir(wire_reference.PROTOS) if name.endswith(".proto")]
            subprocess.run(["protoc", "-I", os.path.join(TOP, "proto"), f"--descriptor_set_out={out}", *names], check=True, timeout=60)
            with open(out, "rb") as file:
                files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        found = {}

        def message(scope, thing):
            for field in thing.field:
                found[f"{scope} {field.number}"] = field.name
            for part in thing.reserved_range:
                found.update({f"{scope} {number}": "reserved" for number in range(part.start, part.end)})
            for inner in thing.enum_type:
                enum(f"{scope}.{inner.name}", inner)
            for inner in thing.nested_type:
                if not inner.options.map_entry:
                    message(f"{scope}.{inner.name}", inner)

        def enum(scope, thing):
            found.update({f"{scope} {value.number}": value.name for value in thing.value})
            for part in thing.reserved_range:
                found.update({f"{scope} {number}": "reserved" for number in range(part.start, part.end + 1)})
        for file in files.file:
            for thing in file.message_type:
                message(thing.name, thing)
            for thing in file.enum_type:
                enum(thing.name, thing)
            for service in file.service:
                found.update({f"{service.name}.{method.name}": "" for method in service.method})
            for field in file.extension:
                found[f"extend {field.extendee.lstrip('.')} {field.number}"] = field.name
        ours = {key: "" if " -> " in value else value.rpartition(" ")[2] for key, value in wire_reference.read_protos().items()}
        self.assertEqual(ours, found)


@unittest.skipUnless(PROTOBUF and shutil.which("protoc"), "there is no protoc, or no protobuf for Python: ./sluice setup")
class GoldenTest(unittest.TestCase):
    """Bytes that this or an earlier release has put on the wire say today what they said then."""

    @classmethod
    def setUpClass(cls):
        cls.protocol = Protocol()
        with open(golden_messages.FILE, encoding="utf-8") as file:
            cls.lines = golden_messages.read_lines(file.read())

    def test_every_line_says_what_it_said_and_every_field_has_a_line(self):
        self.assertGreater(len(self.lines), 150)
        found = golden_messages.missing(self.protocol, self.lines)
        self.assertEqual([golden_messages.complaint(*entry) for entry in found], [])

    def test_every_message_of_every_call_has_a_line(self):
        # By the file of wire_reference.py, which reads the protos in another way.
        calls = [value for key, value in wire_reference.read_protos().items() if " -> " in value]
        carried = {name.removeprefix("stream ") for call in calls for name in call.split(" -> ")}
        self.assertEqual(carried - {line["message"] for line in self.lines}, set())

    def test_a_line_that_is_gone_or_damaged_is_named(self):
        hello = next(line for line in self.lines if line["message"] == "Hello")
        others = [line for line in self.lines if line["message"] != "Hello"]
        (lost,) = golden_messages.missing(self.protocol, others)
        self.assertRegex(golden_messages.complaint(*lost), "^Hello: no line sets actor_id, .*golden_messages.py")
        for change, said in (({"json": dict(hello["json"], protocol="2")}, "something else than then, in protocol"),
                             ({"hex": "ff"}, "no such message any more"), ({"message": "Goodbye"}, "no such message any more"),
                             ({"hex": hello["hex"] + "da3e020801"}, None), ({"hex": "1a0178" + hello["hex"]}, "written as other bytes")):
            with self.subTest(said):
                if said is None:  # a field of the future is passed over, and kept
                    golden_messages.decode(self.protocol, {**hello, **change})
                    continue
                with self.assertRaisesRegex(golden_messages.GoldenError, f"of release .*{said}"):
                    golden_messages.decode(self.protocol, {**hello, **change})

    def test_a_proto_that_reads_old_bytes_as_something_else_is_named(self):
        for path, old, new, said in (("rollout.proto", "string protocol = 2;", "string protocol = 9;", "Hello of release .* in protocol"),
                                     ("rollout.proto", "string protocol = 2;", "uint64 protocol = 2;", "Hello of release"),
                                     ("rollout.proto", "string actor_id = 1;", "string actor_id = 1; string motto = 77;", None)):
            with self.subTest(new), tempfile.TemporaryDirectory() as folder:
                shutil.copytree(os.path.join(TOP, "proto"), folder, dirs_exist_ok=True)
                changed = os.path.join(folder, "sluice", "v1", path)
                with open(changed, encoding="utf-8") as file:
                    text = file.read()
                self.assertIn(old, text)
                with open(changed, "w", encoding="utf-8") as file:
                    file.write(text.replace(old, new, 1))
                protocol = Protocol(folder)
                if said is None:  # a field is added: it has no line yet
                    self.assertEqual(golden_messages.missing(protocol, self.lines), [("Hello", "", {"motto"})])
                    continue
                with self.assertRaisesRegex(golden_messages.GoldenError, said):
                    golden_messages.missing(protocol, self.lines)


if __name__ == "__main__":
    unittest.main()

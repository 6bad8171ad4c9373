"""Messages keep their numbers from release to release."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tools"))
import wire_reference
from wire_reference import Reader, WireError, breaches

PROTOBUF = importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.protobuf") is not None


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


if __name__ == "__main__":
    unittest.main()

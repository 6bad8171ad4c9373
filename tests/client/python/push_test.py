"""Client.push_data against a data service whose answers are scripted: pieces, resumption, damage, refusals."""
import hashlib
import os
import tempfile
import unittest

import support

support.require("grpc")
import grpc  # noqa: E402
import sluice  # noqa: E402
from sluice.v1 import data_pb2, job_pb2  # noqa: E402

PIECE = 1 << 20


class FakeStore:
    """The data service in memory, as learner/data keeps it: bytes of each file in order, committed by digest. Useful for:
    faults in the middle. `trouble(call, request, context)` may abort, or change the request."""

    def __init__(self):
        self.files, self.manifest, self.committed, self.calls = {}, None, False, []
        self.trouble = lambda call, request, context: None

    def answers(self):
        return {f"data.{name}": (lambda request, context, name=name: self.serve(name, request, context))
                for name in ("Begin", "Put", "Commit", "List", "Remove")}

    def serve(self, name, request, context):
        self.calls.append(name)
        self.trouble(name, request, context)
        return getattr(self, name.lower())(request, context)

    def begin(self, request, context):
        lines = "".join(f"{file.sha256}  {file.bytes}  {file.path}\n" for file in request.files)
        self.manifest, digest = request, hashlib.sha256(lines.encode()).hexdigest()
        return data_pb2.BeginPushResponse(digest=digest, complete=self.committed, have=[
            len(self.files.get(file.path, b"")) for file in request.files])

    def put(self, request, context):
        there = self.files.setdefault(request.path, b"")
        if hashlib.sha256(request.data).hexdigest() != request.chunk_sha256:
            context.abort(grpc.StatusCode.DATA_LOSS, "the bytes are not those of chunk_sha256; send them again")
        if request.offset > len(there):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the next are those from before")
        self.files[request.path] = there + request.data[len(there) - request.offset:]
        return data_pb2.PutResponse(have=len(self.files[request.path]))

    def commit(self, request, context):
        for file in self.manifest.files:
            data = self.files.get(file.path, b"")
            if hashlib.sha256(data).hexdigest() != file.sha256:
                self.files.pop(file.path, None)
                context.abort(grpc.StatusCode.DATA_LOSS, f"'{file.path}' is not what its manifest says; it was dropped")
        self.committed = True
        return data_pb2.CommitPushResponse(folder="/data/" + request.digest)

    def list(self, request, context):
        folder = data_pb2.DataFolder(digest="d" * 64, name="mine", bytes=5, files=2, folder="/data/d")
        folder.pushed.FromSeconds(1_700_000_000)
        return data_pb2.ListDataResponse(folders=[folder])

    def remove(self, request, context):
        if not ("d" * 64).startswith(request.digest):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no pushed data have the digest {request.digest}")
        return data_pb2.RemoveDataResponse(freed_bytes=5)


class PushTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "my data")
        os.mkdir(self.folder)
        self.store = FakeStore()
        self.client = self.connect(List=lambda r, c: job_pb2.ListResponse(), **self.store.answers())

    def connect(self, **answers):
        service = support.FakeJobs(**answers)
        self.addCleanup(service.stop)
        client = sluice.Client(service.address, timeout=20)
        self.addCleanup(client.close)
        return client

    def write(self, name, data):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_a_folder_arrives_in_pieces_and_is_there_the_second_time(self):
        large = os.urandom(2 * PIECE + 5)
        self.write("b/large.npy", large)
        self.write("a.json", b"{}")
        self.write("empty", b"")
        told = []
        pushed = self.client.push_data(self.folder, on_progress=lambda there, total: told.append((there, total)))
        self.assertEqual(self.store.files, {"a.json": b"{}", "b/large.npy": large})  # of no bytes none are put
        self.assertEqual((pushed.existed, pushed.bytes, pushed.files), (False, 2 * PIECE + 7, 3))
        lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {name}\n" for name, data in
                        (("a.json", b"{}"), ("b/large.npy", large), ("empty", b"")))
        self.assertEqual(pushed.address, "digest:" + hashlib.sha256(lines.encode()).hexdigest())
        self.assertEqual(told, [(n, 2 * PIECE + 7) for n in (2, PIECE + 2, 2 * PIECE + 2, 2 * PIECE + 7)])
        self.assertEqual(self.store.manifest.name, "my data")
        self.store.calls.clear()
        self.assertTrue(self.client.push_data(self.folder).existed)
        self.assertEqual(self.store.calls, ["Begin", "Commit"])

    def test_one_file_is_pushed_under_its_name(self):
        path = self.write("events.csv", b"user,item\nu,i\n")
        self.assertEqual(self.client.push_data(path, name="mine").files, 1)
        self.assertEqual((list(self.store.files), self.store.manifest.name), (["events.csv"], "mine"))

    def test_it_goes_on_where_an_earlier_call_stopped(self):
        large = os.urandom(3 * PIECE)
        self.write("large", large)

        def fail(call, request, context):
            if call == "Put" and request.offset == 2 * PIECE:
                context.abort(grpc.StatusCode.INTERNAL, "the disk")
        self.store.trouble = fail
        with self.assertRaisesRegex(sluice.ServerError, "the disk"):
            self.client.push_data(self.folder)
        self.store.trouble = lambda *unused: None
        self.store.calls.clear()
        self.client.push_data(self.folder)
        self.assertEqual(self.store.calls, ["Begin", "Put", "Commit"])
        self.assertEqual(self.store.files["large"], large)

    def test_an_answer_that_gets_lost_is_asked_for_again(self):
        self.write("a", b"x" * (PIECE + 1))
        lost = {"Begin", "Put", "Commit"}

        def lose(call, request, context):
            if call in lost:
                lost.remove(call)
                if call == "Put":
                    self.store.put(request, context)  # done, and nobody knows
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        self.store.trouble = lose
        self.client.push_data(self.folder)
        self.assertEqual(self.store.files["a"], b"x" * (PIECE + 1))

    def test_who_calls_too_often_comes_when_told(self):
        self.write("a", b"x")
        busy = [True] * 3

        def limit(call, request, context):
            if busy:
                busy.pop()
                context.set_trailing_metadata((("retry_after_ms", "5"),))
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls; try again in 5 ms")
        self.store.trouble = limit
        self.client.push_data(self.folder)
        self.assertEqual(self.store.calls[:4], ["Begin"] * 4)

    def test_a_file_that_the_disk_there_damaged_is_put_again_and_in_the_end_given_up(self):
        self.write("a", b"x" * 100)
        damaged = []

        def damage(call, request, context):
            if call == "Commit" and len(damaged) < self.times:
                damaged.append(call)
                self.store.files["a"] = b"y" * 100
        self.store.trouble = damage
        self.times = 2
        self.client.push_data(self.folder)
        self.assertEqual(self.store.files["a"], b"x" * 100)
        self.store.committed, self.times = False, 99
        damaged.clear()
        with self.assertRaisesRegex(sluice.DataError, "'a' is not what its manifest says") as raised:
            self.client.push_data(self.folder)
        self.assertEqual((raised.exception.exit_code, len(damaged)), (3, 3))

    def test_a_file_that_changes_meanwhile_is_no_data(self):
        path = self.write("a", b"x" * 100)

        def change(call, request, context):
            if call == "Begin":
                with open(path, "wb") as file:
                    file.write(b"x" * 10)
        self.store.trouble = change
        with self.assertRaisesRegex(sluice.DataError, "a: became shorter while it was pushed; push again"):
            self.client.push_data(self.folder)

    def test_what_cannot_be_pushed_is_said_before_anything_is_sent(self):
        for path, why in ((self.folder, "want 1 to 10000 files, got 0"),
                          (self.folder + "/none", "there is neither a file nor a folder '.*none'"),
                          ("a\0b", "cannot be read|neither a file")):
            with self.assertRaisesRegex(sluice.InvalidRequestError, why) as raised:
                self.client.push_data(path)
            self.assertEqual(raised.exception.exit_code, 2)
        os.symlink("/etc/passwd", os.path.join(self.folder, "link"))
        with self.assertRaisesRegex(sluice.InvalidRequestError, "link' is a link; what is pushed must be the files"):
            self.client.push_data(self.folder)
        os.remove(os.path.join(self.folder, "link"))
        os.mkfifo(os.path.join(self.folder, "pipe"))  # neither file nor folder: left out, and never opened
        self.write("a", b"x")
        self.client.push_data(self.folder)
        self.assertEqual(list(self.store.files), ["a"])

    def test_refusals_have_types(self):
        self.write("a", b"x")
        for code, kind, exit_code in (
                (grpc.StatusCode.FAILED_PRECONDITION, sluice.DataStateError, 4),
                (grpc.StatusCode.RESOURCE_EXHAUSTED, sluice.NoSpaceError, 14),
                (grpc.StatusCode.INVALID_ARGUMENT, sluice.InvalidRequestError, 2),
                (grpc.StatusCode.PERMISSION_DENIED, sluice.PermissionDeniedError, 4)):
            self.store.trouble = lambda call, request, context, code=code: context.abort(code, "because")
            with self.assertRaisesRegex(kind, "because") as raised:
                self.client.push_data(self.folder)
            self.assertEqual(raised.exception.exit_code, exit_code)
        older = self.connect(List=lambda r, c: job_pb2.ListResponse())
        with self.assertRaisesRegex(sluice.OlderServerError, "is older than this package and cannot take data"):
            older.push_data(self.folder)

    def test_a_server_that_takes_nothing_does_not_hold_it_for_ever(self):
        self.write("a", b"x" * 10)
        client = self.connect(**{**self.store.answers(), "data.Put": lambda r, c: data_pb2.PutResponse(have=0)})
        with self.assertRaisesRegex(sluice.ServerError, "does not take the bytes"):
            client.push_data(self.folder)
        client = self.connect(**{**self.store.answers(), "data.Begin": lambda r, c: data_pb2.BeginPushResponse(have=[0, 0])})
        with self.assertRaisesRegex(sluice.ServerError, "counts other files"):
            client.push_data(self.folder)

    def test_what_was_pushed_is_listed_and_removed(self):
        (found,) = self.client.pushed_data()
        self.assertEqual((found.name, found.files, found.address, found.pushed.year), ("mine", 2, "digest:" + "d" * 64, 2023))
        self.assertEqual(self.client.remove_data(found.address), 5)
        with self.assertRaisesRegex(sluice.UnknownDataError, "no pushed data have the digest 12345678") as raised:
            self.client.remove_data("12345678")
        self.assertEqual(raised.exception.exit_code, 2)


if __name__ == "__main__":
    support.main()

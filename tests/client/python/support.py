"""What the tests of the Python package share: the installed wheel on the path, and a job service whose answers a test
scripts.

The wheel is the one that wheel_test.py built and installed into $SLUICE_PYTHON_SITE. Without grpcio, numpy or pandas,
or without that folder, the process ends with 77: ctest shows the test as skipped, with the reason in its output.
"""
import importlib.util
import os
import sys
import threading
import unittest
from concurrent import futures

SKIP = 77  # ctest: SKIP_RETURN_CODE
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SITE = os.environ.get("SLUICE_PYTHON_SITE", os.path.join(TOP, "build", "python", "site"))


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def require(*modules):
    """The modules can be imported and the wheel is installed; the process ends as skipped otherwise."""
    for module in (*modules, "yaml"):  # which the package reads its own files with
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            skip(
                f"{module} is not installed in {sys.prefix}; './sluice setup' installs what is in "
                "tests/client/python/requirements.txt"
            )
    if not os.path.isdir(os.path.join(SITE, "sluice")):
        skip("the wheel is not built; ctest -R client_python.wheel does that")
    sys.path.insert(0, SITE)


class FakeJobs:
    """The job service on a port of its own. Each call is answered by the function of its name in `answers`, called with
    (request, context); a call without one is UNIMPLEMENTED, as of an older server. Those of the data service are called
    "data.Put" and the like. Useful for: errors, restarts and streams that a real coordinator shows once in a blue moon.
    `requests` keeps what came, by name. credentials: of grpc, for a service that speaks TLS."""

    def __init__(self, address="127.0.0.1:0", credentials=None, **answers):
        import grpc
        from sluice.v1 import job_pb2
        self.answers = answers
        self.requests = {}
        self.lock = threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=[
            ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)])
        handlers, data = {}, {}
        for name in answers:
            if name.startswith("data."):
                data[name.removeprefix("data.")] = self._data_handler(name)
                continue
            make = grpc.unary_stream_rpc_method_handler if name == "Watch" else grpc.unary_unary_rpc_method_handler
            answer = getattr(job_pb2, "JobEvent" if name == "Watch" else f"{name}Response")
            handlers[name] = make(lambda request, context, name=name: self._answer(name, request, context),
                                  request_deserializer=getattr(job_pb2, f"{name}Request").FromString,
                                  response_serializer=answer.SerializeToString)
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("sluice.v1.JobService", handlers),
            grpc.method_handlers_generic_handler("sluice.v1.DataService", data)))
        port = (self.server.add_secure_port(address, credentials) if credentials is not None
                else self.server.add_insecure_port(address))
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def _data_handler(self, name):
        import grpc
        from sluice.v1 import data_pb2
        message = {"data.Put": "Put", "data.Begin": "BeginPush", "data.Commit": "CommitPush"}.get(name) or \
            f"{name.removeprefix('data.')}Data"
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(name, request, context),
            request_deserializer=getattr(data_pb2, f"{message}Request").FromString,
            response_serializer=getattr(data_pb2, f"{message}Response").SerializeToString)

    def _answer(self, name, request, context):
        with self.lock:
            self.requests.setdefault(name, []).append(request)
        return self.answers[name](request, context)

    def stop(self):
        self.server.stop(None).wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


def main():
    done = unittest.main(verbosity=2, exit=False)
    sys.exit(0 if done.result.wasSuccessful() else 1)  # a number: what runs at the end may send it on

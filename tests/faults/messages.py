"""The protocol's messages for experiments: protoc reads proto/, the runtime of protobuf makes classes. Needs protobuf.

    protocol = Protocol()
    hello = protocol("Hello", actor_id="a", protocol="1")
    protocol.call(address, "JobService/List", protocol("ListRequest"))
"""

import glob
import os
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = "sluice.v1"


class Protocol:
    def __init__(self, root=os.path.join(TOP, "proto")):
        files = sorted(glob.glob(os.path.join(root, "sluice", "v1", "*.proto")))
        with tempfile.NamedTemporaryFile(suffix=".pb") as out:
            subprocess.run(["protoc", f"--proto_path={root}", "--include_imports", f"--descriptor_set_out={out.name}", *files],
                           check=True)
            described = descriptor_pb2.FileDescriptorSet.FromString(out.read())
        self.pool = descriptor_pool.DescriptorPool()
        for file in described.file:
            self.pool.Add(file)
        self.services = {service.name: service for file in described.file for service in file.service
                         if file.package == PACKAGE}

    def type(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    def __call__(self, name, **values):
        return self.type(name)(**values)

    def method(self, path):
        """(class of the request, class of the answer) of "JobService/List"."""
        service, name = path.split("/")
        described = next(m for m in self.services[service].method if m.name == name)
        return (self.type(described.input_type.rsplit(".", 1)[1]), self.type(described.output_type.rsplit(".", 1)[1]))

    def call(self, channel, path, request, timeout_s=30):
        """The answer of a call that is no stream; grpc.RpcError."""
        return channel.unary_unary(f"/{PACKAGE}.{path}", request_serializer=lambda message: message.SerializeToString(),
                                   response_deserializer=self.method(path)[1].FromString)(request, timeout=timeout_s)

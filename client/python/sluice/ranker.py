"""Serves an own ranker behind the Open Inference Protocol, version 2, over gRPC.

    import numpy, sluice

    popularity = numpy.load("popularity.npy")

    def score(user, history, item):
        return popularity[item]

    sluice.serve_ranker(score, address="127.0.0.1:8001").wait()

A request scores N (user, item) pairs. By default its inputs are `user` INT64 [N] (-1: unknown), `history` INT64
[N, H] (item numbers, oldest first, padded with -1) and `item` INT64 [N]; its output is `score` FP32 [N], one more output
for each further head. Other inputs are named with `inputs`. The function gets numpy arrays, one for each input in
their order; it returns an array [N], or a dict of them by head. It must not keep or change what it gets.

What comes is checked before the function sees it: a request that is not what the metadata promises ends with
INVALID_ARGUMENT and a sentence. What the function returns is checked too: an exception, a wrong length, NaN or
infinity ends the call with INTERNAL; nothing missing ever becomes a number.
"""
from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc

from sluice._version import __version__
from sluice.errors import InvalidRequestError, ServerDownError
from sluice.inference import open_inference_pb2 as pb

try:
    import numpy
except ImportError:
    raise ImportError("sluice.serve_ranker needs numpy; 'pip install sluice[ranker]'") from None

logger = logging.getLogger("sluice.ranker")

_SERVICE = "inference.GRPCInferenceService"
_MAX_TENSORS = 64
_MAX_ID_BYTES = 4096
_MAX_TEXT = 200  # of what a peer or a function said, in a message
# Calls that wait for the function beyond those that run; more are refused with RESOURCE_EXHAUSTED.
_MAX_WAITING = 16
# Threads that health and metadata always find free.
_HEALTH_THREADS = 2

# datatype: (numpy's type, the field of InferTensorContents). FP16 has no such field; it comes raw.
_DATATYPES: dict[str, tuple[str, str]] = {
    "BOOL": ("?", "bool_contents"),
    "INT8": ("<i1", "int_contents"), "INT16": ("<i2", "int_contents"), "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "UINT8": ("<u1", "uint_contents"), "UINT16": ("<u2", "uint_contents"), "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "FP16": ("<f2", ""), "FP32": ("<f4", "fp32_contents"), "FP64": ("<f8", "fp64_contents"),
    "BYTES": ("O", "bytes_contents"),
}


@dataclass(frozen=True)
class TensorSpec:
    """An input: its name, its datatype as the protocol names it ("INT64"; numpy's bytes objects for "BYTES"), and its
    shape, whose first size is -1: the N rows of a request. Other sizes of -1 are free."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidRequestError("an input needs a name")
        if self.datatype not in _DATATYPES:
            raise InvalidRequestError(f"input '{self.name}': want a datatype of {', '.join(_DATATYPES)}, got "
                                      f"'{self.datatype}'")
        if not self.shape or self.shape[0] != -1 or any(size != -1 and size < 1 for size in self.shape):
            raise InvalidRequestError(
                f"input '{self.name}': want a shape [-1, ...] whose further sizes are -1 or positive, "
                f"got {list(self.shape)}")


DEFAULT_INPUTS = (TensorSpec("user", "INT64", (-1,)), TensorSpec("history", "INT64", (-1, -1)),
                  TensorSpec("item", "INT64", (-1,)))


class _Refused(Exception):
    """The end of a call: a status code and a sentence."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def _bad(text: str) -> _Refused:
    return _Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def _raw_bytes_tensor(raw: bytes, count: int, name: str) -> list[bytes]:
    values: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(values) == count:
            raise _bad(f"input '{name}': want {count} elements, its raw contents hold more")
        if at + 4 > len(raw):
            raise _bad(f"input '{name}': its raw contents end within a length")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if size > len(raw) - at:
            raise _bad(f"input '{name}': element {len(values)} says {size} bytes, {len(raw) - at} are left")
        values.append(raw[at:at + size])
        at += size
    if len(values) != count:
        raise _bad(f"input '{name}': want {count} elements, its raw contents hold {len(values)}")
    return values


class _Model:
    """The function with its promises; turns requests into arrays and answers into tensors."""

    def __init__(self, fn: Callable[..., Any], name: str, version: str, inputs: Sequence[TensorSpec],
                 heads: Sequence[str], max_elements: int, concurrency: int) -> None:
        self.fn = fn
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.heads = tuple(heads)
        self.max_elements = max_elements
        self.ready = True
        self._turns = threading.Semaphore(concurrency)
        self._entered = threading.Semaphore(concurrency + _MAX_WAITING)

    def check_name(self, name: str, version: str) -> None:
        if name != self.name:
            raise _Refused(grpc.StatusCode.NOT_FOUND,
                           f"there is no model '{_short(name)}'; this server has '{self.name}'")
        if version and version != self.version:
            raise _Refused(grpc.StatusCode.NOT_FOUND,
                           f"model '{self.name}' has no version '{_short(version)}'; it has '{self.version}'")

    def _shape(self, spec: TensorSpec, tensor: Any) -> tuple[int, ...]:
        """The checked shape of an input; its product is within bounds."""
        if tensor.datatype != spec.datatype:
            raise _bad(f"input '{spec.name}': want {spec.datatype}, got '{_short(tensor.datatype)}'")
        if len(tensor.shape) != len(spec.shape):
            raise _bad(f"input '{spec.name}': want {len(spec.shape)} dimensions as in {list(spec.shape)}, got "
                       f"{len(tensor.shape)}")
        count = 1
        for want, size in zip(spec.shape, tensor.shape):
            if size < 0 or (want != -1 and size != want):
                raise _bad(f"input '{spec.name}': want shape {list(spec.shape)}, got {list(tensor.shape)}")
            count *= size
            if count > self.max_elements:
                raise _bad(
                    f"input '{spec.name}': want at most {self.max_elements} elements, got shape {list(tensor.shape)}")
        if tensor.shape[0] == 0:
            raise _bad(f"input '{spec.name}': want at least one row, got none")
        return tuple(tensor.shape)

    def _array(self, spec: TensorSpec, tensor: Any, raw: bytes | None) -> Any:
        shape = self._shape(spec, tensor)
        count = int(numpy.prod(shape, dtype=numpy.int64))
        kind, field = _DATATYPES[spec.datatype]
        filled = [f.name for f, _ in tensor.contents.ListFields()]
        if raw is not None:
            if filled:
                raise _bad(f"input '{spec.name}': want raw contents or typed ones, got both")
            if spec.datatype == "BYTES":
                values: Any = _raw_bytes_tensor(raw, count, spec.name)
            else:
                width = numpy.dtype(kind).itemsize
                if len(raw) != count * width:
                    raise _bad(f"input '{spec.name}': want {count * width} bytes for shape {list(shape)} of "
                               f"{spec.datatype}, got {len(raw)}")
                if spec.datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
                    raise _bad(f"input '{spec.name}': want bytes 0 and 1 as BOOL, got others")
                return numpy.frombuffer(raw, kind).reshape(shape)
        else:
            if not field:
                raise _bad(f"input '{spec.name}': {spec.datatype} has only raw contents, got none")
            if any(name != field for name in filled):
                raise _bad(f"input '{spec.name}': want {spec.datatype} in {field}, got {', '.join(filled)}")
            values = getattr(tensor.contents, field)
            if len(values) != count:
                raise _bad(f"input '{spec.name}': want {count} elements for shape {list(shape)}, got {len(values)}")
        if spec.datatype == "BYTES":
            array = numpy.empty(count, dtype=object)
            array[:] = list(values)
            return array.reshape(shape)
        wide = numpy.array(values, dtype=numpy.dtype(kind).newbyteorder("=") if field not in
                           ("int_contents", "uint_contents") else numpy.int64)
        if field in ("int_contents", "uint_contents"):
            bounds = numpy.iinfo(kind)
            if count and (wide.min() < bounds.min or wide.max() > bounds.max):
                raise _bad(f"input '{spec.name}': want values of {spec.datatype} ({bounds.min} to {bounds.max}), got "
                           f"{int(wide.min())} to {int(wide.max())}")
        return wide.astype(kind).reshape(shape)

    def arrays(self, request: Any) -> list[Any]:
        """One array an input, in the order of `inputs`; all have the same number of rows."""
        if len(request.inputs) > _MAX_TENSORS:
            raise _bad(f"want {len(self.inputs)} inputs, got {len(request.inputs)}")
        raws: Sequence[bytes | None] = [None] * len(request.inputs)
        if request.raw_input_contents:
            if len(request.raw_input_contents) != len(request.inputs):
                raise _bad(f"want raw contents for each of {len(request.inputs)} inputs, got "
                           f"{len(request.raw_input_contents)}")
            raws = request.raw_input_contents
        specs = {spec.name: spec for spec in self.inputs}
        got: dict[str, Any] = {}
        for tensor, raw in zip(request.inputs, raws):
            if tensor.name not in specs:
                raise _bad(f"there is no input '{_short(tensor.name)}'; want {', '.join(specs)}")
            if tensor.name in got:
                raise _bad(f"input '{tensor.name}' comes twice")
            got[tensor.name] = self._array(specs[tensor.name], tensor, raw)
        missing = [name for name in specs if name not in got]
        if missing:
            raise _bad(f"input '{missing[0]}' is missing; want {', '.join(specs)}")
        rows = {name: len(array) for name, array in got.items()}
        if len(set(rows.values())) > 1:
            raise _bad("want as many rows of each input, got " +
                       ", ".join(f"{n} of '{name}'" for name, n in rows.items()))
        return [got[spec.name] for spec in self.inputs]

    def asked(self, request: Any) -> list[str]:
        """The heads to answer with."""
        names = [output.name for output in request.outputs]
        for name in names:
            if name not in self.heads:
                raise _bad(f"there is no output '{_short(name)}'; want of {', '.join(self.heads)}")
        if len(set(names)) != len(names):
            raise _bad("an output is asked for twice")
        return names or list(self.heads)

    def score(self, arrays: list[Any], context: grpc.ServicerContext) -> dict[str, Any]:
        """What the function says, checked: a float32 array [N] a head."""
        if not self._entered.acquire(blocking=False):
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "the ranker is busy; try again later")
        try:
            if not self._turns.acquire(timeout=min(context.time_remaining() or 3600.0, 3600.0)):
                raise _Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "the ranker was busy until the call's deadline")
            try:
                answer = self.fn(*arrays)
            except Exception as error:  # whatever a user's function throws ends its call, not the server
                logger.exception("the ranker function raised")
                raise _failed(f"the ranker function raised {type(error).__name__}: {_short(str(error))}") from None
            finally:
                self._turns.release()
        finally:
            self._entered.release()
        if not isinstance(answer, Mapping):
            if len(self.heads) > 1:
                raise _failed(f"the ranker function must return a dict with {', '.join(self.heads)}")
            answer = {self.heads[0]: answer}
        return {head: self._head(head, answer, len(arrays[0])) for head in self.heads}

    def _head(self, head: str, answer: Mapping[str, Any], rows: int) -> Any:
        if head not in answer:
            raise _failed(f"the ranker function returned no '{head}'")
        try:
            raw = numpy.asarray(answer[head])
            if raw.dtype.kind not in "biuf":  # None and text would become numbers
                raise TypeError
            with numpy.errstate(over="ignore"):  # what no float32 holds is infinite, and refused below
                values = raw.astype("<f4")
        except (TypeError, ValueError, RuntimeError):
            raise _failed(f"the ranker function returned a '{head}' that is no array of numbers") from None
        if values.shape != (rows,):
            raise _failed(f"the ranker function must return '{head}' [{rows}], got shape {list(values.shape)}")
        bad = numpy.flatnonzero(~numpy.isfinite(values))
        if len(bad):
            raise _failed(
                f"the ranker function returned {values[bad[0]]} as '{head}' of row {bad[0]}; want finite numbers")
        return values


def _failed(text: str) -> _Refused:
    return _Refused(grpc.StatusCode.INTERNAL, text)


class _Service:
    """The protocol's calls. Messages are checked and answered; the function is the model's."""

    def __init__(self, model: _Model) -> None:
        self.model = model

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        def unary(name: str, method: Callable[[Any, grpc.ServicerContext], Any]) -> grpc.RpcMethodHandler:
            def call(request: Any, context: grpc.ServicerContext) -> Any:
                try:
                    return method(request, context)
                except _Refused as refused:
                    context.abort(refused.code, refused.text)

            return grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=getattr(pb, f"{name}Request").FromString,
                response_serializer=getattr(pb, f"{name}Response").SerializeToString)

        methods = {
            "ServerLive":
                lambda request, context: pb.ServerLiveResponse(live=True),
            "ServerReady":
                lambda request, context: pb.ServerReadyResponse(ready=self.model.ready),
            "ModelReady":
                self.model_ready,
            "ServerMetadata":
                lambda request, context: pb.ServerMetadataResponse(name="sluice-ranker", version=__version__),
            "ModelMetadata":
                self.model_metadata,
            "ModelInfer":
                self.model_infer,
        }
        # grpc.health.v1 as probes ask it. Its answer has one field, an enum: 1 serving, 2 not serving.
        health = grpc.unary_unary_rpc_method_handler(
            lambda request, context: b"\x08\x01" if self.model.ready else b"\x08\x02")
        return (grpc.method_handlers_generic_handler(_SERVICE, {n: unary(n, m) for n, m in methods.items()}),
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}))

    def model_ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.model.check_name(request.name, request.version)
        return pb.ModelReadyResponse(ready=self.model.ready)

    def model_metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.model.check_name(request.name, request.version)
        answer = pb.ModelMetadataResponse(name=self.model.name, versions=[self.model.version], platform="python")
        for spec in self.model.inputs:
            answer.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for head in self.model.heads:
            answer.outputs.add(name=head, datatype="FP32", shape=[-1])
        return answer

    def model_infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.model.check_name(request.model_name, request.model_version)
        if len(request.id.encode()) > _MAX_ID_BYTES:
            raise _bad(f"id: want at most {_MAX_ID_BYTES} bytes, got {len(request.id.encode())}")
        asked = self.model.asked(request)
        scores = self.model.score(self.model.arrays(request), context)
        answer = pb.ModelInferResponse(model_name=self.model.name, model_version=self.model.version, id=request.id)
        for head in asked:
            answer.outputs.add(name=head, datatype="FP32", shape=[len(scores[head])])
            # As the request came: who cannot read raw contents does not send them.
            if request.raw_input_contents:
                answer.raw_output_contents.append(scores[head].tobytes())
            else:
                answer.outputs[-1].contents.fp32_contents.extend(scores[head].tolist())
        return answer


class RankerServer:
    """A running ranker. `address` is where it serves; a context manager that stops it."""

    def __init__(self, server: grpc.Server, model: _Model, address: str) -> None:
        self._server = server
        self._model = model
        self.address = address

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until it is stopped, or for so many seconds; True if it still serves."""
        try:
            return bool(self._server.wait_for_termination(timeout))
        except KeyboardInterrupt:
            self.stop()
            return False

    def stop(self, grace: float = 5.0) -> None:
        """Reports not ready, takes no more calls, and gives those in flight `grace` seconds."""
        self._model.ready = False
        self._server.stop(grace).wait()

    def __enter__(self) -> RankerServer:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()


def serve_ranker(fn: Callable[..., Any], *, address: str = "127.0.0.1:8001", name: str = "ranker", version: str = "1",
                 inputs: Sequence[TensorSpec] = DEFAULT_INPUTS, heads: Sequence[str] = ("score",),
                 concurrency: int = 1, max_message_bytes: int = 16 << 20, max_elements: int = 1 << 20) -> RankerServer:
    """Serves `fn` as a model of the Open Inference Protocol and returns at once; see the module's text.

    address: HOST:PORT; port 0: any free one, see RankerServer.address. There is no encryption: beyond the own machine
      it needs a network that is trusted.
    name, version: of the model, as clients ask for it. Give another version whenever scores change.
    heads: names of the outputs.
    concurrency: calls of fn at the same time, from different threads; 1: fn need not be thread-safe.
    max_message_bytes: larger requests are refused before they are read. max_elements: of one input.
    InvalidRequestError: an argument that cannot be. ServerDownError: the address cannot be served at.
    """
    if not callable(fn):
        raise InvalidRequestError(f"want a function that scores, got a {type(fn).__name__}")
    if not name or not version:
        raise InvalidRequestError("a model needs a name and a version")
    for what, names in (("inputs", [spec.name for spec in inputs]), ("heads", list(heads))):
        if not names or "" in names or len(set(names)) != len(names) or len(names) > _MAX_TENSORS:
            raise InvalidRequestError(f"{what}: want 1 to {_MAX_TENSORS} different names, got {names}")
    for what, value in (("concurrency", concurrency), ("max_message_bytes", max_message_bytes),
                        ("max_elements", max_elements)):
        if value < 1:
            raise InvalidRequestError(f"{what}: want at least 1, got {value}")
    host, _, number = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or "/" in host or not number.isascii() or not number.isdigit() or int(number[:6]) > 65535:
        raise InvalidRequestError(f"address: want HOST:PORT with a port from 0 to 65535, got '{address}'")
    model = _Model(fn, name, version, inputs, heads, max_elements, concurrency)
    # Every call that may wait has a thread, so that health never queues behind them.
    server = grpc.server(
        futures.ThreadPoolExecutor(concurrency + _MAX_WAITING + _HEALTH_THREADS, thread_name_prefix="ranker"),
        handlers=_Service(model).handlers(),
        options=[("grpc.max_receive_message_length", max_message_bytes),
                 ("grpc.max_send_message_length", max_message_bytes), ("grpc.so_reuseport", 0)])
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        server.stop(None)
        raise ServerDownError(f"cannot serve at {address}: the port is taken, or the address is not this machine's; port 0 "
                              "takes a free one")
    server.start()
    return RankerServer(server, model, f"{address.rpartition(':')[0]}:{port}")

"""Every call of every server gets bytes that are no message, messages that are cut off, and messages full of nonsense:
negative sizes, 2^63, NaN, nothing, names that are not UTF-8. None crashes, none is answered as an unknown error, and a job
runs well afterwards.
"""

import math

from experiment import harness, main, need

INTEGERS = [0, 1, -1, 2**31 - 1, -2**31, 2**32 - 1, 2**63 - 1, -2**63, 2**64 - 1]
REALS = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]
TEXTS = ["", "x", "../../etc/passwd", "\0", "a" * 5000, "1", "é" * 100, "nan"]
TIMEOUT_S = 3

# What a server may say to nonsense. UNAVAILABLE would be a crash; UNKNOWN and INTERNAL an exception or a broken promise.
# DEADLINE_EXCEEDED: the store waits for a key as long as it is told to.
PLAIN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "ABORTED",
         "ALREADY_EXISTS", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"}


def nonsense(draw, message, depth=0):
    """Fills some of the fields of a message with what nobody would send."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() < 0.3 or depth > 4:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        repeated = field.is_repeated
        for _ in range(draw.choice([1, 3]) if repeated else 1):
            if field.message_type is not None:
                inner = getattr(message, field.name).add() if repeated else getattr(message, field.name)
                if not repeated:
                    inner.SetInParent()
                nonsense(draw, inner, depth + 1)
            else:
                value = scalar(draw, field)
                if repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
    return message


def scalar(draw, field):
    kind = field.cpp_type
    ranges = {field.CPPTYPE_INT32: (-2**31, 2**31 - 1), field.CPPTYPE_INT64: (-2**63, 2**63 - 1),
              field.CPPTYPE_UINT32: (0, 2**32 - 1), field.CPPTYPE_UINT64: (0, 2**64 - 1)}
    if kind in ranges:
        low, high = ranges[kind]
        return draw.choice([value for value in INTEGERS if low <= value <= high])
    if kind == field.CPPTYPE_ENUM:
        return draw.choice([0, 1, 2, 77, 2**31 - 1, -1])
    if kind == field.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return draw.choice(REALS)
    return draw.choice(TEXTS).encode() if field.type == field.TYPE_BYTES else draw.choice(TEXTS)


def bodies(x, protocol, path, count):
    """(what, bytes) to send to a method."""
    draw = x.random
    make = protocol.method(path)[0]
    yield "empty", b""
    for size in (1, 7, 300):
        yield "random bytes", draw.randbytes(size)
    yield "not UTF-8", b"\x0a\x02\xff\xfe"
    yield "length beyond the end", b"\x0a\xff\xff\xff\xff\x07x"
    yield "deep", b"\x12\x80\x01" * 3000
    for _ in range(count):
        whole = nonsense(draw, make()).SerializeToString()
        yield "nonsense", whole
        if whole:
            yield "cut", whole[:draw.randrange(len(whole))]


def throw_at(x, protocol, server, address, services, count):
    """{status: how often} of all that was thrown at a server."""
    import grpc
    codes = {}
    with grpc.insecure_channel(address) as channel:
        for service in services:
            for method in protocol.services[service].method:
                path = f"{service}/{method.name}"
                call = channel.stream_stream(f"/sluice.v1.{path}")
                for what, body in bodies(x, protocol, path, count):
                    try:
                        started = call(iter([body, body]) if method.client_streaming else iter([body]), timeout=TIMEOUT_S)
                        for _ in range(1000):
                            if next(started, None) is None:
                                break
                        started.cancel()
                        code = "OK"
                    except grpc.RpcError as error:
                        code = error.code().name
                        # Bytes that protobuf cannot read: gRPC itself answers, before any handler.
                        if code == "INTERNAL" and what != "nonsense":
                            code = "INVALID_ARGUMENT"
                        x.assertIn(code, PLAIN, f"{path}, {what}, {body[:80]!r}: {error.details()}")
                    x.assertFalse(server.ended(), f"{path}, {what}, {body!r}: {server.tail()}")
                    codes[code] = codes.get(code, 0) + 1
    return codes


def run(x):
    need("grpc", "google.protobuf")
    from messages import Protocol
    protocol = Protocol()
    cluster = harness.Cluster(x, x.data, ranks=1)
    coordinator = cluster.start_coordinator()
    reward = cluster.start_reward()
    rank = cluster.start_rank()
    count = x.pick(12, 1000)
    for name, server, services in (("coordinator", coordinator, ["JobService", "MemberService", "DataService"]),
                                   ("rank", rank, ["RolloutService", "PolicyService", "RendezvousService"]),
                                   ("reward", reward, ["RewardService"])):
        codes = throw_at(x, protocol, server, server.address, services, count)
        x.note(f"{name}: " + ", ".join(f"{code} {times}" for code, times in sorted(codes.items())))
    # Members that only ever said hello are out when their leases end; then the group forms and works.
    cluster.start_actor()
    for job in cluster.json("list")["jobs"]:
        if job["state"] in ("queued", "running"):
            cluster.ctl("cancel", job["job_id"]).wait()
    watch = cluster.submit(dict(x.rl(steps=4), name="afterwards"))
    x.assertEqual(watch.wait(), harness.DONE, watch.said())
    job = next(job for job in cluster.json("list")["jobs"] if job["name"] == "afterwards")
    folder = cluster.json("describe", job["job_id"])["run_folder"]
    x.check_rl_results(folder, 4, 16)
    x.check_audit(folder)


if __name__ == "__main__":
    main(__file__, run)

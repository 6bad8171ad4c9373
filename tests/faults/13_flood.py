"""Messages that are too large, too many or never read, and connections without end. Each is refused or slowed down, memory
stays bounded, and the others do not notice: a job runs beside it and ends well.
"""

import itertools
import socket

from experiment import harness, main, need
from harness import wait_until

GROWTH_BYTES = 256 << 20  # of a server's peak memory during a flood
MIB = 1 << 20
MAX_THREADS = 1024 + 64  # common/rpc/server.cc, and those of the process itself


def peak_bytes(process):
    with open(f"/proc/{process.child.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def refusal(call):
    import grpc
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def oversize(x, protocol, cluster):
    import grpc
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(cluster.address, options) as channel:
        for size, code in ((40 * MIB, "RESOURCE_EXHAUSTED"), (15 * MIB, "INVALID_ARGUMENT")):
            request = protocol("SubmitRequest", request_id="large", spec_yaml="#" * size)
            request.spec.name = "large"
            got = refusal(lambda: protocol.call(channel, "JobService/Submit", request))
            x.assertEqual(got, code, f"a spec of {size} bytes")
        many = protocol("SubmitRequest", request_id="x" * 10_000, spec_yaml="kind: rl\n")
        x.assertEqual(refusal(lambda: protocol.call(channel, "JobService/Submit", many)), "INVALID_ARGUMENT")


def stream_flood(x, protocol, rank, messages, read):
    """Small messages of an actor that does nothing, as fast as they go; every other one is answered."""
    import grpc
    hello = protocol("ActorMessage")
    hello.hello.actor_id, hello.hello.protocol = "flood", "1"
    small = [protocol("ActorMessage") for _ in range(2)]
    small[0].heartbeat.open_groups = 1
    small[1].result.job_id = "another"
    small[1].result.abandoned.reason = "none"
    kinds = [message.SerializeToString() for message in small]
    with grpc.insecure_channel(rank.address) as channel:
        sent = itertools.chain([hello.SerializeToString()], (kinds[i % 2] for i in range(messages)))
        call = channel.stream_stream("/sluice.v1.RolloutService/Work")(sent, timeout=harness.LIMIT_S)
        try:
            if not read:
                wait_until(lambda: call.done() or next(sent, None) is None, "the rank took or refused them all")
                return "never read, " + (call.code().name if call.done() else "all taken")
            answers = sum(1 for _ in call)
            return f"{answers} answers, {call.code().name}"
        except grpc.RpcError as error:
            return error.code().name


def never_read(x, protocol, cluster, job, streams):
    """Watchers that read nothing, more than the coordinator takes; returns how many it refused."""
    import grpc
    request = protocol("WatchRequest", job_id=job).SerializeToString()
    channels = [grpc.insecure_channel(cluster.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(8)]
    calls = [channels[i % 8].unary_stream("/sluice.v1.JobService/Watch")(request, timeout=harness.LIMIT_S)
             for i in range(streams)]
    listed = cluster.json("list")["jobs"]
    x.assertTrue(any(found["job_id"] == job for found in listed))
    refused = [call.code().name for call in calls if call.done()]
    x.assertEqual(set(refused) - {"RESOURCE_EXHAUSTED", "OK"}, set())
    return channels, refused.count("RESOURCE_EXHAUSTED")


def score_flood(x, protocol, address, calls):
    import grpc
    with grpc.insecure_channel(address) as channel:
        catalog = protocol.call(channel, "RewardService/Describe", protocol("DescribeRankersRequest")).catalog_version
    request = protocol("ScoreRequest", job_id="flood", ranker="cooccurrence", catalog_version=catalog)
    for ordinal in range(64):
        group = request.groups.add(ordinal=ordinal, user=1, target=1, history=[1, 2, 3])
        for item in range(40):
            group.candidates.add(items=[item])
    with grpc.insecure_channel(address) as channel:
        score = channel.unary_unary("/sluice.v1.RewardService/Score")
        pending = [score.future(request.SerializeToString(), timeout=harness.LIMIT_S) for _ in range(calls)]
        codes = {}
        for call in pending:
            name = call.code().name
            codes[name] = codes.get(name, 0) + 1
    x.assertEqual(set(codes) & {"UNKNOWN", "UNAVAILABLE", "INTERNAL"}, set(), codes)
    return codes


def threads_of(process):
    with open(f"/proc/{process.child.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))


def waiting_calls(x, protocol, cluster, count):
    """Calls that would wait a second each, all at once: some are worked on, the others are refused at once."""
    import grpc
    request = protocol("StoreGetRequest", key="nobody-sets-it", wait_ms=1000).SerializeToString()
    channels = [grpc.insecure_channel(cluster.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(8)]
    pending = [channels[i % 8].unary_unary("/sluice.v1.MemberService/StoreGet").future(request, timeout=harness.LIMIT_S)
               for i in range(count)]
    most = 0
    while not all(call.done() for call in pending):
        most = max(most, threads_of(cluster.coordinator))
    codes = {}
    for call in pending:
        codes[call.code().name] = codes.get(call.code().name, 0) + 1
    for channel in channels:
        channel.close()
    x.assertLess(most, MAX_THREADS, codes)
    x.assertGreater(codes.get("RESOURCE_EXHAUSTED", 0), 0, codes)
    x.assertEqual(set(codes) & {"UNKNOWN", "UNAVAILABLE", "INTERNAL"}, set(), codes)
    return f"at most {most} threads, {codes}"


def asked_too_often(x, protocol, cluster):
    """One host that lists jobs as fast as it can is slowed down, and told when to come again."""
    import grpc
    with grpc.insecure_channel(cluster.address) as channel:
        call = channel.unary_unary("/sluice.v1.JobService/List")
        request = protocol("ListRequest", limit=1).SerializeToString()
        pending = [call.future(request, timeout=harness.LIMIT_S) for _ in range(3000)]
        refused = [one for one in pending if one.code() == grpc.StatusCode.RESOURCE_EXHAUSTED]
        hints = [value for one in refused for key, value in one.trailing_metadata() or () if key == "retry_after_ms"]
    x.assertGreater(len(hints), 0)
    return f"{len(refused)} of 3000 refused"


def connections(cluster, count):
    host, port = cluster.address.split(":")
    found = []
    for _ in range(count):
        found.append(socket.create_connection((host, int(port)), harness.LIMIT_S))
    return found


def run(x):
    need("grpc", "google.protobuf")
    from messages import Protocol
    protocol = Protocol()
    cluster = harness.Cluster(x, x.data, ranks=1).start_all()
    rank = cluster.members[0]
    steps = x.pick(40, 400)
    watch = cluster.submit(x.rl(steps=steps))
    folder = cluster.run_folder(alive=[watch])
    x.step(folder, 1, alive=[watch])
    servers = {"coordinator": cluster.coordinator, "rank": rank, "reward": cluster.reward}
    before = {name: peak_bytes(server) for name, server in servers.items()}

    oversize(x, protocol, cluster)
    count = x.pick(30_000, 1_000_000)
    x.note(f"{count} small messages to the rank: {stream_flood(x, protocol, rank, count, read=True)}; "
           f"{stream_flood(x, protocol, rank, count, read=False)}")
    channels, refused = never_read(x, protocol, cluster, cluster.job()["job_id"], x.pick(300, 3000))
    x.note(f"watchers that read nothing: {refused} refused")
    x.note(f"calls that wait: {waiting_calls(x, protocol, cluster, x.pick(3000, 20_000))}")
    x.note(f"jobs listed without a pause: {asked_too_often(x, protocol, cluster)}")
    idle = connections(cluster, x.pick(300, 3000))
    x.note(f"scores: {score_flood(x, protocol, cluster.reward_address, x.pick(300, 5000))}")

    stepped = harness.last_step(folder)
    wait_until(lambda: watch.ended() or harness.last_step(folder) > stepped, "the job goes on beside the flood")
    grown = {name: peak_bytes(server) - before[name] for name, server in servers.items()}
    x.note("peak memory grew by MiB: " + ", ".join(f"{name} {size / MIB:.0f}" for name, size in grown.items()))
    for name, size in grown.items():
        x.assertLess(size, GROWTH_BYTES, name)
    for channel in channels:
        channel.close()
    for connection in idle:
        connection.close()
    x.assertEqual(watch.wait(), harness.DONE, watch.said())
    x.check_rl_results(folder, steps, 16)
    x.check_audit(folder)


if __name__ == "__main__":
    main(__file__, run)

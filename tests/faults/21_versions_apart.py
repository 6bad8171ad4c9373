"""Releases apart: an actor of another protocol, messages with fields and kinds from the future, a reward server and an actor that
know less, enum values, checkpoints and data sets of a later format. Each works, or is refused with a sentence that names the
reason.
"""

import json
import os

from experiment import harness, main, need
from harness import DONE, PERMISSION

HELLO, READY, PREPARED, VERIFIED = 1, 2, 7, 8  # of an actor
TRANSFER, COMMIT = 6, 7                        # of a rank
FUTURE = b"\xfa\xff\x07\x05later"      # field 16383, five bytes
LATER_KIND = b"\xda\x3e\x02\x08\x01"   # field 1003 with a message in it: a kind of stream message that is not known yet


def other_protocol(x, protocol, reward):
    """An actor of the next major protocol is refused by name; one of ours works at the same place."""
    from relay import UP, Relay, pass_on
    message_type = protocol.type("ActorMessage")
    spoken = ["2"]

    def rule(message):
        if message.method == "Work" and message.way == UP and message.kind == HELLO:
            changed = message_type.FromString(message.payload)
            changed.hello.protocol = spoken[0]
            return [(0, changed.SerializeToString())]
        return pass_on(message)
    learner, folder = x.start_rl(x.rl(steps=3), name="other-protocol")
    with Relay(learner.address, rule) as relay:
        actor = x.start("next-release", "sluice-actor", "--learner", relay.address, "--reward", reward)
        x.assertEqual(actor.wait(), PERMISSION, actor.said())
        x.assertIn("this rank speaks protocol 1, the actor '2'; run the same release on both", actor.said())
        spoken[0] = "1"
        with x.recovery():
            x.start_actor("--learner", relay.address, reward=reward, name="same-release")
            x.check_done(learner, folder, 3)


def from_the_future(x, reward):
    """Every message of every call has a field that nobody knows, and streams have kinds that nobody knows."""
    from relay import Relay

    def rule(message):
        payloads = [(0, message.payload + FUTURE)]
        if message.method == "Work" and message.number % 5 == 4:
            payloads.append((0, LATER_KIND))
        return payloads
    cluster = harness.Cluster(x, x.data, ranks=2)
    cluster.start_coordinator()
    with Relay(cluster.address, rule) as control, Relay(reward, rule) as scores:
        real, cluster.address = cluster.address, control.address
        cluster.reward_address = scores.address
        for i in range(2):
            cluster.start_rank(f"rank-{i}")
            cluster.start_actor(f"actor-{i}")
        watch = cluster.submit(dict(x.rl(steps=4), name="future"))
        x.assertEqual(watch.wait(), DONE, watch.said())
        cluster.address = real
        folder = cluster.job()["run_folder"]
    x.check_rl_results(folder, 4, 16)
    x.check_audit(folder)
    learner, folder = x.start_rl(x.rl(steps=3), name="future-actor")
    with Relay(learner.address, rule) as relay:
        x.start_actor("--learner", relay.address, reward=reward)
        x.check_done(learner, folder, 3)


def older_reward(x, protocol, reward):
    """A reward server of before histories were scored: the job does without."""
    from relay import DOWN, Relay, pass_on
    answer = protocol.type("ScoreResponse")

    def rule(message):
        if message.method != "Score" or message.way != DOWN:
            return pass_on(message)
        response = answer.FromString(message.payload)
        for group in response.groups:
            for head in group.heads:
                head.ClearField("left_out")
        return [(0, response.SerializeToString())]
    learner, folder = x.start_rl(x.rl(steps=3), name="older-reward")
    with Relay(reward, rule) as relay:
        x.start_actor("--learner", learner.address, reward=relay.address)
        _, trained = x.check_done(learner, folder, 3)
    x.assertTrue(all("reward/mean" in row for row in trained), trained)


def older_actor(x, protocol, reward):
    """An actor of before weights were published in steps: it is offered a version, and says Ready when it has it."""
    from relay import DOWN, UP, Relay, pass_on
    hello = protocol.type("ActorMessage")
    said = set()

    def rule(message):
        if message.method != "Work":
            return pass_on(message)
        said.add((message.way, message.kind))
        if message.way == UP and message.kind == HELLO:
            changed = hello.FromString(message.payload)
            changed.hello.ClearField("staged_weights")
            return [(0, changed.SerializeToString())]
        return pass_on(message)
    learner, folder = x.start_rl(x.rl(steps=3), name="older-actor")
    with Relay(learner.address, rule) as relay:
        x.start_actor("--learner", relay.address, reward=reward)
        x.check_done(learner, folder, 3)
    steps = {(UP, PREPARED), (UP, VERIFIED), (DOWN, TRANSFER), (DOWN, COMMIT)}
    x.assertFalse(said & steps, "neither side speaks of what the other does not know")
    x.assertIn((UP, READY), said)


def unknown_enums(x, protocol):
    import grpc
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.state = x.path("state-enums")
    cluster.start_coordinator()
    with grpc.insecure_channel(cluster.address) as channel:
        for change in (lambda spec: setattr(spec, "kind", 77), lambda spec: setattr(spec.rl, "sampler", 99)):
            request = protocol("SubmitRequest", request_id="enum")
            request.spec.name, request.spec.kind, request.spec.data = "enum", 3, x.data
            change(request.spec)
            with x.assertRaises(grpc.RpcError) as refused:
                protocol.call(channel, "JobService/Submit", request)
            x.assertEqual(refused.exception.code().name, "INVALID_ARGUMENT", refused.exception.details())


def later_files(x):
    """A checkpoint and a data set of the next format."""
    spec = {"name": "sft", "kind": "sft", "seed": 5, "data": x.data, "model": harness.model_spec(),
            "sft": {"passes": 1, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}}, "checkpoint": {"every": 2}}
    _, folder = x.run_job(spec)
    for place, said in ((os.path.join(folder, "checkpoints", harness.checkpoints(folder)[-1]), "format"), (x.data, "")):
        path = os.path.join(place, "manifest.json")
        with open(path, encoding="utf-8") as file:
            whole = file.read()
        document = json.loads(whole)
        key = "format_version" if "format_version" in document else "format"
        document[key] = 99
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        process, _ = x.start_job(spec, folder=folder)
        x.assertEqual(process.wait(), PERMISSION, process.said())
        x.assertIn("99", process.said())
        x.assertIn(said, process.said())
        with open(path, "w", encoding="utf-8") as file:
            file.write(whole)


def run(x):
    need("grpc", "google.protobuf")
    from messages import Protocol
    protocol = Protocol()
    _, reward, _ = x.start_reward(x.data)
    other_protocol(x, protocol, reward)
    from_the_future(x, reward)
    older_reward(x, protocol, reward)
    older_actor(x, protocol, reward)
    unknown_enums(x, protocol)
    later_files(x)
    x.note("another protocol, later fields, kinds, enums and files, an older reward server and actor")


if __name__ == "__main__":
    main(__file__, run)

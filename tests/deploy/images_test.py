"""The image, compose file, units and package: what can be asked without root, an engine or a network."""

from __future__ import annotations

import contextlib
import copy
import functools
import gzip
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TOP, "deploy", "images"), os.path.join(TOP, "deploy", "kubernetes")]
import build as images  # noqa: E402
import dockerfile  # noqa: E402
import sbom  # noqa: E402
from dockerfile import DockerfileError  # noqa: E402
from lint import facts  # noqa: E402

specification = importlib.util.spec_from_file_location("package_build", os.path.join(TOP, "deploy", "package", "build.py"))
package = importlib.util.module_from_spec(specification)
specification.loader.exec_module(package)

import manuals  # noqa: E402  # build.py has made its folder known

BIN = os.environ.get("SLUICE_BIN_DIR", os.path.join(TOP, "build", "bin"))
YAML = importlib.util.find_spec("yaml") is not None
SCHEMA = YAML and importlib.util.find_spec("jsonschema") is not None
BASE = "registry.example.com/debian@sha256:" + "0123456789abcdef" * 4  # of nothing that exists


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


@functools.cache
def pages():
    return package.manual_pages(BIN, 86400)


def refusals(argv):
    """What the program would say against a command line, by docs/reference/processes.md."""
    binary, words = os.path.basename(argv[0]), argv[1:]
    while words and words[0].startswith("--log-format") and binary == "sluice-learner":
        words = words[1:]
    command = words.pop(0) if binary == "sluice-learner" else ""
    flags = facts.programs().get((binary, command))
    if flags is None:
        return [f"there is no {binary} {command}"]
    bad, seen = [], set()
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        seen.add(name)
        why = flags[name].refuses(value) if name in flags else "there is no such flag"
        if why:
            bad.append(f"{binary} {command}: {word}: {why}")
    return bad + [f"{binary} {command}: lacks --{name}" for name, flag in flags.items() if flag.required and name not in seen]


class DockerfileTest(unittest.TestCase):
    def stages(self, **arguments):
        return dockerfile.stages(read("deploy/images/Dockerfile"), {"BASE": "base", **arguments})[0]

    def steps(self, name, stage="runtime"):
        return [step for step in next(s for s in self.stages() if s.name == stage).steps if step.name == name]

    def test_each_variant_takes_its_own_libraries_and_nothing_of_the_other(self):
        for variant, other in (("cpu", "cuda"), ("cuda", "cpu")):
            names = [stage.name for stage in dockerfile.needed(self.stages(VARIANT=variant))]
            self.assertEqual(names, ["wheels", "build", "binaries", f"lib-{variant}", "lib", "runtime"])
            self.assertNotIn(f"lib-{other}", names)

    def test_without_a_base_there_is_no_image(self):
        with self.assertRaisesRegex(DockerfileError, "nothing sets BASE"):
            dockerfile.stages(read("deploy/images/Dockerfile"), {})

    def test_it_runs_as_the_manifests_want(self):
        self.assertEqual([step.text for step in self.steps("USER")], ["10001:10001"])
        self.assertEqual([step.text for step in self.steps("STOPSIGNAL")], ["SIGTERM"])
        for name in ("ENTRYPOINT", "CMD"):
            self.assertTrue(self.steps(name)[0].command())
        self.assertIn("sluice-health", self.steps("HEALTHCHECK")[0].text)

    def test_it_installs_what_the_package_depends_on_and_builds_with_what_the_script_installs(self):
        runtime = self.steps("RUN")[0].text
        wanted = [entry.split()[0] for entry in package.DEPENDS]
        for name in wanted:
            if name != "libc6":  # is in every Debian
                self.assertIn(f" {name} ", runtime.replace("\n", " ") + " ")
        script = re.search(r"debian_packages=\((.*?)\n\)", read("sluice"), re.DOTALL)[1].split()
        built = re.search(r"recommends (g\+\+.*?) &&", self.steps("RUN", "build")[0].text, re.DOTALL)[1].split()
        self.assertEqual(sorted(set(built) - set(script)), [])

    def test_it_takes_the_libraries_that_the_package_takes(self):
        text = self.steps("RUN", "lib-cpu")[0].text
        self.assertEqual(sorted(re.findall(r"(?:torch|nvidia)/\S+\.so\S*", text)), sorted(package.LIBRARIES))
        self.assertIn(package.RUNPATH, self.steps("RUN", "binaries")[1].text)

    def test_data_of_the_demo_stays_out(self):
        self.assertIn("grep -v '^recbole=='", self.steps("RUN", "wheels")[1].text)

    def test_what_is_not_understood_is_refused_by_name(self):
        for line, named in (("ADD a b", "ADD"), ("VOLUME /x", "VOLUME"), ("ONBUILD RUN x", "ONBUILD"), ("SHELL [\"x\"]", "SHELL"),
                            ("RUN --mount=type=cache x", "--mount"), ("COPY --link a b", "--link"), ("RUN <<EOF", "here documents"),
                            ("FROM b", "want FROM base AS name"), ("FROM base AS a", "two stages a"), ("COPY --from=z a b", "no stage z")):
            with self.subTest(line), self.assertRaisesRegex(DockerfileError, re.escape(named)):
                dockerfile.needed(dockerfile.stages(f"FROM base AS a\n{line}\n", {})[0])
        with self.assertRaisesRegex(DockerfileError, "parser directives"):
            dockerfile.instructions("# escape=`\nFROM a AS b\n")
        with self.assertRaisesRegex(DockerfileError, "exec form"):
            dockerfile.instructions("CMD sluice-learner")[0].command()
        with self.assertRaisesRegex(DockerfileError, "not understood"):
            dockerfile.substitute("${A:-b}", {}, dockerfile.Instruction(1, "RUN", ""))

    def test_lines_are_joined_over_comments(self):
        found = dockerfile.instructions("RUN a && \\\n# why\n  b\nUSER 1\n")
        self.assertEqual([(step.line, step.name, step.text.split()) for step in found],
                         [(1, "RUN", ["a", "&&", "b"]), (4, "USER", ["1"])])


class BuildTest(unittest.TestCase):
    def test_the_command_holds_base_variant_and_commit(self):
        words = images.command("docker", BASE, "cuda", "registry.example.com/sluice", "abc", 86400)
        for word in (f"BASE={BASE}", "VARIANT=cuda", "REVISION=abc", "CREATED=1970-01-02T00:00:00Z", "SOURCE_DATE_EPOCH=86400"):
            self.assertIn(word, words)
        self.assertIn(f"registry.example.com/sluice/sluice-cuda:{sbom.version()}", words)

    def test_a_base_without_a_digest_that_somebody_computed_is_refused(self):
        for text in ("debian:bookworm-slim", "debian@sha256:" + "0" * 64, "debian@sha256:12", "@sha256:" + "0123456789abcdef" * 4):
            with self.subTest(text), contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
                images.main(["--base", text])
            self.assertEqual(caught.exception.code, 2)


class BillTest(unittest.TestCase):
    STATUS = ("Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nSource: zlib\nVersion: 1:1.2.13+x-1\n\n"
              "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n")

    def layers(self, folder):
        base, wheels = os.path.join(folder, "base"), os.path.join(folder, "wheels")
        os.makedirs(os.path.join(base, "var/lib/dpkg"))
        with open(os.path.join(base, "var/lib/dpkg/status"), "w", encoding="utf-8") as file:
            file.write(self.STATUS)
        info = os.path.join(wheels, "usr/lib/sluice/nvidia_cuda_runtime-13.0.96.dist-info")
        os.makedirs(info)
        with open(os.path.join(info, "METADATA"), "w", encoding="utf-8") as file:
            file.write("Name: nvidia-cuda_runtime\nVersion: 13.0.96\nLicense: LicenseRef-NVIDIA\n\nText\n")
        return [base, wheels]

    def test_it_names_packages_wheels_and_sluice_and_is_the_same_anywhere(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            text = sbom.document(self.layers(one), "1.2.3")
            self.assertEqual(text, sbom.document(self.layers(other), "1.2.3"))
        bill = json.loads(text)
        self.assertEqual([part["purl"] for part in bill["components"] if "purl" in part],
                         ["pkg:deb/debian/zlib1g@1%3A1.2.13%2Bx-1?arch=amd64", "pkg:pypi/nvidia-cuda-runtime@13.0.96"])
        self.assertEqual(bill["metadata"]["component"]["version"], "1.2.3")
        self.assertRegex(bill["serialNumber"], r"^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5")


@unittest.skipUnless(YAML, "there is no PyYAML here: ./sluice setup")
class ComposeTest(unittest.TestCase):
    OURS = {"coordinator", "rank-0", "rank-1", "reward", "actor-0", "actor-1"}
    ONCE = {"volumes", "certificates"}

    def setUp(self):
        import yaml
        self.file = yaml.safe_load(read("deploy/compose/compose.yaml"))
        self.services = self.file["services"]

    @unittest.skipUnless(SCHEMA, "there is no jsonschema here: ./sluice setup")
    def test_it_keeps_to_the_schema_of_the_compose_specification_and_a_planted_bug_does_not(self):
        import jsonschema
        schema = json.loads(read("deploy/compose/compose-spec.json"))
        schema["$schema"] = "http://json-schema.org/draft-07/schema#"
        validator = jsonschema.Draft7Validator(schema)
        self.assertEqual([error.message for error in validator.iter_errors(self.file)], [])
        broken = copy.deepcopy(self.file)
        broken["services"]["reward"]["readonly"] = True
        self.assertTrue(list(validator.iter_errors(broken)))

    def test_every_service_is_confined(self):
        self.assertEqual(set(self.services), self.OURS | self.ONCE | {"prometheus", "grafana"})
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service.get("cap_add", []), ["CHOWN"] if name == "volumes" else [])
                self.assertIn("no-new-privileges:true", service["security_opt"])
                self.assertTrue(service["deploy"]["resources"]["limits"]["memory"])
                self.assertTrue(service["healthcheck"].get("test") or name in self.ONCE)
                self.assertNotIn("privileged", service)
                for port in service.get("ports", ()):
                    self.assertTrue(port.startswith("127.0.0.1:"), port)
                for volume in service.get("volumes", ()):
                    source = volume.partition(":")[0]
                    if source.startswith("."):
                        self.assertTrue(os.path.exists(os.path.join(TOP, "deploy/compose", source)), source)
                    else:
                        self.assertIn(source, self.file["volumes"])
        for name in self.OURS | {"certificates"}:
            self.assertEqual(self.services[name]["user"], "10001:10001")

    def test_everybody_has_the_certificate_of_its_role_and_nobody_the_authority(self):
        mounts = {name: {volume.split(":")[0]: volume.split(":")[1:] for volume in service.get("volumes", ())}
                  for name, service in self.services.items()}
        for name in self.OURS:
            role = name.partition("-")[0]
            found = {volume: places for volume, places in mounts[name].items() if volume.startswith("tls-")}
            self.assertEqual(found, {f"tls-{role}": ["/etc/sluice/tls", "ro"]})
            self.assertEqual(self.services[name]["environment"], {
                "SLUICE_TLS_CA": "/etc/sluice/tls/ca.crt", "SLUICE_TLS_CERT": "/etc/sluice/tls/tls.crt",
                "SLUICE_TLS_KEY": "/etc/sluice/tls/tls.key"})
            health = [word for word in self.command(name) if word.startswith("--health-address=")]
            self.assertRegex(health[0], r"^--health-address=127\.0\.0\.1:7\d\d2$")
        self.assertEqual({name for name in mounts if "authority" in mounts[name]}, self.ONCE)
        # What one service makes the others find, and each starts after it.
        for role in ("coordinator", "rank", "reward", "actor", "client"):
            for name in self.ONCE:
                self.assertEqual(mounts[name][f"tls-{role}"], [f"/tls/{role}"])
            self.assertIn(f"/tls/{role}", self.services["volumes"]["command"])
        self.assertIn("/authority", self.services["volumes"]["command"])
        for name in ("coordinator", "reward"):
            self.assertEqual(list(self.services[name]["depends_on"]), ["certificates"])
        for name in self.OURS - {"coordinator", "reward"}:
            self.assertEqual(list(self.services[name]["depends_on"]), ["coordinator"])

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl here: apt-get install openssl")
    def test_certificates_are_made_where_services_mount_them_and_renewed_by_the_same_authority(self):
        def openssl(*words):
            return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True, timeout=60).stdout
        # As the service has it: both scripts at their places of the tree.
        service = self.services["certificates"]
        self.assertEqual([volume.split(":")[:2] for volume in service["volumes"][:2]],
                         [["./certificates", "/deploy/compose/certificates"],
                          ["../certificates/make-certificates", "/deploy/certificates/make-certificates"]])
        self.assertEqual(service["entrypoint"][1], "/deploy/compose/certificates")
        with tempfile.TemporaryDirectory() as folder:
            authority, tls = os.path.join(folder, "authority"), os.path.join(folder, "tls")
            seen = []
            for _ in range(2):
                subprocess.run([os.path.join(TOP, "deploy/compose/certificates"), authority, tls], check=True, timeout=120)
                for role in ("coordinator", "rank", "reward", "actor", "client"):
                    own = os.path.join(tls, role)
                    self.assertEqual(sorted(os.listdir(own)), ["ca.crt", "tls.crt", "tls.key"])
                    self.assertEqual(os.stat(os.path.join(own, "tls.key")).st_mode & 0o777, 0o600)
                    names = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", os.path.join(own, "tls.crt"))
                    self.assertEqual(re.findall(r"DNS:(\S+)", names), [f"{role}.sluice.internal"])
                    openssl("verify", "-CAfile", os.path.join(own, "ca.crt"), os.path.join(own, "tls.crt"))
                    self.assertEqual(openssl("x509", "-noout", "-pubkey", "-in", os.path.join(own, "tls.crt")),
                                     openssl("pkey", "-pubout", "-in", os.path.join(own, "tls.key")))
                seen.append([openssl("x509", "-noout", "-serial", "-in", os.path.join(tls, name))
                             for name in ("rank/ca.crt", "rank/tls.crt")])
            self.assertEqual(seen[0][0], seen[1][0])
            self.assertNotEqual(seen[0][1], seen[1][1])

    def command(self, name):
        return [*self.services[name]["entrypoint"], *self.services[name]["command"]]

    def test_command_lines_are_those_of_the_binaries_and_a_planted_bug_is_not(self):
        for name in self.OURS:
            self.assertEqual(refusals(self.command(name)), [])
        self.assertEqual(refusals([*self.command("reward"), "--ranks=2"]), ["sluice-reward : --ranks=2: there is no such flag"])

    def test_peers_are_services_that_listen_there(self):
        listening = set()
        for name in self.OURS:
            for word in self.command(name):
                if match := re.fullmatch(r"--(?:metrics-)?address=(?:0\.0\.0\.0|([\w-]+)):(\d+)", word):
                    self.assertIn(match[1], (None, name))
                    listening.add(f"{name}:{match[2]}")
        for name in self.OURS:
            for word in self.command(name):
                if match := re.fullmatch(r"--(?:coordinator|reward|learner)=(.*)", word):
                    self.assertIn(match[1], listening)
        targets = {address for group in json.loads(read("deploy/compose/targets.json")) for address in group["targets"]}
        self.assertEqual(targets, {address for address in listening if address[-1] == "1"})
        ranks = sum(name.startswith("rank-") for name in self.services)
        self.assertIn(f"--ranks={ranks}", self.command("coordinator"))

    def test_grace_covers_the_drain(self):
        for name, flag in (("coordinator", "--drain-seconds="), ("actor-0", "--drain-timeout=")):
            drain = next(int(word.removeprefix(flag)) for word in self.command(name) if word.startswith(flag))
            self.assertGreater(int(self.services[name]["stop_grace_period"].removesuffix("s")), drain + 5)

    def test_dashboards_find_the_prometheus_of_this_file(self):
        self.assertIn("url: http://prometheus:9090\n", read("deploy/compose/datasources/prometheus.yaml"))


class InsecureTest(unittest.TestCase):
    # Where the word stands, and why.
    ALLOWED = {"deploy/systemd/sluice.default": "says what it would mean",
               "deploy/kubernetes/lint/security.py": "refuses it",
               "deploy/images/replay.py": "a root with no other process"}

    def test_nothing_that_is_deployed_says_it(self):
        found = set()
        for folder, _, names in os.walk(os.path.join(TOP, "deploy")):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), TOP)
                if not path.endswith(".pyc") and "--insecure" in read(path):
                    found.add(path)
        self.assertEqual(found, set(self.ALLOWED))
        self.assertRegex(read("deploy/systemd/sluice.default"), r"(?m)^SECURITY_FLAGS=$")


class UnitsTest(unittest.TestCase):
    EXPOSURE = 15  # tenths of systemd's scale from 0 to 10; 1.4 was measured with systemd 252

    def units(self):
        return {name: read(f"deploy/systemd/{name}") for name in package.UNITS}

    def settings(self):
        return dict(re.findall(r"^(\w+)=(.*)$", read("deploy/systemd/sluice.default"), re.MULTILINE))

    def test_command_lines_are_those_of_the_binaries(self):
        values = self.settings()
        for name, text in self.units().items():
            for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
                words = re.sub(r"\$\{?(\w+)\}?", lambda match: values[match[1]], line.replace("%i", "0")).split()
                self.assertEqual(refusals(words), [], name)

    def test_a_drain_fits_the_time_to_stop(self):
        for name, text in self.units().items():
            for drain in re.findall(r"--drain-(?:seconds|timeout)=(\d+)", text):
                self.assertGreater(int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1]), int(drain) + 5, name)

    def test_started_means_ready_and_takes_as_long_as_a_start_may(self):
        services = {name: text for name, text in self.units().items() if name.endswith(".service")}
        self.assertEqual(len(services), 4)
        for name, text in services.items():
            self.assertIn("\nType=notify\nNotifyAccess=main\n", text, name)
            # An actor waits for a rank of whatever machine; nothing waits for an actor.
            self.assertEqual(re.search(r"^TimeoutStartSec=(.*)$", text, re.MULTILINE)[1] == "infinity", "actor" in name, name)
            self.assertEqual(re.search(r"^After=.* sluice\.target$", text, re.MULTILINE) is not None, "actor" in name, name)

    def test_exit_codes_are_known(self):
        for text in self.units().values():
            for codes in re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE):
                self.assertLessEqual({int(code) for code in codes.split()}, facts.exit_codes())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze here: apt-get install systemd")
    def test_systemd_finds_nothing_to_say_and_little_exposure(self):
        with tempfile.TemporaryDirectory() as root:
            folder = os.path.join(root, "usr/lib/systemd/system")
            shutil.copytree("/usr/lib/systemd/system" if os.path.isdir("/usr/lib/systemd/system") else "/lib/systemd/system",
                            folder, symlinks=True, ignore=lambda _, names: [n for n in names if not n.endswith((".target", ".slice"))])
            os.makedirs(os.path.join(root, "usr/bin"))
            for name in package.PROGRAMS:
                shutil.copy("/bin/true", os.path.join(root, "usr/bin", name))
            os.makedirs(os.path.join(root, "etc/default"))
            for name, text in self.units().items():
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(text)
                if name.endswith(".service"):  # enabled: an order that goes round would show
                    os.makedirs(os.path.join(folder, "sluice.target.wants"), exist_ok=True)
                    os.symlink(f"../{name}", os.path.join(folder, "sluice.target.wants", name.replace("@.", "@0.")))
                # A template is verified as an instance.
                self.analyze(root, "verify", "--man=no", os.path.join(folder, name.replace("@.", "@0.")))
                if name.endswith(".service"):
                    self.analyze(root, "security", "--offline=true", f"--threshold={self.EXPOSURE}", "--no-pager", name)
            self.analyze(root, "verify", "--man=no", os.path.join(folder, "sluice.target"))
            broken = self.units()["sluice-reward.service"].replace("PrivateTmp=yes", "PrivateTemp=yes")
            with open(os.path.join(folder, "broken.service"), "w", encoding="utf-8") as file:
                file.write(broken)
            with self.assertRaisesRegex(AssertionError, "PrivateTemp"):
                self.analyze(root, "verify", "--man=no", os.path.join(folder, "broken.service"))

    def analyze(self, root, verb, *words):
        answer = subprocess.run(["systemd-analyze", f"--root={root}", verb, *words], capture_output=True, text=True, timeout=60)
        said = answer.stdout + answer.stderr
        self.assertEqual(answer.returncode, 0, said)
        if verb == "verify":
            self.assertEqual(said.strip(), "")


@unittest.skipUnless(shutil.which("dpkg-deb") and shutil.which("patchelf"), "there is no patchelf here: apt-get install patchelf")
class PackageTest(unittest.TestCase):
    def inputs(self, folder):
        """A small tree in the form of build/bin and of site-packages."""
        binaries, wheels = os.path.join(folder, "bin"), os.path.join(folder, "site")
        os.makedirs(binaries)
        for name in package.PROGRAMS:
            shutil.copy("/bin/true", os.path.join(binaries, name))
        for name in package.LIBRARIES:
            os.makedirs(os.path.dirname(os.path.join(wheels, name)), exist_ok=True)
            with open(os.path.join(wheels, name), "w", encoding="utf-8") as file:
                file.write(name)
        for pattern in package.LICENCES:
            info = os.path.join(wheels, pattern.replace("*", "1"))
            os.makedirs(info)
            with open(os.path.join(info, "METADATA"), "w", encoding="utf-8") as file:
                file.write("Name: x\n")
        return binaries, wheels

    def test_twice_the_same_bytes_and_everything_in_its_place(self):
        with tempfile.TemporaryDirectory() as folder:
            inputs = self.inputs(folder)
            one, other = (package.build(*inputs, os.path.join(folder, out), 86400, pages()) for out in ("a", "b"))
            with open(one, "rb") as first, open(other, "rb") as second:
                self.assertTrue(first.read() == second.read(), "the bytes differ")
            root = os.path.join(folder, "root")
            subprocess.run(["dpkg-deb", "-x", one, root], check=True)
            wanted = [*(f"usr/bin/{name}" for name in package.PROGRAMS), "usr/bin/sluice-health",
                      *(f"usr/lib/sluice/{name}" for name in package.LIBRARIES),
                      *(f"usr/lib/systemd/system/{name}" for name in package.UNITS), "usr/lib/sysusers.d/sluice.conf",
                      "etc/default/sluice", "usr/share/doc/sluice/copyright", "usr/share/doc/sluice/changelog.gz",
                      "usr/share/doc/sluice/operations.md", "usr/share/doc/sluice/security.md",
                      "usr/share/sluice/make-certificates", "usr/share/doc/sluice/THIRD_PARTY.md",
                      *(f"usr/share/man/man1/{name}.1.gz" for name in (*package.PROGRAMS, "sluice-health")),
                      "usr/share/bash-completion/completions/sluicectl", "usr/share/zsh/vendor-completions/_sluicectl",
                      "usr/share/fish/vendor_completions.d/sluicectl.fish"]
            for path in wanted:
                self.assertTrue(os.path.isfile(os.path.join(root, path)), path)
            self.assertEqual(os.stat(os.path.join(root, "usr/bin/sluicectl")).st_mtime, 86400)
            listed = subprocess.run(["dpkg-deb", "-c", one], capture_output=True, text=True, check=True).stdout
            self.assertEqual({line.split()[1] for line in listed.splitlines()}, {"root/root"})
            for name in package.WITH_TORCH:
                runpath = subprocess.run(["patchelf", "--print-rpath", os.path.join(root, "usr/bin", name)],
                                         capture_output=True, text=True, check=True).stdout.strip()
                self.assertEqual(runpath, package.RUNPATH)
            control = subprocess.run(["dpkg-deb", "-f", one, "Version", "Depends"], capture_output=True, text=True, check=True).stdout
            self.assertIn(f"Version: {package.version()}\n", control)
            self.assertIn("libgrpc++1.51", control)

    def test_what_is_missing_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            binaries, wheels = self.inputs(folder)
            os.remove(os.path.join(wheels, package.LIBRARIES[0]))
            with self.assertRaisesRegex(package.PackageError, "libtorch_cpu.so"):
                package.build(binaries, wheels, os.path.join(folder, "out"), 0, {})

    def test_a_program_that_says_no_man_page_makes_no_package(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(package.PackageError, "sluice-learner --help"):
                package.manual_pages(self.inputs(folder)[0], 0)  # each of them is /bin/true


class ManualsTest(unittest.TestCase):
    HELP = """Does a thing.
Usage: sluice-thing [OPTIONS] SUBCOMMAND

Options:
  -h,--help                   Print this help message and exit
  --a-long-one TEXT:{text,json}=text
                              text or json

Subcommands:
  run                         Runs it.
"""

    @classmethod
    def setUpClass(cls):
        cls.files = pages()

    def page(self, name):
        return gzip.decompress(self.files[f"usr/share/man/man1/{name}.1.gz"]).decode()

    def test_a_help_is_read_into_what_it_says(self):
        found = manuals.read_help(self.HELP, "sluice-thing")
        self.assertEqual((found.about, found.usage), ("Does a thing.", "sluice-thing [OPTIONS] SUBCOMMAND"))
        self.assertEqual(found.sections, {
            "Options": [("-h,--help", "Print this help message and exit"), ("--a-long-one TEXT:{text,json}=text", "text or json")],
            "Subcommands": [("run", "Runs it.")]})

    def test_a_help_in_another_form_is_an_error_and_names_the_line(self):
        for old, new, said in (("Usage: ", "Call: ", "no line 'Usage: '"), ("Options:", "options", "not understood: 'options'"),
                               ("  run  ", "      run  ", "not understood"),
                               ("                              text or json\n", "", "--a-long-one TEXT.* has no description")):
            with self.subTest(said), self.assertRaisesRegex(manuals.ManualError, f"sluice-thing.*{said}"):
                manuals.read_help(self.HELP.replace(old, new, 1), "sluice-thing")

    def test_signs_of_roff_stand_as_they_are(self):
        self.assertEqual(manuals.roff(".a\\'b'-c"), "\\&.a\\e\\(aqb\\(aq\\-c")

    def test_every_program_of_the_package_has_a_page_with_its_release_and_date(self):
        for name in (*package.PROGRAMS, "sluice-health"):
            self.assertRegex(self.page(name), rf'^\.TH {name.upper()} 1 "1970-01-02" "Sluice [\d.]+" "Sluice"\n\.SH NAME\n')

    def test_pages_have_every_flag_and_exit_code_of_the_reference(self):
        for (binary, command), flags in facts.programs().items():
            page = self.page(binary).replace("\\-", "-")
            for name in (f"--{flag}" for flag in flags):
                self.assertIn(name, page, f"{binary} {command}")
        for binary in ("sluice-learner", "sluice-actor", "sluice-reward"):
            listed = re.findall(r"^\\fB(\d+)\\fR$", self.page(binary).partition(".SH EXIT STATUS")[2], re.MULTILINE)
            self.assertEqual({int(code) for code in listed}, facts.exit_codes())

    @unittest.skipUnless(shutil.which("groff"), "there is no groff here: apt-get install groff-base")
    def test_groff_sets_them_without_a_warning(self):
        def said(text):
            answer = subprocess.run(["groff", "-man", "-ww", "-b", "-Tutf8", "-z"], input=text, capture_output=True, text=True, timeout=60)
            return answer.returncode, answer.stderr
        for name in manuals.PAGES:
            self.assertEqual(said(self.page(name)), (0, ""), name)
        self.assertIn("warning", said(self.page("sluicectl").replace(".SS", ".SSS", 1))[1])

    WORDS = "COMP_WORDS=(sluicectl artifacts do); COMP_CWORD=2; _sluicectl; printf '%s\\n' \"${COMPREPLY[@]}\""

    def check_completion(self, shell, *options, script):
        """`sluicectl artifacts do` is offered download, and no command of the top. script: with FILE for the packaged file and
        FOLDER for its folder."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, os.path.basename(manuals.COMPLETIONS[shell]))
            with open(path, "wb") as file:
                file.write(self.files[manuals.COMPLETIONS[shell]])
            command = [shell, *options, "-c", script.replace("FILE", path).replace("FOLDER", folder)]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        self.assertIn("download", answer.stdout.split())
        self.assertNotIn("submit", answer.stdout.split())

    def test_bash_completes_a_command(self):
        self.check_completion("bash", "--norc", script=f"source FILE; {self.WORDS}")

    @unittest.skipUnless(shutil.which("zsh"), "there is no zsh here: apt-get install zsh")
    def test_zsh_finds_the_file_and_completes_a_command(self):
        self.check_completion("zsh", "-f", script="fpath=(FOLDER $fpath); autoload -U compinit; compinit -u -D; "
                              f"[[ $_comps[sluicectl] == _sluicectl ]] || exit 9; source FILE; emulate sh; {self.WORDS}")

    @unittest.skipUnless(shutil.which("fish"), "there is no fish here: apt-get install fish")
    def test_fish_completes_a_command(self):
        self.check_completion("fish", "--no-config", script="source FILE; complete -C 'sluicectl artifacts do'")


if __name__ == "__main__":
    unittest.main()

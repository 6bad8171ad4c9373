#!/usr/bin/env python3
"""Replays deploy/images/Dockerfile without a container engine, and runs what comes out of it. Needs root.

    python3 deploy/images/replay.py --binaries build/bin --wheels .venv/lib/python3.11/site-packages

The base is made by mmdebstrap in place of the image that BASE names. Every instruction of the stages that the image needs
is a layer of an overlay file system; RUN is a chroot in namespaces of its own. --binaries stands for stage build,
--wheels for stage wheels: these two are then not replayed, and the output says so. The result is run as a cluster runs it:
uid 10001, no capability, no new privileges, a read-only root, a network of its own. Standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "tests", "integration")]
import dockerfile  # noqa: E402
import harness  # noqa: E402
import sbom  # noqa: E402
from dockerfile import DockerfileError, Instruction  # noqa: E402

UID = 10001
PROGRAMS = ("sluice-learner", "sluice-actor", "sluice-reward", "sluicectl", "sluice-inspect")
GIVEN = {"wheels": "/site", "build": "/src/build/bin"}  # stage, and the folder of it that others take from
# Most MB (a million bytes) that a layer may have, by what its instruction brings; nothing else may have a megabyte.
BUDGET = {"base": 160, "RUN apt-get": 60, "COPY --from=lib": 520, "COPY --from=binaries": 30}
REST_BUDGET = 1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What Debian's slim images leave out.
SLIM = ("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*")
LIMIT_S = 1800


class ReplayError(Exception):
    """A step failed, or the result is not what it must be."""


def say(text: str) -> None:
    print(text, flush=True)


def size(folder: str) -> int:
    """Bytes of the files in a folder, hard links once."""
    seen, total = set(), 0
    for parent, _, names in os.walk(folder):
        for name in names:
            found = os.lstat(os.path.join(parent, name))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_size if os.path.isfile(os.path.join(parent, name)) else 0
    return total


def make_base(folder: str) -> None:
    """Debian's smallest system by apt's own settings of this machine."""
    sources = [os.path.join(parent, name) for parent, _, names in os.walk("/etc/apt") for name in sorted(names)
               if name in ("sources.list", "debian.sources")]
    if not shutil.which("mmdebstrap"):
        raise ReplayError("there is no mmdebstrap here: apt-get install mmdebstrap")
    say("base: mmdebstrap makes a minimal Debian 12")
    run(["mmdebstrap", "--quiet", "--variant=minbase", *(f"--dpkgopt={option}" for option in SLIM), "bookworm", folder,
         *sources[:1]])


def run(argv: list[str]) -> None:
    answer = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=LIMIT_S)
    if answer.returncode != 0:
        raise ReplayError(f"{' '.join(argv)[:200]} ended with {answer.returncode}:\n{answer.stdout[-2000:]}")


def passed_on() -> tuple[dict[str, str], list[str]]:
    """This machine's settings of pip and of proxies, and the files that they name: what `docker build` would be told."""
    values = {name: value for name, value in os.environ.items()
              if name.startswith("PIP_") or name.lower() in ("http_proxy", "https_proxy", "no_proxy")}
    return values, sorted({value for value in values.values() if value.startswith("/") and os.path.exists(value)})


def open_folder(parent: str, prefix: str) -> str:
    """A new folder that everybody may enter: of a layer it is the mode of the root."""
    folder = tempfile.mkdtemp(dir=parent, prefix=prefix)
    os.chmod(folder, 0o755)
    return folder


class Root:
    """An overlay of layers, lowest first. Mounted anew, in a mount namespace of its own, for everything that it does."""

    def __init__(self, layers: list[str], scratch: str, binds: dict[str, str] | None = None):
        self.layers = layers
        self.scratch = scratch
        self.binds = binds or {}  # path in the root -> path here

    def mounts(self, upper: str, binds: dict[str, str], read_only: bool, network: bool) -> list[str]:
        """Lines of a shell script that mount it at $root."""
        work = tempfile.mkdtemp(dir=self.scratch, prefix="work-")
        root = tempfile.mkdtemp(dir=self.scratch, prefix="root-")
        lower = ":".join(reversed(self.layers))
        lines = ["set -e", "mount --make-rprivate /", f"root={shlex.quote(root)}",
                 f"mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} $root"]
        if network:
            binds = {**{path: path for path in ("/etc/resolv.conf", "/etc/hosts") if os.path.exists(path)}, **binds}
        for inside, outside in binds.items():
            lines.append(f"mount --bind {shlex.quote(outside)} $root{shlex.quote(inside)}")
        if read_only:
            lines += ["mount --bind $root $root", "mount -o remount,bind,ro $root"]
            # Bind mounts of the first $root are hidden by the second; once more.
            lines += [f"mount --bind {shlex.quote(outside)} $root{shlex.quote(inside)}" for inside, outside in binds.items()]
        lines += ["mount -t tmpfs -o mode=755 tmpfs $root/dev"]
        lines += [f"touch $root/dev/{name}; mount --bind /dev/{name} $root/dev/{name}"
                  for name in ("null", "zero", "full", "random", "urandom")]
        lines += ["ln -s /proc/self/fd $root/dev/fd", "mkdir $root/dev/shm", "mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm",
                  "mount -t tmpfs -o mode=1777,size=64m tmpfs $root/tmp", "mount -t proc proc $root/proc"]
        return lines

    def build(self, upper: str, command: list[str], environment: dict[str, str], folder: str, user: str) -> None:
        """A RUN: as root or as the stage's user, with this machine's network."""
        settings, files = passed_on()
        binds = dict(self.binds)
        for path in files:  # mount points are made outside the layer: hidden again by an empty one below
            if not any(os.path.exists(layer + path) for layer in self.layers):
                self.layers.insert(0, self.mount_point(path))
            binds[path] = path
        script = self.mounts(upper, binds, read_only=False, network=True)
        values = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root", **settings, **environment}
        words = ["env", "-i", *(f"{name}={value}" for name, value in values.items()),
                 *([] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]), *command]
        script.append(f"exec chroot $root sh -c {shlex.quote('cd ' + shlex.quote(folder) + ' && exec ' + shlex.join(words))}")
        run(["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", "\n".join(script)])

    def mount_point(self, path: str) -> str:
        layer = open_folder(self.scratch, "point-")
        os.makedirs(os.path.dirname(layer + path), exist_ok=True)
        if os.path.isdir(path):
            os.makedirs(layer + path)
        else:
            open(layer + path, "w", encoding="utf-8").close()
        return layer

    def copy(self, upper: str, source: list[str], target: str, chmod: str) -> None:
        """A COPY of paths of this machine. A folder brings what is in it."""
        script = self.mounts(upper, {}, read_only=False, network=False)
        script.append(f"mkdir -p $root{shlex.quote(target if target.endswith('/') else os.path.dirname(target))}")
        for path in source:
            if os.path.isdir(path):
                script += [f"mkdir -p $root{shlex.quote(target)}",
                           f"cp -r --preserve=mode,timestamps,links {shlex.quote(path)}/. $root{shlex.quote(target)}"]
            else:
                script.append(f"cp --preserve=mode,timestamps {shlex.quote(path)} $root{shlex.quote(target)}")
            if chmod:
                name = os.path.join(target, os.path.basename(path)) if target.endswith("/") else target
                script.append(f"chmod {chmod} $root{shlex.quote(name)}")
        run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", "\n".join(script)])


class Replay:
    """The stages, as roots; each instruction of the last one with its layer."""

    def __init__(self, scratch: str, base: str, given: dict[str, str], arguments: dict[str, str],
                 cache: str | None = None):
        self.scratch = scratch
        self.cache = cache
        self.names: dict[str, str] = {}  # layer that is being made -> its name in the cache
        self.base = base
        self.given = given
        with open(os.path.join(HERE, "Dockerfile"), encoding="utf-8") as file:
            self.stages, self.values = dockerfile.stages(file.read(), {"BASE": "base", **arguments})
        self.arguments = arguments
        self.roots: dict[str, Root] = {"base": Root([base], scratch)}
        self.layers: list[tuple[str, str]] = [("base", base)]  # of the last stage: what, and its folder
        self.config: dict[str, object] = {}

    def replay(self) -> None:
        for name, folder in self.given.items():
            say(f"stage {name}: given, {GIVEN[name]} is a folder of this machine")
            point = open_folder(self.scratch, "given-")
            os.makedirs(point + GIVEN[name])
            self.roots[name] = Root([self.base, point], self.scratch, {GIVEN[name]: os.path.abspath(folder)})
        wanted = dockerfile.needed(self.stages, tuple(self.given))
        for stage in wanted:
            self.stage(stage, stage is wanted[-1])

    def stage(self, stage: dockerfile.Stage, last: bool) -> None:
        if stage.base not in self.roots:
            raise DockerfileError(f"line {stage.line}: FROM {stage.base}: neither a stage nor BASE")
        parent = self.roots[stage.base]
        root = self.roots[stage.name] = Root(list(parent.layers), self.scratch, dict(parent.binds))
        values, environment = {}, {}
        folder, user = "/", "root"
        for step in stage.steps:
            started = time.monotonic()
            if step.name == "ARG":
                name, _, default = step.text.partition("=")
                values[name] = self.arguments.get(name, self.values.get(name, default))
                continue
            if step.name == "RUN":
                layer, known = self.run_layer(root, stage, step)
                command = step.command() if step.text.startswith("[") else ["/bin/sh", "-c", step.text]
                if not known:
                    root.build(layer, command, {**values, **environment}, folder, user)
                    self.keep(layer)
            elif step.name == "COPY":
                layer = self.new_layer()
                self.copy(root, layer, step, {**values, **environment}, folder)
            elif step.name == "WORKDIR":
                folder = os.path.join(folder, dockerfile.substitute(step.text, {**values, **environment}, step))
                layer = self.new_layer()
                os.makedirs(layer + folder, exist_ok=True)
                if any(os.path.isdir(lower + folder) for lower in root.layers):
                    shutil.rmtree(layer)  # it is there, with an owner of its own
                    layer = None
            else:
                layer = None
                if step.name == "ENV":
                    pairs = [word.partition("=") for word in step.words()]
                    environment.update({k: dockerfile.substitute(v, {**values, **environment}, step) for k, _, v in pairs})
                elif step.name == "USER":
                    user = step.text.partition(":")[0]
                elif step.name == "LABEL":
                    self.config["LABEL"] = {k: dockerfile.substitute(v, values, step)
                                            for k, _, v in (word.partition("=") for word in step.words())}
                elif step.name == "HEALTHCHECK":
                    kind, _, rest = step.text.partition(" ")
                    if kind != "CMD":
                        raise step.error("want CMD")
                    self.config["HEALTHCHECK"] = Instruction(step.line, step.name, rest).command()
                elif step.name in ("ENTRYPOINT", "CMD"):
                    self.config[step.name] = step.command()
                else:
                    self.config[step.name] = step.text
            shown = " ".join(f"--{k}={v}" for k, v in step.flags.items() if k == "from")
            title = " ".join(" ".join(filter(None, (step.name, shown, step.text))).split())
            if layer is not None:
                root.layers.append(layer)
                if last:
                    self.layers.append((title, layer))
                say(f"{stage.name}: {title[:90]}  {size(layer) / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")
        self.config["USER"] = user

    def copy(self, root: Root, layer: str, step: Instruction, values: dict[str, str], folder: str) -> None:
        *sources, target = [dockerfile.substitute(word, values, step) for word in step.words()]
        target = os.path.join(folder, target) if target != "." else folder + "/"
        stage = step.flags.get("from")
        if stage is None:
            if sources == ["."]:
                raise step.error("the whole tree is copied by an engine only: give stage build by --binaries")
            root.copy(layer, [os.path.join(TOP, source) for source in sources], target, step.flags.get("chmod", ""))
            return
        if len(sources) != 1:
            raise step.error("want one path of the other stage")
        source, given = sources[0].rstrip("/") or "/", self.given.get(stage)
        if given is not None:
            if source != GIVEN[stage]:
                raise step.error(f"of the given stage {stage} only {GIVEN[stage]} is there")
            paths = [os.path.abspath(given)]
        else:  # what the stage wrote; a path that only its base has is not among it
            paths = [layer + source for layer in self.roots[stage].layers if os.path.exists(layer + source)]
            if len(paths) != 1:
                raise step.error(f"want {source} from one instruction of {stage}, got {len(paths)}")
        root.copy(layer, paths, target, step.flags.get("chmod", ""))

    def new_layer(self) -> str:
        return open_folder(self.scratch, "layer-")

    def run_layer(self, root: Root, stage: dockerfile.Stage, step: Instruction) -> tuple[str, bool]:
        """A layer for RUN, and whether an earlier replay kept it: only what the base and the text alone decide is kept."""
        if self.cache is None or root.layers != [self.base] or "apt-get" not in step.text:
            return self.new_layer(), False
        name = hashlib.sha256(f"{self.base} {step.text}".encode()).hexdigest()[:16]
        layer = os.path.join(self.cache, name)
        if os.path.isdir(layer):
            say(f"{stage.name}: the next layer was kept by an earlier replay")
            return layer, True
        made = open_folder(self.cache, "layer-")
        self.names[made] = layer
        return made, False

    def keep(self, layer: str) -> None:
        """Gives a layer that is whole its name in the cache."""
        if layer in self.names:
            os.symlink(layer, self.names[layer])

    def sizes(self) -> list[tuple[str, float, float]]:
        """(what, MB, MB at most) of each layer. Longest name of the budget first."""
        rows = []
        for title, layer in self.layers:
            key = next((k for k in sorted(BUDGET, key=len, reverse=True) if title.startswith(k)), None)
            rows.append((title, size(layer) / 1e6, BUDGET[key] if key else REST_BUDGET))
        return rows


class Container:
    """A process of the image, as a cluster starts one: process 1 of its namespaces. Ends with `with`."""

    def __init__(self, image: Replay, name: str, argv: list[str], volumes: dict[str, str], netns: str = ""):
        root = image.roots[image.stages[-1].name]
        self.name = name
        script = root.mounts(open_folder(image.scratch, "upper-"), volumes, read_only=True, network=False)
        ids = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        script.append(f"exec chroot $root env -i PATH={PATH} setpriv {' '.join(ids)} "
                      f"sh -c 'cd /srv/sluice && exec \"$@\"' sh {shlex.join(argv)}")
        self.log = tempfile.mktemp(dir=image.scratch, prefix=f"{name}-", suffix=".log")
        network = ["nsenter", f"--net={netns}"] if netns else []
        with open(self.log, "wb") as file:
            self.outer = subprocess.Popen(
                [*network, "unshare", "--mount", "--pid", "--ipc", "--uts", *([] if netns else ["--net"]), "--fork",
                 "--kill-child", "sh", "-c", ("" if netns else "ip link set lo up\n") + "\n".join(script)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=harness.die_with_parent)

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def inner(self) -> int:
        """The id, here, of its process 1."""
        path = f"/proc/{self.outer.pid}/task/{self.outer.pid}/children"
        return int(harness.wait_until(lambda: open(path, encoding="utf-8").read().split(), f"{self.name} starts")[0])

    def execute(self, *argv: str) -> subprocess.CompletedProcess:
        """What `docker exec` does; also how an engine asks for health."""
        ids = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        return subprocess.run(["nsenter", "--target", str(self.inner()), "--mount", "--pid", "--ipc", "--uts", "--net", "--root",
                               "--wd", "setpriv", *ids, *argv],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    def ended(self) -> bool:
        return self.outer.poll() is not None

    def code(self) -> int | None:
        return self.outer.returncode

    def wait(self, limit_s: float = 300) -> int:
        return self.outer.wait(limit_s)

    def drain(self) -> int:
        os.kill(self.inner(), signal.SIGTERM)
        return self.wait(120)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.outer.poll() is None:
            self.outer.kill()
        self.outer.wait()


def finish(image: Replay, name: str, argv: list[str], volumes: dict[str, str], want: int = 0) -> str:
    with Container(image, name, argv, volumes) as container:
        code = container.wait()
        if code != want:
            raise ReplayError(f"{' '.join(argv)} ended with {code}, want {want}:\n{container.said()[-2000:]}")
        return container.said()


def check(image: Replay) -> list[str]:
    """What was run of the image, one sentence each. ReplayError for anything that is not as it must be."""
    done = []
    volume = open_folder(image.scratch, "srv-")
    os.chown(volume, UID, UID)
    os.chmod(image.scratch, 0o711)
    volumes = {"/srv/sluice": volume}

    shown = finish(image, "id", ["sh", "-c", "id -u; id -g; grep -E '^Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; "
                                 "touch /x 2>&1 || true; touch /srv/sluice/x && echo volume"], volumes)
    for word in ("10001\n10001\n", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1",
                 "Read-only file system", "volume"):
        if word not in shown:
            raise ReplayError(f"want {word!r} in\n{shown}")
    done.append(f"Everything below ran as uid {UID}, without capabilities, on a read-only root.")

    for name in PROGRAMS:
        if "not found" in finish(image, "ldd", ["ldd", f"/usr/bin/{name}"], volumes):
            raise ReplayError(f"{name} lacks libraries")
        finish(image, name, [name, "--help"], volumes)
    version = finish(image, "version", ["sluicectl", "version"], volumes).split()[-1]
    if finish(image, "version", ["sluice-actor", "--version"], volumes).strip() != version:
        raise ReplayError("sluicectl and sluice-actor are of two versions")
    entry = [*image.config["ENTRYPOINT"], *image.config["CMD"]]
    if "Usage: " not in finish(image, "entry", entry, volumes):
        raise ReplayError("the entry point prints no help")
    done.append(f"Each of {', '.join(PROGRAMS)} finds its libraries and answers `--help`; `sluicectl version` and `sluice-actor "
                f"--version` say {version}. `{' '.join(entry)}`, the entry point with its default, prints help.")

    events = harness.write_events(os.path.join(volume, "events.csv"))
    os.chown(events, UID, UID)
    data = "/srv/sluice/data"
    specs = {"prepare": harness.prepare_spec("/srv/sluice/events.csv", data),
             "sft": {"name": "tiny-sft", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
                     "sft": {"passes": 1}}}
    for name, spec in specs.items():
        with open(os.path.join(volume, f"{name}.yaml"), "w", encoding="utf-8") as file:
            json.dump(spec, file)
        started = time.monotonic()
        finish(image, name, ["sluice-learner", "run", f"{name}.yaml", "--run-folder", f"/srv/sluice/runs/{name}"], volumes)
        done.append(f"`sluice-learner run` of a tiny `{name}` job ended with 0 after {time.monotonic() - started:.1f} s.")
    if not os.path.isfile(os.path.join(volume, "runs", "sft", "export", "best", "model.safetensors")):
        raise ReplayError("the job exported no model")

    health = image.config["HEALTHCHECK"]
    # One in the clear at every address, whose health is asked at loopback; there are no other processes in this root.
    servers = {"coordinator": ["sluice-learner", "coordinator", "--address=0.0.0.0:7070", "--insecure",
                               "--runs=/srv/sluice/runs"],
               "reward": ["sluice-reward", f"--data={data}", "--address=127.0.0.1:7080"]}
    for name, argv in servers.items():
        with Container(image, name, argv, volumes) as server:
            try:
                harness.wait_until(lambda: server.execute(*health).returncode == 0, f"{name} is healthy", alive=[server])
            except AssertionError as error:
                raise ReplayError(f"{error}: {server.execute(*health)}\n{server.said()[-2000:]}") from None
            unwell = server.execute(*health, "127.0.0.1:1")
            if unwell.returncode != 1:
                raise ReplayError(f"health of a port that nobody listens at ended with {unwell.returncode}")
            code = server.drain()
            if code != 0:
                raise ReplayError(f"{name} ended with {code} after SIGTERM:\n{server.said()[-2000:]}")
    done.append(f"`{' '.join(health)}`, the health check, said well of a coordinator and of a reward server that ran as process 1, "
                "and unwell where nobody listens. Both ended with 0 on SIGTERM.")
    return done


def page(image: Replay, rows: list[tuple[str, float, float]], done: list[str], parts: int) -> str:
    given = {"build": "stage `build` (the binaries come from the build folder, nothing was compiled)",
             "wheels": "stage `wheels` (LibTorch comes from `.venv`, nothing was fetched)"}
    lines = ["# The image, replayed", "",
             "`./sluice proof image` replays `deploy/images/Dockerfile` for VARIANT=cpu without a container engine, runs the result,",
             "and writes this page. In place of the image that BASE names stands a Debian 12 that mmdebstrap made, so the first row",
             "is near that of a real one, not equal.", "",
             f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores. Not replayed:", "",
             *([f"- {given[name]}" for name in image.given] or ["- nothing"]), "",
             "| layer | MB | at most |", "| --- | --- | --- |"]
    for title, megabytes, limit in rows:
        short = title if len(title) <= 60 else title[:57] + "..."
        lines.append(f"| `{short}` | {megabytes:.1f} | {limit:g} |")
    lines += [f"| all | {sum(row[1] for row in rows):.1f} | |", "",
              "MB are millions of bytes, uncompressed. A layer above its limit is an error.", ""]
    lines += [f"- {sentence}" for sentence in done]
    lines += [f"- The bill of materials (CycloneDX) names {parts} components: Debian's packages, the wheels, Sluice.", "",
              "Not proven: an engine's own build of the file, stage `build` compiled in it, and VARIANT=cuda, whose wheels",
              "were neither fetched nor run here."]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Replay the Dockerfile without a container engine, and run the result.")
    parser.add_argument("--binaries", help="folder of built binaries, in place of stage build")
    parser.add_argument("--wheels", help="folder site-packages with torch, in place of stage wheels")
    parser.add_argument("--base", help="a root to take as base; default: one that mmdebstrap makes")
    parser.add_argument("--cache", help="folder that keeps the layers of packages from one replay to the next; needs --base")
    parser.add_argument("--sbom", help="where to write the bill of materials")
    parser.add_argument("--page", help="where to write what was found")
    parser.add_argument("--version", default=sbom.version())
    args = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("a chroot and its mounts need root")
    given = {name: folder for name, folder in (("wheels", args.wheels), ("build", args.binaries)) if folder}
    scratch = tempfile.mkdtemp(prefix="sluice-image-", dir=os.path.join(TOP, ".sluice") if
                               os.path.isdir(os.path.join(TOP, ".sluice")) else None)
    try:
        base = args.base
        if args.cache:
            os.makedirs(args.cache, exist_ok=True)
        if base is None:
            base = os.path.join(scratch, "base")
            make_base(base)
        for name in ("resolv.conf", "hosts"):  # mount points
            with contextlib.suppress(FileExistsError):
                open(os.path.join(base, "etc", name), "x", encoding="utf-8").close()
        image = Replay(scratch, os.path.abspath(base), given,
                       {"VARIANT": "cpu", "VERSION": args.version, "REVISION": "unknown", "CREATED": "1970-01-01T00:00:00Z"},
                       args.cache if args.base else None)
        image.replay()
        rows = image.sizes()
        for title, megabytes, limit in rows:
            say(f"{megabytes:8.1f} MB of {limit:5g}  {title[:90]}")
        say(f"{sum(row[1] for row in rows):8.1f} MB in all")
        over = [title for title, megabytes, limit in rows if megabytes > limit]
        if over:
            raise ReplayError(f"above its budget: {'; '.join(title[:60] for title in over)}")
        bill = sbom.document([folder for _, folder in image.layers], args.version)
        if args.sbom:
            with open(args.sbom, "w", encoding="utf-8") as file:
                file.write(bill)
        done = check(image)
        for sentence in done:
            say(sentence)
        if args.page:
            with open(args.page, "w", encoding="utf-8") as file:
                file.write(page(image, rows, done, len(json.loads(bill)["components"])))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ReplayError, DockerfileError, AssertionError) as error:
        sys.exit(f"replay.py: {error}")

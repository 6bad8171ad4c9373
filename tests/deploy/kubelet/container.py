"""Runs one container as a runtime would: python3 container.py CONFIG.json STATUS_FD.

Reads how from a file that pods.py writes. The child is process 1 of its own PID, IPC, UTS and mount namespaces, in the
pod's network namespace and the container's memory cgroup. Its root is a tmpfs that looks like the image. To STATUS_FD go
lines of JSON: {"pid": N} once it was forked, {"code": N, "signal": N} when it has ended. Standard library alone: it is
started for every container.

python3 container.py CONFIG.json - PID SECONDS COMMAND...  runs a command in a container that runs, for exec probes and
hooks, for so long at most (then exit code 124).
"""

import ctypes
import ctypes.util
import errno
import json
import os
import platform
import signal
import stat
import struct
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
SECCOMP_MODE_FILTER = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CANNOT_START = 128  # the exit code that runtimes report for a container that never ran

# What a container holds unless it drops it (containerd's list), by number.
DEFAULT_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
                        "SETPCAP": 8, "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27,
                        "AUDIT_WRITE": 29, "SETFCAP": 31}
KNOWN_CAPABILITIES = dict(DEFAULT_CAPABILITIES, NET_ADMIN=12, IPC_LOCK=14, SYS_PTRACE=19, SYS_ADMIN=21, SYS_NICE=23,
                          SYS_RESOURCE=24)

# Profile RuntimeDefault is a list of what is allowed. Here is what it refuses to a process without capabilities and
# what a program might try: modules, mounts, namespaces, keys, clocks, io_uring, NUMA, perf, bpf (x86_64 numbers).
REFUSED_CALLS = (103, 134, 139, 153, 155, 161, 163, 164, 165, 166, 167, 168, 169, 172, 173, 174, 175, 176, 179, 180,
                 212, 227, 237, 238, 239, 246, 248, 249, 250, 272, 279, 298, 303, 304, 305, 308, 313, 320, 321, 323,
                 425, 426, 427, 428, 429, 430, 431, 432, 433)
CLONE3 = 435  # the C library goes back to clone when it hears ENOSYS

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, data=None):
    check(libc.mount(*(text.encode() if text is not None else None for text in (source, target, kind)),
                     ctypes.c_ulong(flags), data.encode() if data else None), f"mount {source} at {target}")


def enter(path, kind):
    descriptor = os.open(path, os.O_RDONLY)
    check(libc.setns(descriptor, kind), f"setns {path}")
    os.close(descriptor)


def bind(source, target, read_only, recursive=False):
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    mount(None, target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0))


def place(root, path, folder):
    """An empty file or folder to mount at. Where the image's /usr is in the way, there must be one already."""
    target = root + path
    if not os.path.lexists(target):
        os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
        if not folder:
            open(target, "wb").close()
    return target


def build_root(config):
    root = config["root"]
    mount("tmpfs", root, "tmpfs", MS_NOSUID, "mode=755,size=16m")
    for path, target in config["links"].items():
        os.symlink(target, root + path)
    for path in config["folders"]:
        os.makedirs(root + path, exist_ok=True)
    for source, path in config["image"]:
        bind(source, place(root, path, os.path.isdir(source)), True)
    programs = root + config["program_folder"]
    mount("tmpfs", programs, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for source in config["programs"]:
        bind(source, place(root, config["program_folder"] + "/" + os.path.basename(source), False), True)
    mount(None, programs, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    build_devices(root)
    mount("proc", place(root, "/proc", True), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", place(root, "/sys", True), "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for entry in sorted(config["mounts"], key=lambda entry: entry["path"].count("/")):
        bind(entry["source"], place(root, entry["path"], os.path.isdir(entry["source"])), entry["read_only"])
    if config["read_only_root"]:
        mount(None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir(config["working_dir"])


def build_devices(root):
    mount("tmpfs", place(root, "/dev", True), "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name, numbers in (("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9))):
        path = f"{root}/dev/{name}"
        os.mknod(path, stat.S_IFCHR, os.makedev(*numbers))
        os.chmod(path, 0o666)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    os.mkdir(root + "/dev/shm")
    mount("tmpfs", root + "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")  # as runtimes have it


def refuse_calls():
    if platform.machine() != "x86_64":
        return
    load, equal, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, 0xC000003E), (give, 0, 0, 0x80000000), (load, 0, 0, 0)]
    for number in REFUSED_CALLS:
        program += [(equal, 0, 1, number), (give, 0, 0, 0x00050000 | errno.EPERM)]
    program += [(equal, 0, 1, CLONE3), (give, 0, 0, 0x00050000 | errno.ENOSYS), (give, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0), "seccomp")


def become(config):
    """The user, without what was dropped."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        last = int(file.read())
    for number in range(last + 1):
        if number not in config["capabilities"]:
            check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"dropping capability {number}")
    os.setgroups(config["groups"])
    os.setresgid(config["gid"], config["gid"], config["gid"])
    if config["no_new_privileges"]:
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    elif config["seccomp"]:
        refuse_calls()
    os.setresuid(config["uid"], config["uid"], config["uid"])
    if config["seccomp"] and config["no_new_privileges"]:
        refuse_calls()


def child(config):
    try:
        os.umask(0o022)
        libc.sethostname(config["hostname"].encode(), len(config["hostname"]))
        check(libc.unshare(CLONE_NEWNS), "unshare")  # here: pivot_root moves everybody of a mount namespace
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        build_root(config)
        become(config)
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        os.environ.clear()
        os.environ.update(config["env"])
        os.execvpe(config["argv"][0], config["argv"], config["env"])
    except BaseException as error:  # whatever it is, this process must not return
        os.write(2, f"the container could not start: {error}\n".encode())
    os._exit(CANNOT_START)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    if len(sys.argv) > 3:
        return join(config, sys.argv[3], float(sys.argv[4]), sys.argv[5:])
    status = int(sys.argv[2])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for folder in config["cgroups"]:
        with open(folder + "/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    enter(config["network"], CLONE_NEWNET)
    check(libc.unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
    pid = os.fork()
    if pid == 0:
        os.close(status)
        child(config)
    for folder in config["home_cgroups"]:  # what is counted is the container, not this script
        with open(folder + "/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    os.write(status, (json.dumps({"pid": pid}) + "\n").encode())
    _, result = os.waitpid(pid, 0)
    killed = os.WTERMSIG(result) if os.WIFSIGNALED(result) else 0
    code = 128 + killed if killed else os.WEXITSTATUS(result)
    os.write(status, (json.dumps({"code": code, "signal": killed}) + "\n").encode())
    return 0


def join(config, pid, limit_s, argv):
    """Runs a command inside a container that runs already, as its user; its exit code.

    The caller must not kill this process: the command would be nobody's child, and a PID namespace does not end before
    all of its processes were waited for.
    """
    kinds = (("net", CLONE_NEWNET), ("ipc", CLONE_NEWIPC), ("uts", CLONE_NEWUTS), ("pid", CLONE_NEWPID), ("mnt", CLONE_NEWNS))
    places = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
    for descriptor, kind in places:
        check(libc.setns(descriptor, kind), "setns")
    child_pid = os.fork()
    if child_pid == 0:
        try:
            become(config)
            os.execvpe(argv[0], argv, config["env"])
        except OSError as error:
            os.write(2, f"{error}\n".encode())
        os._exit(CANNOT_START)
    late = []

    def end(*_):
        late.append(True)
        os.kill(child_pid, signal.SIGKILL)
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(limit_s, 0.001))
    _, result = os.waitpid(child_pid, 0)
    if late:
        return 124
    return os.WEXITSTATUS(result) if os.WIFEXITED(result) else 128 + os.WTERMSIG(result)


if __name__ == "__main__":
    sys.exit(main())

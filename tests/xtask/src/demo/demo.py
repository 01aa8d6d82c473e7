"""What `cargo xtask demo` runs in a pod: shows where it is, and that it is a whole Linux."""

import hashlib
import os
import platform
import resource
import sys


def show(name, value):
    print(f"  {name:12} {value}", flush=True)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        return error.strerror


def release():
    lines = (line.rstrip().split("=", 1) for line in open("/etc/os-release", encoding="utf-8"))
    return dict(line for line in lines if len(line) == 2)["PRETTY_NAME"].strip('"')


def pi(digits):
    """Machin's formula in whole numbers."""
    one = 10 ** (digits + 10)

    def arctan(inverse):
        term = total = one // inverse
        divisor, sign = 1, 1
        while term:
            term //= inverse * inverse
            divisor += 2
            sign = -sign
            total += sign * (term // divisor)
        return total

    return str(4 * (4 * arctan(5) - arctan(239)))[: digits + 1]


def memory():
    return next(line.split(":")[1].strip() for line in open("/proc/meminfo", encoding="utf-8"))


def write_and_read_back(path, mebibytes):
    written, found = hashlib.sha256(), hashlib.sha256()
    with open(path, "wb") as file:
        for number in range(mebibytes):
            block = number.to_bytes(4, "little") * (1 << 18)
            written.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    os.unlink(path)
    same = "as written" if written.digest() == found.digest() else "NOT AS WRITTEN"
    return f"{mebibytes} MiB to disk and back, {same}: sha256 {found.hexdigest()[:16]}..."


show("system", release())
show("kernel", platform.release())
show("machine", f"{os.cpu_count()} CPU, {memory()} of memory")
show("process", f"pid {os.getpid()}, user {os.getuid()}, host name {platform.node()}")
show("cgroup", "memory.max {}, pids.max {}".format(
    read("/sys/fs/cgroup/memory.max"), read("/sys/fs/cgroup/pids.max")))
show("open files", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
for name in ("pid", "mnt", "net", "cgroup"):
    show("namespace", os.readlink(f"/proc/self/ns/{name}"))
show("computed", f"pi = 3.{pi(1000)[1:31]}... (1000 digits, the last ones {pi(1000)[-6:]})")
show("disk", write_and_read_back("/var/tmp/demo", 64))
show("input", repr(sys.stdin.read().strip()))
sys.exit(42)

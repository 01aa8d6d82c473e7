"""What crun's tests use of libmount, of which Debian has no Python module: options of a mount in a mountinfo file."""


class Mount:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    def __init__(self, line):
        # The source may be empty: two blanks.
        mount, _, filesystem = line.rstrip("\n").partition(" - ")
        fields = mount.split(" ")
        self.target = fields[4]
        self.vfs_options = fields[5]
        self.fs_options = filesystem.split(" ")[2]


class Table:
    """The mounts in the file `path`."""

    def __init__(self, path):
        with open(path) as file:
            self.mounts = [Mount(line) for line in file if " - " in line]

    def find_target(self, target):
        """The mount that is seen at `target`: the last one."""
        return next(mount for mount in reversed(self.mounts) if mount.target == target)

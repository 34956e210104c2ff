"""The kernel's own confinement, reached directly: Landlock, seccomp, no_new_privs, capabilities, rlimits.

Each function narrows the calling process for good and raises OSError when the kernel has not got it; `sandbox` decides
what that means. Call them before any thread is started: they bind the calling thread and what it starts.

No privilege is needed. Landlock is called by number, since C libraries do not wrap it; seccomp through the system's
libseccomp 2, which knows every architecture's syscall numbers.
Source: Linux, Documentation/userspace-api/landlock.rst (ABI 1 to 7); seccomp_rule_add(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

# Landlock has the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522

MIN_LANDLOCK_ABI = 3
"""Below it a confined process can truncate files that it may not write."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_FS_BITS_BY_ABI = {3: 15, 4: 15, 5: 16, 6: 16}
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_DIR | _MAKE_REG | _REMOVE_DIR | _REMOVE_FILE
_ON_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NOT_EQUAL, _EQUAL, _MASKED_EQUAL = 1, 4, 7
_CLONE_THREAD = 0x00010000

REFUSED_SYSCALLS = (
    # Talk to anybody.
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg"),
    *("mq_open", "msgget", "semget", "shmget", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    # Look into or steer another process, or start one.
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp"),
    *("process_madvise", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "fork", "vfork"),
    *("execve", "execveat", "setpriority", "sched_setaffinity", "migrate_pages", "move_pages"),
    # Leave a mark on files that Landlock does not guard: it knows opening, not attributes.
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes"),
    *("utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr"),
    *("fremovexattr", "removexattrat", "inotify_init", "inotify_init1", "fanotify_init"),
    # Change the machine, or reach the kernel's larger surfaces.
    *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd", "mount", "umount2", "pivot_root"),
    *("chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsmount", "fsconfig", "fspick"),
    *("mount_setattr", "name_to_handle_at", "open_by_handle_at", "init_module", "finit_module", "delete_module"),
    *("kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "syslog", "personality"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "vhangup"),
)
"""Answered with EPERM. A name that this architecture lacks is skipped: what does not exist needs no refusal."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """Call by number; the result, or minus the errno."""
    result = int(_libc.syscall(number, *arguments))
    return -ctypes.get_errno() if result < 0 else result


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 without it."""
    return max(0, syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def check_single_threaded() -> None:
    """Raise OSError if other threads run: they would stay outside the layers and share our memory.

    Source: unshare(2): CLONE_THREAD has no effect on a process with one thread and is refused with more.
    """
    _checked(_libc.unshare(_CLONE_THREAD), "more than one thread before the sandbox")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however that ends. The syscall filter keeps
    it so.

    A parent that has ended already is no case: then the pipe is closed, and nothing was received over it.
    """
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")


def forbid_new_privileges() -> None:
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets; nothing to drop is fine."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, empty), "capset")


def restrict_paths(reads: Sequence[Path], writes: Sequence[Path]) -> int:
    """Landlock: below `reads` open to read, below `writes` files and folders too, TCP and abstract sockets nowhere,
    signals to nobody outside. Returns the ABI in force."""
    abi = landlock_abi()
    if abi < MIN_LANDLOCK_ABI:
        raise OSError(errno.ENOSYS, f"Landlock ABI {abi}, at least {MIN_LANDLOCK_ABI} is needed")
    handled = (1 << _FS_BITS_BY_ABI.get(abi, 16)) - 1
    attributes = _Ruleset(handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0), "landlock")
    try:
        for path in reads:
            _allow(ruleset, path, _READ)
        for path in writes:
            _allow(ruleset, path, _WRITE)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: Path, access: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        granted = access if path.is_dir() else access & _ON_FILES
        rule = _PathBeneath(granted, handle)
        _checked(_libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0), f"landlock rule for {path}")
    finally:
        os.close(handle)


def limit(limits: Mapping[int, int]) -> None:
    """Set soft and hard rlimits, never above the hard limit that is there."""
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def filter_syscalls() -> None:
    """seccomp: refuse `REFUSED_SYSCALLS`, every new process (threads stay), signals and limits for anyone else."""
    library = _libseccomp()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        for name in REFUSED_SYSCALLS:
            _refuse(library, context, name, errno.EPERM)
        # glibc falls back from clone3, whose flags a filter cannot see, to clone, whose flags it can.
        _refuse(library, context, "clone3", errno.ENOSYS)
        _refuse(library, context, "clone", errno.EPERM, _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
        _refuse(library, context, "tgkill", errno.EPERM, _Comparison(0, _NOT_EQUAL, os.getpid(), 0))
        _refuse(library, context, "prctl", errno.EPERM, _Comparison(0, _EQUAL, _PR_SET_PDEATHSIG, 0))
        _refuse(library, context, "prlimit64", errno.EPERM, _Comparison(0, _NOT_EQUAL, 0, 0))
        _negative_errno(library.seccomp_load(context), "seccomp_load")
    finally:
        library.seccomp_release(context)


def syscall_number(name: str) -> int:
    """The number of `name` on this architecture, or a negative one where it has none."""
    return int(_libseccomp().seccomp_syscall_resolve_name(name.encode()))


def _libseccomp() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    return library


def _refuse(library: ctypes.CDLL, context: int, name: str, number: int, *conditions: _Comparison) -> None:
    syscall_id = library.seccomp_syscall_resolve_name(name.encode())
    if syscall_id < 0:
        return
    array = (_Comparison * max(1, len(conditions)))(*conditions)
    added = library.seccomp_rule_add_array(context, _ERRNO | number, syscall_id, len(conditions), array)
    _negative_errno(added, f"seccomp rule for {name}")


def _negative_errno(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")

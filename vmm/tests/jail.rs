//! The jail from within: this program enters it as the monitor does, and then tries what must fail.
//!
//! A test starts this program again, as a supervisor starts its monitor; the attempts are made there, and what
//! succeeded that must not is written to standard error.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]
#![allow(unsafe_code, reason = "attempts are raw system calls")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;

use cofferdam_vmm::jail::{self, Filters, Kind, STOPPED_BY_FILTER};
use cofferdam_vmm_api::{Channel, is_privileged, start_monitor};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork, getpid, setgroups, setresgid, setresuid};

/// The argument that makes this program the one in the jail.
const INSIDE: &str = "--inside";

/// A user that nobody else is.
const UID: u32 = 2_000_200_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, how] = &arguments[..]
        && flag == INSIDE
    {
        return inside(how);
    }
    let trials = vec![
        trial("nothing_can_be_opened_reached_or_regained", "attempts", true),
        trial("each_filter_stops_what_the_jail_alone_would_not", "filters", true),
        trial("the_heap_of_a_confined_thread_grows_and_shrinks", "heap", true),
        trial("without_privileges_it_confines_itself_all_the_same", "unprivileged", false),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A run of this program in the jail that must end well.
fn trial(name: &str, how: &'static str, needs_root: bool) -> Trial {
    Trial::test(name, move || {
        if needs_root && !is_privileged() {
            println!("SKIPPED: not root");
            return Ok(());
        }
        let (_control, theirs) = Channel::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([INSIDE, how]).stdout(Stdio::null()).stderr(Stdio::piped());
        // Left open on purpose: it must not be found inside.
        let leaked = File::open("/etc/passwd")?;
        nix::fcntl::fcntl(&leaked, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        let child = start_monitor(command, theirs.into_inner())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let well = output.status.success();
        if well { Ok(()) } else { Err(Failed::from(format!("{}: {said}", output.status))) }
    })
}

fn inside(how: &str) -> ExitCode {
    jail::close_inherited().unwrap();
    let result = match how {
        "attempts" => enter(Some(UID)).and_then(|()| attempts()),
        "filters" => enter(Some(UID)).and_then(|()| filters()),
        "heap" => enter(Some(UID)).and_then(|()| heap()),
        _ => unprivileged(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn must_fail<T>(what: &str, result: io::Result<T>) -> Result<(), String> {
    result.err().map(drop).ok_or_else(|| format!("succeeded: {what}"))
}

fn enter(uid: Option<u32>) -> Result<(), String> {
    let missing = jail::enter(uid).map_err(|error| format!("{error:?}"))?;
    ensure(missing.is_empty(), &format!("missing: {missing:?}"))
}

fn attempts() -> Result<(), String> {
    files()?;
    network()?;
    processes()?;
    rights()?;
    descriptors()
}

fn files() -> Result<(), String> {
    let names: Vec<_> = fs::read_dir("/").unwrap().collect();
    ensure(names.is_empty(), &format!("in /: {names:?}"))?;
    for path in
        ["/etc/passwd", "/proc/self/status", "/dev/null", "/dev/kvm", "/sys", "..", "/../etc"]
    {
        let opened = fs::metadata(path);
        // Above the root is the root.
        let is_root =
            path == ".." && fs::read_dir(path).is_ok_and(|mut names| names.next().is_none());
        ensure(opened.is_err() || is_root, &format!("there is {path}"))?;
    }
    must_fail("creating a file", File::create("/file"))?;
    must_fail("creating a directory", fs::create_dir("/directory"))?;
    let mount = nix::mount::mount(
        Some("proc"),
        "/",
        Some("proc"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    );
    must_fail("mounting", mount.map_err(io::Error::from))?;
    must_fail("changing the root", nix::unistd::chroot("/").map_err(io::Error::from))
}

fn network() -> Result<(), String> {
    must_fail("TCP to this host", TcpStream::connect("127.0.0.1:1"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    must_fail("UDP to elsewhere", socket.send_to(b"x", "192.0.2.1:9"))?;
    must_fail("a named socket", UnixListener::bind("/socket"))?;
    // Abstract names belong to a network namespace.
    let seen = fs::read_to_string("/proc/net/unix");
    must_fail("looking at the host's sockets", seen)?;
    must_fail("a socket by path", UnixStream::connect("/run/dbus/system_bus_socket"))
}

fn processes() -> Result<(), String> {
    ensure(getpid().as_raw() == 1, "it is not the first process of its namespace")?;
    for pid in 2..70_000 {
        // SAFETY: asks whether the process exists.
        if unsafe { libc::kill(pid, 0) } == 0 {
            return Err(format!("process {pid} is visible"));
        }
    }
    // SAFETY: would signal every process but this one.
    must_fail(
        "signalling all",
        match unsafe { libc::kill(-1, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
    )
}

fn rights() -> Result<(), String> {
    must_fail(
        "becoming root",
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).map_err(io::Error::from),
    )?;
    ensure(nix::unistd::getgroups().unwrap().is_empty(), "it has groups")?;
    ensure(nix::unistd::getuid().as_raw() == UID, "it is somebody else")?;
    no_capabilities()?;
    ensure(nix::sys::prctl::get_no_new_privs().unwrap(), "new privileges are possible")?;
    ensure(!nix::sys::prctl::get_dumpable().unwrap(), "it can be looked into")?;
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_NPROC, 1024),
        (Resource::RLIMIT_NOFILE, 16 << 10),
    ] {
        let (soft, hard) = getrlimit(resource).unwrap();
        ensure(soft <= most && hard <= most, &format!("{resource:?} is {soft}, {hard}"))?;
    }
    Ok(())
}

fn no_capabilities() -> Result<(), String> {
    let sets = rustix::thread::capabilities(None).unwrap();
    ensure(
        sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty(),
        &format!("it has {sets:?}"),
    )?;
    for capability in rustix::thread::CapabilitySet::all().iter() {
        let bounded = rustix::thread::capability_is_in_bounding_set(capability);
        ensure(!matches!(bounded, Ok(true)), &format!("{capability:?} can be had"))?;
    }
    Ok(())
}

/// The control socket and what comes with `exec`, nothing that the caller left open.
fn descriptors() -> Result<(), String> {
    for number in 3..1024 {
        // SAFETY: asks for the flags of a descriptor.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        ensure(!open, &format!("descriptor {number} is open"))?;
    }
    Ok(())
}

/// What namespaces do not forbid, filters do.
fn filters() -> Result<(), String> {
    let attempts: [(&str, fn()); 6] = [
        ("opening the root", || {
            let _ = File::open("/");
        }),
        ("a local socket", || {
            let _ = UnixDatagram::unbound();
        }),
        ("an internet socket", || {
            let _ = UdpSocket::bind("0.0.0.0:0");
        }),
        ("signalling", || {
            // SAFETY: asks whether there is another process.
            let _ = unsafe { libc::kill(2, 0) };
        }),
        ("a process", || {
            // SAFETY: this process has one thread.
            let _ = unsafe { fork() };
        }),
        ("a user namespace", || {
            let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        }),
    ];
    for kind in Kind::ALL {
        for (what, attempt) in attempts {
            let stopped = i32::from(STOPPED_BY_FILTER);
            let ended = under_filter(kind, attempt);
            ensure(ended == Some(stopped), &format!("{kind:?}: {what}: exit code {ended:?}"))?;
        }
        let ended = under_filter(kind, || ());
        ensure(ended == Some(0), &format!("{kind:?}: doing nothing: exit code {ended:?}"))?;
    }
    Ok(())
}

/// More threads than an allocator has heaps without asking for the number of processors, and each gives back
/// much of what it took.
fn heap() -> Result<(), String> {
    let filters = Arc::new(Filters::new().unwrap());
    let start = Arc::new(Barrier::new(32));
    let thread = |_| {
        let (filters, start) = (Arc::clone(&filters), Arc::clone(&start));
        thread::spawn(move || {
            filters.apply(Kind::Vsock).unwrap();
            start.wait();
            for _ in 0..3 {
                let pieces: Vec<_> = (0..500).map(|size| vec![1u8; 16 * size]).collect();
                drop(pieces);
            }
        })
    };
    let threads: Vec<_> = (0..32).map(thread).collect();
    let ended = threads.into_iter().map(thread::JoinHandle::join);
    ensure(ended.filter(Result::is_err).count() == 0, "a thread ended badly")
}

/// The exit code of a child that makes `attempt` under the filter of `kind`.
fn under_filter(kind: Kind, attempt: fn()) -> Option<i32> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            Filters::new().unwrap().apply(kind).unwrap();
            attempt();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        },
    }
}

/// From a user without any right. Where the host lets such a user make namespaces, they are as empty.
fn unprivileged() -> Result<(), String> {
    if is_privileged() {
        let (uid, gid) = (Uid::from_raw(UID + 1), Gid::from_raw(UID + 2));
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
    let missing = jail::enter(None).map_err(|error| format!("{error:?}"))?;
    no_capabilities()?;
    ensure(nix::sys::prctl::get_no_new_privs().unwrap(), "new privileges are possible")?;
    if missing.iter().any(|what| what.contains("empty root")) {
        eprintln!("this host gives a user no namespaces: {missing:?}");
        return Ok(());
    }
    let mut text = String::new();
    let opened = File::open("/etc/passwd").and_then(|mut file| file.read_to_string(&mut text));
    must_fail("reading /etc/passwd", opened)?;
    must_fail("TCP to this host", TcpStream::connect("127.0.0.1:1"))?;
    ensure(io::stderr().as_raw_fd() == 2, "standard error")?;
    filters()
}

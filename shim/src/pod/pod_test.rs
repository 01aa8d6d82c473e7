//! The actor against a fake monitor and agent: all goes well, and everything that can go wrong.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;

use cofferdam_agent_protocol as protocol;
use cofferdam_vmm_api::{ExitReason, FromMonitor, StageName};
use protocol::{AgentError, ErrorKind, agent_frame, host_frame, request, response};

use super::fake_test::{Agent, Guest, container, with};
use super::*;
use crate::timeline::PodStage;

fn stages(timeline: &Timeline) -> Vec<PodStage> {
    timeline.entries().iter().map(|entry| entry.stage).collect()
}

/// What a host that only waits for readiness is told.
fn failure(guest: impl FnOnce(Guest) + Send + 'static) -> PodError {
    with(guest, async |pod| pod.ready().await.unwrap_err()).0
}

#[test]
fn a_container_runs_with_its_streams_and_exit_code() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let plan = agent.created();
        let stdio = plan.process.unwrap().stdio.unwrap();
        let mut stdin = guest.dial_stream(stdio.stdin.unwrap());
        let mut stdout = guest.dial_stream(stdio.stdout.unwrap());
        let mut stderr = guest.dial_stream(stdio.stderr.unwrap());
        agent.started();
        let mut text = String::new();
        stdin.read_to_string(&mut text).unwrap();
        stdout.write_all(text.to_uppercase().as_bytes()).unwrap();
        stderr.write_all(b"warned").unwrap();
        agent.ended(7, 0);
        drop((stdin, stdout, stderr));
        guest.end();
    };
    let host = async |pod: &Pod| {
        assert_eq!(pod.ready().await.unwrap(), [Bdf(24)]);
        let expected = pod.create(container()).await.unwrap();
        let (in_read, mut in_write) = std::io::pipe().unwrap();
        let (mut out_read, out_write) = std::io::pipe().unwrap();
        let (mut err_read, err_write) = std::io::pipe().unwrap();
        let ours = [in_read.into(), out_write.into(), err_write.into()];
        let connecting = tokio::spawn(Streams::connect(expected, ours));
        pod.start("c").await.unwrap();
        in_write.write_all(b"hello").unwrap();
        drop(in_write);
        let status = pod.wait("c", "").await.unwrap();
        connecting.await.unwrap().unwrap().drained().await;
        let (mut out, mut err) = (String::new(), String::new());
        out_read.read_to_string(&mut out).unwrap();
        err_read.read_to_string(&mut err).unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("HELLO", "warned"));
        assert_eq!(pod.wait("c", "").await.unwrap(), status, "a second wait tells the same");
        status
    };
    let (status, timeline) = with(guest, host);
    assert_eq!(status.shell_code(), 7);
    let expected = [
        PodStage::MonitorStarted,
        PodStage::MachineBuilt,
        PodStage::KernelEntered,
        PodStage::DriversStarted,
        PodStage::AgentHello,
        PodStage::ContainerCreated,
        PodStage::ContainerStarted,
        PodStage::ContainerExited,
        PodStage::MachineGone,
    ];
    assert_eq!(stages(&timeline), expected);
}

#[test]
fn a_signal_and_a_resize_reach_the_agent() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        agent.created();
        agent.started();
        let (id, request::Body::Resize(resize)) = agent.request() else { panic!() };
        assert_eq!((resize.rows, resize.columns), (24, 80));
        agent.answer(id, response::Body::Done(response::Done {}));
        let (id, request::Body::Signal(signal)) = agent.request() else { panic!() };
        agent.answer(id, response::Body::Done(response::Done {}));
        agent.ended(0, signal.signal);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let _expected = pod.create(container()).await.unwrap();
        pod.start("c").await.unwrap();
        pod.resize("c", "", (24, 80)).await.unwrap();
        pod.signal("c", "", 15, false).await.unwrap();
        pod.wait("c", "").await.unwrap()
    };
    assert_eq!(with(guest, host).0.shell_code(), 143);
}

#[test]
fn the_agents_refusal_of_a_request_is_told_and_the_pod_lives() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let (id, _) = agent.request();
        let kind = ErrorKind::CommandNotFound.into();
        let error = AgentError { kind, message: "no \x1b[2Jsuch command".into() };
        agent.answer(id, response::Body::Error(error));
        agent.created();
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let error = pod.create(container()).await.unwrap_err();
        assert!(pod.create(container()).await.is_ok());
        error
    };
    let (error, timeline) = with(guest, host);
    let message = "no ?[2Jsuch command".to_owned();
    assert_eq!(error.cause, Cause::Agent { kind: ErrorKind::CommandNotFound, message });
    assert!(stages(&timeline).contains(&PodStage::ContainerCreated));
}

#[test]
fn a_wrong_answer_is_an_error() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        agent.send(agent_frame::Body::Response(protocol::Response { id: 999, body: None }));
        let (id, _) = agent.request();
        agent.answer(id, response::Body::Done(response::Done {}));
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.create(container()).await.unwrap_err()
    };
    assert_eq!(with(guest, host).0.cause, Cause::WrongAnswer("create or exec"));
}

#[test]
fn an_agent_of_another_version_is_refused() {
    let error = failure(|guest| {
        guest.boot();
        let mut agent = guest.dial_agent();
        agent.hello(99);
        let answer = agent.receive();
        assert!(matches!(answer, None | Some(host_frame::Body::Refusal(_))), "{answer:?}");
        guest.end();
    });
    assert_eq!(error.cause, Cause::Version { theirs: 99, ours: protocol::PROTOCOL_VERSION });
    assert!(!error.cause.is_guest_failure());
}

#[test]
fn garbage_from_the_agent_ends_the_pod() {
    let too_long = b"\x01\0\x04\0";
    for garbage in
        [&too_long[..], b"\xff\xff\xff\xffxxxx", b"\x04\0\0\0\xff\xff\xff\xff", b"\x00\0\0\0"]
    {
        let error = failure(|guest| {
            guest.boot();
            let mut agent = guest.dial_agent();
            agent.stream.write_all(garbage).unwrap();
            guest.end();
        });
        assert!(matches!(error.cause, Cause::AgentLost(_)), "{error:?}");
        assert_eq!(error.stage, Some(PodStage::DriversStarted));
    }
}

#[test]
fn an_agent_that_goes_away_ends_the_pod() {
    let guest = |guest: Guest| {
        guest.boot();
        drop(guest.agent());
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let first = pod.create(container()).await.unwrap_err();
        assert_eq!(pod.ready().await.unwrap_err(), first, "later commands get the same");
        assert_eq!(pod.wait("c", "").await.unwrap_err(), first);
        first
    };
    let (error, _) = with(guest, host);
    assert_eq!(error.cause, Cause::AgentLost("it was closed".into()));
}

#[test]
fn a_silent_agent_is_given_up() {
    let error = failure(|guest| {
        guest.boot();
        let _agent = guest.dial_agent();
        guest.end();
    });
    assert_eq!(error.cause, Cause::NoHello(2));
}

#[test]
fn the_monitor_may_die_at_any_stage() {
    let before_boot = failure(drop);
    assert!(matches!(before_boot.cause, Cause::Monitor(_)), "{before_boot:?}");
    assert_eq!(before_boot.stage, None);
    let started = failure(|guest| {
        guest.control.receive::<cofferdam_vmm_api::ToMonitor>().unwrap();
        guest.reach(StageName::MonitorStarted);
    });
    assert_eq!(started.stage, Some(PodStage::MonitorStarted));
    let booted = failure(|guest| guest.boot());
    assert_eq!(booted.stage, Some(PodStage::DriversStarted));
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        agent.created();
        agent.started();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let _expected = pod.create(container()).await.unwrap();
        match pod.start("c").await {
            Ok(()) => pod.wait("c", "").await.unwrap_err(),
            Err(error) => error,
        }
    };
    let (running, timeline) = with(guest, host);
    assert!(matches!(running.cause, Cause::Monitor(_)), "{running:?}");
    assert_eq!(timeline.last(), Some(PodStage::MachineGone));
}

#[test]
fn the_reasons_of_the_monitor_are_passed_on() {
    let error = failure(|guest| {
        guest.control.receive::<cofferdam_vmm_api::ToMonitor>().unwrap();
        guest.tell(&FromMonitor::Failed("opening /dev/kvm: No such file".into()));
        guest.end();
    });
    assert_eq!(error.to_string(), "building the machine: opening /dev/kvm: No such file");
    for reason in [ExitReason::Panic, ExitReason::TripleFault, ExitReason::PowerOff] {
        let told = reason.clone();
        let error = failure(move |guest| {
            guest.boot();
            guest.tell(&FromMonitor::Exited(told));
        });
        assert_eq!(error.cause, Cause::Ended(reason));
        assert!(error.to_string().contains("last stage reached: drivers started"), "{error}");
    }
}

#[test]
fn a_machine_that_ends_explains_a_lost_agent() {
    let guest = |guest: Guest| {
        guest.boot();
        drop(guest.agent());
        std::thread::sleep(std::time::Duration::from_millis(100));
        guest.tell(&FromMonitor::Exited(ExitReason::Panic));
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.create(container()).await.unwrap_err()
    };
    assert_eq!(with(guest, host).0.cause, Cause::Ended(ExitReason::Panic));
}

#[test]
fn a_wrong_number_of_disks_is_noticed() {
    let error = failure(|guest| {
        guest.control.receive::<cofferdam_vmm_api::ToMonitor>().unwrap();
        guest.tell(&FromMonitor::Booted(cofferdam_vmm_api::Booted { disks: Vec::new() }));
        guest.end();
    });
    assert!(matches!(error.cause, Cause::Monitor(_)), "{error:?}");
}

#[test]
fn wrong_tokens_and_ports_are_closed_and_the_right_one_still_works() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let stdout = agent.created().process.unwrap().stdio.unwrap().stdout.unwrap();
        let closed = |mut stream: std::os::unix::net::UnixStream| {
            let mut rest = Vec::new();
            assert!(stream.read_to_end(&mut rest).is_err() || rest.is_empty());
        };
        closed(guest.dial_stream(stdout ^ 1));
        closed(guest.dial(4711));
        closed(guest.dial(protocol::CONTROL_PORT));
        let silent = guest.dial(protocol::STDIO_PORT);
        guest.connections.send_bytes(b"no descriptor", &[]).unwrap();
        guest.dial_stream(stdout).write_all(b"right").unwrap();
        closed(guest.dial_stream(stdout));
        // Says nothing: closed after the time-out.
        closed(silent);
        agent.ended(0, 0);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let expected = pod.create(container()).await.unwrap();
        let mut stream = expected.stdout.unwrap().await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "right");
        pod.wait("c", "").await.unwrap()
    };
    assert_eq!(with(guest, host).0.shell_code(), 0);
}

#[test]
fn silent_connections_do_not_keep_a_stream_from_coming() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let stdout = agent.created().process.unwrap().stdio.unwrap().stdout.unwrap();
        let mut silent: Vec<_> = (0..100).map(|_| guest.dial(protocol::STDIO_PORT)).collect();
        guest.dial_stream(stdout).write_all(b"right").unwrap();
        // The first ones gave way.
        assert_eq!(silent[0].read(&mut [0]).unwrap_or(0), 0);
        agent.ended(0, 0);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let expected = pod.create(container()).await.unwrap();
        let mut stream = expected.stdout.unwrap().await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "right");
    };
    with(guest, host);
}

#[test]
fn a_stream_that_does_not_come_is_given_up() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let stdio = agent.created().process.unwrap().stdio.unwrap();
        let stdin = guest.dial_stream(stdio.stdin.unwrap());
        // The time-out is over; the token is worth nothing any more.
        std::thread::sleep(std::time::Duration::from_millis(400));
        let mut late = guest.dial_stream(stdio.stdout.unwrap());
        assert_eq!(late.read(&mut [0]).unwrap_or(0), 0);
        agent.ended(0, 0);
        drop(stdin);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let expected = pod.create(container()).await.unwrap();
        assert!(expected.stdin.unwrap().await.is_ok());
        assert!(expected.stdout.unwrap().await.is_err());
        assert!(expected.stderr.unwrap().await.is_err());
        pod.wait("c", "").await.unwrap()
    };
    assert_eq!(with(guest, host).0.shell_code(), 0);
}

#[test]
fn events_about_unknown_containers_are_ignored() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        agent.ended_of("other", 1, 0);
        agent.created();
        agent.ended(2, 0);
        agent.ended(3, 0);
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        assert!(pod.wait("other", "").await.is_err());
        let _expected = pod.create(container()).await.unwrap();
        pod.wait("c", "").await.unwrap()
    };
    assert_eq!(with(guest, host).0.shell_code(), 2);
}

#[test]
fn a_program_that_is_no_monitor_is_reported() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async {
        let (monitor, _connections) = Monitor::spawn(std::path::Path::new("/bin/false")).unwrap();
        let machine = crate::pod::fake_test::bare_spec();
        let pod = Pod::launch(monitor, machine, Timeline::default()).unwrap();
        let error = pod.ready().await.unwrap_err();
        pod.stop().await;
        error
    });
    let expected = Cause::MonitorGone("exit status: 1".into());
    assert_eq!(error.cause, expected);
    let missing = runtime.block_on(async { Monitor::spawn(std::path::Path::new("/no/monitor")) });
    assert_eq!(missing.unwrap_err().to_string(), "starting the monitor /no/monitor");
}

/// The stream that the agent is asked to connect to a port.
fn asked_to_forward(guest: &Guest, agent: &mut Agent, port: u32) -> StdStream {
    let (id, request::Body::Forward(wanted)) = agent.request() else { panic!("not forward") };
    assert_eq!(wanted.port, port);
    agent.answer(id, response::Body::Done(response::Done {}));
    guest.dial_stream(wanted.stream)
}

#[test]
fn a_port_is_forwarded_or_refused() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        let mut stream = asked_to_forward(&guest, &mut agent, 80);
        stream.write_all(&[1]).unwrap();
        stream.write_all(b"hello").unwrap();
        drop(stream);
        // Nobody listens; and an agent that refuses.
        drop(asked_to_forward(&guest, &mut agent, 81));
        let (id, _) = agent.request();
        let error = AgentError { kind: ErrorKind::Other.into(), message: "no".into() };
        agent.answer(id, response::Body::Error(error));
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let mut stream = pod.forward(80).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        assert_eq!(text, "hello");
        let refused = pod.forward(81).await.unwrap_err();
        assert_eq!(refused.to_string(), "nobody listens at port 81 of the pod");
        assert_eq!(pod.forward(82).await.unwrap_err().to_string(), "no");
    };
    with(guest, host);
}

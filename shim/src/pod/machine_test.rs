//! The machine's size and standstill, against a fake monitor and agent.

use cofferdam_agent_protocol::{AgentError, Cpus, ErrorKind};
use cofferdam_vmm_api::ExitReason;

use super::super::fake_test::{Guest, with};
use super::*;

#[test]
fn the_agent_brings_cpus_online() {
    let guest = |guest: Guest| {
        guest.boot();
        let mut agent = guest.agent();
        for online in [4, 2, 300, 3] {
            let (id, request::Body::SetCpus(_)) = agent.request() else { panic!("not CPUs") };
            agent.answer(id, response::Body::Cpus(Cpus { online, present: 4 }));
        }
        let (id, request::Body::SetCpus(wanted)) = agent.request() else { panic!("not CPUs") };
        assert_eq!(wanted.online, 9);
        let message = "9 CPUs online: the machine has 1 to 4".into();
        let kind = ErrorKind::Unsupported.into();
        agent.answer(id, response::Body::Error(AgentError { kind, message }));
        guest.end();
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        assert_eq!(pod.set_cpus(4).await, Ok(4));
        assert_eq!(pod.set_cpus(2).await, Ok(2));
        for _ in 0..2 {
            let error = pod.set_cpus(2).await.unwrap_err();
            assert_eq!(error.cause, Cause::WrongAnswer("set_cpus"), "a guest that tells nonsense");
        }
        assert!(pod.set_cpus(9).await.unwrap_err().to_string().contains("has 1 to 4"));
    };
    with(guest, host);
}

#[test]
fn the_monitor_pauses_and_resumes() {
    let guest = |guest: Guest| {
        guest.boot();
        let agent = guest.agent();
        for (wanted, answer) in [
            (ToMonitor::Pause, FromMonitor::Paused),
            (ToMonitor::Resume, FromMonitor::Resumed),
            (ToMonitor::Pause, FromMonitor::Resumed),
            (ToMonitor::Pause, FromMonitor::Exited(ExitReason::PowerOff)),
        ] {
            assert_eq!(guest.control.receive::<ToMonitor>().unwrap().body, wanted);
            guest.tell(&answer);
        }
        guest.end();
        drop(agent);
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        pod.pause_machine().await.unwrap();
        pod.resume_machine().await.unwrap();
        let error = pod.pause_machine().await.unwrap_err();
        assert!(error.to_string().contains("it answered Resumed"), "{error}");
        let ended = Cause::Ended(ExitReason::PowerOff);
        assert_eq!(pod.pause_machine().await.unwrap_err().cause, ended);
        assert_eq!(pod.resume_machine().await.unwrap_err().cause, ended);
    };
    with(guest, host);
}

/// Answers what is asked about memory by `answers`; gives how often the size was set.
fn tell(guest: &Guest, answers: &[FromMonitor]) -> usize {
    let mut set = 0;
    for answer in answers {
        let asked = guest.control.receive::<ToMonitor>().unwrap().body;
        set += usize::from(matches!(asked, ToMonitor::SetMemory(_)));
        assert!(matches!(asked, ToMonitor::SetMemory(_) | ToMonitor::Memory), "{asked:?}");
        guest.tell(answer);
    }
    set
}

fn memory(present: u32, wanted: u32) -> FromMonitor {
    FromMonitor::Memory(MemoryState { present: MiB(present), wanted: MiB(wanted) })
}

#[test]
fn memory_is_waited_for() {
    let guest = |guest: Guest| {
        guest.boot();
        let agent = guest.agent();
        let answers = [memory(256, 512), memory(384, 512), memory(512, 512)];
        assert_eq!(tell(&guest, &answers), 1);
        tell(&guest, &[FromMonitor::Refused("no more than 512 MiB".into())]);
        guest.end();
        drop(agent);
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(pod.set_memory(MiB(512), patience).await, Ok(MiB(512)));
        let error = pod.set_memory(MiB(513), patience).await.unwrap_err();
        assert_eq!(error.to_string(), "no more than 512 MiB");
    };
    with(guest, host);
}

#[test]
fn more_memory_is_there_while_a_guest_still_gives_back() {
    let guest = |guest: Guest| {
        guest.boot();
        let agent = guest.agent();
        assert_eq!(tell(&guest, &[memory(1024, 768)]), 1);
        assert_eq!(tell(&guest, &[memory(256, 768), memory(512, 768), memory(768, 768)]), 1);
        guest.end();
        drop(agent);
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(pod.grow_memory(MiB(768), patience).await, Ok(MiB(1024)));
        assert_eq!(pod.grow_memory(MiB(768), patience).await, Ok(MiB(768)));
    };
    with(guest, host);
}

#[test]
fn a_guest_that_plays_for_time_is_left() {
    let guest = |guest: Guest| {
        guest.boot();
        let agent = guest.agent();
        let (mut looks, mut wanted) = (0, 0);
        while let Ok(message) = guest.control.receive::<ToMonitor>() {
            match message.body {
                ToMonitor::SetMemory(MiB(mib)) => wanted = mib,
                ToMonitor::Memory => {}
                _ => break,
            }
            looks += 1;
            // It takes and gives back in turns; or comes closer without ever being there.
            let present = if wanted == 768 { 256 << (looks % 2) } else { 256 + looks };
            guest.tell(&memory(present, wanted));
        }
        drop(agent);
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        let patience = Duration::from_millis(100);
        for wanted in [768, 1 << 20] {
            let error = pod.grow_memory(MiB(wanted), patience).await.unwrap_err();
            assert!(matches!(error.cause, Cause::Memory { .. }), "{error}");
        }
    };
    with(guest, host);
}

#[test]
fn a_guest_that_gives_nothing_back_is_asked_again_and_then_left() {
    let guest = |guest: Guest| {
        guest.boot();
        let agent = guest.agent();
        let mut set = 0;
        while let Ok(message) = guest.control.receive::<ToMonitor>() {
            match message.body {
                ToMonitor::SetMemory(_) => set += 1,
                ToMonitor::Memory => {}
                _ => break,
            }
            guest.tell(&memory(640, 512));
        }
        assert!(set >= 2, "asked {set} times");
        drop(agent);
    };
    let host = async |pod: &Pod| {
        pod.ready().await.unwrap();
        // Time for more than the two times that are looked for, on a machine that is slow.
        let error = pod.set_memory(MiB(512), 6 * ASK_AGAIN).await.unwrap_err();
        let text = "the guest has 640 MiB of memory and not 512 MiB, after 6 s";
        assert_eq!(error.to_string(), text);
    };
    with(guest, host);
}

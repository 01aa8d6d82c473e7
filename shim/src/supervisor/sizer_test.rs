//! Growing and shrinking, against a made-up machine.

use std::cell::RefCell;

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;

const BOOT: Size = Size { vcpus: 1, memory: MiB(256) };

const ROOM: Room = Room { base: BOOT, boot: BOOT, max: Size { vcpus: 4, memory: MiB(4096) } };

/// Notes what it is asked, and does as it is told.
#[derive(Default)]
struct Machine {
    asked: RefCell<Vec<String>>,
    /// Fails with this.
    refuses: RefCell<Option<&'static str>>,
    /// Memory is given back only when this is told, if it is to be waited for.
    gives: Option<Notify>,
}

impl Machine {
    fn note(&self, what: String) -> Result<(), PodError> {
        self.asked.borrow_mut().push(what);
        let error = |why: &str| PodError { stage: None, cause: Cause::Unfit(why.to_owned()) };
        self.refuses.borrow().map_or(Ok(()), |why| Err(error(why)))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

impl Resize for Machine {
    async fn cpus(&self, online: u8) -> Result<u8, PodError> {
        self.note(format!("cpus {online}")).map(|()| online)
    }

    async fn more_memory(&self, wanted: MiB) -> Result<MiB, PodError> {
        self.note(format!("more {}", wanted.0)).map(|()| wanted)
    }

    async fn less_memory(&self, wanted: MiB) -> Result<MiB, PodError> {
        self.note(format!("less {}", wanted.0))?;
        if let Some(gives) = &self.gives {
            gives.notified().await;
        }
        Ok(wanted)
    }
}

fn needs(mib: u64, cpus: u64) -> Needs {
    Needs { memory: Some(mib << 20), millicpus: Some(cpus * 1000), numbered: None }
}

fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(30);
    let case = async { tokio::time::timeout(limit, case).await.unwrap() };
    LocalSet::new().block_on(&runtime, case);
}

#[test]
fn it_grows_before_and_shrinks_after() {
    let (sizer, machine) = (Sizer::new(ROOM), Machine::default());
    run(async {
        sizer.grow(&machine, "a", needs(512, 2)).await.unwrap();
        assert_eq!(machine.asked(), ["more 776", "cpus 3"]);
        // No limit, no change; and what there is already is enough.
        sizer.grow(&machine, "b", Needs::default()).await.unwrap();
        sizer.grow(&machine, "b", needs(0, 0)).await.unwrap();
        assert!(machine.asked().is_empty());
        // Less than what was asked for is a matter of shrinking.
        sizer.grow(&machine, "a", needs(256, 1)).await.unwrap();
        assert!(machine.asked().is_empty());
        sizer.shrink(&machine).await;
        assert_eq!(machine.asked(), ["cpus 2", "less 516"]);
        sizer.note("a", None);
        sizer.shrink(&machine).await;
        assert_eq!(machine.asked(), ["cpus 1", "less 256"]);
        sizer.shrink(&machine).await;
        assert!(machine.asked().is_empty());
    });
}

#[test]
fn it_asks_for_no_more_than_there_can_be() {
    let (sizer, machine) = (Sizer::new(ROOM), Machine::default());
    run(async {
        sizer.grow(&machine, "a", needs(1 << 20, 99)).await.unwrap();
        assert_eq!(machine.asked(), ["more 4096", "cpus 4"]);
        sizer.grow(&machine, "b", needs(1, 1)).await.unwrap();
        assert!(machine.asked().is_empty());
        let fixed = Sizer::new(Room::none(BOOT));
        fixed.grow(&machine, "c", needs(512, 2)).await.unwrap();
        fixed.shrink(&machine).await;
        assert!(machine.asked().is_empty());
    });
}

#[test]
fn what_does_not_grow_says_what_was_wanted_and_is_as_before() {
    let (sizer, machine) = (Sizer::new(ROOM), Machine::default());
    run(async {
        sizer.grow(&machine, "a", needs(64, 1)).await.unwrap();
        machine.asked();
        *machine.refuses.borrow_mut() = Some("no memory");
        let error = sizer.grow(&machine, "b", needs(512, 2)).await.unwrap_err();
        assert_eq!(
            error.message,
            "making the pod's machine larger for the container b, from 322 MiB and 2 vCPUs to 842 MiB \
             and 4: no memory"
        );
        assert_eq!(sizer.needs_of("b"), None);
        let error = sizer.grow(&machine, "a", needs(128, 1)).await.unwrap_err();
        assert!(error.message.contains("container a, from"), "{error}");
        assert_eq!(sizer.needs_of("a"), Some(needs(64, 1)));
        machine.asked();
        // What may have come of it goes again. That a guest keeps it is no failure.
        sizer.shrink(&machine).await;
        assert_eq!(machine.asked(), ["less 322"]);
        *machine.refuses.borrow_mut() = None;
        sizer.grow(&machine, "b", needs(512, 2)).await.unwrap();
        assert_eq!(machine.asked(), ["more 842", "cpus 4"]);
    });
}

#[test]
fn a_container_that_comes_does_not_wait_for_what_another_gives_back() {
    let sizer = Rc::new(Sizer::new(ROOM));
    let machine = Rc::new(Machine { gives: Some(Notify::new()), ..Machine::default() });
    run(async {
        sizer.grow(&*machine, "a", needs(1024, 1)).await.unwrap();
        sizer.note("a", None);
        let (shrinking, its) = (sizer.clone(), machine.clone());
        let shrinking = tokio::task::spawn_local(async move { shrinking.shrink(&*its).await });
        while machine.asked.borrow().last().is_none_or(|last| last != "less 256") {
            tokio::task::yield_now().await;
        }
        machine.asked();
        sizer.grow(&*machine, "b", needs(512, 1)).await.unwrap();
        assert_eq!(machine.asked(), ["more 776", "cpus 2"]);
        // The rest is waited for again, and no more than that is given back.
        while machine.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(machine.asked(), ["less 776"]);
        machine.gives.as_ref().unwrap().notify_one();
        shrinking.await.unwrap();
        assert!(machine.asked().is_empty());
    });
}

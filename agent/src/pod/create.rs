//! Making containers, and more processes in them.
//!
//! Invariant: a request that fails leaves no mount, directory, control group or process behind.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cofferdam_agent_protocol::{ContainerPlan, Created, ErrorKind, IdMap, request};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use super::check::{self, Namespaces};
use super::container::{Container, Process};
use super::state::State;
use super::{Pod, created};
use crate::error::{Context, Failure, Result};
use crate::guest::cgroup::Cgroup;
use crate::guest::{Names, Rootfs};
use crate::launch::plan::LaunchPlan;
use crate::launch::{self, Group, Join, Launch, Launched};
use crate::stdio::Streams;

impl Pod {
    /// Sets a container up to the point before `execve`.
    pub(super) async fn create(&mut self, mut plan: ContainerPlan) -> Result<Created> {
        check::container(&plan)?;
        let id = plan.id.clone();
        if self.containers.contains_key(&id) {
            return Err(Failure::new(ErrorKind::Exists, format!("container \"{id}\" exists")));
        }
        let namespaces = Namespaces::of(&plan)?;
        let joins = self.joins(&namespaces)?;
        let shared = self.shared.provide(&self.place, &mut plan.mounts)?;
        match self.make(plan, namespaces, &joins).await {
            Ok(mut container) => {
                container.shared = shared;
                let answer = created(&container.first);
                self.containers.insert(id, container);
                Ok(answer)
            }
            Err(failure) => {
                self.shared.release(&shared);
                Err(failure)
            }
        }
    }

    /// Makes the container of `plan`, but for what it shares.
    async fn make(
        &mut self,
        mut plan: ContainerPlan,
        namespaces: Namespaces,
        joins: &[Join],
    ) -> Result<Container> {
        let volumes = self.volumes.provide(&self.place, &mut plan.mounts)?;
        let limits = plan.cgroup.clone().unwrap_or_default();
        let uid_map = self.uid_map(&plan, &namespaces);
        let cgroup = Cgroup::create(&self.place, &plan.id, &limits)?;
        if limits.delegated {
            let uid = plan.process.as_ref().map_or(0, |process| process.uid);
            let owner = if uid_map.is_empty() { Some(uid) } else { host_uid(&uid_map, uid) };
            if let Err(failure) = owner.map_or(Ok(()), |owner| cgroup.delegate(owner)) {
                self.discard(&cgroup, None).await;
                return Err(failure);
            }
        }
        let mounted = Rootfs::mount(&self.place, &mut self.disks, (&plan, volumes));
        let mut rootfs = match mounted.await {
            Ok(rootfs) => rootfs,
            Err(failure) => {
                self.discard(&cgroup, None).await;
                return Err(failure);
            }
        };
        let outcome = self.set_up(plan, &namespaces, joins, (&cgroup, &rootfs)).await;
        let launched = match outcome {
            Ok(launched) => launched,
            Err(failure) => {
                self.discard(&cgroup, Some(&mut rootfs)).await;
                return Err(failure);
            }
        };
        let (first, waiting) = Process::of(launched);
        Ok(Container {
            state: State::Created,
            first,
            others: BTreeMap::new(),
            created: Some(waiting),
            namespaces: namespaces.own(),
            watch: self.oom.as_ref().and_then(|watch| watch.add(&cgroup)),
            cgroup,
            rootfs,
            shared: Names::new(),
            oom_kills: 0,
            uid_map,
        })
    }

    /// Launches the first process.
    async fn set_up(
        &self,
        mut plan: ContainerPlan,
        namespaces: &Namespaces,
        joins: &[Join],
        (cgroup, rootfs): (&Cgroup, &Rootfs),
    ) -> Result<Launched> {
        let process = plan.process.take().unwrap_or_default();
        let limits = plan.cgroup.take().unwrap_or_default();
        let owner = host_uid(&self.uid_map(&plan, namespaces), process.uid);
        let launch_plan = LaunchPlan {
            setup: Some(Box::new(plan)),
            process: Some(Box::new(process)),
            rootfs: rootfs.path().to_string_lossy().into_owned(),
            files: rootfs.files().to_string_lossy().into_owned(),
            cgroup: cgroup.path().to_string_lossy().into_owned(),
            new: namespaces.new.bits(),
            own: namespaces.own().bits(),
        };
        let group = Group { directory: cgroup.fd(), device_filter: &limits.device_filter };
        self.launch(&launch_plan, joins, group, owner).await
    }

    /// Starts one more process in a container.
    pub(super) async fn exec(&mut self, exec: request::Exec) -> Result<Created> {
        check::id(&exec.process)?;
        let plan = exec.plan.ok_or_else(|| Failure::unsupported("a process without a plan"))?;
        check::process(&plan)?;
        let container = self.find(&exec.container)?;
        container.state.join()?;
        if container.others.contains_key(&exec.process) {
            let text = format!("process \"{}\" exists", exec.process);
            return Err(Failure::new(ErrorKind::Exists, text));
        }
        let join = of(&container.first, container.namespaces)?;
        let cgroup = match exec.cgroup.as_str() {
            "" => working_group(container)?,
            path => group_below(container, path)?,
        };
        let owner = host_uid(&container.uid_map, plan.uid);
        let own = container.namespaces.bits();
        let launch_plan = LaunchPlan { process: Some(plan), own, ..LaunchPlan::default() };
        let joins = std::slice::from_ref(&join);
        let group = Group { directory: cgroup.as_fd(), device_filter: &[] };
        let launched = self.launch(&launch_plan, joins, group, owner).await?;
        let (process, waiting) = Process::of(launched);
        if let Err(failure) = waiting.go().await {
            process.kill();
            return Err(failure);
        }
        let answer = created(&process);
        self.find(&exec.container)?.others.insert(exec.process, process);
        Ok(answer)
    }

    /// Launches a process with its streams, which belong to `owner`.
    async fn launch(
        &self,
        plan: &LaunchPlan,
        joins: &[Join],
        group: Group<'_>,
        owner: Option<u32>,
    ) -> Result<Launched> {
        let process = plan.process.as_deref();
        let process = process.ok_or_else(|| Failure::unsupported("a plan without a process"))?;
        let streams = Streams::new(&self.dialer, process, owner, self.own.null.as_fd())?;
        let program = self.own.program.as_fd();
        let launch = Launch { program, plan, joins, group, stdio: streams.child() };
        let launched = launch::launch(launch).await?;
        if let Err(failure) = streams.relay(launched.terminal.as_ref()).await {
            launched.kill();
            return Err(failure);
        }
        Ok(launched)
    }

    /// Opens what a new container joins.
    fn joins(&mut self, namespaces: &Namespaces) -> Result<Vec<Join>> {
        let open = |(target, kinds): &(String, CloneFlags)| {
            if let Some(keeper) = self.keepers.get(target) {
                return of(keeper, *kinds & CloneFlags::CLONE_NEWPID);
            }
            let target = self.find(target)?;
            target.state.join()?;
            // What the target shares with the agent, the new container shares already.
            of(&target.first, *kinds & target.namespaces)
        };
        let joins = namespaces.joins.iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(joins.into_iter().filter(|join| !join.kinds.is_empty()).collect())
    }

    /// The user id map that applies to a new container: its own or that of the one it joins.
    pub(super) fn uid_map(&self, plan: &ContainerPlan, namespaces: &Namespaces) -> Vec<IdMap> {
        let user = CloneFlags::CLONE_NEWUSER;
        if namespaces.new.contains(user) {
            return plan.uid_map.clone();
        }
        let target = namespaces.joins.iter().find(|(_, kinds)| kinds.contains(user));
        let target = target.and_then(|(target, _)| self.containers.get(target));
        target.map(|target| target.uid_map.clone()).unwrap_or_default()
    }

    /// Takes away what a failed creation made.
    async fn discard(&mut self, cgroup: &Cgroup, rootfs: Option<&mut Rootfs>) {
        // A launcher may still be there.
        let killed = cgroup.kill();
        if let Err(failure) = killed.and(cgroup.remove().await) {
            crate::log!("after a failed creation: {failure}");
        }
        if let Some(rootfs) = rootfs {
            rootfs.remove(&self.place, &mut self.disks);
        }
    }
}

/// The namespaces `kinds` of a process.
fn of(process: &Process, kinds: CloneFlags) -> Result<Join> {
    let pidfd = process.pidfd.try_clone().context(|| "copying a descriptor".into())?;
    Ok(Join { pidfd, kinds })
}

/// The control group for one more process: the container's, or where its first process is now, if the
/// container has split its group up and the kernel lets only the leaves have processes.
fn working_group(container: &Container) -> Result<OwnedFd> {
    let attempted = || "opening the control group".into();
    let split = container.cgroup.read("cgroup.subtree_control").is_ok_and(|c| !c.trim().is_empty());
    if !split {
        return container.cgroup.fd().try_clone_to_owned().context(attempted);
    }
    // Names of groups are bytes, which the container chooses.
    let listed = std::fs::read(format!("/proc/{}/cgroup", container.first.pid));
    let listed = listed.context(attempted)?;
    let own = container.cgroup.path();
    let name = own.file_name().unwrap_or_default().as_bytes();
    let below = below_group(&listed, name);
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    open(&own.join(OsStr::from_bytes(below)), flags, Mode::empty()).context(attempted)
}

/// The part of a process's group below the group `name`, wherever that is mounted, in the text of its /proc/PID/cgroup.
fn below_group<'a>(listed: &'a [u8], name: &[u8]) -> &'a [u8] {
    let path = listed.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = path.unwrap_or_default();
    let own = [b"/", name, b"/"].concat();
    let at = path.windows(own.len()).position(|window| window == own);
    at.and_then(|at| path.get(at + own.len()..)).unwrap_or_default()
}

/// The control group `path` below that of `container`. A link or `..` would lead out of it.
fn group_below(container: &Container, path: &str) -> Result<OwnedFd> {
    if path.split('/').any(|part| part == "..") {
        return Err(Failure::unsupported(format!("bad sub cgroup path: {path}")));
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let below = Path::new(".").join(path.trim_start_matches('/'));
    openat2(container.cgroup.fd(), &below, OpenHow::new().flags(flags).resolve(resolve))
        .context(|| format!("adding the process to the cgroup {path}"))
}

/// The agent's number for user `uid` of a user namespace with `map`; `None` without one.
fn host_uid(map: &[IdMap], uid: u32) -> Option<u32> {
    map.iter().find_map(|m| {
        let offset = uid.checked_sub(m.container).filter(|offset| *offset < m.size)?;
        m.host.checked_add(offset)
    })
}

#[cfg(test)]
#[path = "create_test.rs"]
mod create_test;

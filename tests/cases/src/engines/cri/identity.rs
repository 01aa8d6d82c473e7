//! Who the processes of a container are.

use anyhow::{Result, ensure};

use super::super::cases;
use super::messages::{Capability, ContainerConfig, Int64Value};
use super::pod::{refusal, says, start};
use super::{Cri, Pod};

cases!(Cri:
    users_and_groups,
    a_user_by_name,
    a_user_that_is_not_there_is_told,
    capabilities,
    no_new_privileges,
);

fn value(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

/// What `id` says in a container that is made so.
fn identity(pod: &Pod<'_>, edit: impl FnOnce(&mut ContainerConfig)) -> Result<String> {
    pod.prints("echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -nu)", edit)
}

fn users_and_groups(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    ensure!(identity(&pod, |_| {})? == "0 0 0\n", "{}", identity(&pod, |_| {})?);
    let seen = identity(&pod, |config| {
        let security = config.security();
        security.run_as_user = value(1000);
        security.run_as_group = value(3000);
        security.supplemental_groups = vec![4000, 5000];
    })?;
    // Groups of the image are there as well: the user is one of `extra`, 2000.
    ensure!(seen == "1000 3000 2000 3000 4000 5000\n", "{seen}");
    // Of nobody whom the image knows.
    let seen = identity(&pod, |config| config.security().run_as_user = value(12345))?;
    ensure!(seen == "12345 0 0\n", "{seen}");
    Ok(())
}

fn a_user_by_name(cri: &Cri) -> Result<()> {
    let seen = identity(&cri.shared()?, |config| {
        config.security().run_as_username = "user".to_owned();
    })?;
    ensure!(seen == "1000 1000 1000 2000\n", "{seen}");
    Ok(())
}

fn a_user_that_is_not_there_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let made =
        pod.create("true", |config| config.security().run_as_username = "nobody-here".into());
    let refused = refusal(made.and_then(|id| start(&id)))?;
    ensure!(
        refused.message.contains("nobody-here") || refused.message.contains("no users found"),
        "{refused}"
    );
    Ok(())
}

/// What a container's first process may do, and what it may come to do.
fn sets(pod: &Pod<'_>, change: Capability) -> Result<[u64; 2]> {
    let printed = pod.prints("grep -E '^Cap(Eff|Bnd)' /proc/self/status", |config| {
        config.security().capabilities = Some(change);
    })?;
    let mut sets = [0; 2];
    for (set, line) in sets.iter_mut().zip(printed.lines()) {
        let digits = line.split_whitespace().next_back().unwrap_or_default();
        *set = u64::from_str_radix(digits, 16)?;
    }
    Ok(sets)
}

fn capabilities(cri: &Cri) -> Result<()> {
    const NET_RAW: u64 = 1 << 13;
    const NET_ADMIN: u64 = 1 << 12;
    /// The 14 of the service.
    const USUAL: u64 = 0xa804_25fb;
    let pod = cri.shared()?;
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let change = |add: &[&str], drop: &[&str]| {
        let (add_capabilities, drop_capabilities) = (names(add), names(drop));
        sets(&pod, Capability { add_capabilities, drop_capabilities })
    };
    let is = |seen: [u64; 2], wanted| {
        ensure!(seen == [wanted; 2], "{seen:x?} instead of {wanted:x}");
        Ok(())
    };
    is(change(&[], &[])?, USUAL)?;
    is(change(&["NET_ADMIN"], &["NET_RAW"])?, USUAL & !NET_RAW | NET_ADMIN)?;
    is(change(&[], &["ALL"])?, 0)?;
    is(change(&["NET_ADMIN"], &["ALL"])?, NET_ADMIN)?;
    // Somebody else than root has them only to come to.
    let printed = pod.prints("grep -E '^Cap(Eff|Bnd)' /proc/self/status", |config| {
        config.security().run_as_user = value(1000);
    })?;
    ensure!(printed.contains("CapEff:\t0000000000000000"), "{printed}");
    ensure!(printed.contains("CapBnd:\t00000000a80425fb"), "{printed}");
    Ok(())
}

fn no_new_privileges(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    for wanted in [false, true] {
        let id = pod.start_with("sleep 1000", |config| config.security().no_new_privs = wanted)?;
        let seen = says(&id, "grep NoNewPrivs /proc/1/status /proc/self/status | cut -f 2")?;
        let number = u8::from(wanted);
        ensure!(seen == format!("{number}\n{number}"), "{seen}");
    }
    Ok(())
}

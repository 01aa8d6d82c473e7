//! Offsets of the clocks of a time namespace (OCI runtime-spec, config-linux#offset-for-time-namespace).
//!
//! Invariant: only a namespace that the container makes has offsets; one that is shared has them already.

use cofferdam_agent_protocol::{Namespace, NamespaceKind, TimeOffset};
use oci_spec::runtime::Linux;

use super::{OciError, invalid};

/// The clocks that a time namespace has (`time_namespaces(7)`).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// The offsets for a container with the namespaces `own`.
pub(super) fn offsets(
    linux: Option<&Linux>,
    own: &[Namespace],
) -> Result<Vec<TimeOffset>, OciError> {
    let field = "linux.timeOffsets";
    let listed = linux.and_then(|linux| linux.time_offsets().as_ref());
    let Some(listed) = listed.filter(|offsets| !offsets.is_empty()) else { return Ok(Vec::new()) };
    match own.iter().find(|namespace| namespace.kind() == NamespaceKind::Time) {
        None => return Err(invalid(field, "needs a time namespace in linux.namespaces")),
        Some(namespace) if !namespace.join.is_empty() => {
            return Err(invalid(field, "the time namespace is another container's"));
        }
        Some(_) => {}
    }
    let mut offsets = Vec::with_capacity(listed.len());
    for (clock, offset) in listed {
        if !CLOCKS.contains(&clock.as_str()) {
            let problem = format!("a time namespace has the clocks {}", CLOCKS.join(" and "));
            return Err(invalid(format!("{field}.{clock}"), problem));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            let problem = format!("{nanoseconds} is a second or more");
            return Err(invalid(format!("{field}.{clock}.nanosecs"), problem));
        }
        let seconds = offset.secs().unwrap_or(0);
        offsets.push(TimeOffset { clock: clock.clone(), seconds, nanoseconds });
    }
    offsets.sort_by(|a, b| a.clock.cmp(&b.clock));
    Ok(offsets)
}

#[cfg(test)]
#[path = "time_test.rs"]
mod time_test;

//! New resources for a container that is there (`runc update`).
//!
//! Invariant: pure. What is not asked for stays as it was; files are written only for what is asked for.

use cofferdam_agent_protocol::CgroupSetting;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::json::{self, JsonError};
use super::translate::{Needs, needs};
use super::{OciError, cgroup, invalid};

/// A change of a container's resources.
#[derive(Clone, Debug)]
pub struct Update {
    /// Files of its control group and what to write to them, in this order.
    pub settings: Vec<CgroupSetting>,
    /// All its resources from then on: the `current` of the next change.
    pub resources: LinuxResources,
    /// What they ask of the machine.
    pub needs: Needs,
    /// What was ignored, and why.
    pub warnings: Vec<String>,
}

/// The change from `current` to what `text` asks for: `linux.resources` of a configuration, as
/// `runc update --resources` takes it.
///
/// # Errors
/// The first thing that makes no sense.
pub fn update(text: &[u8], current: Option<&LinuxResources>) -> Result<Update, OciError> {
    let (wanted, mut warnings) = json::parse::<LinuxResources>(text, FIELD)?;
    let mut update = update_to(&wanted, current)?;
    warnings.append(&mut update.warnings);
    Ok(Update { warnings, ..update })
}

/// Where a configuration has resources.
const FIELD: &str = "linux.resources";

/// As [`update`], of what is parsed already.
///
/// # Errors
/// The first thing that makes no sense.
pub fn update_to(
    wanted: &LinuxResources,
    current: Option<&LinuxResources>,
) -> Result<Update, OciError> {
    let mut wanted = value(wanted)?;
    tidy(&mut wanted);
    let mut all = current.map(value).transpose()?.unwrap_or_else(|| Value::Object(Map::new()));
    overlay(&mut all, wanted.clone());
    // These are one file each, or make sense together only.
    together(&mut wanted, &all, "memory", &["limit", "swap"]);
    together(&mut wanted, &all, "cpu", &["quota", "period"]);
    let mut warnings = Vec::new();
    let settings = cgroup::settings(&resources(wanted)?, &mut warnings)?;
    let resources = resources(all)?;
    Ok(Update { settings, needs: needs(Some(&resources)), resources, warnings })
}

impl Update {
    /// Refuses a limit of memory below what is used, if `memory.checkBeforeUpdate` says so: `usage` and `swap` are
    /// the numbers of `memory.current` and `memory.swap.current`.
    ///
    /// # Errors
    /// That it is.
    pub fn check_memory(&self, usage: u64, swap: u64) -> Result<(), OciError> {
        let memory = self.resources.memory().as_ref();
        let Some(memory) = memory.filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let both = usage.saturating_add(swap);
        for (name, what, limit, used) in [
            ("swap", "memory+swap", memory.swap(), both),
            ("limit", "memory", memory.limit(), usage),
        ] {
            let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|n| *n != 0);
            if let Some(limit) = limit.filter(|limit| *limit < used) {
                let problem = format!("rejecting {what} limit {limit}: {used} is used");
                return Err(invalid(format!("{FIELD}.memory.{name}"), problem));
            }
        }
        Ok(())
    }
}

fn value(resources: &LinuxResources) -> Result<Value, OciError> {
    serde_json::to_value(resources).map_err(fault)
}

fn resources(value: Value) -> Result<LinuxResources, OciError> {
    serde_json::from_value(value).map_err(fault)
}

fn fault(cause: serde_json::Error) -> OciError {
    OciError::Json(JsonError { field: FIELD.into(), cause })
}

/// What runc makes of an odd request: no limit of memory is none of swap either, and 0 is no quota or period.
fn tidy(wanted: &mut Value) {
    if let Some(memory) = wanted.get_mut("memory").and_then(Value::as_object_mut)
        && memory.get("limit").is_some_and(|limit| *limit == -1)
        && !memory.contains_key("swap")
    {
        memory.insert("swap".into(), 0.into());
    }
    if let Some(cpu) = wanted.get_mut("cpu").and_then(Value::as_object_mut) {
        cpu.retain(|key, value| !matches!(key.as_str(), "quota" | "period") || *value != 0);
    }
}

/// Puts the members of `top` over those of `base`.
fn overlay(base: &mut Value, top: Value) {
    match (base, top) {
        (Value::Object(base), Value::Object(top)) => {
            for (key, value) in top {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, top) => *base = top,
    }
}

/// If `part` of `wanted` has one of `members`, it gets the others of `all`.
fn together(wanted: &mut Value, all: &Value, part: &str, members: &[&str]) {
    let Some(wanted) = wanted.get_mut(part).and_then(Value::as_object_mut) else { return };
    if members.iter().any(|member| wanted.contains_key(*member)) {
        for member in members {
            if let Some(value) = all.get(part).and_then(|part| part.get(member)) {
                wanted.insert((*member).to_owned(), value.clone());
            }
        }
    }
}

#[cfg(test)]
#[path = "update_test.rs"]
mod update_test;

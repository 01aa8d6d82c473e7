//! Flags to resources.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    update: Update,
}

fn wanted(line: &str) -> Result<Value> {
    let line = Line::try_parse_from(format!("update {line}").split(' '))?;
    Ok(serde_json::from_slice(&line.update.wanted()?)?)
}

#[test]
fn flags_become_resources() {
    assert_eq!(
        wanted("--memory 64M --memory-swap -1 --cpu-quota -1 --pids-limit 10 c").unwrap(),
        json!({"memory": {"limit": 64 << 20, "swap": -1}, "cpu": {"quota": -1},
            "pids": {"limit": 10}})
    );
    assert_eq!(wanted("c").unwrap(), json!({}));
    assert_eq!(wanted("c --cpuset-cpus 0-1").unwrap(), json!({"cpu": {"cpus": "0-1"}}));
}

#[test]
fn a_bad_size_is_named() {
    let error = wanted("--memory much c").unwrap_err().to_string();
    assert!(error.contains("invalid value for memory: much"), "{error}");
}

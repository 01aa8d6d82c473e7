//! The list itself.

use std::collections::BTreeSet;

use super::{Entry, Group, groups, numbers};

fn entries() -> Vec<Entry> {
    groups().flat_map(Group::clauses).collect()
}

#[test]
fn there_are_more_than_150_clauses_each_with_a_name_of_its_own() {
    let all = entries();
    let names: BTreeSet<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.len() > 150, "{}", all.len());
}

#[test]
fn the_page_lists_every_clause() {
    let page = include_str!("../../../../docs/conformance.md");
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .skip(1)
        .collect();
    for entry in entries() {
        assert!(listed.contains(entry.name.as_str()), "docs/conformance.md lacks {}", entry.name);
    }
}

#[test]
fn versions_are_compared_by_number() {
    assert!(numbers("1.1.15+ds1") < numbers("1.2"));
    assert!(numbers("1.10") > numbers("1.2"));
    assert!(numbers("1.3.6") >= numbers("1.3"));
}

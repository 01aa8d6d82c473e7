//! A file's bytes in guest memory: pages of the file itself where the guest leaves most of them alone, copies elsewhere.
//!
//! Clean pages of the file are in the host's memory once, for all machines; a page that the guest writes to is copied
//! then, at the cost of a fault or two. A kernel patches itself in nearly every page that holds code, and writes to most of
//! its data, so these are copied beforehand.
//!
//! Invariant: every byte of a part gets to its place, and no byte around it changes.

use std::fs::File;
use std::io;
use std::ops::Range;

use cofferdam_vmm_hv::{GuestRam, map_file};

use super::PAGE;
use super::copy::{Span, copy, require};
use crate::plan::layout::HUGE_PAGE;

/// Places `span`, of which the guest is about to change `changed` (ranges of the file).
///
/// # Errors
/// If the file cannot be read, or `span` is not within it and within memory.
pub(super) fn place(
    ram: &GuestRam,
    file: &File,
    span: Span,
    changed: &[Range<u64>],
) -> io::Result<()> {
    require(file, span)?;
    for (piece, copied) in pieces(span, changed) {
        if copied { copy(ram, file, piece)? } else { map(ram, file, piece)? }
    }
    Ok(())
}

/// Maps the whole pages of `span`, and copies what is left at its ends.
fn map(ram: &GuestRam, file: &File, span: Span) -> io::Result<()> {
    let end = span.to + span.size;
    let (first, last) = (span.to.next_multiple_of(PAGE), end / PAGE * PAGE);
    if span.offset % PAGE != span.to % PAGE || first >= last {
        return copy(ram, file, span);
    }
    let pages = span.part(first..last);
    copy(ram, file, span.part(span.to..first))?;
    map_file(ram, file, pages.offset, (pages.to, pages.size))?;
    copy(ram, file, span.part(last..end))
}

/// `span` in pieces that are to be copied (true) or mapped, in order. The huge pages of the guest in which it changes
/// anything are copied.
fn pieces(span: Span, changed: &[Range<u64>]) -> Vec<(Span, bool)> {
    let mut pieces: Vec<(Span, bool)> = Vec::new();
    let (mut at, end) = (span.to, span.to + span.size);
    while at < end {
        let next = (at / HUGE_PAGE + 1).saturating_mul(HUGE_PAGE).min(end);
        let piece = span.part(at..next);
        let in_file = piece.offset..piece.offset + piece.size;
        let copied = changed.iter().any(|range| overlap(range, &in_file) > 0);
        match pieces.last_mut() {
            Some((last, same)) if *same == copied => last.size += piece.size,
            _ => pieces.push((piece, copied)),
        }
        at = next;
    }
    pieces
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> u64 {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}

#[cfg(test)]
#[path = "place_test.rs"]
mod place_test;

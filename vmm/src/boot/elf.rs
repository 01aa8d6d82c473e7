//! What an ELF kernel says of itself: where its parts go, where it starts.
//!
//! Invariant: every part named here lies wholly in the file and above the first MiB of memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::BootError;
use super::copy::Span;
use super::kernel::{bytes_at, not_a_kernel, u16_at, u32_at, u64_at};
use crate::plan::layout::HIGH_RAM;

/// `ELFCLASS64`, `EM_X86_64`, and sizes of the headers (System V ABI, AMD64).
const CLASS_64: u8 = 2;
const EM_X86_64: u16 = 62;
const FILE_HEADER: u64 = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;

/// `PF_W`: a segment that is written to.
const WRITABLE: u32 = 2;

/// `SHT_NOBITS`: a section without bytes in the file.
const NO_BITS: u32 = 8;

/// `SHF_EXECINSTR`: a section that holds code.
const EXECUTABLE: u64 = 4;

/// Most sections that are looked at; a kernel has thirty.
const MAX_SECTIONS: usize = 512;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the PVH entry (Xen, include/public/elfnote.h).
const PVH_ENTRY: u32 = 18;

/// Longest segment of notes that is looked through, in bytes.
const MAX_NOTES: u64 = 64 << 10;

/// An ELF kernel.
#[derive(Debug, Default)]
pub(super) struct Elf {
    /// Its parts.
    pub(super) parts: Vec<Span>,
    /// Where the first of them goes.
    pub(super) start: u64,
    /// End of the memory that it needs.
    pub(super) end: u64,
    /// Which bytes of the file it changes as it starts, as far as it tells: its code, which it patches, and its data.
    pub(super) changed: Vec<Range<u64>>,
    /// The 64-bit entry.
    pub(super) entry: u64,
    /// The 32-bit entry of PVH, if it has one.
    pub(super) pvh_entry: Option<u32>,
    /// Whether it is Linux, as its notes tell.
    pub(super) linux: bool,
}

/// Reads the headers of `file`, whose first bytes are `start` and whose size is `size`.
pub(super) fn parse(file: &File, start: &[u8], size: u64) -> Result<Elf, BootError> {
    if bytes_at(start, 4) != [CLASS_64] || u16_at(start, 18) != EM_X86_64 {
        return Err(not_a_kernel("an ELF file for another processor than x86-64"));
    }
    let (table, count) = (u64_at(start, 32), u64::from(u16_at(start, 56)));
    let entry_size = PROGRAM_HEADER as u64;
    let table_end = (count * entry_size).checked_add(table);
    if u64::from(u16_at(start, 54)) != entry_size
        || table < FILE_HEADER
        || table_end.is_none_or(|end| end > size)
    {
        return Err(not_a_kernel("its ELF program headers are not in the file"));
    }
    // What may all be code is not shared with other machines.
    let everything = || std::iter::once(0..size).collect();
    let changed = code(file, start).unwrap_or_else(everything);
    let mut elf = Elf { entry: u64_at(start, 24), changed, ..Elf::default() };
    for index in 0..count {
        let mut header = [0; PROGRAM_HEADER];
        file.read_exact_at(&mut header, table + index * entry_size).map_err(unreadable)?;
        elf.add(file, &header, size)?;
    }
    if elf.end == 0 {
        return Err(not_a_kernel("an ELF file with nothing to load"));
    }
    if !(HIGH_RAM..elf.end).contains(&elf.entry) {
        return Err(not_a_kernel(format!("an ELF file that starts at address {:#x}", elf.entry)));
    }
    Ok(elf)
}

impl Elf {
    /// Takes one program header.
    fn add(&mut self, file: &File, header: &[u8], size: u64) -> Result<(), BootError> {
        let kind = u32_at(header, 0);
        let (offset, to) = (u64_at(header, 8), u64_at(header, 24));
        let (in_file, in_memory) = (u64_at(header, 32), u64_at(header, 40));
        if !matches!(kind, PT_LOAD | PT_NOTE) {
            return Ok(());
        }
        if offset.checked_add(in_file).is_none_or(|end| end > size) {
            return Err(not_a_kernel("an ELF segment is cut off"));
        }
        if kind == PT_NOTE {
            let length = usize::try_from(in_file.min(MAX_NOTES)).unwrap_or(0);
            let mut notes = vec![0; length];
            file.read_exact_at(&mut notes, offset).map_err(unreadable)?;
            for (name, kind, contents) in self::notes(&notes) {
                self.linux |= name == b"Linux\0";
                if name == b"Xen\0" && kind == PVH_ENTRY && contents.len() >= 4 {
                    self.pvh_entry = self.pvh_entry.or(Some(u32_at(contents, 0)));
                }
            }
        } else if in_memory > 0 {
            if in_memory < in_file || to < HIGH_RAM {
                return Err(not_a_kernel(format!("an ELF segment at address {to:#x}")));
            }
            self.start = self.parts.iter().map(|part| part.to).fold(to, u64::min);
            self.end = self.end.max(to.saturating_add(in_memory));
            if u32_at(header, 4) & WRITABLE != 0 {
                self.changed.push(offset..offset.saturating_add(in_file));
            }
            self.parts.push(Span { offset, to, size: in_file });
        }
        Ok(())
    }
}

/// The sections of `file` that hold code, if it tells.
fn code(file: &File, start: &[u8]) -> Option<Vec<Range<u64>>> {
    let (table, count) = (u64_at(start, 40), usize::from(u16_at(start, 60)));
    if usize::from(u16_at(start, 58)) != SECTION_HEADER || !(1..=MAX_SECTIONS).contains(&count) {
        return None;
    }
    let mut headers = vec![0; count * SECTION_HEADER];
    file.read_exact_at(&mut headers, table).ok()?;
    let executable = headers
        .chunks_exact(SECTION_HEADER)
        .filter(|header| u32_at(header, 4) != NO_BITS && u64_at(header, 8) & EXECUTABLE != 0);
    let range =
        |header| Some(u64_at(header, 24)..u64_at(header, 24).checked_add(u64_at(header, 32))?);
    executable.map(range).collect()
}

fn unreadable(source: io::Error) -> BootError {
    BootError::Read { what: "kernel", source }
}

/// A note: name, kind and contents.
type Note<'a> = (&'a [u8], u32, &'a [u8]);

/// The notes in a segment of them. Each is three words, a name and contents, both padded to
/// words; what comes after one that is cut off is left out.
fn notes(mut bytes: &[u8]) -> Vec<Note<'_>> {
    let mut notes = Vec::new();
    while let Some((note, rest)) = first_note(bytes) {
        notes.push(note);
        bytes = rest;
    }
    notes
}

fn first_note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let body = bytes.get(12..)?;
    let [name, contents] = [0, 4].map(|at| usize::try_from(u32_at(bytes, at)).ok());
    let (name, contents) = (name?, contents?);
    let start = name.checked_next_multiple_of(4)?;
    let end = start.checked_add(contents.checked_next_multiple_of(4)?)?;
    let note = (body.get(..name)?, u32_at(bytes, 8), body.get(start..start + contents)?);
    Some((note, body.get(end..)?))
}

#[cfg(test)]
#[path = "elf_test.rs"]
mod elf_test;

//! The QEMU that emulates the test hosts: the installed one, with two faults mended that its emulation of SVM has (seen in
//! 10.0). Both kill or hang the host or its guests at random, the more of them run the sooner.
//!
//! - `helper_vmrun` delivers an interrupt that a hypervisor injects (`EVENTINJ`) and leaves its number behind as that of a
//!   pending exception: when something else stops the CPU, the guest gets the interrupt once more, also while it has
//!   interrupts turned off.
//! - `cpu_clear_ignne` is called by every CPU that loads its FPU's state, and rewrites flags of the first CPU, without a
//!   lock: what that has changed meanwhile is undone, so that its guest runs without nested paging, or it takes interrupts
//!   while they are turned off.
//!
//! A copy of the program without the two instructions is kept in the cache. It is found by what the faults look like; where
//! they do not look like that, the installed program is used, and that is said.
//!
//! Invariant: the installed program is not changed.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol};

use crate::tools::cache;

type Elf<'a> = ElfFile64<'a, LittleEndian>;

/// Where Debian has it.
const INSTALLED: &str = "/usr/bin/qemu-system-x86_64";

/// Its data, which it looks for beside itself.
const DATA: &str = "/usr/share";

/// `ret`, and nothing, of x86.
const RETURN: u8 = 0xc3;
const NOTHING: u8 = 0x90;

/// `call` with a distance, and its length.
const CALL: u8 = 0xe8;
const CALL_LENGTH: usize = 5;

/// Bytes of the instruction that stores the number of the interrupt, and how far before the delivery it may be.
const STORE_LENGTH: usize = 6;
const BEFORE: usize = 80;

/// The program to start: mended, if that is possible.
///
/// # Errors
/// It cannot be read, or a copy cannot be written.
pub(super) fn program() -> Result<PathBuf> {
    let installed = fs::read(INSTALLED).with_context(|| format!("reading {INSTALLED}"))?;
    let mended = match mended(&installed) {
        Ok(mended) => mended,
        Err(error) => {
            eprintln!("==> QEMU as it is, which may hang under load: {error:#}");
            return Ok(INSTALLED.into());
        }
    };
    let entry = cache::entry("qemu", &cache::key(&[&mended]), |out| {
        let bin = out.join("bin");
        let program = name(out);
        fs::create_dir(&bin).and_then(|()| fs::write(&program, &mended))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(symlink(DATA, out.join("share"))?)
    });
    Ok(name(&entry.context("mending QEMU")?))
}

fn name(entry: &Path) -> PathBuf {
    entry.join("bin/qemu-system-x86_64")
}

/// `program` without the faults.
fn mended(program: &[u8]) -> Result<Vec<u8>> {
    let elf = Elf::parse(program).context("reading it as ELF")?;
    let clears = function(&elf, "cpu_clear_ignne")?;
    let runs = function(&elf, "helper_vmrun")?;
    let delivers = function(&elf, "do_interrupt_x86_hardirq")?;
    let store = store_before_delivery(&elf, program, &runs, &delivers)?;
    let mut program = program.to_vec();
    program[offset(&elf, clears.start)?] = RETURN;
    let store = offset(&elf, store)?;
    program[store..store + STORE_LENGTH].fill(NOTHING);
    Ok(program)
}

/// The addresses of an exported function.
fn function(elf: &Elf<'_>, name: &str) -> Result<Range<u64>> {
    let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.with_context(|| format!("it has no function {name}"))?;
    ensure!(symbol.size() > 0, "its function {name} is empty");
    Ok(symbol.address()..symbol.address() + symbol.size())
}

/// Where the byte at `address` is in the file.
fn offset(elf: &Elf<'_>, address: u64) -> Result<usize> {
    for segment in elf.segments() {
        let (start, size) = segment.file_range();
        if let Some(distance) = address.checked_sub(segment.address()).filter(|d| *d < size) {
            return Ok(usize::try_from(start + distance)?);
        }
    }
    bail!("address {address:#x} is not in the file")
}

/// The address of the instruction in `runs` that stores a register below the CPU's registers, where the number of the
/// pending exception is, shortly before the only call of `delivers`.
fn store_before_delivery(
    elf: &Elf<'_>,
    program: &[u8],
    runs: &Range<u64>,
    delivers: &Range<u64>,
) -> Result<u64> {
    let start = offset(elf, runs.start)?;
    let code = program.get(start..start + usize::try_from(runs.end - runs.start)?);
    let code = code.context("the file is too short")?;
    let calls = (0..code.len().saturating_sub(CALL_LENGTH)).filter(|&place| {
        let next = runs.start.wrapping_add((place + CALL_LENGTH) as u64);
        let distance = [1, 2, 3, 4].map(|byte| code[place + byte]);
        let distance = i64::from(i32::from_le_bytes(distance));
        code[place] == CALL && next.wrapping_add_signed(distance) == delivers.start
    });
    let [call] = calls.collect::<Vec<_>>()[..] else {
        bail!("helper_vmrun does not deliver interrupts at one place");
    };
    let stores =
        (call.saturating_sub(BEFORE)..call.saturating_sub(STORE_LENGTH)).filter(|&place| {
            // mov %r32, disp32(%r64), without a prefix: the displacement is negative and small.
            let [op, mode, _, _, third, fourth] = [0, 1, 2, 3, 4, 5].map(|byte| code[place + byte]);
            op == 0x89 && mode >> 6 == 2 && mode & 7 != 4 && third == 0xff && fourth == 0xff
        });
    let [store] = stores.collect::<Vec<_>>()[..] else {
        bail!("helper_vmrun does not store the number of the interrupt as it used to");
    };
    Ok(runs.start + store as u64)
}

#[cfg(test)]
#[path = "qemu_test.rs"]
mod qemu_test;

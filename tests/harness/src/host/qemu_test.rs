//! Mending the installed QEMU.

use super::*;

#[test]
fn the_two_instructions_go_and_nothing_else() {
    let Ok(installed) = fs::read(INSTALLED) else {
        eprintln!("SKIPPED: {INSTALLED} is not installed");
        return;
    };
    let mended = match mended(&installed) {
        Ok(mended) => mended,
        Err(error) => {
            eprintln!("SKIPPED: this QEMU is another: {error:#}");
            return;
        }
    };
    assert_eq!(mended.len(), installed.len());
    let changed: Vec<_> = (0..mended.len()).filter(|&at| mended[at] != installed[at]).collect();
    let bytes: Vec<_> = changed.iter().map(|&at| mended[at]).collect();
    let (returns, nothings): (Vec<u8>, Vec<u8>) = bytes.iter().partition(|&&byte| byte == RETURN);
    assert_eq!((returns.len(), nothings.len()), (1, STORE_LENGTH), "{changed:x?}");
    assert!(nothings.iter().all(|&byte| byte == NOTHING));
    // A mended one has nothing left to mend.
    let again = super::mended(&mended).unwrap_err().to_string();
    assert!(again.contains("does not store"), "{again}");
}

#[test]
fn what_is_no_program_is_not_mended() {
    assert!(mended(b"#!/bin/sh\n").is_err());
    // This test is a program, but not QEMU.
    let other = fs::read(std::env::current_exe().unwrap()).unwrap();
    let error = mended(&other).unwrap_err().to_string();
    assert!(error.contains("no function cpu_clear_ignne"), "{error}");
}

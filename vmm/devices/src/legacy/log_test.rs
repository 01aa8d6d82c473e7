use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn ring(path: &Path, limit: u32) -> LogRing {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    LogRing::new(file.unwrap(), limit)
}

fn push(ring: &mut LogRing, text: &str) {
    text.bytes().for_each(|byte| ring.push(byte));
}

#[test]
fn a_line_is_written_when_it_ends() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut ring = ring(&path, 100);
    push(&mut ring, "one\ntwo");
    assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
    drop(ring);
    assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo");
}

#[test]
fn a_full_file_drops_its_older_half() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut ring = ring(&path, 16);
    push(&mut ring, "aaaaaaa\nbbbbbbb\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"aaaaaaa\nbbbbbbb\n");
    push(&mut ring, "c\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"bbbbbbb\nc\n");
}

#[test]
fn never_exceeds_the_limit_and_keeps_the_newest() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    for limit in [0, 1, 7, 255, 256, 1000] {
        let mut ring = ring(&path, limit);
        for i in 0..500 {
            push(&mut ring, &format!("line {i}{}", if i % 3 == 0 { "\n" } else { "; " }));
            assert!(std::fs::metadata(&path).unwrap().len() <= u64::from(limit));
        }
        push(&mut ring, "the end");
        drop(ring);
        let text = std::fs::read_to_string(&path).unwrap();
        let tail = "the end";
        let shown = tail.len().min(limit.try_into().unwrap());
        assert!(text.ends_with(&tail[tail.len() - shown..]), "limit {limit}: {text:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_no_error() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    push(&mut LogRing::new(File::open(&path).unwrap(), 10), "into nothing\n");
    let writable = OpenOptions::new().write(true).open(&path).unwrap();
    push(&mut LogRing::new(writable, 10), "123456\nabc\ndef\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"abc\ndef\n");
}

/// A pipe whose ends do not block, or whose writer does.
fn pipe(blocking: bool) -> (io::PipeReader, LogRing) {
    let (reader, writer) = io::pipe().unwrap();
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    if !blocking {
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    (reader, LogRing::stream(OwnedFd::from(writer).into()))
}

/// Everything that is in a pipe.
fn drain(reader: &mut io::PipeReader) -> Vec<u8> {
    let mut all = Vec::new();
    // An error says that it is empty.
    let _empty = reader.read_to_end(&mut all);
    all
}

#[test]
fn a_stream_that_nobody_reads_holds_nobody_up() {
    for blocking in [false, true] {
        let (mut reader, mut ring) = pipe(blocking);
        let began = Instant::now();
        let text = "x".repeat(200_000);
        push(&mut ring, &text);
        assert!(began.elapsed() < 5 * Duration::from_millis(PATIENCE.into()));
        let kept = drain(&mut reader);
        assert!(!kept.is_empty() && kept.iter().all(|byte| *byte == b'x'));
        // Somebody reads again: what is missing is said once.
        push(&mut ring, "again");
        push(&mut ring, " and again");
        drop(ring);
        let missing = text.len() - kept.len();
        let note = format!("\n[{missing} bytes of the console were dropped]\n");
        assert_eq!(String::from_utf8(drain(&mut reader)).unwrap(), note + "again and again");
    }
}

#[test]
fn the_end_of_a_stream_says_what_is_missing() {
    let (mut reader, mut ring) = pipe(false);
    push(&mut ring, &"x".repeat(65_536 + 3));
    assert_eq!(drain(&mut reader).len(), 65_536);
    drop(ring);
    assert_eq!(drain(&mut reader), b"\n[3 bytes of the console were dropped]\n");
}

#[test]
fn a_stream_without_a_reader_is_no_error() {
    let (reader, mut ring) = pipe(false);
    drop(reader);
    push(&mut ring, "into nothing\n");
}

//! What a server is told, by one that writes it down.

use std::io::Write;
use std::thread;

use super::*;

/// The messages that a server gets which answers like this: its features, and how it acknowledges the request `bad`.
fn told(features: u64, bad: Option<(u32, u64)>) -> (io::Result<Connected>, Vec<(u32, Vec<u8>)>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut all = Vec::new();
        let mut header = [0; 12];
        while theirs.read_exact(&mut header).is_ok() {
            let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().unwrap());
            let (request, flags, len) = (word(0), word(4), word(8));
            let mut payload = vec![0; len.try_into().unwrap()];
            theirs.read_exact(&mut payload).unwrap();
            all.push((request, payload));
            let answer = match request {
                GET_FEATURES => Some(features),
                GET_PROTOCOL_FEATURES => Some(PROTOCOL_F_REPLY_ACK | 1),
                _ if flags & NEED_REPLY == 0 => None,
                _ => Some(bad.filter(|(of, _)| *of == request).map_or(0, |(_, code)| code)),
            };
            if let Some(value) = answer {
                let words = [request, VERSION | REPLY, 8].map(u32::to_le_bytes).concat();
                theirs.write_all(&[words, value.to_le_bytes().to_vec()].concat()).unwrap();
            }
        }
        all
    });
    let connected = connect(&ours);
    drop(ours);
    (connected, server.join().unwrap())
}

#[test]
fn a_server_is_told_of_the_memory_and_its_queue() {
    let (connected, all) = told(F_VERSION_1 | F_PROTOCOL_FEATURES | 1 << 29, None);
    let connected = connected.unwrap();
    assert_eq!(
        rustix::fs::fstat(&connected.memory).unwrap().st_size,
        i64::try_from(FS_MEMORY).unwrap()
    );
    assert!(ftruncate(&connected.memory, 0).is_err(), "it is sealed");
    let of = |request: u32| all.iter().find(|(told, _)| *told == request).unwrap().1.clone();
    assert_eq!(of(SET_FEATURES), (F_VERSION_1 | F_PROTOCOL_FEATURES).to_le_bytes());
    assert_eq!(of(SET_MEM_TABLE), longs(&[1, 0, FS_MEMORY, OURS, 0]));
    assert_eq!(of(SET_VRING_NUM), [1, 0, 0, 0, 16, 0, 0, 0]);
    let ring = longs(&[OURS, OURS + 0x800, OURS + 0x400, 0]);
    assert_eq!(of(SET_VRING_ADDR), [&[1, 0, 0, 0, 0, 0, 0, 0][..], &ring].concat());
    assert_eq!(of(SET_VRING_KICK), 1u64.to_le_bytes());
    assert_eq!(all.last().unwrap().0, SET_VRING_ENABLE);
}

#[test]
fn a_server_that_cannot_or_does_not_want_is_an_error() {
    let features = F_VERSION_1 | F_PROTOCOL_FEATURES;
    let error = |features, bad| told(features, bad).0.unwrap_err().to_string();
    assert!(error(F_VERSION_1, None).contains("0x100000000"));
    assert_eq!(error(features, Some((SET_VRING_NUM, 7))), "it answers request 8 with 0x7");
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(connect(&ours).is_err());
}

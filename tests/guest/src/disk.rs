//! Reads and writes disks.
//!
//! Prints `disk NAME sum=S` for each disk: the 64-bit FNV-1a hash of its first `bytes` bytes as found.
//! Then writes to each writable one, from its start, the little-endian words `i * 0x9e3779b97f4a7c15`,
//! and the same at its end; reads both back past the cache. A read-only one must refuse to be written.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

use crate::Outcome;
use crate::print::{disks, name, read};
use crate::words::Words;

const CHUNK: usize = 96 << 10;

/// Does it to all disks, or to those in `test.disks=vda,vdb`.
pub(crate) fn exercise(words: &Words) -> Outcome {
    let most = words.number("bytes", 16 << 20)?;
    let mut count = 0;
    for disk in disks()? {
        let name = name(&disk);
        if words.text("disks").is_some_and(|wanted| !wanted.split(',').any(|w| w == name)) {
            continue;
        }
        let size = read(disk.join("size")).parse::<u64>()? * 512;
        let readonly = read(disk.join("ro")) == "1";
        one(&name, size, most.min(size) / 8 * 8, readonly)
            .map_err(|error| format!("disk {name}: {error}"))?;
        count += 1;
    }
    if count == 0 { Err("no disk".into()) } else { Ok(()) }
}

fn one(name: &str, size: u64, len: u64, readonly: bool) -> Outcome {
    let path = format!("/dev/{name}");
    println!("disk {name} sum={:016x}", sum(&mut File::open(&path)?, len)?);
    if readonly {
        let writing = OpenOptions::new().write(true).open(&path);
        let refused = writing.and_then(|mut f| f.write_all(&[0; 512]).and_then(|()| f.sync_all()));
        return if refused.is_err() { Ok(()) } else { Err("writing was not refused".into()) };
    }
    let mut disk = OpenOptions::new().read(true).write(true).open(&path)?;
    let places = [0, (size - len) / 512 * 512];
    for place in places {
        disk.seek(SeekFrom::Start(place))?;
        each_chunk(len, |at, chunk| {
            chunk.copy_from_slice(&pattern(at, chunk.len()));
            disk.write_all(chunk)
        })?;
        disk.sync_all()?;
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        disk.seek(SeekFrom::Start(place))?;
        let mut wrong = None;
        each_chunk(len, |at, chunk| {
            disk.read_exact(chunk)?;
            if wrong.is_none() && chunk != pattern(at, chunk.len()) {
                wrong = Some(place + at);
            }
            Ok(())
        })?;
        if let Some(at) = wrong {
            return Err(format!("read other data than written near byte {at}").into());
        }
    }
    println!("disk {name} wrote={len} at {} and {}", places[0], places[1]);
    Ok(())
}

/// Calls `work` with the offset and a buffer for each chunk of `len` bytes.
fn each_chunk(
    len: u64,
    mut work: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let count = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        work(at, &mut buffer[..count])?;
        at += u64::try_from(count).unwrap_or(len);
    }
    Ok(())
}

/// `len` bytes of the pattern from byte `at` on; both are multiples of 8.
pub(crate) fn pattern(at: u64, len: usize) -> Vec<u8> {
    let words = (at / 8..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.take(len.div_ceil(8)).flat_map(u64::to_le_bytes).take(len).collect()
}

fn sum(file: &mut File, len: u64) -> std::io::Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    each_chunk(len, |_, chunk| {
        file.read_exact(chunk)?;
        for byte in chunk {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    })?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_in_pieces() {
        let whole = pattern(0, 80);
        assert_eq!(whole[8..16], 0x9e37_79b9_7f4a_7c15_u64.to_le_bytes());
        assert_eq!([pattern(0, 24), pattern(24, 56)].concat(), whole);
    }

    #[test]
    fn the_sum_is_fnv_1a() {
        let mut file = tempfile();
        file.write_all(b"foobar").unwrap();
        file.rewind().unwrap();
        assert_eq!(sum(&mut file, 6).unwrap(), 0x8594_4171_f739_67e8);
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("cofferdam-sum-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }
}

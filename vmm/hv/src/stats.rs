//! KVM's own statistics (Linux, Documentation/virt/kvm/api.rst, 4.134): a descriptor per machine and per
//! vCPU, whose layout it tells itself.
//!
//! Invariant: what the descriptor says of its layout is checked before it is used; reading is one `pread`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use vmm_sys_util::ioctl::ioctl;

/// `KVM_GET_STATS_FD`, `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;

/// `struct kvm_stats_header` and the fixed part of `struct kvm_stats_desc`, in bytes.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;

/// Most that is believed: bytes of a name, statistics, numbers of one statistic.
const MAX_NAME: usize = 256;
const MAX_COUNT: usize = 1024;
const MAX_SIZE: usize = 1024;

/// `KVM_STATS_TYPE_MASK`, `KVM_STATS_TYPE_PEAK`.
const TYPE_MASK: u32 = 0xf;
const TYPE_PEAK: u32 = 2;

/// One statistic: a number, or the numbers of a histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// KVM's name for it.
    pub name: String,
    /// Its values, at least one.
    pub values: Vec<u64>,
    /// The largest value that was seen, rather than a sum.
    peak: bool,
}

/// Where the statistics of a machine or a vCPU are read.
#[derive(Debug)]
pub struct Statistics {
    file: File,
    layout: Layout,
}

/// What the descriptor says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    data: u64,
    length: usize,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    peak: bool,
    offset: usize,
    size: usize,
}

impl Statistics {
    /// Those of `kvm`, a machine's or vCPU's descriptor; `None` on a host older than Linux 5.14.
    pub(crate) fn of(kvm: &impl AsRawFd) -> Option<Self> {
        // SAFETY: the request takes no argument and touches no memory of this process.
        let fd = unsafe { ioctl(kvm, KVM_GET_STATS_FD) };
        if fd < 0 {
            return None;
        }
        // SAFETY: KVM has just made this descriptor for us; nobody else knows it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let layout = Layout::read(&file).ok()?;
        Some(Self { file, layout })
    }

    /// Reads them.
    ///
    /// # Errors
    /// If KVM does.
    pub fn read(&self) -> io::Result<Vec<Statistic>> {
        let mut data = vec![0; self.layout.length];
        self.file.read_exact_at(&mut data, self.layout.data)?;
        Ok(self.layout.statistics(&data))
    }
}

impl Layout {
    fn read(file: &File) -> io::Result<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let [_flags, name, count, _id, descriptors, data] = words(&header);
        let (name, count) = (bounded(name, MAX_NAME)?, bounded(count, MAX_COUNT)?);
        let each = DESCRIPTOR + name;
        let mut table = vec![0; each * count];
        file.read_exact_at(&mut table, descriptors.into())?;
        let entries = table.chunks_exact(each).map(Entry::parse).collect::<io::Result<Vec<_>>>()?;
        let length = entries.iter().map(|entry| entry.offset + 8 * entry.size).max().unwrap_or(0);
        Ok(Self { data: data.into(), length, entries })
    }

    fn statistics(&self, data: &[u8]) -> Vec<Statistic> {
        let value = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
        let statistic = |entry: &Entry| {
            let bytes = data.get(entry.offset..entry.offset + 8 * entry.size)?;
            let values = bytes.chunks_exact(8).map(value).collect();
            Some(Statistic { name: entry.name.clone(), values, peak: entry.peak })
        };
        self.entries.iter().filter_map(statistic).collect()
    }
}

impl Entry {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let (fixed, name) = bytes.split_at(DESCRIPTOR);
        // flags, exponent and size (16 bits each), offset, bucket size
        let [flags, exponent_size, offset, _bucket] = words(fixed);
        let size = bounded(exponent_size >> 16, MAX_SIZE)?;
        let offset = bounded(offset, 8 * MAX_COUNT * MAX_SIZE)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Self { name, peak: flags & TYPE_MASK == TYPE_PEAK, offset, size })
    }
}

fn bounded(value: u32, most: usize) -> io::Result<usize> {
    let value = usize::try_from(value).unwrap_or(usize::MAX);
    if value <= most { Ok(value) } else { Err(io::Error::other("statistics without measure")) }
}

/// The first `N` words of 32 bits; zero where there are fewer.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    }
    words
}

/// The statistics of several vCPUs as one: sums, and the greatest of peaks.
#[must_use]
pub fn total(all: &[Vec<Statistic>]) -> Vec<Statistic> {
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let mut total = first.clone();
    for other in others {
        for (sum, more) in total.iter_mut().zip(other) {
            let peak = sum.peak;
            for (sum, more) in sum.values.iter_mut().zip(&more.values) {
                *sum = if peak { (*sum).max(*more) } else { sum.wrapping_add(*more) };
            }
        }
    }
    total
}

#[cfg(test)]
#[path = "stats_test.rs"]
mod stats_test;

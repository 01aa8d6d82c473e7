//! Every exit becomes plain data; lengths that KVM could not have meant are refused.

use kvm_bindings::{
    kvm_run__bindgen_ty_1, kvm_run__bindgen_ty_1__bindgen_ty_2,
    kvm_run__bindgen_ty_1__bindgen_ty_4, kvm_run__bindgen_ty_1__bindgen_ty_6,
};

use super::*;

const PAGE: usize = size_of::<Page>();

#[repr(C)]
struct Page {
    run: kvm_run,
    data: [u8; 16],
}

fn page(reason: u32, details: kvm_run__bindgen_ty_1) -> Box<Page> {
    let run = kvm_run { exit_reason: reason, __bindgen_anon_1: details, ..Default::default() };
    Box::new(Page { run, data: *b"abcdefghijklmnop" })
}

fn decoded(page: &mut Page) -> Exit<'_> {
    let run: *mut kvm_run = std::ptr::from_mut(page).cast();
    // SAFETY: a page begins with its `kvm_run`, and the pointer may be used for all of the page.
    decode(unsafe { &mut *run }, PAGE)
}

type Port = kvm_run__bindgen_ty_1__bindgen_ty_4;
type Mmio = kvm_run__bindgen_ty_1__bindgen_ty_6;

fn port(io: Port) -> Box<Page> {
    page(KVM_EXIT_IO, kvm_run__bindgen_ty_1 { io })
}

fn write() -> Port {
    let data_offset = size_of::<kvm_run>() as u64;
    Port { direction: 1, size: 2, port: 0x3f8, count: 3, data_offset }
}

#[test]
fn a_string_of_port_accesses_keeps_its_size() {
    let mut page = port(write());
    assert_eq!(decoded(&mut page), Exit::PortOut { port: 0x3f8, size: 2, data: b"abcdef" });
    let mut page = port(Port { direction: 0, ..write() });
    match decoded(&mut page) {
        Exit::PortIn { data, .. } => data.fill(0x55),
        other => panic!("{other:?}"),
    }
    assert_eq!(&page.data[..7], b"UUUUUUg");
}

#[test]
fn a_port_access_beyond_the_page_is_refused() {
    for io in [
        Port { count: 9, ..write() },
        Port { count: 0, ..write() },
        Port { count: u32::MAX, ..write() },
        Port { size: 0, ..write() },
        Port { size: 3, ..write() },
        Port { data_offset: 0, ..write() },
        Port { data_offset: u64::MAX, ..write() },
        Port { data_offset: PAGE as u64, ..write() },
    ] {
        assert!(matches!(decoded(&mut port(io)), Exit::Failed(_)), "{io:?}");
    }
}

#[test]
fn memory_accesses_are_at_most_eight_bytes() {
    let mmio = Mmio { phys_addr: 0xd000_0000, data: *b"12345678", len: 4, is_write: 1 };
    let mut written = page(KVM_EXIT_MMIO, kvm_run__bindgen_ty_1 { mmio });
    assert_eq!(decoded(&mut written), Exit::MmioWrite { address: 0xd000_0000, data: b"1234" });
    let mmio = Mmio { len: 99, is_write: 0, ..mmio };
    let mut read = page(KVM_EXIT_MMIO, kvm_run__bindgen_ty_1 { mmio });
    assert!(matches!(decoded(&mut read), Exit::MmioRead { data, .. } if data.len() == 8));
}

#[test]
fn failures_say_what_failed() {
    let text = |mut page: Box<Page>| match decoded(&mut page) {
        Exit::Failed(text) => text,
        other => panic!("{other:?}"),
    };
    let fail_entry =
        kvm_run__bindgen_ty_1__bindgen_ty_2 { hardware_entry_failure_reason: 0x8000_0021, cpu: 7 };
    let entry = page(KVM_EXIT_FAIL_ENTRY, kvm_run__bindgen_ty_1 { fail_entry });
    assert!(text(entry).contains("0x80000021 on CPU 7"));
    let internal = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_13 {
        suberror: 1,
        ndata: 99,
        data: [0xab; 16],
    };
    let internal = page(KVM_EXIT_INTERNAL_ERROR, kvm_run__bindgen_ty_1 { internal });
    assert!(text(internal).contains("an instruction it cannot emulate"));
    let nothing = kvm_run__bindgen_ty_1 { padding: [0; 256] };
    assert!(text(page(4711, nothing)).contains("4711"));
}

#[test]
fn simple_exits() {
    let nothing = || kvm_run__bindgen_ty_1 { padding: [0; 256] };
    assert_eq!(decoded(&mut page(KVM_EXIT_SHUTDOWN, nothing())), Exit::Shutdown);
    assert_eq!(decoded(&mut page(KVM_EXIT_INTR, nothing())), Exit::Interrupted);
}

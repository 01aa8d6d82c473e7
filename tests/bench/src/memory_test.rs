use super::*;

const OURS: &str = "\
1000-3000 r-xp 00000000 00:01 7 /bench/cofferdam-vmm
Size:                  8 kB
Rss:                   8 kB
Private_Clean:         4 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
10000-12000 rw-p 00000000 00:00 0
Rss:                   8 kB
Private_Dirty:         8 kB
VmFlags: rd wr mr mw me ac nr dd nh
12000-13000 rw-p 00000000 00:00 0
Rss:                   4 kB
Private_Dirty:         4 kB
VmFlags: rd wr mr mw me ac nr dd hg
13000-14000 rw-p 00200000 00:01 9 /bench/vmlinux
Rss:                   4 kB
VmFlags: rd wr mr mw me ac nr dd nh
14000-15000 rw-s 00000000 00:01 5 anon_inode:[io_uring]
Rss:                   4 kB
VmFlags: rd wr sh mr mw me ms dd
20000-21000 rw-p 00000000 00:00 0 [heap]
Rss:                   4 kB
Private_Dirty:         4 kB
VmFlags: rd wr mr mw me ac
30000-31000 r--p 00000000 00:00 0 [vvar]
Rss:                   4 kB
VmFlags: rd mr pf io de dd sd
";

#[test]
fn what_is_left_out_of_dumps_is_the_guests() {
    assert_eq!(count(OURS, 0x8000), Some(Memory { private_kib: 8, guest_kib: 16 }));
}

#[test]
fn a_mapping_of_just_its_size_is_the_guests() {
    let text = OURS.replace("1000-3000", "1000-4000");
    assert_eq!(count(&text, 0x2000), Some(Memory { private_kib: 12, guest_kib: 8 }));
    assert_eq!(count(&text.replace(" dd ", " "), 0x7000), None);
}

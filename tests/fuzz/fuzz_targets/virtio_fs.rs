//! The target `virtio_fs`, run by libFuzzer; without it, for the files named on the command line.
#![cfg_attr(fuzzing, no_main)]
#![forbid(unsafe_code)]

cofferdam_test_fuzz::binary!("virtio_fs");

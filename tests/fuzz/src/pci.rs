//! Configuration space and MSI-X, compared after each access with a model of what must hold.

use cofferdam_vmm_devices::virtio::rng::Rng;

use crate::input::Input;
use crate::world::{BAR, CONFIG, ECAM, MSIX_TABLE, World};

/// Vectors of the entropy device: one for its queue, one for its configuration.
const VECTORS: u64 = 2;

/// Most steps of a program.
const STEPS: usize = 300;

/// What no write may change: identity, class, capabilities' pointer, size of the BAR, header type.
const READ_ONLY: [(u64, usize); 5] = [(0, 4), (8, 4), (0x0e, 1), (0x2c, 4), (0x34, 1)];

/// Runs `data` as a program of accesses.
pub fn run(data: &[u8]) {
    let world = World::new(Box::new(Rng::new()));
    let fixed = READ_ONLY.map(|(at, size)| world.read(CONFIG + at, size));
    let capabilities = capabilities(&world);
    let msix = capabilities.iter().find(|(id, _)| *id == 0x11).expect("no MSI-X").1;
    let mut input = Input::new(data);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        step(&world, &mut input, msix);
        assert_eq!(READ_ONLY.map(|(at, size)| world.read(CONFIG + at, size)), fixed);
        assert_eq!(self::capabilities(&world), capabilities, "the list of capabilities changed");
        check_bar(&world);
        check_vectors(&world, msix);
    }
}

fn step(world: &World, input: &mut Input<'_>, msix: u64) {
    let (choice, size, at) = (input.below(8), input.pick(&[1, 2, 4, 8]), u64::from(input.short()));
    let address = match choice {
        0 => ECAM + (at << 5),
        1 | 2 => CONFIG + at % 0x1000,
        3 => CONFIG + msix + at % 12,
        4 | 5 => MSIX_TABLE + at % (16 * VECTORS + 8),
        6 => BAR + at % 0x4000,
        // Back to where firmware put it.
        _ => {
            world.write(CONFIG + 0x10, 8, BAR);
            return world.write(CONFIG + 4, 2, 6);
        }
    };
    if input.below(4) == 0 {
        let _any = world.read(address, size);
    } else {
        world.write(address, size, input.long());
    }
}

/// Id and offset of each capability; the list must end.
fn capabilities(world: &World) -> Vec<(u64, u64)> {
    let mut list = Vec::new();
    let mut at = world.read(CONFIG + 0x34, 1);
    while at != 0 {
        assert!(list.len() < 16 && (0x40..0x100).contains(&at), "a list without end: {list:x?}");
        list.push((world.read(CONFIG + at, 1), at));
        at = world.read(CONFIG + at + 1, 1);
    }
    list
}

/// The BAR keeps its kind and its alignment whatever is written.
fn check_bar(world: &World) {
    let bar = world.read(CONFIG + 0x10, 8);
    assert_eq!(bar & 0x3fff, 0b0100, "BAR {bar:#x}");
    let decodes = bar & !0xf == BAR && world.read(CONFIG + 4, 2) & 2 != 0;
    let num_queues = world.read(BAR + 0x12, 2);
    assert_eq!(num_queues, if decodes { 1 } else { 0xffff }, "it answers where it should not");
}

/// A vector is connected exactly while MSI-X is on and it is not masked, with the entry's message.
fn check_vectors(world: &World, msix: u64) {
    let decodes = world.read(CONFIG + 0x10, 8) & !0xf == BAR && world.read(CONFIG + 4, 2) & 2 != 0;
    if !decodes {
        return;
    }
    let control = world.read(CONFIG + msix + 2, 2);
    let open = control & 0x8000 != 0 && control & 0x4000 == 0;
    assert_eq!(control & 0x7ff, VECTORS - 1);
    for (entry, vector) in (0..).zip(world.vectors.0.lock().unwrap().iter()) {
        let at = MSIX_TABLE + 16 * entry;
        let (address, data) = (world.read(at, 8), world.read(at + 8, 4));
        let masked = world.read(at + 12, 4) & 1 != 0;
        let message = vector.message.lock().unwrap().map(|m| (m.address, u64::from(m.data)));
        assert_eq!(message, (open && !masked).then_some((address, data)), "vector {entry}");
        assert_eq!(address & 3, 0);
    }
}

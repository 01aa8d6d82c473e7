//! A kernel that writes garbage to every register and ring of its machine, for a number of rounds, and in
//! the end wants a device to work as if nothing had happened.
//!
//! | word of the command line | |
//! |---|---|
//! | `hostile.seed=N` | where the garbage starts; the same seed writes the same |
//! | `hostile.rounds=N` | how often each device has its turn |
//! | `hostile.wild` | interrupts of any kind, also those that stop or reset this very processor |
//!
//! It says `HOSTILE OK` and powers off; or why not, and panics. A wild one may end in any way.
//!
//! Invariant: devices are never pointed at the kernel itself, which lies in the first [`garbage::OWN`] bytes.
#![cfg_attr(feature = "bare-metal", no_std, no_main)]
#![cfg_attr(not(feature = "bare-metal"), allow(dead_code, reason = "only a kernel does it"))]

mod device;
mod garbage;
mod metal;
mod rounds;

/// There is no machine to be hostile to.
#[cfg(not(feature = "bare-metal"))]
fn main() {}

/// What the first processor does.
#[cfg(feature = "bare-metal")]
#[unsafe(no_mangle)]
extern "C" fn kernel() -> ! {
    metal::map_devices();
    let result = rounds::all(&rounds::Words::read());
    match result {
        Ok(()) => metal::print("HOSTILE OK\n"),
        Err(why) => {
            metal::print("HOSTILE FAILED: ");
            metal::print(why);
            metal::print("\n");
            metal::out(metal::PANIC, 1);
        }
    }
    loop {
        metal::out(metal::POWER, metal::POWER_OFF);
    }
}

#[cfg(feature = "bare-metal")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    metal::print("HOSTILE FAILED: it panicked\n");
    loop {
        metal::out(metal::PANIC, 1);
    }
}

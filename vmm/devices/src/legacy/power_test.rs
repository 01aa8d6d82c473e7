use std::sync::Mutex;

use super::*;

#[derive(Default)]
struct Events(Mutex<Vec<PowerEvent>>);

impl PowerControl for Events {
    fn signal(&self, event: PowerEvent) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn only_s5_with_the_enable_bit_powers_off() {
    let events = Arc::new(Events::default());
    let mut power = Power::new(events.clone());
    for byte in 0..=0xff_u8 {
        power.write(SLEEP_CONTROL, &[byte]);
        let off = byte & 0x3c == (5 << 2) | 0x20;
        assert_eq!(events.0.lock().unwrap().pop(), off.then_some(PowerEvent::PowerOff));
    }
}

#[test]
fn only_the_reset_value_resets() {
    let events = Arc::new(Events::default());
    let mut power = Power::new(events.clone());
    power.write(RESET, &[0]);
    power.write(SLEEP_STATUS, &[RESET_VALUE]);
    assert!(events.0.lock().unwrap().is_empty());
    power.write(RESET, &[RESET_VALUE, 0, 0, 0]);
    assert_eq!(*events.0.lock().unwrap(), [PowerEvent::Reset]);
}

#[test]
fn the_notifier_offers_and_takes_a_panic() {
    let events = Arc::new(Events::default());
    let mut notifier = PanicNotifier::new(events.clone());
    let mut data = [0xff; 2];
    notifier.read(0, &mut data);
    assert_eq!(data, [1, 0]);
    notifier.write(0, &[2]);
    assert!(events.0.lock().unwrap().is_empty());
    notifier.write(0, &[1]);
    assert_eq!(*events.0.lock().unwrap(), [PowerEvent::Panic]);
}

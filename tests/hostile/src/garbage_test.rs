use super::*;

#[test]
fn no_address_is_the_kernels_own() {
    let mut garbage = Garbage::new(1);
    assert!((0..100_000).all(|_| garbage.address() >= OWN));
    assert!(EDGES.iter().all(|edge| *edge >= OWN));
}

#[test]
fn a_seed_gives_the_same_again_and_another_one_does_not() {
    let first = |seed| {
        core::array::from_fn::<_, 8, _>({
            let mut garbage = Garbage::new(seed);
            move |_| garbage.long()
        })
    };
    assert_eq!(first(7), first(7));
    assert_ne!(first(7), first(8));
}

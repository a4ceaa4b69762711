//! What the driver writes and readers read.

use super::*;
use proptest::prelude::*;

#[test]
fn v3_a_row_is_new_only_when_something_in_it_has_changed() {
    let slots = Slots::new(1);
    let mut values = Values {
        received: 1,
        ..Values::default()
    };
    slots.tell(70, &values);
    slots.swept(71);
    assert_eq!(slots.read(70), Some((values, 1)));
    assert_eq!(slots.read(69), None);
    slots.tell(70, &values);
    slots.swept(71);
    assert_eq!(slots.version(70), 1, "nothing has changed");
    values.queued = 3;
    slots.tell(70, &values);
    slots.swept(71);
    assert_eq!(slots.read(70), Some((values, 3)));
}

#[test]
fn v3_a_call_that_does_not_come_back_is_seen() {
    let slots = Slots::new(0);
    assert_eq!(slots.call(), None);
    slots.enter(0, 7, 99);
    assert_eq!(slots.call(), Some((0, 7, 99)));
    slots.leave();
    assert_eq!(slots.call(), None);
}

#[test]
fn dashboard_3_sweeps_take_a_fixed_share_of_the_driver() {
    let slots = Slots::new(0);
    let milli = Duration::from_millis(1);
    let old = Duration::from_secs(3600);
    assert_eq!(slots.interval(milli / 100, old), UNWATCHED);
    assert_eq!(slots.interval(milli, old), Duration::from_secs(2));
    assert_eq!(slots.interval(milli / 100, 400 * milli), 100 * milli);
    assert_eq!(slots.interval(milli, 400 * milli), Duration::from_secs(2));
    slots.want(Some(100 * milli));
    assert_eq!(slots.interval(milli / 100, old), 100 * milli);
    assert_eq!(slots.interval(milli, old), 200 * milli);
    slots.want(None);
    assert_eq!(slots.interval(Duration::ZERO, old), UNWATCHED);
}

proptest! {
    #[test]
    fn every_branch_has_a_slot_of_its_own(one in 0usize..5000, other in 0usize..5000) {
        prop_assert_eq!(locate(one) == locate(other), one == other);
        let size = |chunk| if chunk == 0 { FIRST } else { CHUNK };
        let (chunk, place) = locate(one);
        prop_assert!(place < size(chunk));
    }
}

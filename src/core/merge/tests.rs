use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

use super::{Choice, Merge, Stamp, Strategy, Time};

fn at(seconds: u64) -> Time {
    Time::ZERO.after(Duration::from_secs(seconds))
}

/// What is read of sources that always have something, for so many reads.
fn always(strategy: Strategy, sources: usize, reads: usize) -> Vec<usize> {
    let mut merge = Merge::new(strategy, sources);
    for source in 0..sources {
        merge.ready(source, Stamp::default(), Time::ZERO);
    }
    (0..reads).map(|_| read(&mut merge)).collect()
}

/// Reads a source that has something more at once.
fn read(merge: &mut Merge) -> usize {
    let Choice::Read(source) = merge.pick(|_| 0) else {
        panic!("nothing is ready");
    };
    merge.ready(source, Stamp::default(), Time::ZERO);
    source
}

#[test]
fn m1_round_robin_gives_each_its_turn() {
    assert_eq!(
        always(Strategy::RoundRobin, 3, 7),
        [0, 1, 2, 0, 1, 2, 0],
        "in the order they became ready"
    );
}

#[test]
fn m1_drain_first_reads_the_first_that_has_something() {
    let mut merge = Merge::new(Strategy::DrainFirst, 2);
    merge.ready(1, Stamp::default(), Time::ZERO);
    assert_eq!(read(&mut merge), 1);
    merge.ready(0, Stamp::default(), Time::ZERO);
    assert_eq!([read(&mut merge), read(&mut merge)], [0, 0]);
}

#[test]
fn m1_sticky_stays_until_there_is_nothing_more() {
    let mut merge = Merge::new(Strategy::Sticky, 3);
    for source in [2, 0, 1] {
        merge.ready(source, Stamp::default(), Time::ZERO);
    }
    assert_eq!([read(&mut merge), read(&mut merge)], [2, 2]);
    assert_eq!(merge.pick(|_| 0), Choice::Read(2));
    merge.rest(2);
    assert_eq!([read(&mut merge), read(&mut merge)], [0, 0]);
}

#[test]
fn m1_priority_reads_the_lowest_level_and_takes_turns_within_it() {
    let strategy = Strategy::Priority {
        levels: vec![1, 0, 0],
        aging: None,
    };
    assert_eq!(always(strategy, 3, 5), [1, 2, 1, 2, 1]);
}

#[test]
fn m1_with_aging_a_level_is_late_by_so_much_and_no_more() {
    let strategy = Strategy::Priority {
        levels: vec![0, 1],
        aging: Some(Duration::from_secs(10)),
    };
    let mut merge = Merge::new(strategy, 2);
    merge.ready(1, Stamp::default(), at(0));
    merge.ready(0, Stamp::default(), at(0));
    let mut reads = Vec::new();
    for second in 1..13 {
        let Choice::Read(source) = merge.pick(|_| 0) else {
            panic!("nothing is ready");
        };
        reads.push(source);
        merge.ready(source, Stamp::default(), at(second));
    }
    assert_eq!(reads, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn m1_weights_are_kept_to_the_read_with_fractions_and_without() {
    let reads = always(Strategy::weighted(&[1.0, 3.0]), 2, 8);
    assert_eq!(reads, [0, 1, 1, 1, 0, 1, 1, 1]);
    let reads = always(Strategy::weighted(&[0.2, 0.5, 0.3]), 3, 1000);
    let share = |source| reads.iter().filter(|it| **it == source).count();
    for (source, due) in [200, 500, 300].into_iter().enumerate() {
        assert!(
            share(source).abs_diff(due) <= 1,
            "{source}: {}",
            share(source)
        );
    }
}

#[test]
fn m1_weighted_credit_is_not_saved_up_while_resting() {
    let mut merge = Merge::new(Strategy::weighted(&[1.0, 3.0]), 2);
    merge.ready(1, Stamp::default(), Time::ZERO);
    for _ in 0..50 {
        assert_eq!(merge.pick(|_| 0), Choice::Read(1));
        merge.rest(1);
        merge.ready(1, Stamp::default(), Time::ZERO);
    }
    merge.ready(0, Stamp::default(), Time::ZERO);
    let reads: Vec<usize> = (0..8).map(|_| read(&mut merge)).collect();
    assert_eq!(reads.iter().filter(|it| **it == 0).count(), 2, "{reads:?}");
}

#[test]
fn m1_the_longest_queue_is_read_first_and_of_equals_the_one_ready_longest() {
    let mut merge = Merge::new(Strategy::LongestQueue, 4);
    for source in [3, 1, 0, 2] {
        merge.ready(source, Stamp::default(), Time::ZERO);
    }
    let depths = [1, 5, 2, 5];
    let order = [3, 1, 2, 0].map(Choice::Read);
    assert_eq!([(); 4].map(|()| merge.pick(|it| depths[it])), order);
}

#[test]
fn m1_oldest_first_goes_by_the_stamp() {
    let mut merge = Merge::new(Strategy::OldestFirst, 4);
    for (source, stamp) in [(0, 3.5), (1, -2.0), (2, -0.0), (3, f64::NAN)] {
        merge.ready(source, Stamp::of(stamp), Time::ZERO);
    }
    let order = [1, 2, 0, 3].map(Choice::Read);
    assert_eq!([(); 4].map(|()| merge.pick(|_| 0)), order);
    assert!(Stamp::of(0.0) == Stamp::of(-0.0) && Stamp::of(f64::INFINITY) < Stamp::of(f64::NAN));
}

#[test]
fn m2_m3_m4_an_answer_holds_nobody_up() {
    let mut merge = Merge::new(Strategy::Custom, 3);
    merge.ready(1, Stamp::default(), Time::ZERO);
    merge.end(2);
    // One that is not ready, one that has ended, one there is not.
    assert_eq!(merge.choose(Some(0)), Choice::Read(1));
    merge.ready(1, Stamp::default(), Time::ZERO);
    assert_eq!(merge.choose(Some(2)), Choice::Read(1));
    merge.ready(1, Stamp::default(), Time::ZERO);
    assert_eq!(merge.choose(Some(3)), Choice::Unknown(3));
    // It says so: it waits.
    assert_eq!(merge.choose(None), Choice::Nothing);
    assert_eq!(merge.choose(Some(1)), Choice::Read(1));
    merge.rest(1);
    assert_eq!(merge.choose(Some(1)), Choice::Nothing);
}

#[test]
fn m4_a_source_that_has_ended_is_out_of_it() {
    let mut merge = Merge::new(Strategy::RoundRobin, 2);
    merge.ready(0, Stamp::default(), Time::ZERO);
    merge.ready(1, Stamp::default(), Time::ZERO);
    merge.end(0);
    merge.end(0);
    merge.ready(0, Stamp::default(), Time::ZERO);
    assert_eq!(merge.pick(|_| 0), Choice::Read(1));
    assert_eq!(merge.pick(|_| 0), Choice::Nothing);
    assert!(!merge.is_over());
    merge.end(1);
    assert!(merge.is_over());
}

fn strategies() -> impl Generator<Value = Strategy> {
    prop_oneof![
        Just(Strategy::RoundRobin),
        Just(Strategy::weighted(&[1.0, 2.5, 4.0, 1.5])),
        Just(Strategy::LongestQueue),
        Just(Strategy::Sticky),
        Just(Strategy::DrainFirst),
        Just(Strategy::OldestFirst),
        Just(Strategy::Priority {
            levels: vec![2, 0, 1, 1],
            aging: Some(Duration::from_secs(3)),
        }),
    ]
}

proptest! {
    /// F2: whatever the strategy, what is ready is read, each once per time it became ready; and
    /// M6: the same again gives the same.
    #[test]
    fn f2_m6_all_that_is_ready_is_read_and_the_same_way_each_time(
        strategy in strategies(),
        steps in prop::collection::vec((0usize..5, 0u8..10), 0..120),
    ) {
        let play = || {
            let mut merge = Merge::new(strategy.clone(), 4);
            let mut ready = [false; 4];
            let mut reads = Vec::new();
            for (second, (source, stamp)) in (0..).zip(&steps) {
                if *source < 4 {
                    merge.ready(*source, Stamp::of(f64::from(*stamp)), at(second));
                    ready[*source] = true;
                    continue;
                }
                match merge.pick(|it| it) {
                    Choice::Read(it) => {
                        assert!(ready[it], "{it} was not ready");
                        ready[it] = false;
                        merge.rest(it);
                        reads.push(it);
                    }
                    other => assert!(other == Choice::Nothing && !ready.contains(&true)),
                }
            }
            assert_eq!(merge.has_ready(), ready.contains(&true));
            reads
        };
        prop_assert_eq!(play(), play());
    }

    /// F8: of sources that are always ready each gets at least half its share.
    #[test]
    fn f8_each_gets_its_share(sources in 1usize..65) {
        let reads = always(Strategy::RoundRobin, sources, 1000);
        for source in 0..sources {
            let share = reads.iter().filter(|it| **it == source).count();
            prop_assert!(share >= 1000 / (2 * sources));
        }
    }
}

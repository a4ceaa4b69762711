//! How fast channels and merges are by themselves, in items per second:
//!
//! ```sh
//! cargo run --release --package anabranch-core --example speed
//! ```

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::time::{Duration, Instant};

use anabranch_core::channel::{OnFull, Shared, Taken};
use anabranch_core::clock::Time;
use anabranch_core::merge::{Choice, Merge, Stamp, Strategy};

const ITEMS: usize = 10_000_000;
const BATCH: usize = 500;
const SOURCES: usize = 16;

type Channel = Shared<usize, (), ()>;

fn main() {
    told("channel hop, in batches of 500", ITEMS, || {
        let mut channel = Channel::new(1000, OnFull::Wait);
        pass(&mut channel, |_| 0)
    });
    told("priority channel, 3 lanes", ITEMS, || {
        let mut channel = Channel::with_lanes(3, 1000, OnFull::Wait, None);
        pass(&mut channel, |item| item % 3)
    });
    let strategies = [
        ("round robin", Strategy::RoundRobin),
        ("priority", priority(None)),
        (
            "priority with aging",
            priority(Some(Duration::from_secs(1))),
        ),
        ("weighted", Strategy::weighted(&[1.0; SOURCES])),
        ("longest queue", Strategy::LongestQueue),
        ("oldest first", Strategy::OldestFirst),
        ("drain first", Strategy::DrainFirst),
        ("sticky", Strategy::Sticky),
    ];
    for (name, strategy) in strategies {
        told(&format!("merge of 16, {name}"), ITEMS, || merged(strategy));
    }
}

/// Sends in batches, into the lane that `lane` says for each batch, and receives in batches.
fn pass(channel: &mut Channel, lane: impl Fn(usize) -> usize) -> usize {
    let mut sum = 0;
    for first in (0..ITEMS).step_by(BATCH) {
        let sent = channel.send(lane(first / BATCH), first..first + BATCH, Time::ZERO);
        assert!(sent.is_ok(), "there is room");
        if let Taken::Item(items) = channel.receive_many(None, BATCH) {
            sum += items.len();
        }
    }
    sum
}

fn priority(aging: Option<Duration>) -> Strategy {
    Strategy::Priority {
        levels: (0..4).cycle().take(SOURCES).collect(),
        aging,
    }
}

/// Reads sources that always have something.
fn merged(strategy: Strategy) -> usize {
    let mut merge = Merge::new(strategy, SOURCES);
    let mut depths = [u32::MAX; SOURCES];
    for source in 0..SOURCES {
        merge.ready(source, Stamp::default(), Time::ZERO);
    }
    let mut reads = 0;
    for now in 0..ITEMS as u64 {
        if let Choice::Read(source) = merge.pick(|it| depths[it] as usize) {
            depths[source] -= 1;
            let stamp = Stamp::of(f64::from(depths[source]));
            merge.ready(source, stamp, Time::from_nanos(now));
            reads += 1;
        }
    }
    reads
}

fn told(name: &str, items: usize, job: impl FnOnce() -> usize) {
    let begun = Instant::now();
    let done = job();
    let took = begun.elapsed();
    assert_eq!(done, items, "{name}");
    let rate = f64::from(u32::try_from(items).unwrap_or(u32::MAX)) / took.as_secs_f64() / 1e6;
    println!("{name:32} {rate:7.1} M/s");
}

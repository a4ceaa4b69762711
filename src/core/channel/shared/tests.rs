use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

type Plain = Shared<u32, &'static str, u32>;

fn at(seconds: u64) -> Time {
    Time::ZERO.after(Duration::from_secs(seconds))
}

fn filled(capacity: usize, on_full: OnFull, items: impl IntoIterator<Item = u32>) -> Plain {
    let mut channel = Plain::new(capacity, on_full);
    for item in items {
        assert!(channel.send(std::iter::once(item)).is_ok());
    }
    channel
}

fn called(channel: &mut Plain) -> Vec<u32> {
    channel
        .take_called()
        .into_iter()
        .map(|it| it.waiter)
        .collect()
}

fn waiting_receiver(channel: &mut Plain, waiter: u32) -> Ticket {
    let ticket = channel.ticket();
    channel.join_receivers(ticket, waiter);
    ticket
}

fn waiting_sender(channel: &mut Plain, items: usize, waiter: u32, now: Time) -> Ticket {
    let ticket = channel.ticket();
    channel.join_senders(ticket, items, waiter, now);
    ticket
}

#[test]
fn f10_what_a_cancelled_receiver_was_promised_goes_to_the_next() {
    let mut channel = Plain::new(4, OnFull::Wait);
    let first = waiting_receiver(&mut channel, 1);
    let second = waiting_receiver(&mut channel, 2);
    assert!(channel.send([7].into_iter()).is_ok());
    assert_eq!(called(&mut channel), [1]);
    // Promised: nobody else gets it, and it is still inside.
    assert_eq!(channel.receive(None), Taken::Empty);
    assert_eq!(channel.counts(Time::ZERO).depth, 1);
    assert_eq!(channel.leave(first, Time::ZERO), None);
    assert_eq!(called(&mut channel), [2]);
    assert_eq!(channel.receive(Some(second)), Taken::Item(7));
}

#[test]
fn f10_the_room_a_cancelled_sender_was_promised_goes_to_the_next() {
    let mut channel = filled(1, OnFull::Wait, [1]);
    let first = waiting_sender(&mut channel, 1, 1, Time::ZERO);
    let second = waiting_sender(&mut channel, 1, 2, Time::ZERO);
    assert_eq!(channel.receive(None), Taken::Item(1));
    assert_eq!(called(&mut channel), [1]);
    channel.leave(first, Time::ZERO);
    assert_eq!(called(&mut channel), [2]);
    assert!(
        channel
            .send_in_turn(second, [2].into_iter(), Time::ZERO)
            .is_ok()
    );
    assert_eq!(channel.receive(None), Taken::Item(2));
}

#[test]
fn nobody_overtakes_a_large_batch() {
    let mut channel = filled(3, OnFull::Wait, [1, 2, 3]);
    let large = waiting_sender(&mut channel, 3, 1, Time::ZERO);
    assert_eq!(channel.receive(None), Taken::Item(1));
    assert!(matches!(
        channel.send([9].into_iter()),
        Err(Refused::Full(_))
    ));
    assert_eq!(channel.reserve(1), Err(Refused::Full(())));
    assert_eq!(channel.receive_many(None, 9), Taken::Item(vec![2, 3]));
    assert_eq!(called(&mut channel), [1]);
    assert!(
        channel
            .send_in_turn(large, [4, 5, 6].into_iter(), Time::ZERO)
            .is_ok()
    );
    assert_eq!(channel.receive_many(None, 2), Taken::Item(vec![4, 5]));
}

#[test]
fn what_is_reserved_is_nobody_else_s() {
    let mut channel = filled(4, OnFull::Wait, [1]);
    let (reserved, items) = channel.reserve(9).unwrap();
    assert_eq!(items, 3);
    assert!(matches!(
        channel.send([9].into_iter()),
        Err(Refused::Full(_))
    ));
    let waiting = waiting_sender(&mut channel, 1, 1, Time::ZERO);
    assert!(channel.is_called(reserved) && !channel.is_called(waiting));
    // Less than was reserved: the rest is free again.
    assert!(
        channel
            .send_in_turn(reserved, [2].into_iter(), Time::ZERO)
            .is_ok()
    );
    assert_eq!(called(&mut channel), [1]);
    assert!(channel.is_called(waiting));
    channel.close(None, Time::ZERO);
    assert!(channel.is_called(reserved));
}

#[test]
fn f11_the_end_is_told_after_the_last_item_and_to_all() {
    let mut channel = Plain::new(4, OnFull::Wait);
    let first = waiting_receiver(&mut channel, 1);
    let second = waiting_receiver(&mut channel, 2);
    assert!(channel.send([7].into_iter()).is_ok());
    assert_eq!(channel.close(Some("disk full"), Time::ZERO), None);
    // The second waits on: the first may yet give the item up.
    assert_eq!(called(&mut channel), [1]);
    assert_eq!(channel.receive(Some(first)), Taken::Item(7));
    assert_eq!(called(&mut channel), [2]);
    assert_eq!(channel.receive(Some(second)), Taken::Ended);
    assert_eq!(channel.failure(), Some(&"disk full"));
    assert_eq!(
        channel.close(Some("too late"), Time::ZERO),
        Some("too late")
    );
    assert_eq!(channel.failure(), Some(&"disk full"));
}

#[test]
fn f12_closing_turns_waiting_senders_away_with_what_they_hold() {
    let mut channel = filled(1, OnFull::Wait, [1]);
    let promised = waiting_sender(&mut channel, 1, 1, Time::ZERO);
    let waiting = waiting_sender(&mut channel, 1, 2, Time::ZERO);
    assert_eq!(channel.receive(None), Taken::Item(1));
    assert_eq!(called(&mut channel), [1]);
    channel.close(None, Time::ZERO);
    assert_eq!(called(&mut channel), [2]);
    for ticket in [promised, waiting] {
        let refused = channel.send_in_turn(ticket, [5].into_iter(), Time::ZERO);
        let Err(Refused::Closed(items)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(items.collect::<Vec<_>>(), [5]);
    }
    assert_eq!(channel.receive(None), Taken::Ended);
    assert_eq!(channel.reserve(1), Err(Refused::Closed(())));
}

#[test]
fn b5_a_full_channel_drops_as_its_rule_says() {
    let mut newest = filled(2, OnFull::DropNewest, [1]);
    assert!(newest.send([2, 3, 4].into_iter()).is_ok());
    assert_eq!(newest.take_gone(), [3, 4]);
    assert_eq!(newest.receive_many(None, 9), Taken::Item(vec![1, 2]));
    let counts = newest.counts(Time::ZERO);
    assert_eq!((counts.sent, counts.dropped, counts.received), (4, 2, 2));

    let mut oldest = filled(2, OnFull::DropOldest, [1]);
    assert!(oldest.send([2, 3, 4].into_iter()).is_ok());
    assert_eq!(oldest.take_gone(), [1, 2]);
    assert_eq!(oldest.receive_many(None, 9), Taken::Item(vec![3, 4]));
    let counts = oldest.counts(Time::ZERO);
    assert_eq!((counts.sent, counts.dropped, counts.received), (4, 2, 2));

    let mut fail = filled(2, OnFull::Fail, [1]);
    assert!(matches!(
        fail.send([2, 3].into_iter()),
        Err(Refused::Full(_))
    ));
    assert_eq!(fail.counts(Time::ZERO).sent, 1);
}

#[test]
fn blocked_time_is_that_in_which_anybody_waited_for_room() {
    let mut channel = filled(1, OnFull::Wait, [1]);
    let first = waiting_sender(&mut channel, 1, 1, at(10));
    let second = waiting_sender(&mut channel, 1, 2, at(12));
    assert_eq!(channel.counts(at(13)).blocked, Duration::from_secs(3));
    channel.leave(first, at(14));
    assert_eq!(channel.receive(None), Taken::Item(1));
    assert!(
        channel
            .send_in_turn(second, [2].into_iter(), at(15))
            .is_ok()
    );
    assert_eq!(channel.counts(at(99)).blocked, Duration::from_secs(5));
    // A reservation waits for nothing.
    assert_eq!(channel.receive(None), Taken::Item(2));
    let (reserved, _) = channel.reserve(1).unwrap();
    channel.leave(reserved, at(200));
    assert_eq!(channel.counts(at(300)).blocked, Duration::from_secs(5));
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Receive(usize),
    JoinSenders(usize),
    JoinReceivers,
    /// One who was called, or waits, comes back; or gives up.
    Comes(usize),
    GivesUp(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..5).prop_map(Step::Send),
        6 => (1usize..5).prop_map(Step::Receive),
        4 => (1usize..5).prop_map(Step::JoinSenders),
        4 => Just(Step::JoinReceivers),
        8 => (0usize..100).prop_map(Step::Comes),
        5 => (0usize..100).prop_map(Step::GivesUp),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..200)
}

/// Everybody in the two lines: how many items a sender holds, `None` for a receiver; and whether
/// it was called.
struct World {
    channel: Plain,
    inside: VecDeque<u32>,
    people: BTreeMap<Ticket, (Option<usize>, bool)>,
    next: u32,
}

impl World {
    fn items(&mut self, count: usize) -> Vec<u32> {
        let first = self.next;
        self.next += u32::try_from(count).unwrap();
        (first..self.next).collect()
    }

    /// What every step has to leave behind.
    fn settled(&mut self) -> Result<(), TestCaseError> {
        for called in self.channel.take_called() {
            let person = self.people.get_mut(&called.ticket);
            prop_assert!(person.is_some(), "one who has left was called");
            let Some((_, was_called)) = person else {
                continue;
            };
            prop_assert!(!*was_called, "called twice");
            *was_called = true;
        }
        let counts = self.channel.counts(Time::ZERO);
        prop_assert_eq!(counts.depth, self.inside.len());
        prop_assert!(counts.depth <= self.channel.capacity());
        prop_assert_eq!(
            counts.sent,
            counts.received + counts.dropped + counts.depth as u64
        );
        // No wake-up is lost: whoever waits on has nothing to come for.
        let promised = |sends: bool| {
            self.people
                .values()
                .filter(move |(holds, called)| *called && holds.is_some() == sends)
                .map(|(holds, _)| holds.unwrap_or(1))
                .sum::<usize>()
        };
        let first = |sends: bool| {
            self.people
                .values()
                .find(|(holds, called)| !called && holds.is_some() == sends)
                .map(|(holds, _)| holds.unwrap_or(1))
        };
        let closed = self.channel.is_closed();
        if let Some(wants) = first(true) {
            prop_assert!(!closed);
            prop_assert!(counts.depth + promised(true) + wants > self.channel.capacity());
        }
        if first(false).is_some() {
            prop_assert!(!closed || !self.inside.is_empty());
            prop_assert!(promised(false) >= self.inside.len());
        }
        Ok(())
    }
}

proptest! {
    /// Nothing is lost, reordered, beyond the bound, or waited for in vain, whoever gives up.
    #[test]
    fn e8_conservation_over_random_senders_receivers_and_cancels(
        capacity in 1usize..6,
        steps in steps(),
    ) {
        let mut world = World {
            channel: Plain::new(capacity, OnFull::Wait),
            inside: VecDeque::new(),
            people: BTreeMap::new(),
            next: 0,
        };
        for step in steps {
            match step {
                Step::Send(count) => {
                    let count = count.min(capacity);
                    let items = world.items(count);
                    if world.channel.send(items.clone().into_iter()).is_ok() {
                        world.inside.extend(items);
                    }
                }
                Step::Receive(most) => {
                    if let Taken::Item(items) = world.channel.receive_many(None, most) {
                        let expected: Vec<u32> = world.inside.drain(..items.len()).collect();
                        prop_assert_eq!(items, expected);
                    }
                }
                Step::JoinSenders(count) => {
                    let ticket = world.channel.ticket();
                    let count = count.min(capacity);
                    world.people.insert(ticket, (Some(count), false));
                    world.channel.join_senders(ticket, count, 0, Time::ZERO);
                }
                Step::JoinReceivers => {
                    let ticket = world.channel.ticket();
                    world.people.insert(ticket, (None, false));
                    world.channel.join_receivers(ticket, 0);
                }
                Step::Comes(which) => comes(&mut world, which)?,
                Step::GivesUp(which) => {
                    let ticket = world.people.keys().nth(which % world.people.len().max(1));
                    if let Some(ticket) = ticket.copied() {
                        let person = world.people.remove(&ticket);
                        let waiter = world.channel.leave(ticket, Time::ZERO);
                        prop_assert_eq!(waiter.is_none(), person.unwrap().1);
                    }
                }
                Step::Close => {
                    world.channel.close(None, Time::ZERO);
                }
            }
            world.settled()?;
        }
        // Everybody gives up: all that was promised is there for whoever asks.
        for ticket in std::mem::take(&mut world.people).into_keys() {
            world.channel.leave(ticket, Time::ZERO);
        }
        let counts = world.channel.counts(Time::ZERO);
        prop_assert_eq!((counts.senders, counts.receivers), (0, 0));
        let rest = match world.channel.receive_many(None, usize::MAX) {
            Taken::Item(items) => items,
            Taken::Empty | Taken::Ended => Vec::new(),
        };
        prop_assert_eq!(rest, Vec::from(world.inside));
    }
}

fn comes(world: &mut World, which: usize) -> Result<(), TestCaseError> {
    let ticket = world.people.keys().nth(which % world.people.len().max(1));
    let Some(ticket) = ticket.copied() else {
        return Ok(());
    };
    let (holds, was_called) = world.people[&ticket];
    if let Some(count) = holds {
        let items = world.items(count);
        match world
            .channel
            .send_in_turn(ticket, items.clone().into_iter(), Time::ZERO)
        {
            Ok(()) => {
                prop_assert!(was_called);
                world.inside.extend(items);
                world.people.remove(&ticket);
            }
            Err(Refused::Full(back)) => {
                prop_assert!(!was_called);
                prop_assert_eq!(back.collect::<Vec<_>>(), items);
            }
            Err(Refused::Closed(_)) => {
                prop_assert!(world.channel.is_closed());
                world.people.remove(&ticket);
            }
        }
        return Ok(());
    }
    match world.channel.receive(Some(ticket)) {
        Taken::Item(item) => {
            prop_assert!(was_called);
            prop_assert_eq!(Some(item), world.inside.pop_front());
            world.people.remove(&ticket);
        }
        Taken::Empty => prop_assert!(!was_called),
        Taken::Ended => {
            prop_assert!(was_called && world.channel.is_closed());
            world.people.remove(&ticket);
        }
    }
    Ok(())
}

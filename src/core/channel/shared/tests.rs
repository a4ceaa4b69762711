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
        assert!(channel.send(0, std::iter::once(item), Time::ZERO).is_ok());
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
    channel.join_senders(0, ticket, items, waiter, now);
    ticket
}

#[test]
fn f10_what_a_cancelled_receiver_was_promised_goes_to_the_next() {
    let mut channel = Plain::new(4, OnFull::Wait);
    let first = waiting_receiver(&mut channel, 1);
    let second = waiting_receiver(&mut channel, 2);
    assert!(channel.send(0, [7].into_iter(), Time::ZERO).is_ok());
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
            .send_in_turn(0, second, [2].into_iter(), Time::ZERO)
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
        channel.send(0, [9].into_iter(), Time::ZERO),
        Err(Refused::Full(_))
    ));
    assert_eq!(channel.reserve(0, 1), Err(Refused::Full(())));
    assert_eq!(channel.receive_many(None, 9), Taken::Item(vec![2, 3]));
    assert_eq!(called(&mut channel), [1]);
    assert!(
        channel
            .send_in_turn(0, large, [4, 5, 6].into_iter(), Time::ZERO)
            .is_ok()
    );
    assert_eq!(channel.receive_many(None, 2), Taken::Item(vec![4, 5]));
}

#[test]
fn what_is_reserved_is_nobody_else_s() {
    let mut channel = filled(4, OnFull::Wait, [1]);
    let (reserved, items) = channel.reserve(0, 9).unwrap();
    assert_eq!(items, 3);
    assert!(matches!(
        channel.send(0, [9].into_iter(), Time::ZERO),
        Err(Refused::Full(_))
    ));
    let waiting = waiting_sender(&mut channel, 1, 1, Time::ZERO);
    assert!(channel.is_called(reserved) && !channel.is_called(waiting));
    // Less than was reserved: the rest is free again.
    assert!(
        channel
            .send_in_turn(0, reserved, [2].into_iter(), Time::ZERO)
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
    assert!(channel.send(0, [7].into_iter(), Time::ZERO).is_ok());
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
        let refused = channel.send_in_turn(0, ticket, [5].into_iter(), Time::ZERO);
        let Err(Refused::Closed(items)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(items.collect::<Vec<_>>(), [5]);
    }
    assert_eq!(channel.receive(None), Taken::Ended);
    assert_eq!(channel.reserve(0, 1), Err(Refused::Closed(())));
}

#[test]
fn b5_a_full_channel_drops_as_its_rule_says() {
    let mut newest = filled(2, OnFull::DropNewest, [1]);
    assert!(newest.send(0, [2, 3, 4].into_iter(), Time::ZERO).is_ok());
    assert_eq!(newest.take_gone(), [3, 4]);
    assert_eq!(newest.receive_many(None, 9), Taken::Item(vec![1, 2]));
    let counts = newest.counts(Time::ZERO);
    assert_eq!((counts.sent, counts.dropped, counts.received), (4, 2, 2));

    let mut oldest = filled(2, OnFull::DropOldest, [1]);
    assert!(oldest.send(0, [2, 3, 4].into_iter(), Time::ZERO).is_ok());
    assert_eq!(oldest.take_gone(), [1, 2]);
    assert_eq!(oldest.receive_many(None, 9), Taken::Item(vec![3, 4]));
    let counts = oldest.counts(Time::ZERO);
    assert_eq!((counts.sent, counts.dropped, counts.received), (4, 2, 2));

    let mut fail = filled(2, OnFull::Fail, [1]);
    assert!(matches!(
        fail.send(0, [2, 3].into_iter(), Time::ZERO),
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
            .send_in_turn(0, second, [2].into_iter(), at(15))
            .is_ok()
    );
    assert_eq!(channel.counts(at(99)).blocked, Duration::from_secs(5));
    // A reservation waits for nothing.
    assert_eq!(channel.receive(None), Taken::Item(2));
    let (reserved, _) = channel.reserve(0, 1).unwrap();
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
                    if world.channel.send(0, items.clone().into_iter(), Time::ZERO).is_ok() {
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
                    world.channel.join_senders(0, ticket, count, 0, Time::ZERO);
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
            .send_in_turn(0, ticket, items.clone().into_iter(), Time::ZERO)
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

mod lanes {
    use super::*;

    fn lanes(aging: Option<u64>) -> Plain {
        Plain::with_lanes(3, 2, OnFull::Wait, aging.map(Duration::from_secs))
    }

    fn send(channel: &mut Plain, lane: usize, item: u32, second: u64) -> bool {
        let sent = channel.send(lane, std::iter::once(item), at(second));
        sent.is_ok()
    }

    #[test]
    fn q1_the_most_urgent_is_received_first_whatever_came_first() {
        let mut channel = lanes(None);
        for (lane, item) in [(2, 20), (1, 10), (2, 21), (0, 1)] {
            assert!(send(&mut channel, lane, item, 0));
        }
        let waiting = waiting_receiver(&mut channel, 1);
        // Promised is an item, not this one: what is more urgent and comes before it is received
        // goes first.
        assert_eq!(called(&mut channel), [1]);
        assert_eq!(channel.receive(None), Taken::Item(1));
        assert!(send(&mut channel, 0, 2, 0));
        assert_eq!(channel.receive(Some(waiting)), Taken::Item(2));
        assert_eq!(channel.receive_many(None, 9), Taken::Item(vec![10, 20, 21]));
        assert_eq!(channel.depths().collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn q1_with_aging_a_lane_comes_later_by_so_much_and_no_more() {
        let mut channel = lanes(Some(10));
        assert!(send(&mut channel, 1, 10, 0));
        assert!(send(&mut channel, 0, 1, 9));
        assert!(send(&mut channel, 2, 20, 0));
        assert!(send(&mut channel, 0, 2, 11));
        assert_eq!(channel.peek(), Some(&1));
        assert_eq!(
            channel.receive_many(None, 9),
            Taken::Item(vec![1, 10, 2, 20])
        );
    }

    #[test]
    fn q2_a_full_lane_holds_up_its_own_senders_only() {
        let mut channel = lanes(None);
        assert!(send(&mut channel, 2, 20, 0) && send(&mut channel, 2, 21, 0));
        assert!(!send(&mut channel, 2, 22, 0));
        let waiting = channel.ticket();
        channel.join_senders(2, waiting, 1, 7, at(0));
        assert!(send(&mut channel, 0, 1, 0));
        assert_eq!(channel.receive(None), Taken::Item(1));
        assert_eq!(called(&mut channel), [0; 0]);
        assert_eq!(channel.receive(None), Taken::Item(20));
        assert_eq!(called(&mut channel), [7]);
        // The room is promised.
        assert!(!send(&mut channel, 2, 23, 3));
        let sent = channel.send_in_turn(2, waiting, [22].into_iter(), at(3));
        assert!(sent.is_ok());
        let counts = channel.counts(at(9));
        assert_eq!((counts.depth, counts.blocked), (2, Duration::from_secs(3)));
    }

    #[test]
    fn q2_each_lane_drops_its_own() {
        let mut channel = Plain::with_lanes(2, 1, OnFull::DropOldest, None);
        for (lane, item) in [(0, 1), (1, 10), (1, 11)] {
            assert!(send(&mut channel, lane, item, 0));
        }
        assert_eq!(channel.take_gone(), [10]);
        assert_eq!(channel.receive_many(None, 9), Taken::Item(vec![1, 11]));
    }

    #[test]
    fn f10_what_is_put_back_is_the_next_of_its_lane_even_after_the_end() {
        let mut channel = lanes(None);
        assert!(send(&mut channel, 2, 20, 0) && send(&mut channel, 2, 21, 0));
        let Taken::Item((item, place)) = channel.receive_placed(None) else {
            panic!("it is there");
        };
        assert!(send(&mut channel, 1, 10, 0) && send(&mut channel, 2, 22, 0));
        channel.close(None, at(0));
        channel.put_back(item, place);
        let counts = channel.counts(at(0));
        assert_eq!((counts.sent, counts.received, counts.depth), (4, 0, 4));
        assert_eq!(channel.depths().collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(
            channel.receive_many(None, 9),
            Taken::Item(vec![10, 20, 21, 22])
        );
        assert_eq!(channel.receive(None), Taken::Ended);
    }

    #[test]
    fn q1_what_is_put_back_is_as_old_as_it_was() {
        let mut channel = lanes(Some(10));
        assert!(send(&mut channel, 1, 10, 5));
        let mut places = Vec::new();
        let taken = channel.receive_many_placed(None, 9, |it| places.push(it));
        assert_eq!(taken, Taken::Item(vec![10]));
        assert!(send(&mut channel, 0, 1, 14) && send(&mut channel, 0, 2, 16));
        channel.put_back(10, places[0]);
        assert_eq!(channel.receive_many(None, 9), Taken::Item(vec![1, 10, 2]));
    }

    #[test]
    fn an_item_is_promised_at_once_if_nobody_waits_for_it() {
        let mut channel = lanes(None);
        assert!(send(&mut channel, 1, 10, 0));
        let ticket = channel.ticket();
        assert!(channel.reserve_item(ticket) && channel.is_promised(ticket));
        assert_eq!(channel.receive(None), Taken::Empty);
        let late = channel.ticket();
        assert!(!channel.reserve_item(late));
        assert_eq!(channel.receive(Some(ticket)), Taken::Item(10));
    }
}

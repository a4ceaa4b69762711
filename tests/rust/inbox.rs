//! The inbox: back-pressure, its end, and one wake-up per burst.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use anabranch::inbox::{Closed, Inbox};
use anabranch_core::channel::Taken;
use tokio::runtime::{Builder, Runtime};

/// Far longer than anything here takes; only a lost wake-up lasts that long.
const DEADLINE: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing")
}

fn quiet<B>(capacity: usize) -> Inbox<B> {
    Inbox::new(capacity, Box::new(|| ()))
}

/// An inbox whose wake-ups can be waited for.
fn audible<B: Send + 'static>(capacity: usize) -> (Arc<Inbox<B>>, Receiver<()>) {
    // One place is enough, as for a condition variable: a wake-up not yet heard stands for all.
    let (bell, ears) = sync_channel(1);
    let wake = Box::new(move || _ = bell.try_send(()));
    (Arc::new(Inbox::new(capacity, wake)), ears)
}

/// Polls `push` once: whether it finished at once.
fn push_now<B>(inbox: &Inbox<B>, batch: B, items: usize) -> Option<Result<(), Closed>> {
    runtime().block_on(async {
        tokio::select! {
            biased;
            pushed = inbox.push(batch, items) => Some(pushed),
            () = std::future::ready(()) => None,
        }
    })
}

#[test]
fn a_burst_wakes_the_driver_once() {
    let inbox = quiet(100);
    for batch in 0..5 {
        assert_eq!(push_now(&inbox, batch, 1), Some(Ok(())));
    }
    assert_eq!(inbox.wakes(), 1);
    assert_eq!(inbox.take(), Taken::Item(0));
    assert_eq!(push_now(&inbox, 5, 1), Some(Ok(())));
    assert_eq!(inbox.wakes(), 1, "the driver is still taking");
    for batch in 1..6 {
        assert_eq!(inbox.take(), Taken::Item(batch));
    }
    assert_eq!(inbox.take(), Taken::Empty);
    assert_eq!(push_now(&inbox, 6, 1), Some(Ok(())));
    assert_eq!(inbox.wakes(), 2);
}

#[test]
fn a_full_inbox_makes_the_source_wait_and_a_cancelled_push_leaves_nothing() {
    let inbox = quiet(10);
    assert_eq!(push_now(&inbox, "nine", 9), Some(Ok(())));
    assert_eq!(push_now(&inbox, "two", 2), None);
    assert_eq!(inbox.len(), 9);
    assert_eq!(
        push_now(&inbox, "one", 1),
        Some(Ok(())),
        "the room was given back"
    );
    assert_eq!(inbox.take(), Taken::Item("nine"));
    assert_eq!(push_now(&inbox, "too large", 1000), None);
    assert_eq!(inbox.take(), Taken::Item("one"));
    assert_eq!(push_now(&inbox, "too large", 1000), Some(Ok(())));
    assert_eq!(inbox.len(), 1000);
    assert_eq!(push_now(&inbox, "one", 1), None);
    assert_eq!(inbox.take(), Taken::Item("too large"));
    assert_eq!(push_now(&inbox, "ten", 10), Some(Ok(())));
}

#[test]
fn light_batches_do_not_overtake_a_heavy_one_that_waits() {
    let inbox = quiet(10);
    assert_eq!(push_now(&inbox, "first", 5), Some(Ok(())));
    runtime().block_on(async {
        let mut heavy = Box::pin(inbox.push("heavy", 8));
        let mut light = Box::pin(inbox.push("light", 1));
        tokio::select! {
            biased;
            _ = &mut heavy => panic!("there is no room for it"),
            _ = &mut light => panic!("the heavy one was first"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(inbox.take(), Taken::Item("first"));
        assert_eq!(tokio::join!(heavy, light), (Ok(()), Ok(())));
    });
    assert_eq!(inbox.take(), Taken::Item("heavy"));
    assert_eq!(inbox.take(), Taken::Item("light"));
}

#[test]
fn closing_wakes_the_driver_refuses_the_waiting_and_keeps_what_is_inside() {
    let inbox = quiet(1);
    assert_eq!(inbox.take(), Taken::Empty);
    assert_eq!(push_now(&inbox, 1, 1), Some(Ok(())));
    runtime().block_on(async {
        let mut waiting = Box::pin(inbox.push(2, 1));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room for it"),
            () = std::future::ready(()) => {}
        }
        inbox.close();
        assert_eq!(waiting.await, Err(Closed));
    });
    assert_eq!(push_now(&inbox, 3, 1), Some(Err(Closed)));
    assert_eq!(inbox.take(), Taken::Item(1));
    assert_eq!(inbox.take(), Taken::Ended);
    inbox.close();
    assert_eq!(inbox.wakes(), 1, "the driver was awake when it closed");
    let idle = quiet::<u8>(1);
    idle.close();
    assert_eq!(idle.wakes(), 1);
}

#[test]
fn aborting_drops_what_is_inside_and_counts_its_items() {
    let witness = Arc::new(());
    let inbox = quiet(10);
    assert_eq!(push_now(&inbox, Arc::clone(&witness), 3), Some(Ok(())));
    assert_eq!(push_now(&inbox, Arc::clone(&witness), 4), Some(Ok(())));
    assert_eq!(inbox.abort(), 7);
    assert_eq!(Arc::strong_count(&witness), 1);
    assert_eq!(inbox.abort(), 0);
    assert_eq!(inbox.take(), Taken::Ended);
    assert_eq!(push_now(&inbox, witness, 1), Some(Err(Closed)));
}

#[test]
fn the_wake_up_is_called_without_the_lock() {
    let looked = Arc::new(AtomicBool::new(false));
    let inbox = Arc::new_cyclic(|inbox: &Weak<Inbox<u8>>| {
        let (inbox, looked) = (Weak::clone(inbox), Arc::clone(&looked));
        Inbox::new(
            8,
            Box::new(move || {
                let inbox = inbox.upgrade().expect("it is the inbox that calls");
                looked.store(inbox.take() == Taken::Item(7), Ordering::Relaxed);
            }),
        )
    });
    assert_eq!(push_now(&inbox, 7, 1), Some(Ok(())));
    assert!(looked.load(Ordering::Relaxed));
}

#[test]
fn under_stress_no_wake_up_is_lost_and_no_burst_wakes_twice() {
    const PRODUCERS: usize = 4;
    const BATCHES: usize = 20_000;
    let (inbox, ears) = audible::<(usize, usize)>(64);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                runtime().block_on(async {
                    for batch in 0..BATCHES {
                        let items = 1 + (batch * 7 + producer) % 40;
                        inbox
                            .push((producer, batch), items)
                            .await
                            .expect("open to the end");
                    }
                });
            })
        })
        .collect();
    let closer = {
        let inbox = Arc::clone(&inbox);
        thread::spawn(move || {
            let failed = producers
                .into_iter()
                .filter_map(|it| it.join().err())
                .count();
            inbox.close();
            failed
        })
    };

    let (mut next, mut found_empty) = ([0; PRODUCERS], 0);
    loop {
        match inbox.take() {
            Taken::Item((producer, batch)) => {
                assert_eq!(batch, next[producer], "order within a producer");
                next[producer] += 1;
            }
            Taken::Empty => {
                found_empty += 1;
                let heard = ears.recv_timeout(DEADLINE);
                assert_ne!(heard, Err(RecvTimeoutError::Timeout), "a wake-up was lost");
            }
            Taken::Ended => break,
        }
    }
    assert_eq!(closer.join().ok(), Some(0));
    assert_eq!(next, [BATCHES; PRODUCERS]);
    assert!(
        inbox.wakes() <= found_empty + 1,
        "{} wakes, {found_empty}",
        inbox.wakes()
    );
}

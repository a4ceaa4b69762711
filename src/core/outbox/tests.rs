//! What only the state can show: laws under random use. The rest is in the suite of all stores.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

pub(super) fn draft(key: Option<&str>, priority: u8, delay: Millis) -> Draft {
    Draft {
        topic: "mail".to_owned(),
        body: Vec::new(),
        format: Format::Bytes,
        headers: None,
        correlation_id: None,
        traceparent: None,
        ordering_key: key.map(str::to_owned),
        dedupe_key: None,
        priority,
        tenant: None,
        due: Due::After(delay),
        ttl: None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(Option<&'static str>, u8, Millis),
    Claim(usize, Millis),
    Wait(Millis),
    Ack(usize),
    Abandon(usize, Millis),
    Fail(usize),
    Release(usize),
    Reap,
    Requeue,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    prop_oneof![
        3 => (key, 0..10_u8, 0..3_i64).prop_map(|(key, priority, delay)| Step::Enqueue(key, priority, delay)),
        3 => (1..4_usize, 1..5_i64).prop_map(|(limit, lease)| Step::Claim(limit, lease)),
        2 => (0..4_i64).prop_map(Step::Wait),
        2 => (0..8_usize).prop_map(Step::Ack),
        1 => (0..8_usize, 0..3_i64).prop_map(|(which, delay)| Step::Abandon(which, delay)),
        1 => (0..8_usize).prop_map(Step::Fail),
        1 => (0..8_usize).prop_map(Step::Release),
        1 => Just(Step::Reap),
        1 => Just(Step::Requeue),
    ]
}

proptest! {
    /// Z5, A1, K5, K10: messages are conserved, a live lease is never given twice, an ack ends a
    /// message once, and of an ordering key at most one message is held at a time.
    #[test]
    fn z5_messages_are_conserved_and_held_by_one(steps in prop::collection::vec(step(), 1..80)) {
        let (mut store, mut now, mut enqueued) = (Memory::default(), 0, 0_u64);
        let mut claims: Vec<(Receipt, Millis)> = Vec::new();
        let mut done = HashSet::new();
        for step in steps {
            let pick = |which: usize, claims: &[(Receipt, Millis)]| {
                claims.get(which % claims.len().max(1)).map(|(receipt, _)| *receipt)
            };
            match step {
                Step::Enqueue(key, priority, delay) => {
                    let id = store.reserve();
                    store.insert(id, draft(key, priority, delay), None, now);
                    enqueued += 1;
                }
                Step::Claim(limit, lease) => {
                    let owner = store.owner();
                    let held: HashSet<_> = store
                        .list(&Filter { status: Some(Status::Leased), ..Filter::default() }, 0, 99, now)
                        .into_iter()
                        .map(|message| message.id)
                        .collect();
                    let claimed = store.claim(owner, limit, lease, Ordering::Block, Wanted::default(), now);
                    prop_assert!(claimed.len() <= limit);
                    for message in claimed {
                        prop_assert!(!held.contains(&message.id));
                        let receipt = Receipt { id: message.id, owner, claims: message.claims };
                        claims.push((receipt, now + lease));
                    }
                }
                Step::Wait(time) => now += time,
                Step::Ack(which) => {
                    for id in store.ack(pick(which, &claims).as_slice(), false, now) {
                        prop_assert!(done.insert(id));
                    }
                }
                Step::Abandon(which, delay) => {
                    let given = pick(which, &claims).map(|it| (it, delay, None));
                    store.abandon(given.into_iter().collect(), now);
                }
                Step::Fail(which) => {
                    let given = pick(which, &claims).map(|it| (it, "no".to_owned()));
                    store.fail(given.into_iter().collect(), now);
                }
                Step::Release(which) => {
                    store.release(pick(which, &claims).as_slice(), now);
                }
                Step::Reap => {
                    store.reap(None, now);
                }
                Step::Requeue => {
                    store.requeue(&Filter::default(), usize::MAX, now);
                }
            }
            prop_assert_eq!(store.counts(None, now).values().sum::<u64>(), enqueued);
            let leased = Filter { status: Some(Status::Leased), ..Filter::default() };
            let leased = store.list(&leased, 0, 99, now);
            let keys: Vec<_> = leased.iter().filter_map(|it| it.draft.ordering_key.as_ref()).collect();
            prop_assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        }
    }
}

/// K8: a lease that is over needs nobody to end it.
#[test]
fn k8_a_lease_that_is_over_is_claimed_by_the_next() {
    let mut store = Memory::default();
    let id = store.reserve();
    store.insert(id, draft(None, 5, 0), None, 0);
    let (first, second) = (store.owner(), store.owner());
    assert_eq!(
        store
            .claim(first, 1, 10, Ordering::Block, Wanted::default(), 0)
            .len(),
        1
    );
    assert!(
        store
            .claim(second, 1, 10, Ordering::Block, Wanted::default(), 9)
            .is_empty()
    );
    let claimed = store.claim(second, 1, 10, Ordering::Block, Wanted::default(), 10);
    assert_eq!(claimed[0].attempt, 2);
    let late = Receipt {
        id,
        owner: first,
        claims: 1,
    };
    assert!(store.ack(&[late], false, 11).is_empty());
}

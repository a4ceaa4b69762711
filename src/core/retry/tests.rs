//! Delays by table and by law.

use super::*;
use proptest::prelude::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn after(attempt: u32, random: f64) -> Tried {
    Tried {
        attempt,
        random,
        ..Tried::default()
    }
}

const fn exponential(attempts: u32, jitter: Jitter) -> Retry {
    let backoff = Backoff::Exponential {
        base: ms(200),
        factor: 2.0,
        cap: ms(1000),
        jitter,
    };
    Retry::new(attempts, backoff)
}

#[test]
fn r1_attempts_include_the_first() {
    for attempts in 1..6 {
        let retry = Retry::new(attempts, Backoff::Fixed(ms(5)));
        let retries = (1..10)
            .take_while(|&n| retry.delay(&after(n, 0.5)).is_ok())
            .count();
        assert_eq!(retries + 1, attempts as usize);
    }
}

#[test]
fn r2_r6_delays_are_exactly_d_2d_4d_up_to_the_cap() {
    let table = [(1, 200), (2, 400), (3, 800), (4, 1000), (5, 1000)];
    let retry = exponential(6, Jitter::None);
    for (attempt, expected) in table {
        let delay = retry.delay(&after(attempt, 0.9));
        assert_eq!(delay, Ok(ms(expected)), "after attempt {attempt}");
    }
    assert_eq!(retry.delay(&after(6, 0.9)), Err(GaveUp::Attempts));
}

#[test]
fn r2_full_jitter_spreads_from_zero_to_the_delay() {
    let table = [(1, 0.0, 0), (1, 0.5, 100), (3, 0.25, 200), (5, 0.75, 750)];
    for (attempt, random, expected) in table {
        let delay = exponential(6, Jitter::Full).delay(&after(attempt, random));
        assert_eq!(
            delay,
            Ok(ms(expected)),
            "attempt {attempt}, random {random}"
        );
    }
}

#[test]
fn r2_decorrelated_jitter_goes_by_the_delay_before() {
    let backoff = Backoff::Decorrelated {
        base: ms(100),
        cap: ms(1000),
    };
    let retry = Retry::new(9, backoff);
    let table = [
        (0, 0.0, 100),
        (0, 0.5, 200),
        (100, 0.5, 200),
        (200, 0.0, 100),
        (200, 0.5, 350),
        (400, 0.5, 650),
        (900, 0.9, 1000),
    ];
    for (waited, random, expected) in table {
        let tried = Tried {
            waited: ms(waited),
            ..after(1, random)
        };
        assert_eq!(
            retry.delay(&tried),
            Ok(ms(expected)),
            "{waited} ms, {random}"
        );
    }
}

#[test]
fn r2_r6_cron_waits_until_the_next_instant_and_custom_as_long_as_is_asked() {
    let cron = Retry::new(2, Backoff::Cron(Cron::parse("*/5 * * * *").expect("valid")));
    let wall = Duration::from_secs(1_767_225_600) + ms(61_500);
    let tried = Tried {
        wall,
        asked: ms(7),
        ..after(1, 0.5)
    };
    assert_eq!(cron.delay(&tried), Ok(ms(238_500)));
    assert_eq!(Retry::new(2, Backoff::Custom).delay(&tried), Ok(ms(7)));
}

#[test]
fn r4_no_attempt_begins_after_the_total() {
    let retry = Retry {
        total: Some(ms(1000)),
        ..Retry::new(9, Backoff::Fixed(ms(300)))
    };
    let table = [
        (0, Ok(ms(300))),
        (700, Ok(ms(300))),
        (701, Err(GaveUp::Total)),
        (5000, Err(GaveUp::Total)),
    ];
    for (since_first, expected) in table {
        let tried = Tried {
            since_first: ms(since_first),
            ..after(1, 0.0)
        };
        assert_eq!(retry.delay(&tried), expected, "{since_first} ms");
    }
}

#[test]
fn r4_a_budget_is_asked_last() {
    let budget = Budget::new(ms(1000), 1);
    let retry = Retry {
        total: Some(ms(10)),
        budget: Some(budget.clone()),
        ..Retry::new(2, Backoff::Fixed(ms(5)))
    };
    let late = Tried {
        since_first: ms(6),
        ..after(1, 0.0)
    };
    assert_eq!(retry.delay(&after(2, 0.0)), Err(GaveUp::Attempts));
    assert_eq!(retry.delay(&late), Err(GaveUp::Total));
    assert_eq!(retry.delay(&after(1, 0.0)), Ok(ms(5)), "nothing was spent");
    assert_eq!(retry.delay(&after(1, 0.0)), Err(GaveUp::Budget));
}

#[test]
fn r6_a_million_attempts_overflow_nothing() {
    for attempt in [1_000_000, u32::MAX - 1] {
        assert_eq!(
            exponential(u32::MAX, Jitter::None).delay(&after(attempt, 0.0)),
            Ok(ms(1000))
        );
        let zero = Backoff::Exponential {
            base: Duration::ZERO,
            factor: 2.0,
            cap: ms(1),
            jitter: Jitter::None,
        };
        let retry = Retry::new(u32::MAX, zero);
        assert_eq!(retry.delay(&after(attempt, 0.0)), Ok(Duration::ZERO));
    }
    let largest = Backoff::Exponential {
        base: Duration::MAX,
        factor: f64::MAX,
        cap: Duration::MAX,
        jitter: Jitter::Full,
    };
    let retry = Retry::new(u32::MAX, largest);
    let last = after(1_000_000, f64::NAN);
    assert_eq!(retry.delay(&last), Ok(Duration::MAX));
    let retry = Retry {
        total: Some(Duration::MAX),
        ..retry
    };
    let tried = Tried {
        since_first: Duration::MAX,
        ..last
    };
    assert_eq!(retry.delay(&tried), Ok(Duration::MAX));
}

/// First numbers for the seed 1234567, as published with the reference implementation.
#[test]
fn the_generator_is_splitmix64() {
    let mut random = Random::new(1_234_567);
    let numbers = [(); 3].map(|()| random.next_u64());
    assert_eq!(
        numbers,
        [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423
        ]
    );
}

proptest! {
    #[test]
    fn r2_no_delay_exceeds_the_cap_and_jitter_only_shortens(
        base in 0_u64..10_000, factor in 1.0_f64..10.0, cap in 0_u64..100_000,
        attempt in 1_u32..2_000_000, seed: u64,
    ) {
        let retry = |jitter| Retry::new(
            u32::MAX,
            Backoff::Exponential { base: ms(base), factor, cap: ms(cap), jitter },
        );
        let random = Random::new(seed).next_f64();
        let plain = retry(Jitter::None).delay(&after(attempt, random)).unwrap();
        let spread = retry(Jitter::Full).delay(&after(attempt, random)).unwrap();
        let next = retry(Jitter::None).delay(&after(attempt + 1, random)).unwrap();
        prop_assert!(spread <= plain);
        prop_assert!(plain <= next && next <= ms(cap));
    }

    #[test]
    fn r2_decorrelated_delays_stay_between_base_and_cap(
        base in 0_u64..10_000, more in 0_u64..100_000, seed: u64,
    ) {
        let cap = ms(base + more);
        let retry = Retry::new(u32::MAX, Backoff::Decorrelated { base: ms(base), cap });
        let mut random = Random::new(seed);
        let mut waited = Duration::ZERO;
        for attempt in 1..50 {
            let tried = Tried { waited, ..after(attempt, random.next_f64()) };
            let delay = retry.delay(&tried).unwrap();
            prop_assert!(delay >= ms(base) && delay <= cap);
            prop_assert!(delay <= waited.max(ms(base)) * 3);
            waited = delay;
        }
    }

    #[test]
    fn r2_the_same_seed_gives_the_same_delays(seed: u64) {
        let delays = |seed| {
            let mut random = Random::new(seed);
            (1..20)
                .map(|n| exponential(20, Jitter::Full).delay(&after(n, random.next_f64())))
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(delays(seed), delays(seed));
    }

    #[test]
    fn random_numbers_stay_below_one(seed: u64) {
        let mut random = Random::new(seed);
        prop_assert!((0..100).all(|_| (0.0..1.0).contains(&random.next_f64())));
    }
}

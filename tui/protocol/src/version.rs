//! Which version of the protocol both sides can speak.

use serde::{Deserialize, Serialize};

/// What this side speaks: its own version, and the one before it once there is one.
pub const SUPPORTED: Versions = Versions(1, 1);

/// A range of protocol versions, both ends included; `[1,2]` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions(pub u32, pub u32);

/// The newest version that is in both ranges, if there is one.
///
/// ```
/// use anabranch_protocol::{Versions, negotiate};
///
/// assert_eq!(negotiate(Versions(1, 3), Versions(2, 5)), Some(3));
/// assert_eq!(negotiate(Versions(1, 1), Versions(2, 3)), None);
/// ```
pub fn negotiate(one: Versions, other: Versions) -> Option<u32> {
    let newest = one.1.min(other.1);
    let oldest = one.0.max(other.0);
    (one.0 <= one.1 && other.0 <= other.1 && oldest <= newest).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_agreed_on_is_in_both_ranges(a in 0u32..6, b in 0u32..6, c in 0u32..6, d in 0u32..6) {
            let agreed = negotiate(Versions(a, b), Versions(c, d));
            prop_assert_eq!(agreed, negotiate(Versions(c, d), Versions(a, b)));
            let common = (0..6).rev().find(|v| (a..=b).contains(v) && (c..=d).contains(v));
            prop_assert_eq!(agreed, common);
        }
    }
}

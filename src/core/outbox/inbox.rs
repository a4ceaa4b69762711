//! What was handled, in the store that is nothing but memory.

use super::{Memory, Millis};

impl Memory {
    /// Whether that was handled before.
    pub fn has_seen(&self, key: &str, now: Millis) -> bool {
        self.inbox.get(key).is_some_and(|until| *until > now)
    }

    /// It is handled, and known until then.
    pub fn see(&mut self, key: String, until: Millis) {
        self.inbox.insert(key, until);
    }
}

//! What was handled, in the store that is nothing but memory.

use super::memory::owned;
use super::{Memory, Millis};

impl Memory {
    /// Whether that was handled before, for a tenant or for nobody.
    pub fn has_seen(&self, key: &str, tenant: Option<&str>, now: Millis) -> bool {
        self.inbox
            .get(&owned(key, tenant))
            .is_some_and(|until| *until > now)
    }

    /// It is handled, and known until then.
    pub fn see(&mut self, key: &str, tenant: Option<&str>, until: Millis) {
        self.inbox.insert(owned(key, tenant), until);
    }
}

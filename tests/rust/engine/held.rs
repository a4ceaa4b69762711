//! Who holds which undo actions, and which are released: the part of the ledger about scopes.

use std::collections::BTreeSet;

/// The undo actions an event or a unit holds: alone, and together with others.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held {
    pub(crate) orders: Vec<u64>,
    shared: Vec<usize>,
}

impl Held {
    pub(crate) const fn alone(orders: Vec<u64>) -> Self {
        let shared = Vec::new();
        Self { orders, shared }
    }

    pub(crate) fn of(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        for part in parts {
            whole.orders.extend(part.orders);
            whole.shared.extend(part.shared);
        }
        whole
    }
}

/// What several outputs of one unit hold together.
#[derive(Debug)]
struct Shared {
    held: Held,
    holders: usize,
    /// Holders that have ended well: when all have, it has.
    well: usize,
}

/// All that is held together, and what was released.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    shared: Vec<Shared>,
    pub(crate) released: BTreeSet<u64>,
}

impl Holding {
    /// What ended well is released, and what it held together with others once they all have.
    pub(crate) fn release(&mut self, held: Held) {
        self.released.extend(held.orders);
        for id in held.shared {
            let shared = &mut self.shared[id];
            shared.well += 1;
            if shared.well == shared.holders {
                let held = std::mem::take(&mut shared.held);
                self.release(held);
            }
        }
    }

    /// The actions that what is held together with others stands on.
    pub(crate) fn below(&self, held: &Held) -> BTreeSet<u64> {
        let mut below = BTreeSet::new();
        let mut shared = held.shared.clone();
        while let Some(id) = shared.pop() {
            let held = &self.shared[id].held;
            below.extend(&held.orders);
            shared.extend(&held.shared);
        }
        below
    }

    /// What each of `holders` outputs holds.
    pub(crate) fn share(&mut self, held: Held, holders: usize) -> Held {
        if holders < 2 {
            return held;
        }
        if let (true, &[id]) = (held.orders.is_empty(), &held.shared[..]) {
            self.shared[id].holders += holders - 1;
            return held;
        }
        let id = self.shared.len();
        self.shared.push(Shared {
            held,
            holders,
            well: 0,
        });
        Held {
            orders: Vec::new(),
            shared: vec![id],
        }
    }
}

//! The engine, driven by a for-loop on a hand-moved clock: no Python, no thread, no waiting.
//!
//! - `engine/driver.rs`: the driver, and the types it puts into the engine.
//! - `engine/options.rs`: short names for the options the tests vary.
//! - `engine/windows.rs`: the rows W.
//! - `engine/batches.rs`: items that are handed out together.
//! - `engine/branches.rs`: the rows B, T and the order and number of what is in flight.
//! - `engine/turns.rs`: whose turn it is: the row B12.
//! - `engine/full.rs`: branches that are full, or throttled: the rows B5, B6, B11.
//! - `engine/lives.rs`: how branches live and end: the rows B4, B14, C19.
//! - `engine/between.rs`: what comes between two of their generations.
//! - `engine/generations.rs`: how one of their generations ends, and what its end leaves alone.
//! - `engine/beats.rs`: which of them hear that nothing has come: the row G3.
//! - `engine/fallen.rs`: those whose units fail for good: the row B7.
//! - `engine/streaks.rs`: when branches have failed often enough: the row B7.
//! - `engine/outcomes.rs`: the rows R.
//! - `engine/overdue.rs`: the rows R about timeouts.
//! - `engine/rollbacks.rs`: the rows C.
//! - `engine/scopes.rs`: more of them: scopes held by several outputs, and finalizers.
//! - `engine/whole.rs`: those about what is undone with a branch, or with the run as a whole.
//! - `engine/policies.rs`: those about how a rollback goes about it.
//! - `engine/unrun.rs`: those about what never has a turn.
//! - `engine/endings.rs`: the rows of all letters about end, drain and abort.
//! - `engine/copies.rs`: courses of copies: the rows T7 and B1.
//! - `engine/failures.rs`: failures and the operators behind them, at random, too.
//! - `engine/conservation.rs`: random pipelines, of which nothing is ever lost.
//! - `engine/draws.rs`: what they are drawn from; `engine/world.rs`: one such pipeline, and what
//!   happens to it.
//! - `engine/model.rs`: what must come of it, written down without the engine; `engine/deeds.rs`:
//!   of its undo actions; `engine/held.rs`: who holds them.

#[path = "engine/batches.rs"]
mod batches;
#[path = "engine/beats.rs"]
mod beats;
#[path = "engine/between.rs"]
mod between;
#[path = "engine/branches.rs"]
mod branches;
#[path = "engine/conservation.rs"]
mod conservation;
#[path = "engine/copies.rs"]
mod copies;
#[path = "engine/deeds.rs"]
mod deeds;
#[path = "engine/draws.rs"]
mod draws;
#[path = "engine/driver.rs"]
mod driver;
#[path = "engine/endings.rs"]
mod endings;
#[path = "engine/failures.rs"]
mod failures;
#[path = "engine/fallen.rs"]
mod fallen;
#[path = "engine/full.rs"]
mod full;
#[path = "engine/generations.rs"]
mod generations;
#[path = "engine/held.rs"]
mod held;
#[path = "engine/lives.rs"]
mod lives;
#[path = "engine/model.rs"]
mod model;
#[path = "engine/options.rs"]
mod options;
#[path = "engine/outcomes.rs"]
mod outcomes;
#[path = "engine/overdue.rs"]
mod overdue;
#[path = "engine/policies.rs"]
mod policies;
#[path = "engine/rollbacks.rs"]
mod rollbacks;
#[path = "engine/scopes.rs"]
mod scopes;
#[path = "engine/streaks.rs"]
mod streaks;
#[path = "engine/turns.rs"]
mod turns;
#[path = "engine/unrun.rs"]
mod unrun;
#[path = "engine/watching.rs"]
mod watching;
#[path = "engine/whole.rs"]
mod whole;
#[path = "engine/windows.rs"]
mod windows;
#[path = "engine/world.rs"]
mod world;

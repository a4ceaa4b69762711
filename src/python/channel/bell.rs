//! How one who reads many channels is told which of them have something.
//!
//! It stands in the line of each, once, and stays there until it is called: a channel that has
//! nothing costs nothing, whatever the others do.

use std::sync::Mutex;

use pyo3::prelude::*;

use super::super::run::locked;

/// What the channels ring.
///
/// The garbage collector is not told of the one who sleeps here: the channels hold the bell, too,
/// and none of them could say so without being counted twice. One who waits is alive.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<Rung>);

#[derive(Debug, Default)]
struct Rung {
    /// The numbers of the channels that have rung and were not looked at.
    numbers: Vec<usize>,
    /// Wakes who sleeps.
    sleeper: Option<Py<PyAny>>,
}

impl Bell {
    /// A channel has something, or its end; returns what wakes who sleeps.
    pub(super) fn ring(&self, number: usize) -> Option<Py<PyAny>> {
        let mut rung = locked(&self.0);
        rung.numbers.push(number);
        rung.sleeper.take()
    }

    /// The channels to be looked at.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut locked(&self.0).numbers)
    }

    /// Whether there are any.
    pub(crate) fn has_rung(&self) -> bool {
        !locked(&self.0).numbers.is_empty()
    }

    /// Has `sleeper` called at the next ring; not if there was one already, which is told.
    pub(crate) fn sleep(&self, sleeper: Py<PyAny>) -> Result<(), Py<PyAny>> {
        let mut rung = locked(&self.0);
        if !rung.numbers.is_empty() {
            return Err(sleeper);
        }
        let before = rung.sleeper.replace(sleeper);
        drop(rung);
        drop(before);
        Ok(())
    }

    /// Sleeps no more.
    pub(crate) fn awake(&self) -> Option<Py<PyAny>> {
        locked(&self.0).sleeper.take()
    }
}

//! Tenant keys: taken from items by name without a Python call, and turned into branch numbers.
//!
//! Python's `__hash__` and `__eq__` run here, so nothing here is done while the engine is
//! borrowed.

use anabranch_core::branch::BranchId;
use hashbrown::{HashMap, HashSet};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Bits of the identity cache's index: 2048 entries, 32 KiB. A hundred tenants meet in it hardly
/// ever, a thousand now and then.
const CACHE_BITS: u32 = 11;

/// Where the key at `address` is cached. Fibonacci hashing (Knuth, The Art of Computer
/// Programming, volume 3, 6.4): objects lie at regular distances, and their low bits repeat.
const fn slot(address: usize) -> usize {
    ((address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - CACHE_BITS)) as usize
}

/// Where the key of an item is.
#[derive(Debug)]
pub(crate) enum KeyOf {
    /// `item[key]`.
    Item(Py<PyAny>),
    /// `item.key`.
    Attribute(Py<PyString>),
}

impl KeyOf {
    /// The key of an item.
    ///
    /// # Errors
    /// Whatever the look-up raises: `KeyError`, `AttributeError`, `TypeError`.
    pub(crate) fn get<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        match self {
            Self::Item(name) => {
                let name = name.bind(py);
                if let Ok(dict) = item.cast_exact::<PyDict>() {
                    dict.get_item(name)?
                        .ok_or_else(|| PyKeyError::new_err((name.clone().unbind(),)))
                } else {
                    item.get_item(name)
                }
            }
            Self::Attribute(name) => item.getattr(name.bind(py)),
        }
    }
}

/// The branches of a run, by key.
#[derive(Debug)]
pub(crate) struct Router {
    /// Keys by identity. Only objects in `keys` are entered: they live as long as the router, so
    /// that no other object can take their address.
    cache: Box<[(usize, BranchId)]>,
    /// `str` keys, which compare by their text.
    texts: HashMap<Box<str>, BranchId>,
    /// All other keys, which compare as Python says.
    others: Py<PyDict>,
    /// The first object seen of each key; the trunk, number 0, has none.
    keys: Vec<Py<PyAny>>,
    /// Branches that are to be opened again before something comes to them.
    asleep: HashSet<BranchId>,
    /// Branches that refuse what comes to them.
    refusing: HashSet<BranchId>,
}

/// Who is refused because there are as many branches as there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beyond {
    /// Keys that never had a branch.
    pub(crate) strangers: bool,
    /// Keys whose branch is evicted.
    pub(crate) sleepers: bool,
}

impl Beyond {
    /// Whether anybody is.
    pub(crate) const fn refuses(self) -> bool {
        self.strangers || self.sleepers
    }
}

/// What was opened for a key.
pub(crate) enum Opened {
    /// A branch of its own.
    Own(BranchId),
    /// One that it shares with others, and the key of that one if it is new.
    Shared(BranchId, Option<Py<PyAny>>),
}

impl Router {
    pub(crate) fn new(py: Python<'_>) -> Self {
        Self {
            cache: vec![(0, BranchId::TRUNK); 1 << CACHE_BITS].into_boxed_slice(),
            ..Self::empty(py)
        }
    }

    /// What stands in the place of a router that somebody else has for the moment.
    pub(crate) fn empty(py: Python<'_>) -> Self {
        Self {
            cache: Box::default(),
            texts: HashMap::new(),
            others: PyDict::new(py).unbind(),
            keys: Vec::new(),
            asleep: HashSet::new(),
            refusing: HashSet::new(),
        }
    }

    /// A branch has begun to refuse what comes to it, or has ceased to.
    pub(crate) fn turn(&mut self, branch: BranchId, refuses: bool) {
        if refuses {
            self.refusing.insert(branch);
            // It opens again when it is told to, and not for what comes.
            self.asleep.remove(&branch);
        } else {
            self.refusing.remove(&branch);
        }
    }

    /// Whether some branch refuses what comes.
    pub(crate) fn has_refusing(&self) -> bool {
        !self.refusing.is_empty()
    }

    /// Whether this branch refuses what comes.
    pub(crate) fn is_refusing(&self, branch: BranchId) -> bool {
        self.refusing.contains(&branch)
    }

    /// Whether what comes for a key is refused; `beyond` tells of those without an open branch.
    ///
    /// # Errors
    /// What `__hash__` and `__eq__` raise.
    pub(crate) fn refuses(&self, key: &Bound<'_, PyAny>, beyond: Beyond) -> PyResult<bool> {
        Ok(match self.find(key)? {
            Some(branch) => {
                self.is_refusing(branch) || (beyond.sleepers && self.asleep.contains(&branch))
            }
            None => beyond.strangers,
        })
    }

    /// The key of a branch.
    pub(crate) fn key(&self, branch: BranchId) -> Option<&Py<PyAny>> {
        self.keys.get((branch.0 as usize).checked_sub(1)?)
    }

    /// The branch is to be opened again before something comes to it.
    pub(crate) fn sleep(&mut self, branch: BranchId) {
        if let Some(key) = self.key(branch) {
            let address = key.as_ptr() as usize;
            if let Some(entry) = self.cache.get_mut(slot(address))
                && entry.1 == branch
            {
                *entry = (0, BranchId::TRUNK);
            }
        }
        self.asleep.insert(branch);
    }

    /// The branch has been opened again.
    pub(crate) fn wake(&mut self, branch: BranchId) {
        self.asleep.remove(&branch);
    }

    /// The branch of a key, if it was ever seen.
    ///
    /// # Errors
    /// What `__hash__` and `__eq__` raise.
    pub(crate) fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<BranchId>> {
        let text = key.cast::<PyString>().ok();
        match text.as_ref().and_then(|text| text.to_str().ok()) {
            Some(text) => Ok(self.texts.get(text).copied()),
            None => match self.others.bind(key.py()).get_item(key)? {
                Some(number) => Ok(Some(BranchId(number.extract()?))),
                None => Ok(None),
            },
        }
    }

    /// The branch of a key; `open` makes one for a key that was never seen, or opens again the one
    /// it is given.
    ///
    /// # Errors
    /// What `__hash__` and `__eq__` raise: `TypeError` for an unhashable key; what `open` does.
    #[inline]
    pub(crate) fn branch(
        &mut self,
        key: &Bound<'_, PyAny>,
        open: impl FnOnce(Option<BranchId>) -> PyResult<Opened>,
    ) -> PyResult<BranchId> {
        let address = key.as_ptr() as usize;
        if let Some(&(cached, branch)) = self.cache.get(slot(address))
            && cached == address
        {
            return Ok(branch);
        }
        self.look_up(key, open)
    }

    fn look_up(
        &mut self,
        key: &Bound<'_, PyAny>,
        open: impl FnOnce(Option<BranchId>) -> PyResult<Opened>,
    ) -> PyResult<BranchId> {
        let py = key.py();
        let branch = match self.find(key)? {
            Some(branch) if self.asleep.contains(&branch) => {
                open(Some(branch))?;
                self.wake(branch);
                branch
            }
            Some(branch) => branch,
            None => match open(None)? {
                Opened::Own(branch) => {
                    self.enter(key, branch)?;
                    branch
                }
                Opened::Shared(branch, new) => {
                    if let Some(key) = new {
                        self.enter(key.bind(py), branch)?;
                    }
                    return Ok(branch);
                }
            },
        };
        let address = key.as_ptr() as usize;
        if self
            .key(branch)
            .is_some_and(|first| first.as_ptr() as usize == address)
            && let Some(entry) = self.cache.get_mut(slot(address))
        {
            *entry = (address, branch);
        }
        Ok(branch)
    }

    /// Takes in the key of the branch that was opened last.
    fn enter(&mut self, key: &Bound<'_, PyAny>, branch: BranchId) -> PyResult<()> {
        let text = key.cast::<PyString>().ok();
        match text.as_ref().and_then(|text| text.to_str().ok()) {
            Some(text) => {
                self.texts.insert(text.into(), branch);
            }
            None => self.others.bind(key.py()).set_item(key, branch.0)?,
        }
        self.keys.push(key.clone().unbind());
        Ok(())
    }
}

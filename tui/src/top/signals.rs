//! Signals that are sent to this process, as flags; each rings the bell.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::{pipe, unregister};

use super::Bell;

/// Signals that were sent to this process.
pub(super) struct Signals {
    ended: Vec<(i32, Arc<AtomicBool>)>,
    pub(super) stopped: Arc<AtomicBool>,
    pub(super) continued: Arc<AtomicBool>,
    registered: Vec<signal_hook::SigId>,
}

impl Signals {
    pub(super) fn register(bell: &Bell) -> io::Result<Self> {
        let mut registered = Vec::new();
        let mut flag = |signal| -> io::Result<Arc<AtomicBool>> {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: whoever hears the bell must see it.
            registered.push(signal_hook::flag::register(signal, Arc::clone(&flag))?);
            registered.push(pipe::register(signal, bell.0.try_clone()?)?);
            Ok(flag)
        };
        let ended = [SIGTERM, SIGHUP, SIGINT]
            .into_iter()
            .map(|signal| Ok((signal, flag(signal)?)))
            .collect::<io::Result<_>>()?;
        let (stopped, continued) = (flag(SIGTSTP)?, flag(SIGCONT)?);
        // Its flag is not needed: whoever looks for input hears of the new size.
        flag(SIGWINCH)?;
        Ok(Self {
            ended,
            stopped,
            continued,
            registered,
        })
    }

    /// The signal that ends this process, if one was sent.
    pub(super) fn ending(&self) -> Option<i32> {
        let sent = self.ended.iter().find(|(_, it)| it.load(Ordering::SeqCst));
        sent.map(|(signal, _)| *signal)
    }

    pub(super) fn unregister(self) {
        for id in self.registered {
            unregister(id);
        }
    }
}

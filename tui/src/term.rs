//! The terminal: taken, and given back as it was, whatever happens.
//!
//! It is given back when the dashboard ends, when it panics, and when it is stopped by a signal.
//! The panic hook is this module's for just as long: other code lives in the same process.

use std::io::{self, IsTerminal, Stdout, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};

/// What is drawn on.
pub type Screen = Terminal<CrosstermBackend<io::BufWriter<Stdout>>>;

/// A terminal that was taken.
#[derive(Debug)]
pub struct Terminals {
    /// What is drawn on.
    pub screen: Screen,
    taken: Arc<AtomicBool>,
}

impl Terminals {
    fn enter(taken: Arc<AtomicBool>) -> io::Result<Self> {
        take(&taken)?;
        let backend = CrosstermBackend::new(io::BufWriter::new(io::stdout()));
        let screen = Terminal::new(backend).inspect_err(|_| give_back(&taken))?;
        Ok(Self { screen, taken })
    }

    /// Takes the mouse, or leaves it to the terminal.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub fn mouse(&mut self, on: bool) -> io::Result<()> {
        let out = self.screen.backend_mut();
        if on {
            execute!(out, EnableMouseCapture)
        } else {
            execute!(out, DisableMouseCapture)
        }
    }

    /// Puts a text on the clipboard of the terminal, if it lets that be done (OSC 52).
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let out = self.screen.backend_mut();
        write!(out, "\x1b]52;c;{}\x07", base64(text.as_bytes()))?;
        out.flush()
    }

    /// Gives the terminal back for a while.
    pub fn leave(&mut self) {
        give_back(&self.taken);
    }

    /// Takes the terminal again: after [`Terminals::leave`], or after something else has had it.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn again(&mut self) -> io::Result<()> {
        // Whoever had it meanwhile may have changed its mode: what is remembered must be set anew.
        disable_raw_mode()?;
        take(&self.taken)?;
        self.redraw()
    }

    /// Forgets what is on the screen: the next frame draws all of it.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub fn redraw(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask where the cursor is, and wait for an answer that may never
        // come. Of the two buffers one is empty; swapping empties the other.
        ratatui::backend::Backend::clear(self.screen.backend_mut())?;
        self.screen.swap_buffers();
        Ok(())
    }
}

fn take(taken: &AtomicBool) -> io::Result<()> {
    enable_raw_mode()?;
    taken.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    queue!(out, EnterAlternateScreen, EnableBracketedPaste)?;
    out.flush()
}

/// Gives the terminal back, once. There is nobody to tell if that fails: it may be gone.
fn give_back(taken: &AtomicBool) {
    if taken.swap(false, Ordering::SeqCst) {
        let _ = execute!(
            io::stdout(),
            DisableMouseCapture,
            DisableBracketedPaste,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

/// Takes the terminal, runs `work`, and gives the terminal back. If `work` panics, the terminal is
/// back before the message of the panic is written, and the panic goes on.
///
/// # Errors
/// If there is no terminal, or what `work` returns.
pub fn run<T>(work: impl FnOnce(&mut Terminals) -> io::Result<T>) -> io::Result<T> {
    if !io::stdout().is_terminal() {
        return Err(io::Error::other("the output is no terminal"));
    }
    let taken = Arc::new(AtomicBool::new(false));
    let before: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> = panic::take_hook().into();
    let (hook, own, flag) = (
        Arc::clone(&before),
        thread::current().id(),
        Arc::clone(&taken),
    );
    panic::set_hook(Box::new(move |info| {
        // What panics on another thread must not write into the screen; who waits for that thread
        // sees that it is gone.
        if thread::current().id() == own {
            give_back(&flag);
            hook(info);
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut terminals = Terminals::enter(Arc::clone(&taken))?;
        let result = work(&mut terminals);
        terminals.leave();
        result
    }));
    give_back(&taken);
    drop(panic::take_hook());
    panic::set_hook(Box::new(move |info| before(info)));
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let part = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                text.push(DIGITS[index as usize].into());
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_terminals_expect_them() {
        let table = [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("äß?>", "w6TDnz8+"),
        ];
        for (text, encoded) in table {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}

//! The dashboard's loop: it waits for one thing to happen, takes in what else has, and draws.
//!
//! Nothing is drawn while nothing happens, and at most 30 times a second, but for what somebody waits
//! for: a key is answered at once. The loop itself waits
//! for nothing but the keyboard, signals and the bell that the actors ring; it never waits for a
//! process that is looked at, nor for a disk.
//!
//! - `top/signals.rs`: what other processes send it.
//! - `top/world.rs`: actors, and what they tell.

mod signals;
mod world;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ratatui::crossterm::event::{self, Event as Input};
use signal_hook::low_level::emulate_default_handler;

use self::signals::Signals;
use self::world::{Keyboard, World};
use crate::Exit;
use crate::app::{self, Begin, Cmd, Model, Msg};
use crate::session::At;
use crate::term::{self, Terminals};
use crate::view;

/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(33);

/// Tells which processes there are: what each is called, and where it answers.
pub type Find = Box<dyn FnMut() -> Vec<(String, At)> + Send>;

/// What is shown.
pub enum Source {
    /// Processes that run: these, and those that are found.
    Live {
        /// Processes that were named.
        targets: Vec<(String, At)>,
        /// Finds others, if wanted.
        find: Option<Find>,
        /// Where everything is written down, if it is.
        record: Option<PathBuf>,
    },
    /// A recording, so many times as fast.
    Recording(PathBuf, f64),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Live { targets, .. } => f.debug_tuple("Live").field(targets).finish(),
            Self::Recording(path, speed) => {
                f.debug_tuple("Recording").field(path).field(speed).finish()
            }
        }
    }
}

/// How a dashboard is begun.
#[derive(Debug)]
pub struct Options {
    /// What is shown.
    pub source: Source,
    /// How it looks and what it may do.
    pub begin: Begin,
    /// Whether the mouse is taken from the start.
    pub mouse: bool,
    /// What is told at first, such as what is wrong with the configuration.
    pub warnings: Vec<String>,
    /// Whether to panic once the first frame is drawn: for tests.
    pub panic: bool,
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the dashboard's clock")]
pub fn clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

/// A moment, for waits.
#[expect(clippy::disallowed_methods, reason = "this is the dashboard's clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Tells the loop that something waits to be taken in.
#[derive(Debug, Clone)]
pub struct Bell(Arc<UnixStream>);

impl Bell {
    /// A bell, and what hears it.
    ///
    /// # Errors
    /// If no pair of sockets can be had.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok((Self(Arc::new(bell)), ear))
    }

    /// Rings. One that was not heard yet is enough, so a full pipe is no error.
    pub fn ring(&self) {
        let _ = (&*self.0).write(&[0]);
    }
}

/// Shows the dashboard until it is left, and gives the terminal back as it was.
///
/// A signal that ends processes gives the terminal back and then ends this one as it would have.
///
/// # Errors
/// If there is no terminal, or a recording cannot be read or begun.
pub fn top(options: Options) -> io::Result<Exit> {
    let mut world = World::new(&options)?;
    let signals = Signals::register(&world.bell)?;
    let result = term::run(|terminals| run(options, &mut world, &signals, terminals));
    drop(world);
    let ending = signals.ending();
    signals.unregister();
    if let Some(signal) = ending {
        emulate_default_handler(signal)?;
    }
    result
}

fn run(
    options: Options,
    world: &mut World,
    signals: &Signals,
    terminals: &mut Terminals,
) -> io::Result<Exit> {
    let size = terminals.screen.size()?;
    let Options {
        source,
        begin,
        mouse,
        warnings,
        panic,
    } = options;
    let mut model = Model::new(begin, (size.width, size.height), clock());
    if !warnings.is_empty() {
        model.warn(warnings.join("; "));
    }
    model.mouse = mouse;
    terminals.mouse(model.mouse)?;
    world.start(source, &mut model)?;
    let keyboard = Keyboard::open()?;
    let mut drawn: Option<Instant> = None;
    loop {
        world.wait(&keyboard, timeout(&model, drawn))?;
        let mut cmds = Vec::new();
        if signals.ending().is_some() {
            return Ok(Exit::Ok);
        }
        if signals.continued.swap(false, Ordering::SeqCst) {
            terminals.again()?;
            terminals.mouse(model.mouse)?;
            model.dirty = true;
        }
        while event::poll(Duration::ZERO)? {
            if let Some(message) = message(event::read()?) {
                cmds.extend(app::update(&mut model, message, clock()));
            }
        }
        // Keys come first, and no flood of news keeps them waiting for long.
        for message in world.news() {
            cmds.extend(app::update(&mut model, message, clock()));
        }
        if app::wake(&model).is_some_and(|at| at <= clock()) {
            cmds.extend(app::update(&mut model, Msg::Wake, clock()));
        }
        if signals.stopped.swap(false, Ordering::SeqCst) {
            cmds.push(Cmd::Suspend);
        }
        let rested = drawn.is_none_or(|at| instant().saturating_duration_since(at) >= FRAME);
        if model.dirty && (rested || model.urgent) {
            let size = terminals.screen.size()?;
            if model.size != (size.width, size.height) {
                let resized = Msg::Resize(size.width, size.height);
                cmds.extend(app::update(&mut model, resized, clock()));
            }
            cmds.extend(app::prepare(&mut model));
            terminals.screen.draw(|frame| view::draw(&model, frame))?;
            model.dirty = false;
            model.urgent = false;
            drawn = Some(instant());
            assert!(!panic, "on purpose, by --panic");
        }
        for cmd in cmds {
            if matches!(cmd, Cmd::Quit) {
                return Ok(Exit::Ok);
            }
            world.carry_out(cmd, &mut model, terminals)?;
        }
    }
}

/// How long nothing needs to be done, unless something happens; `None` for ever.
fn timeout(model: &Model, drawn: Option<Instant>) -> Option<Duration> {
    if model.dirty && model.urgent {
        return Some(Duration::ZERO);
    }
    if model.dirty {
        let rested = drawn.map(|at| instant().saturating_duration_since(at));
        return Some(rested.map_or(Duration::ZERO, |rested| FRAME.saturating_sub(rested)));
    }
    let at = app::wake(model)?;
    Some(Duration::from_millis(at.saturating_sub(clock())))
}

fn message(input: Input) -> Option<Msg> {
    match input {
        Input::Key(key) => Some(Msg::Key(key)),
        Input::Mouse(mouse) => Some(Msg::Mouse(mouse)),
        Input::Paste(text) => Some(Msg::Paste(text)),
        Input::Resize(width, height) => Some(Msg::Resize(width, height)),
        Input::FocusGained | Input::FocusLost => None,
    }
}

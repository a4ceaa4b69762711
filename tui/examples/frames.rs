//! How long a frame takes, and how much memory the dashboard holds: 10 000 branches whose numbers all
//! change between two frames, each with a history of five minutes.
//!
//! `cargo run --release --example frames` prints it; `-- --json 120x40` prints one size for programs.

#[path = "../tests/world/mod.rs"]
mod world;

use std::io::Write;
use std::time::{Duration, Instant};

use anabranch_tui::app;
use anabranch_tui::view;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use world::World;

const BRANCHES: usize = 10_000;
const FRAMES: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = match arguments.as_slice() {
        [json, size] if json == "--json" => {
            let (width, height) = size.split_once('x').ok_or("a size is WIDTHxHEIGHT")?;
            Some((width.parse()?, height.parse()?))
        }
        _ => None,
    };
    let all = [(80, 24), (120, 40), (300, 100)];
    for (width, height) in chosen.map_or(all.to_vec(), |size| vec![size]) {
        let mut world = World::empty((width, height), false);
        world.found(&["orders-svc"]);
        world.seconds = 60;
        world.orders((0..BRANCHES).map(|it| format!("tenant-{it:05}")));
        // Four more minutes, so that each history is full.
        for _ in 0..4 {
            world.later(BRANCHES, 60);
        }
        world.press("\n");
        let mut terminal = Terminal::new(TestBackend::new(width, height))?;
        let mut times = Vec::with_capacity(FRAMES);
        let mut spent = Vec::with_capacity(FRAMES);
        for _ in 0..FRAMES {
            world.later(BRANCHES, 1);
            let (begun, before) = (now(), cpu());
            app::prepare(&mut world.model);
            terminal.draw(|frame| view::draw(&world.model, frame))?;
            times.push(begun.elapsed());
            spent.push(cpu().saturating_sub(before));
        }
        if chosen.is_some() {
            let list = |times: &[Duration]| {
                let micros: Vec<_> = times.iter().map(|it| it.as_micros().to_string()).collect();
                micros.join(",")
            };
            let (micros, cpu, resident) = (list(&times), list(&spent), resident());
            writeln!(
                out,
                "{{\"micros\":[{micros}],\"cpu\":[{cpu}],\"resident\":\"{resident}\"}}"
            )?;
            continue;
        }
        times.sort_unstable();
        spent.sort_unstable();
        let [p50, p99] = [50, 99].map(|share| FRAMES * share / 100 - 1);
        writeln!(
            out,
            "{width}x{height}: a frame of {BRANCHES} branches takes {:?} (p50), {:?} (p99), {:?} of a \
             core (p99); {} MiB resident",
            times[p50],
            times[p99],
            spent[p99],
            resident()
        )?;
    }
    Ok(())
}

/// What this thread has had of a core so far: other processes are no part of it.
fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is a measurement")]
    Instant::now()
}

/// Memory of this process, in MiB, where the system tells.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.map_or_else(|| "?".to_owned(), |it| (it / 1024).to_string())
}

//! A line server on loopback, with the driver of its inbox and its clients, for tests.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anabranch::inbox::Inbox;
use anabranch::source::owner::Delivery;
use anabranch::source::tcp::{TcpOptions, TcpSource, Until};
use anabranch_core::channel::Taken;
use anabranch_core::framing::{Decode, Event, Framing};
use tokio::runtime::{Builder, Runtime};

/// Far longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn options() -> TcpOptions {
    TcpOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        framing: Framing::Lf,
        max_line: 64 * 1024,
        max_connections: 16,
        idle_timeout: None,
        decode: Decode::Utf8 { lossy: false },
        until: Until::Drain,
    }
}

/// A server, and the driver of its inbox.
pub(crate) struct Server {
    pub(crate) source: TcpSource,
    pub(crate) inbox: Arc<Inbox<Delivery>>,
    pub(crate) ears: Receiver<()>,
    // Last: the tasks of the source go first.
    pub(crate) runtime: Runtime,
}

impl Server {
    pub(crate) fn start(options: TcpOptions) -> Self {
        Self::with_inbox(100_000, options)
    }

    pub(crate) fn with_inbox(capacity: usize, options: TcpOptions) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (bell, ears) = sync_channel(1);
        let inbox = Arc::new(Inbox::new(
            capacity,
            Box::new(move || _ = bell.try_send(())),
        ));
        let source = TcpSource::start(runtime.handle(), options, Arc::clone(&inbox))
            .expect("a port on loopback is free");
        Self {
            source,
            inbox,
            ears,
            runtime,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.source.address()).expect("the server listens");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a deadline");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Client(stream)
    }

    /// The next delivery; none at the end.
    pub(crate) fn next(&self) -> Option<Delivery> {
        loop {
            match self.inbox.take() {
                Taken::Item(delivery) => return Some(delivery),
                Taken::Ended => return None,
                Taken::Empty => self.ears.recv_timeout(DEADLINE).expect("a wake-up in time"),
            }
        }
    }

    /// At least `count` events, as they are written.
    pub(crate) fn events(&self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let delivery = self.next().expect("more events before the end");
            events.extend(written(&delivery));
        }
        events
    }

    /// All events up to the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next())
            .flat_map(|delivery| written(&delivery))
            .collect()
    }

    pub(crate) fn close(self) {
        assert!(self.source.close(DEADLINE), "all tasks have gone");
        assert!(
            self.source.close(Duration::ZERO),
            "closing again does nothing"
        );
        assert_eq!(self.rest(), Vec::<String>::new());
    }
}

pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }

    /// Says no more, as a client does that is done.
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).expect("still connected");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("connected")
    }

    /// Waits until the server has closed the connection.
    pub(crate) fn gone(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0, "the server says nothing"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }

    /// Breaks the connection off: RST instead of FIN.
    pub(crate) fn reset(self, runtime: &Runtime) {
        let _entered = runtime.enter();
        self.0.set_nonblocking(true).expect("a socket");
        let stream = tokio::net::TcpStream::from_std(self.0).expect("a runtime");
        stream.set_zero_linger().expect("a socket");
    }
}

/// Lines as they are, failures as `!code bytes`.
pub(crate) fn written(delivery: &Delivery) -> Vec<String> {
    assert!(
        !delivery.lines.is_empty(),
        "an empty delivery wakes for nothing"
    );
    let write = |event: Event<'_>| match event {
        Event::Line(line) => line.escape_ascii().to_string(),
        Event::Failed(failure) => format!("!{} {}", failure.code, failure.bytes),
    };
    delivery.lines.iter().map(write).collect()
}

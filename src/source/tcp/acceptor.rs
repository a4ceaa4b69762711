//! Accepting clients, without a busy loop when the system refuses.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// The pause after a failed accept: the first, and the longest it doubles to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Takes clients from the listening socket, with a pause whenever the system will not give one: out
/// of file descriptors, say, `accept` fails at once, time after time, while the client still waits.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// The same socket, to ask the system directly.
    socket: StdListener,
    /// No accept before this time.
    paused: Option<Instant>,
    /// How long the next pause will be.
    next_pause: Duration,
}

impl Acceptor {
    pub(super) fn new(socket: StdListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        Ok(Self {
            listener,
            socket,
            paused: None,
            next_pause: PAUSE.0,
        })
    }

    /// The next client; none when a pause is over, or has just become necessary: look again.
    ///
    /// # Cancel safety
    /// No client is lost and no pause forgotten.
    pub(super) async fn accept(&mut self) -> Option<(TcpStream, SocketAddr)> {
        if let Some(until) = self.paused {
            sleep_until(until).await;
            self.paused = None;
            return None;
        }
        if let Ok(client) = self.listener.accept().await {
            self.next_pause = PAUSE.0;
            return Some(client);
        }
        self.pause();
        None
    }

    /// The client that is in the backlog at this moment, if there is one. Asks the system: the
    /// runtime may not have heard of it yet.
    pub(super) fn waiting(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.socket.accept() {
            Ok((stream, address)) => {
                stream.set_nonblocking(true)?;
                Ok(Some((TcpStream::from_std(stream)?, address)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// No accept for a while, and twice as long the next time.
    pub(super) fn pause(&mut self) {
        self.paused = Some(Instant::now() + self.next_pause);
        self.next_pause = PAUSE.1.min(self.next_pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failing `accept` must not become a busy loop; no test can make the system run out of
    /// descriptors without failing others, so the pause is entered by hand.
    #[tokio::test]
    async fn a_failed_accept_pauses_longer_each_time_until_one_succeeds() -> io::Result<()> {
        let mut acceptor = Acceptor::new(StdListener::bind("127.0.0.1:0")?)?;
        let _client = std::net::TcpStream::connect(acceptor.socket.local_addr()?)?;
        acceptor.pause();
        let over = acceptor.paused;
        assert!(over.is_some());
        assert!(acceptor.accept().await.is_none(), "look again");
        assert!(
            over <= Some(Instant::now()),
            "not before the pause was over"
        );
        assert_eq!(acceptor.next_pause, PAUSE.0 * 2);
        for _ in 0..20 {
            acceptor.pause();
        }
        assert_eq!(acceptor.next_pause, PAUSE.1);
        acceptor.paused = None;
        assert!(acceptor.accept().await.is_some());
        assert_eq!(acceptor.next_pause, PAUSE.0);
        Ok(())
    }
}

//! Reading from a socket.

use std::io;

use anabranch_core::framing::End;
use tokio::net::TcpStream;

/// The most that one read takes from a socket, in bytes.
const READ: usize = 64 * 1024;

/// What a read brought.
pub(super) enum Read {
    /// Bytes.
    Some,
    /// Nothing after all: look again.
    None,
    /// The end.
    End(End),
}

/// Waits for bytes, and appends those that are there to `chunk`.
///
/// # Cancel safety
/// Cancelled it has read nothing.
pub(super) async fn read(stream: &TcpStream, chunk: &mut Vec<u8>) -> Read {
    // An error shows again, and in more detail, in the read.
    let _ = stream.readable().await;
    chunk.reserve(READ);
    match stream.try_read_buf(chunk) {
        Ok(0) => Read::End(End::Clean),
        Ok(_) => Read::Some,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            // A thousand silent clients should not hold a thousand buffers.
            *chunk = Vec::new();
            Read::None
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Read::End(End::Cut("connection reset"))
        }
        Err(_) => Read::End(End::Cut("connection lost")),
    }
}

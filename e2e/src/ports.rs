//! Free ports on 127.0.0.1.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Ports are taken from here: below the range from which the kernel takes them for outgoing connections, so that
/// none is taken between the choice and the server's start.
const FIRST: u32 = 10_000;
const LAST: u32 = 32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on which nothing listens. No other call in this process gives the same one, and processes that run at
/// the same time begin at different places.
///
/// # Errors
/// Every port of the range is in use.
pub fn free_port() -> Result<u16> {
    let start = std::process::id().wrapping_mul(97);
    for _ in FIRST..LAST {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % (LAST - FIRST);
        let port = u16::try_from(port)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {FIRST} and {LAST} is free on 127.0.0.1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_give_different_ports() {
        assert_ne!(free_port().unwrap(), free_port().unwrap());
    }
}

//! What a proxy wrote into its access log.

use std::path::Path;

use anyhow::{Context, Result};
use percent_encoding::percent_decode_str;

/// What the harness itself asks for until a server is ready.
const READINESS: &str = "/healthcheck";

/// One request that a proxy served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// HTTP method.
    pub method: String,
    /// Status of the answer.
    pub status: u16,
    /// Path and query, percent-encoded.
    pub path: String,
}

/// Reads the lines that the template `access {method} {status_int} {path}` made, whatever stands before them.
pub(super) fn read(log: &Path) -> Result<Vec<Access>> {
    let text = std::fs::read_to_string(log).with_context(|| log.display().to_string())?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Access> {
    let (_, entry) = line.split_once("access ")?;
    let mut words = entry.split_whitespace();
    let (method, status, path) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    // The log encodes the path once more.
    let path = percent_decode_str(path).decode_utf8().ok()?.into_owned();
    (path != READINESS).then(|| Access {
        method: method.to_owned(),
        status,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_request_is_read_back() {
        let access = parse("internal: access GET 200 /v1/AUTH_test/c/o%2520x (txn: tx1)").unwrap();
        assert_eq!((access.method.as_str(), access.status), ("GET", 200));
        assert_eq!(access.path, "/v1/AUTH_test/c/o%20x");
    }

    #[test]
    fn other_lines_are_passed_over() {
        assert_eq!(parse("proxy-server: Started child 12"), None);
    }
}

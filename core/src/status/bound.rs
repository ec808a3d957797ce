//! A status stays small, whatever agents and policies say: thousands of them are watched. Lengths are those of JSON, where a
//! control character takes six bytes.

use onespace_crds::SyncPolicyStatus;
use sha2::{Digest as _, Sha256};

/// No status is as long as this, in bytes.
pub const LONGEST: usize = 4096;

/// How long texts may be that others have written, and how many there may be.
struct Room {
    message: usize,
    object: usize,
    rows: usize,
    capabilities: usize,
}

const fn room(message: usize, object: usize, rows: usize, capabilities: usize) -> Room {
    Room {
        message,
        object,
        rows,
        capabilities,
    }
}

/// The first that is small enough is taken. Objects' names give way before the messages that say what to do.
const ROOMS: [Room; 9] = [
    room(1024, 256, 5, 32),
    room(512, 256, 5, 32),
    room(512, 128, 5, 32),
    room(256, 128, 5, 32),
    room(256, 64, 5, 16),
    room(128, 64, 5, 16),
    room(128, 32, 3, 8),
    room(64, 32, 1, 0),
    room(32, 0, 0, 0),
];

/// Shortens what is too long.
pub(crate) fn bound(status: &mut SyncPolicyStatus) {
    for room in ROOMS {
        shorten(status, &room);
        if serde_json::to_vec(status).is_ok_and(|json| json.len() < LONGEST) {
            return;
        }
    }
}

fn shorten(status: &mut SyncPolicyStatus, room: &Room) {
    for condition in &mut status.conditions {
        cut_in_place(&mut condition.message, room.message);
    }
    if let Some(failed) = &mut status.failed {
        failed.latest.truncate(room.rows);
        for row in &mut failed.latest {
            cut_in_place(&mut row.object, room.object);
        }
    }
    if let Some(remote) = &mut status.remote {
        remote.capabilities.truncate(room.capabilities);
    }
    // Never an empty one: see [`super::status`].
    status
        .remote
        .take_if(|remote| remote.capabilities.is_empty() && remote.probed_at.is_none());
}

fn cut_in_place(text: &mut String, bytes: usize) {
    if json_length(text) > bytes {
        *text = cut(text, bytes);
    }
}

/// The beginning of a text, of at most so many bytes.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut length = 0;
    let fits = |character: &char| {
        length += json_length_of(*character);
        length <= bytes
    };
    text.chars().take_while(fits).collect()
}

/// A text of at most so many bytes. One that is longer ends in a hash of it, so that two that differ still do.
pub(super) fn in_short(text: &str, bytes: usize) -> String {
    if json_length(text) <= bytes {
        return text.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(text)[..8]);
    let rest = bytes.saturating_sub(hash.len() + '…'.len_utf8());
    format!("{}…{hash}", cut(text, rest))
}

/// How many bytes a text takes in JSON, but for its quotation marks.
pub(crate) fn json_length(text: &str) -> usize {
    text.chars().map(json_length_of).sum()
}

fn json_length_of(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..'\u{20}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_as_long_as_in_json() {
        for text in ["plain", "é…", "\"\\\n\r\t", "\u{1}\u{8}\u{c}\u{1f}\u{7f}\0"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(json_length(text), json.len() - 2, "{text:?}");
        }
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("a\u{1}b", 7), "a\u{1}");
    }

    #[test]
    fn long_texts_that_differ_at_their_ends_differ_when_they_are_shortened() {
        let long = |end: &str| in_short(&("é".repeat(400) + end), 512);
        assert_ne!(long("one"), long("two"));
        assert!(long("one").len() <= 512);
        assert_eq!(in_short("s3://bucket/prefix", 512), "s3://bucket/prefix");
    }
}

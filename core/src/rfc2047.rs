//! RFC 2047 encoded words: how text travels in a header that holds printable ASCII only.
//!
//! A value is encoded as a whole or not at all, and only a value that is encoded words from one end to the other is
//! decoded. So text that merely contains something like an encoded word stays what it is.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// The longest encoded word that the RFC allows.
const MAX_WORD: usize = 75;

/// Padding is written, and not insisted on.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value as it goes over the wire. It stays as it is when it is printable ASCII that every server returns
/// unchanged and that [`decode`] leaves alone; otherwise it becomes encoded words, as Python's `email.header` writes
/// them: whichever of Q and B is shorter, each at most 75 characters long and of whole characters.
#[must_use]
pub fn encode(value: &str) -> Cow<'_, str> {
    let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    // Spaces at the ends are cut off by HTTP, several in a row are folded when some servers check a signature.
    let spaces = value.starts_with(' ') || value.ends_with(' ') || value.contains("  ");
    if printable && !spaces && decode(value) == value {
        return Cow::Borrowed(value);
    }
    let q_length: usize = value.bytes().map(q_width).sum();
    let b_length = value.len().div_ceil(3) * 4;
    if b_length < q_length {
        let room = (MAX_WORD - "=?UTF-8?B??=".len()) / 4 * 3;
        words(value, 'B', room, char::len_utf8, |text| STANDARD.encode(text))
    } else {
        let room = MAX_WORD - "=?UTF-8?Q??=".len();
        let width = |c: char| c.encode_utf8(&mut [0; 4]).bytes().map(q_width).sum();
        words(value, 'Q', room, width, q_encode)
    }
    .into()
}

/// Cuts the text between characters into words of at most `room`, and writes each.
fn words(
    value: &str,
    encoding: char,
    room: usize,
    width: impl Fn(char) -> usize,
    write: impl Fn(&str) -> String,
) -> String {
    let word = |text: &str| format!("=?UTF-8?{encoding}?{}?=", write(text));
    let mut words = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, c) in value.char_indices() {
        let width = width(c);
        if used + width > room {
            words.push(word(&value[start..at]));
            (start, used) = (at, 0);
        }
        used += width;
    }
    words.push(word(&value[start..]));
    words.join(" ")
}

/// How many characters a byte takes in Q.
const fn q_width(byte: u8) -> usize {
    if is_q_safe(byte) || byte == b' ' { 1 } else { 3 }
}

const fn is_q_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'*' | b'+' | b'-' | b'/')
}

fn q_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' ' => "_".to_owned(),
            _ if is_q_safe(byte) => char::from(byte).to_string(),
            _ => format!("={byte:02X}"),
        })
        .collect()
}

/// The text that a value of the wire stands for. Anything that is not encoded words throughout, is in a charset other
/// than UTF-8, ASCII and Latin-1, or would hold control characters, stands for itself.
#[must_use]
pub fn decode(value: &str) -> Cow<'_, str> {
    match decode_words(value) {
        Some(text) if !text.chars().any(is_forbidden) => Cow::Owned(text),
        _ => Cow::Borrowed(value),
    }
}

/// Whether no header value can hold this character. A tab is allowed.
#[must_use]
pub const fn is_forbidden(c: char) -> bool {
    c.is_ascii_control() && c != '\t'
}

fn decode_words(value: &str) -> Option<String> {
    let mut text = String::new();
    // The bytes of neighbours in one charset belong together: some writers cut within a character.
    let mut run: Option<(Charset, Vec<u8>)> = None;
    for word in value.split_ascii_whitespace() {
        let (charset, bytes) = decode_word(word)?;
        match &mut run {
            Some((of_run, run)) if *of_run == charset => run.extend(bytes),
            _ => {
                if let Some((charset, bytes)) = run.replace((charset, bytes)) {
                    text.push_str(&charset.decode(bytes)?);
                }
            }
        }
    }
    let (charset, bytes) = run?;
    text.push_str(&charset.decode(bytes)?);
    Some(text)
}

fn decode_word(word: &str) -> Option<(Charset, Vec<u8>)> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    let bytes = match encoding {
        "Q" | "q" => q_decode(text)?,
        "B" | "b" => LENIENT.decode(text).ok()?,
        _ => return None,
    };
    Some((Charset::named(charset)?, bytes))
}

fn q_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                let mut decoded = [0];
                hex::decode_to_slice(digits, &mut decoded).ok()?;
                decoded[0]
            }
            _ => byte,
        });
    }
    Some(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Charset {
    /// ASCII is part of it.
    Utf8,
    Latin1,
}

impl Charset {
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" => Some(Self::Utf8),
            "iso-8859-1" => Some(Self::Latin1),
            _ => None,
        }
    }

    fn decode(self, bytes: Vec<u8>) -> Option<String> {
        match self {
            Self::Utf8 => String::from_utf8(bytes).ok(),
            Self::Latin1 => Some(bytes.into_iter().map(char::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ascii_goes_over_the_wire_as_it_is() {
        for value in [
            "",
            "bar",
            "a b",
            "x=?UTF-8?Q?y?=",
            "=?UTF-8?Q?y?= z",
            "=?utf-7?Q?y?=",
            "\"~!",
        ] {
            assert_eq!(encode(value), value);
            assert_eq!(decode(value), value);
        }
    }

    #[test]
    fn other_text_becomes_the_shorter_of_the_two_encodings() {
        assert_eq!(encode("naïve value"), "=?UTF-8?Q?na=C3=AFve_value?=");
        assert_eq!(encode("日本語"), "=?UTF-8?B?5pel5pys6Kqe?=");
    }

    #[test]
    fn what_the_wire_would_change_is_encoded() {
        for (value, encoded) in [
            (" a", "=?UTF-8?Q?_a?="),
            ("a ", "=?UTF-8?Q?a_?="),
            ("a  b", "=?UTF-8?Q?a__b?="),
            ("a\tb", "=?UTF-8?B?YQli?="),
            ("=?UTF-8?Q?y?=", "=?UTF-8?B?PT9VVEYtOD9RP3k/PQ==?="),
        ] {
            assert_eq!(encode(value), encoded);
            assert_eq!(decode(encoded), value);
        }
    }

    #[test]
    fn what_python_and_s3_write_is_read() {
        for (encoded, value) in [
            ("=?utf-8?q?na=C3=AFve_value?=", "naïve value"),
            ("=?utf-8?b?5pel5pys6Kqe?=", "日本語"),
            ("=?UTF-8?B?5pel5pys6Kqe?= =?UTF-8?Q?_x?=", "日本語 x"),
            ("=?utf-8?b?5pel5pys6Kqe?=\n =?utf-8?b?5pel?=", "日本語日"),
            ("=?iso-8859-1?q?=E9?= =?us-ascii?q?a?=", "éa"),
            // Cut within a character, and without padding.
            ("=?UTF-8?B?5pc?= =?UTF-8?Q?=A5?=", "日"),
            ("=?UTF-8?Q??=", ""),
        ] {
            assert_eq!(decode(encoded), value, "{encoded}");
        }
    }

    #[test]
    fn a_word_that_cannot_be_read_stands_for_itself() {
        for value in [
            "=?UTF-8?Q?=C3?=",
            "=?UTF-8?Q?=G0?=",
            "=?UTF-8?Q?=4?=",
            "=?UTF-8?B?!?=",
            "=?UTF-8?X?a?=",
            "=?UTF-8?Q?a?b?=",
            "=?UTF-8?Q?a=0D=0AX-Injected:_1?=",
            "=?=",
            "=??=",
        ] {
            assert_eq!(decode(value), value);
            assert_eq!(encode(value), value);
        }
    }

    proptest! {
        #[test]
        fn every_text_survives(value in r"[ -~\t]{0,200}|[ äß日€-]{0,200}|\PC*") {
            let encoded = encode(&value);
            prop_assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(&encoded), value.as_str());
            if encoded != value {
                prop_assert!(encoded.split(' ').all(|word| word.len() <= MAX_WORD));
            }
        }

        #[test]
        fn nothing_panics(value in r"(=\?(UTF-8|utf8|x)?\?[QB]?\?[A-Z0-9=_?]{0,9}\?=[ \n]?){0,4}|\PC*") {
            let _ = decode(&value);
        }
    }
}

//! An error's own words, and those of all that it comes from.

use std::error::Error;

/// The error and its causes, the outermost first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Their words in one line. A cause that the error before it has told already is not told again.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in chain(error) {
        let more = error.to_string();
        if text.is_empty() {
            text = more;
        } else if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Told {
        #[error("no answer")]
        Silently(#[source] io::Error),
        #[error("no answer: {0}")]
        Aloud(#[source] io::Error),
    }

    #[test]
    fn every_cause_is_told_once() {
        let cause = || io::Error::other("it is gone");
        assert_eq!(causes(&Told::Silently(cause())), "no answer: it is gone");
        assert_eq!(causes(&Told::Aloud(cause())), "no answer: it is gone");
        assert_eq!(chain(&Told::Aloud(cause())).count(), 2);
    }
}

//! Bringing one name of the remote in step with Swift: what a look at the remote, and then what Swift holds, lead to.

use std::time::Duration;

use super::{Held, Pause, Stop};
use crate::local::SwiftObject;
use crate::mark::{Mark, MarkError};
use crate::metadata;
use crate::planted::{Fault, planted};
use crate::reason::{HoldReason, PauseReason};
use crate::remote::{RemoteHeaders, RemoteObject};
use crate::row::{Row, RowKind};
use crate::timestamp::Timestamp;

/// Whether a row's object may be sent without a look at the remote first.
///
/// Unseen work needs a remote that honours `If-None-Match: *`: a refusal is then the look. A row with a metadata
/// change has most likely been copied before, and a body that is too large to be kept would be read twice: for both
/// a look is cheaper.
#[must_use]
pub fn may_go_unseen(row: &Row, trust: Trust, put_if_absent: bool, replay_limit: u64) -> bool {
    put_if_absent
        && matches!(row.kind, RowKind::Object)
        && row.size <= replay_limit
        && match trust {
            Trust::KnownAbsent => true,
            Trust::Fresh => row.time.newest() == row.time.data,
            Trust::None | Trust::Doubted => false,
        }
}

/// What is known about a name before anything was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A complete listing of the remote lacked it.
    KnownAbsent,
    /// The row is new, and its database was followed without a gap since before it.
    Fresh,
    /// Nothing.
    None,
    /// It was held: even a mark that says that all is done is not enough.
    Doubted,
}

/// Whether a row is young enough to be fresh: its newest time is less than the slack ago.
#[must_use]
pub fn is_young(row: &Row, slack: Duration, now: Timestamp) -> bool {
    now.duration_since(row.time.newest()) < slack
}

/// Checks that what Swift answered is at least as new as the row (its own object, not a link's target) and in clear
/// text.
///
/// # Errors
/// [`Stop`] with what to do: an object server is behind, or the endpoint is not what it must be.
pub fn check_fresh(row: &Row, object: &SwiftObject) -> Result<Times, Stop> {
    let (Some(data_time), Some(time)) = (object.data_time, object.time) else {
        return Err(Stop::Pause(Pause {
            reason: PauseReason::InternalEndpointRequired,
            code: None,
            message: "its answers lack X-Backend-Data-Timestamp, so it is a public proxy; \
                      set --internal-endpoint to a proxy without gatekeeper"
                .into(),
            retry_after: None,
        }));
    };
    check_clear(object)?;
    let data_time = if planted(Fault::T3ForT1) { time } else { data_time };
    let behind = data_time < row.time.data || time < row.time.newest();
    if behind {
        return Err(Stop::Hold(Held::new(
            HoldReason::SourceBehind,
            "an object server answered with an older state than the container's row; it is asked again",
        )));
    }
    Ok(Times { data_time, time })
}

/// Checks that a body is not ciphertext.
///
/// # Errors
/// [`Stop::Pause`]: an endpoint that does not decrypt never does.
pub fn check_clear(object: &SwiftObject) -> Result<(), Stop> {
    if !object.undecrypted {
        return Ok(());
    }
    Err(Stop::Pause(Pause {
        reason: PauseReason::EndpointCannotDecrypt,
        code: None,
        message:
            "its answers are ciphertext; add the cluster's keymaster and encryption filters to the internal \
                  endpoint"
                .into(),
        retry_after: None,
    }))
}

/// The two times of a usable answer, from which a mark is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Time of the body.
    pub data_time: Timestamp,
    /// Time of the newest change of any kind.
    pub time: Timestamp,
}

/// What was found at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The object, if any.
    pub object: Option<RemoteObject>,
    /// Its mark, if it has one.
    pub mark: Option<Mark>,
}

impl Look {
    /// Reads what a HEAD brought.
    ///
    /// # Errors
    /// [`Held`] when the object is another source's or its mark cannot be read: it is never touched.
    pub fn read(object: Option<RemoteObject>, source: &str) -> Result<Self, Held> {
        let mark = match object
            .as_ref()
            .and_then(|object| Mark::read(&object.headers.metadata))
        {
            None => None,
            Some(Ok(mark)) => Some(mark),
            Some(Err(error)) => return Err(damaged(&error)),
        };
        let foreign = mark.as_ref().is_some_and(|mark| mark.source != source);
        if foreign && !planted(Fault::ForeignMark) {
            return Err(Held::new(
                HoldReason::ForeignCopy,
                "the object at this key carries the mark of another account, container or object; give the policies \
                 prefixes that do not meet, or remove that object",
            ));
        }
        Ok(Self { object, mark })
    }

    /// Whether the object's length and ETag are those that its mark promises; a broken upload's are not.
    fn is_whole(&self, size: u64) -> bool {
        match (&self.object, &self.mark) {
            (Some(object), Some(mark)) => {
                object.size == size && (!self.has_md5_etag() || object.etag == mark.etag)
            }
            _ => false,
        }
    }

    /// Plain ETags are 32 hex digits; those of multipart uploads have a suffix, those under KMS mean nothing: lengths
    /// and the mark have to do.
    fn has_md5_etag(&self) -> bool {
        let plain = |etag: &str| etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        self.object
            .as_ref()
            .is_some_and(|object| !object.opaque_etag && plain(&object.etag))
    }
}

fn damaged(error: &MarkError) -> Held {
    Held::new(
        HoldReason::ForeignCopy,
        format!(
            "the object at this key has a damaged onespace mark ({error}); remove the object to have it copied again"
        ),
    )
}

/// What to ask of Swift after a look at the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: the mark and the length show that this row's state, or a newer one, is there.
    Nothing,
    /// Headers: the body is most likely in step.
    Headers,
    /// The body, too.
    Body,
}

/// Decides by the row alone what to read. Only a marked copy can settle a row without asking Swift.
#[must_use]
pub fn after_look(row: &Row, look: &Look) -> Ask {
    let Some(object) = &look.object else {
        return Ask::Body;
    };
    if matches!(row.kind, RowKind::Symlink { .. }) || is_dynamic(object) {
        // The row knows the link, or the manifest; what is copied is what it leads to.
        return Ask::Headers;
    }
    match &look.mark {
        Some(mark) if mark.data_time == row.time.data && look.is_whole(row.size) => {
            if mark.time >= row.time.newest() {
                Ask::Nothing
            } else {
                Ask::Headers
            }
        }
        Some(mark) if mark.data_time > row.time.data => Ask::Headers,
        Some(_) => Ask::Body,
        None if object.size == row.size && row.etag.as_deref().is_none_or(|etag| etag == object.etag) => {
            Ask::Headers
        }
        None => Ask::Body,
    }
}

/// Whether this is the copy of a dynamic large object.
#[must_use]
pub fn is_dynamic(object: &RemoteObject) -> bool {
    object.headers.metadata.contains_key("x-object-manifest")
}

/// What to do once Swift's object is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The remote is in step.
    InStep,
    /// An unmarked copy is in step: remember it as ours.
    Adopt,
    /// Body in step, headers not: replace them.
    Repost,
    /// Send the body over what was looked at.
    Send,
    /// Leave it and wait.
    Hold(Held),
}

/// How the remote's body is compared with Swift's.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// ETag that an unencrypted remote has for this body, where it can be known: Swift's own, or a multipart one.
    pub etag: Option<&'a str>,
    /// Swift's ETag, as the mark records it.
    pub source_etag: &'a str,
    /// Length of the body.
    pub size: u64,
    /// A symlink led to it: its headers may have changed while the times, which are the link's, did not.
    pub linked: bool,
}

/// Compares what the remote holds with what Swift holds. `slack` is how far clocks may be apart.
#[must_use]
pub fn after_read(
    look: &Look,
    times: Times,
    expected: Expected<'_>,
    headers: &RemoteHeaders,
    slack: Duration,
) -> Step {
    let Some(object) = &look.object else {
        return Step::Send;
    };
    let same_etag = expected
        .etag
        .is_some_and(|etag| etag.eq_ignore_ascii_case(&object.etag));
    let same_length = object.size == expected.size;
    let Some(mark) = &look.mark else {
        return match (
            same_etag && same_length,
            object.last_modified > times.time.plus(slack),
        ) {
            (true, _) if metadata::in_step(headers, &object.headers) => Step::Adopt,
            (true, false) => Step::Repost,
            (false, false) => Step::Send,
            (_, true) => Step::Hold(Held::new(
                HoldReason::RemoteNewer,
                "an object that onespace did not write lies at this key, differs, and is newer than Swift's; move it \
                 away to have Swift's object copied, or delete Swift's",
            )),
        };
    };
    let newer = (mark.data_time, mark.time) > (times.data_time, times.time);
    if newer && !planted(Fault::NewerOverwritten) {
        return Step::Hold(Held::new(
            HoldReason::SourceBehind,
            "the copy at the remote is newer than what Swift answered; Swift is asked again",
        ));
    }
    let opaque = !look.has_md5_etag() || expected.etag.is_none();
    let body_in_step =
        same_length && (same_etag || (opaque && mark.etag.eq_ignore_ascii_case(expected.source_etag)));
    if !body_in_step {
        return Step::Send;
    }
    let marked_now = (mark.data_time, mark.time) == (times.data_time, times.time);
    match (metadata::in_step(headers, &object.headers), marked_now) {
        (true, true) => Step::InStep,
        (false, true) if !expected.linked => Step::Hold(altered()),
        (_, _) => Step::Repost,
    }
}

/// After headers were replaced: whether the remote has them now. One that alters them is named, and not asked again.
///
/// # Errors
/// [`Held`] when they are not what was sent.
pub fn after_repost(sent: &RemoteHeaders, found: &RemoteObject) -> Result<(), Held> {
    if metadata::in_step(sent, &found.headers) {
        Ok(())
    } else {
        Err(altered())
    }
}

fn altered() -> Held {
    Held::new(
        HoldReason::MetadataAltered,
        "the remote returns other metadata than were stored with this object; shorten or rename them, or exclude the \
         object",
    )
}

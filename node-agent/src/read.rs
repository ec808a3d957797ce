//! Reading the object that a row speaks of: its freshness, a symlink's target, the proof that it is gone.

use onespace_core::local::SwiftObject;
use onespace_core::plan::copy::{Times, check_clear, check_fresh};
use onespace_core::plan::{Absence, Held, Stop, absence};
use onespace_core::reason::HoldReason;
use onespace_core::row::{Row, RowKind};
use onespace_core::timestamp::Timestamp;
use onespace_stores::body::Body;
use onespace_stores::remote::Remote;
use onespace_stores::source::{Answer, ObjectPath, Primaries, Read, Source};

use crate::clock::Clock;
use crate::stop::from_source;
use crate::work::Work;

/// What Swift holds for a row.
#[derive(Debug)]
pub enum Subject {
    /// The object (of a symlink: its target, with the link's times).
    Object {
        /// Where the object itself is.
        path: ObjectPath,
        /// Its headers.
        object: Box<SwiftObject>,
        /// Times for the mark.
        times: Times,
        /// The body, if it was asked for.
        body: Option<Body>,
    },
    /// It is proven to be gone.
    Gone,
}

/// What is wanted of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Headers.
    Headers,
    /// Headers and body.
    Body,
}

impl<S: Source, R: Remote, C: Clock> Work<S, R, C> {
    /// Reads the object of a row. What is behind it is asked for once more, the other way: through all replicas; or
    /// without that, for Swift chooses among all replicas by the body's time alone, and so prefers a handoff that missed
    /// a change of metadata to the replicas that have it. Whichever answer is as new as the row will do.
    pub(crate) async fn read(
        &self,
        container: &str,
        row: &Row,
        want: Want,
        newest: bool,
    ) -> Result<Subject, Stop> {
        match self.read_once(container, row, want, newest).await {
            Err(Stop::Hold(held)) if held.reason == HoldReason::SourceBehind => {
                self.read_once(container, row, want, !newest).await
            }
            result => result,
        }
    }

    async fn read_once(&self, container: &str, row: &Row, want: Want, newest: bool) -> Result<Subject, Stop> {
        let own = self.path(container, &row.name);
        let read = Read {
            policy_index: Some(row.policy_index),
            newest,
            ..Read::default()
        };
        let RowKind::Symlink {
            target,
            target_account,
            target_etag,
            ..
        } = &row.kind
        else {
            return match self.ask(&own, &read, want).await? {
                Ok(Answered { object, body }) => {
                    let times = check_fresh(row, &object)?;
                    Ok(Subject::Object {
                        path: own,
                        object,
                        times,
                        body,
                    })
                }
                Err(time) => self.prove_gone(&own, row, time).await,
            };
        };
        let link = match self
            .source
            .head(
                &own,
                &Read {
                    link_itself: true,
                    ..read
                },
            )
            .await
            .map_err(|error| from_source(&error))?
        {
            Answer::Found(link) => link,
            Answer::Absent(time) => return self.prove_gone(&own, row, time).await,
            Answer::Changed => return Err(changed()),
        };
        let times = check_fresh(row, &link)?;
        let (container, object) = target.split_once('/').ok_or_else(|| {
            Held::new(
                HoldReason::SymlinkDangling,
                "the link's target has no object name",
            )
        })?;
        let path = ObjectPath {
            account: target_account.clone().unwrap_or_else(|| own.account.clone()),
            container: container.to_owned(),
            object: object.to_owned(),
        };
        // The target is another name: neither the row's policy nor its times apply to it.
        let Ok(Answered { object, body }) = self
            .ask(
                &path,
                &Read {
                    newest,
                    ..Read::default()
                },
                want,
            )
            .await?
        else {
            return Err(dangling("the link's target is not there; it is looked for again"));
        };
        check_clear(&object)?;
        if target_etag.as_ref().is_some_and(|etag| *etag != object.etag) {
            return Err(dangling(
                "the link names another version of its target; it is looked at again",
            ));
        }
        Ok(Subject::Object {
            path,
            object,
            times,
            body,
        })
    }

    /// The object, or the time of the 404.
    async fn ask(
        &self,
        path: &ObjectPath,
        read: &Read,
        want: Want,
    ) -> Result<Result<Answered, Option<Timestamp>>, Stop> {
        let answer = match want {
            Want::Headers => match self
                .source
                .head(path, read)
                .await
                .map_err(|error| from_source(&error))?
            {
                Answer::Found(object) => Answer::Found((object, None)),
                Answer::Absent(time) => Answer::Absent(time),
                Answer::Changed => Answer::Changed,
            },
            Want::Body => match self
                .source
                .get(path, read)
                .await
                .map_err(|error| from_source(&error))?
            {
                Answer::Found((object, body)) => Answer::Found((object, Some(body))),
                Answer::Absent(time) => Answer::Absent(time),
                Answer::Changed => Answer::Changed,
            },
        };
        match answer {
            Answer::Found((object, body)) => Ok(Ok(Answered {
                object: Box::new(object),
                body,
            })),
            Answer::Absent(time) => Ok(Err(time)),
            Answer::Changed => Err(changed()),
        }
    }

    /// A 404 is believed when it shows a tombstone as new as the row, or when every primary object server, asked
    /// directly, lacks the object.
    async fn prove_gone(
        &self,
        path: &ObjectPath,
        row: &Row,
        time: Option<Timestamp>,
    ) -> Result<Subject, Stop> {
        if absence(row.time.data, time) == Absence::Proven
            || self.all_primaries_lack(path, row.policy_index).await?
        {
            return Ok(Subject::Gone);
        }
        Err(Held::new(
            HoldReason::SourceUnproven,
            "Swift answers 404 without a tombstone, and not every object server that should have the object says \
             that it is gone; they are asked again",
        )
        .into())
    }

    /// Whether every primary object server says that it lacks the object.
    pub(crate) async fn all_primaries_lack(
        &self,
        path: &ObjectPath,
        policy_index: u32,
    ) -> Result<bool, Stop> {
        let answer = self
            .source
            .primaries(path, policy_index)
            .await
            .map_err(|error| from_source(&error))?;
        Ok(answer == Primaries::AllLack)
    }
}

struct Answered {
    object: Box<SwiftObject>,
    body: Option<Body>,
}

fn changed() -> Stop {
    Held::new(
        HoldReason::ChangedMeanwhile,
        "the object changed while it was read; it is read again",
    )
    .into()
}

fn dangling(message: &str) -> Stop {
    Held::new(HoldReason::SymlinkDangling, message).into()
}

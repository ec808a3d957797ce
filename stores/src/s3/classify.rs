//! What an error of the remote means: one pure table.
//!
//! The remote's own text is never passed on: a status, or a code from a closed list, is all that leaves this file.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::dns::ResolveDnsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use onespace_core::reason::{HoldReason, PauseReason};

use crate::egress::AddressDenied;
use crate::remote::RemoteError;

/// What was asked of the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// HeadObject.
    Head,
    /// GetObject.
    Get,
    /// PutObject.
    Put,
    /// Everything of a multipart upload: create, part, part copy, complete, abort.
    Multipart,
    /// CopyObject.
    Copy,
    /// DeleteObject, DeleteObjects.
    Delete,
    /// ListObjects, both versions.
    List,
}

/// How a request failed below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `--deny-remote` forbids the address.
    AddressDenied,
    /// The name has no address.
    Unresolved,
    /// No connection.
    Refused,
    /// No TLS session.
    Tls,
    /// Nothing came in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The answer is not S3.
    Unintelligible,
    /// The request cannot be put together from these values.
    Unrepresentable,
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The remote answered.
    Answer {
        /// HTTP status. May be 200: S3 reports late errors in the body.
        status: u16,
        /// The code in the body; HEAD has none.
        code: Option<String>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It did not.
    Transport(Transport),
}

impl Failure {
    /// The status, where the remote answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            Self::Transport(_) => None,
        }
    }

    /// The code, where the remote gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Answer { code, .. } => code.as_deref(),
            Self::Transport(_) => None,
        }
    }

    /// Reads the SDK's error.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(service) => Self::answer(service.raw(), service.err().code()),
            SdkError::ResponseError(response) => {
                let raw = response.raw();
                if raw.status().is_success() {
                    Self::Transport(transport_cause(error).unwrap_or(Transport::Unintelligible))
                } else {
                    Self::answer(raw, None)
                }
            }
            SdkError::TimeoutError(_) => Self::Transport(Transport::Timeout),
            SdkError::ConstructionFailure(_) => Self::Transport(Transport::Unrepresentable),
            SdkError::DispatchFailure(dispatch) => {
                let fallback = if dispatch.is_timeout() {
                    Transport::Timeout
                } else {
                    Transport::Broken
                };
                Self::Transport(transport_cause(error).unwrap_or(fallback))
            }
            _ => Self::Transport(transport_cause(error).unwrap_or(Transport::Broken)),
        }
    }

    fn answer(raw: &HttpResponse, code: Option<&str>) -> Self {
        Self::Answer {
            status: raw.status().as_u16(),
            code: code.map(str::to_owned),
            retry_after: raw
                .headers()
                .get("retry-after")
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }
}

/// The first cause in the chain that we know. A denied address is found below the resolver's own error.
fn transport_cause(error: &(dyn Error + 'static)) -> Option<Transport> {
    if chain(error).any(<dyn Error>::is::<AddressDenied>) {
        return Some(Transport::AddressDenied);
    }
    chain(error).find_map(|cause| {
        if cause.is::<rustls::Error>() {
            return Some(Transport::Tls);
        }
        if cause.is::<ResolveDnsError>() {
            return Some(Transport::Unresolved);
        }
        match cause.downcast_ref::<std::io::Error>()?.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable => Some(Transport::Refused),
            ErrorKind::TimedOut => Some(Transport::Timeout),
            _ => None,
        }
    })
}

/// The next error down; an `io::Error`'s payload counts, which `source` alone skips.
fn source_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        Some(payload) => Some(payload),
        None => error.source(),
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| source_of(*cause))
}

/// What one known code means.
#[derive(Clone, Copy)]
enum Meaning {
    Pause(PauseReason, &'static str),
    Hold(HoldReason, &'static str),
    ConditionFailed,
    NotFound,
    Altered,
}

const KEYS: &str = "check the access key and the secret key";
const TOKEN: &str = "the session token is not valid any more; renew the credentials";
const REGION: &str = "the remote expects another region or endpoint; check target.region and target.endpoint";
const DENIED: &str =
    "the credentials may not do this; grant them reading, writing, listing and deleting in the bucket";
const KMS: &str = "the encryption key cannot be used; check target.encryption and the key's own permissions";
const BUCKET: &str = "there is no such bucket; check target.bucket, or create it";
const FULL: &str = "the remote has no room; raise its quota or free space";
const SLOWER: &str = "the remote asks for fewer requests; it is asked again later";
const SERVER: &str = "the remote has failed; it is asked again later";
const LATER: &str = "the remote did not answer in time; it is asked again later";
const UNSUPPORTED: &str =
    "the remote does not know this request; check target.encryption, storageClass and requestChecksums";
const NAME: &str = "the remote cannot hold a key of this form; rename the object";
const HEADERS: &str = "the remote cannot hold these metadata; make them shorter";
const TOO_LARGE: &str = "the object is larger than the remote takes";

/// Every code that is understood, hence every code that may be shown.
const CODES: &[(&str, Meaning)] = {
    use HoldReason as H;
    use Meaning::{Altered, ConditionFailed, Hold, NotFound, Pause};
    use PauseReason as P;
    &[
        ("InvalidAccessKeyId", Pause(P::InvalidCredentials, KEYS)),
        ("SignatureDoesNotMatch", Pause(P::InvalidCredentials, KEYS)),
        ("AuthFailure", Pause(P::InvalidCredentials, KEYS)),
        ("InvalidSecurity", Pause(P::InvalidCredentials, KEYS)),
        ("NotSignedUp", Pause(P::InvalidCredentials, KEYS)),
        ("ExpiredToken", Pause(P::InvalidCredentials, TOKEN)),
        ("InvalidToken", Pause(P::InvalidCredentials, TOKEN)),
        ("TokenRefreshRequired", Pause(P::InvalidCredentials, TOKEN)),
        (
            "RequestTimeTooSkewed",
            Pause(
                P::InvalidCredentials,
                "this machine's clock and the remote's differ; correct them",
            ),
        ),
        (
            "RequestExpired",
            Pause(
                P::InvalidCredentials,
                "this machine's clock and the remote's differ; correct them",
            ),
        ),
        (
            "AuthorizationHeaderMalformed",
            Pause(P::InvalidCredentials, REGION),
        ),
        ("PermanentRedirect", Pause(P::UnexpectedAnswer, REGION)),
        ("TemporaryRedirect", Pause(P::UnexpectedAnswer, REGION)),
        ("Redirect", Pause(P::UnexpectedAnswer, REGION)),
        (
            "IllegalLocationConstraintException",
            Pause(P::UnexpectedAnswer, REGION),
        ),
        ("AccessDenied", Pause(P::AccessDenied, DENIED)),
        ("AllAccessDisabled", Pause(P::AccessDenied, DENIED)),
        ("AccountProblem", Pause(P::AccessDenied, DENIED)),
        ("UserSuspended", Pause(P::AccessDenied, DENIED)),
        ("KMS.AccessDeniedException", Pause(P::AccessDenied, KMS)),
        ("KMS.DisabledException", Pause(P::AccessDenied, KMS)),
        ("KMS.KMSInvalidStateException", Pause(P::AccessDenied, KMS)),
        ("KMS.NotFoundException", Pause(P::AccessDenied, KMS)),
        ("KMS.ThrottlingException", Pause(P::SlowDown, SLOWER)),
        ("NoSuchBucket", Pause(P::NoSuchBucket, BUCKET)),
        ("InvalidBucketName", Pause(P::NoSuchBucket, BUCKET)),
        ("QuotaExceeded", Pause(P::QuotaExceeded, FULL)),
        ("ServiceQuotaExceededException", Pause(P::QuotaExceeded, FULL)),
        ("XMinioAdminBucketQuotaExceeded", Pause(P::QuotaExceeded, FULL)),
        ("XMinioStorageFull", Pause(P::QuotaExceeded, FULL)),
        ("InsufficientCapacity", Pause(P::QuotaExceeded, FULL)),
        ("SlowDown", Pause(P::SlowDown, SLOWER)),
        ("SlowDownRead", Pause(P::SlowDown, SLOWER)),
        ("SlowDownWrite", Pause(P::SlowDown, SLOWER)),
        ("Throttling", Pause(P::SlowDown, SLOWER)),
        ("ThrottlingException", Pause(P::SlowDown, SLOWER)),
        ("TooManyRequests", Pause(P::SlowDown, SLOWER)),
        ("TooManyRequestsException", Pause(P::SlowDown, SLOWER)),
        ("RequestLimitExceeded", Pause(P::SlowDown, SLOWER)),
        ("BandwidthLimitExceeded", Pause(P::SlowDown, SLOWER)),
        ("InternalError", Pause(P::ServerError, SERVER)),
        ("ServiceUnavailable", Pause(P::ServerError, SERVER)),
        ("XMinioServerNotInitialized", Pause(P::ServerError, SERVER)),
        ("RequestTimeout", Pause(P::Timeout, LATER)),
        (
            "IncompleteBody",
            Pause(
                P::Unreachable,
                "the connection to the remote broke; it is tried again later",
            ),
        ),
        ("NotImplemented", Pause(P::UnexpectedAnswer, UNSUPPORTED)),
        ("MethodNotAllowed", Pause(P::UnexpectedAnswer, UNSUPPORTED)),
        ("InvalidStorageClass", Pause(P::UnexpectedAnswer, UNSUPPORTED)),
        (
            "InvalidEncryptionAlgorithmError",
            Pause(P::UnexpectedAnswer, UNSUPPORTED),
        ),
        ("MissingContentLength", Pause(P::UnexpectedAnswer, UNSUPPORTED)),
        ("PreconditionFailed", ConditionFailed),
        ("ConditionalRequestConflict", ConditionFailed),
        ("OperationAborted", ConditionFailed),
        ("InvalidRange", ConditionFailed),
        ("NoSuchKey", NotFound),
        ("NoSuchUpload", NotFound),
        ("NotFound", NotFound),
        ("KeyTooLongError", Hold(H::NameNotRepresentable, NAME)),
        ("KeyTooLong", Hold(H::NameNotRepresentable, NAME)),
        ("InvalidObjectName", Hold(H::NameNotRepresentable, NAME)),
        ("InvalidURI", Hold(H::NameNotRepresentable, NAME)),
        ("XMinioInvalidObjectName", Hold(H::NameNotRepresentable, NAME)),
        ("XMinioInvalidResourceName", Hold(H::NameNotRepresentable, NAME)),
        ("XMinioParentIsObject", Hold(H::NameNotRepresentable, NAME)),
        (
            "XMinioObjectExistsAsDirectory",
            Hold(H::NameNotRepresentable, NAME),
        ),
        ("ObjectParentIsFile", Hold(H::NameNotRepresentable, NAME)),
        ("ExistingObjectIsDirectory", Hold(H::NameNotRepresentable, NAME)),
        ("DirectoryObjectContainsData", Hold(H::NameNotRepresentable, NAME)),
        ("MetadataTooLarge", Hold(H::MetadataNotRepresentable, HEADERS)),
        (
            "RequestHeaderSectionTooLarge",
            Hold(H::MetadataNotRepresentable, HEADERS),
        ),
        ("EntityTooLarge", Hold(H::TooLarge, TOO_LARGE)),
        ("MaxMessageLengthExceeded", Hold(H::TooLarge, TOO_LARGE)),
        (
            "EntityTooSmall",
            Hold(H::Refused, "a part is smaller than the remote takes"),
        ),
        (
            "InvalidObjectState",
            Hold(
                H::Refused,
                "the object is archived at the remote; restore it there",
            ),
        ),
        ("BadDigest", Altered),
        ("XAmzContentSHA256Mismatch", Altered),
        ("XAmzContentChecksumMismatch", Altered),
        (
            "InvalidArgument",
            Hold(H::Refused, "the remote refuses a value of this request"),
        ),
        (
            "InvalidRequest",
            Hold(H::Refused, "the remote refuses this request"),
        ),
        (
            "InvalidPart",
            Hold(
                H::Refused,
                "the remote has lost a part of the upload; it is sent again",
            ),
        ),
        (
            "InvalidPartOrder",
            Hold(H::Refused, "the remote refuses the order of the parts"),
        ),
    ]
};

/// What a failure means for the mapping and the row. `conditional` = the request carried a condition.
#[must_use]
pub fn classify(operation: Operation, conditional: bool, failure: &Failure) -> RemoteError {
    match failure {
        Failure::Transport(transport) => of_transport(*transport),
        Failure::Answer {
            status,
            code,
            retry_after,
        } => {
            let known = code
                .as_deref()
                .and_then(|code| CODES.iter().find(|(name, _)| *name == code));
            let meaning = match known {
                // A write onto a condition finds nothing there any more.
                Some((_, Meaning::NotFound)) if operation == Operation::Put && conditional => {
                    Meaning::ConditionFailed
                }
                Some((_, meaning)) => *meaning,
                None => of_status(operation, conditional, *status),
            };
            let shown = known.map_or_else(|| format!("HTTP {status}"), |(name, _)| (*name).to_owned());
            match meaning {
                Meaning::Pause(reason, message) => RemoteError::Paused {
                    reason,
                    code: Some(shown),
                    message: message.into(),
                    retry_after: *retry_after,
                },
                Meaning::Hold(reason, message) => RemoteError::Refused {
                    reason,
                    code: Some(shown),
                    message: message.into(),
                },
                Meaning::ConditionFailed => RemoteError::ConditionFailed,
                Meaning::NotFound => RemoteError::NotFound,
                Meaning::Altered => RemoteError::Altered {
                    stored: format!("none ({shown})"),
                    sent: "another".into(),
                },
            }
        }
    }
}

/// The meaning of a status alone: HEAD has no code, and many servers have codes of their own.
fn of_status(operation: Operation, conditional: bool, status: u16) -> Meaning {
    use HoldReason as H;
    use PauseReason as P;
    match status {
        300..=399 => Meaning::Pause(P::UnexpectedAnswer, REGION),
        // Some proxies refuse a wrong login like this.
        401 => Meaning::Pause(
            P::InvalidCredentials,
            "check the access key and the secret key, and behind a forward proxy also the proxy's login",
        ),
        403 => Meaning::Pause(P::AccessDenied, DENIED),
        404 => match operation {
            Operation::Put | Operation::List => Meaning::Pause(P::NoSuchBucket, BUCKET),
            _ => Meaning::NotFound,
        },
        405 | 411 | 501 => Meaning::Pause(P::UnexpectedAnswer, UNSUPPORTED),
        407 => Meaning::Pause(
            P::Unreachable,
            "the proxy asks for a login; check the proxy's credentials",
        ),
        408 => Meaning::Pause(P::Timeout, LATER),
        409 | 412 if conditional => Meaning::ConditionFailed,
        412 => Meaning::ConditionFailed,
        413 => Meaning::Hold(H::TooLarge, TOO_LARGE),
        414 => Meaning::Hold(H::NameNotRepresentable, NAME),
        416 => Meaning::ConditionFailed,
        429 => Meaning::Pause(P::SlowDown, SLOWER),
        431 => Meaning::Hold(H::MetadataNotRepresentable, HEADERS),
        507 => Meaning::Pause(P::QuotaExceeded, FULL),
        400..=499 => Meaning::Hold(H::Refused, "the remote refuses this request"),
        500..=599 => Meaning::Pause(P::ServerError, SERVER),
        // An error inside a 200, or a status that S3 does not have.
        _ => Meaning::Pause(P::UnexpectedAnswer, "the answer is not S3; check target.endpoint"),
    }
}

fn of_transport(transport: Transport) -> RemoteError {
    let pause = |reason, message: &str| RemoteError::Paused {
        reason,
        code: None,
        message: message.into(),
        retry_after: None,
    };
    match transport {
        Transport::AddressDenied => pause(
            PauseReason::AddressDenied,
            "every address of the remote is one that --deny-remote or --deny-swift-nodes forbids; use another endpoint or proxy",
        ),
        Transport::Unresolved => pause(
            PauseReason::Unreachable,
            "the remote's name cannot be resolved; check target.endpoint and DNS",
        ),
        Transport::Refused => pause(
            PauseReason::Unreachable,
            "no connection to the remote; check target.endpoint and the network",
        ),
        Transport::Tls => pause(
            PauseReason::TlsFailed,
            "no TLS session with the remote; check its certificate, target.caBundle and the endpoint's scheme",
        ),
        Transport::Timeout => pause(PauseReason::Timeout, LATER),
        Transport::Broken => pause(
            PauseReason::Unreachable,
            "the connection to the remote broke; it is tried again later",
        ),
        Transport::Unintelligible => pause(
            PauseReason::UnexpectedAnswer,
            "the answer is not S3; check target.endpoint",
        ),
        Transport::Unrepresentable => RemoteError::Refused {
            reason: HoldReason::Refused,
            code: None,
            message: "no request can be made of this key and these headers; rename the object or change its metadata"
                .into(),
        },
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;

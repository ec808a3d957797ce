use super::*;

fn answer(status: u16, code: &str) -> Failure {
    Failure::Answer {
        status,
        code: (!code.is_empty()).then(|| code.to_owned()),
        retry_after: None,
    }
}

/// The reason's word, or the variant's name where there is none.
fn word(error: &RemoteError) -> &'static str {
    match error {
        RemoteError::Paused { reason, .. } => reason.as_str(),
        RemoteError::Refused { reason, .. } => reason.as_str(),
        RemoteError::ConditionFailed => "ConditionFailed",
        RemoteError::NotFound => "NotFound",
        RemoteError::Altered { .. } => "Altered",
        RemoteError::Body(_) | RemoteError::Source(_) => "Body",
    }
}

#[test]
fn failures_of_the_remote_pause_and_failures_of_a_key_hold() {
    use Operation::{Copy, Delete, Get, Head, List, Multipart, Put};
    let table = [
        (Put, 403, "InvalidAccessKeyId", "InvalidCredentials"),
        (Put, 403, "SignatureDoesNotMatch", "InvalidCredentials"),
        (Get, 400, "ExpiredToken", "InvalidCredentials"),
        (Put, 403, "RequestTimeTooSkewed", "InvalidCredentials"),
        (List, 400, "AuthorizationHeaderMalformed", "InvalidCredentials"),
        (Head, 401, "", "InvalidCredentials"),
        (Head, 403, "", "AccessDenied"),
        (Put, 403, "AccessDenied", "AccessDenied"),
        (Put, 403, "SomethingOfTheirOwn", "AccessDenied"),
        (Put, 404, "NoSuchBucket", "NoSuchBucket"),
        (Put, 404, "", "NoSuchBucket"),
        (List, 404, "", "NoSuchBucket"),
        (Get, 404, "NoSuchBucket", "NoSuchBucket"),
        (Delete, 404, "NoSuchBucket", "NoSuchBucket"),
        (Put, 503, "SlowDown", "SlowDown"),
        (Put, 503, "", "ServerError"),
        (Put, 429, "", "SlowDown"),
        (Put, 500, "InternalError", "ServerError"),
        (Multipart, 200, "InternalError", "ServerError"),
        (Put, 502, "", "ServerError"),
        (Put, 400, "RequestTimeout", "Timeout"),
        (Put, 507, "", "QuotaExceeded"),
        (Put, 403, "QuotaExceeded", "QuotaExceeded"),
        (Put, 507, "XMinioStorageFull", "QuotaExceeded"),
        (Head, 301, "", "UnexpectedAnswer"),
        (Put, 301, "PermanentRedirect", "UnexpectedAnswer"),
        (Put, 307, "TemporaryRedirect", "UnexpectedAnswer"),
        (Put, 501, "NotImplemented", "UnexpectedAnswer"),
        (Put, 405, "MethodNotAllowed", "UnexpectedAnswer"),
        (Put, 407, "", "Unreachable"),
        (Put, 412, "PreconditionFailed", "ConditionFailed"),
        (Put, 412, "", "ConditionFailed"),
        (Put, 409, "ConditionalRequestConflict", "ConditionFailed"),
        (Put, 409, "", "ConditionFailed"),
        (Put, 404, "NoSuchKey", "ConditionFailed"),
        (Copy, 404, "NoSuchKey", "NotFound"),
        (Multipart, 404, "NoSuchUpload", "NotFound"),
        (Put, 400, "KeyTooLongError", "NameNotRepresentable"),
        (Put, 400, "XMinioInvalidObjectName", "NameNotRepresentable"),
        (Put, 409, "ObjectParentIsFile", "NameNotRepresentable"),
        (Put, 414, "", "NameNotRepresentable"),
        (Put, 400, "MetadataTooLarge", "MetadataNotRepresentable"),
        (Put, 431, "", "MetadataNotRepresentable"),
        (Put, 400, "EntityTooLarge", "TooLarge"),
        (Put, 413, "", "TooLarge"),
        (Put, 400, "InvalidArgument", "Refused"),
        (Put, 422, "TheirOwn", "Refused"),
        (Put, 400, "BadDigest", "Altered"),
    ];
    for (operation, status, code, expected) in table {
        let error = classify(operation, true, &answer(status, code));
        assert_eq!(word(&error), expected, "{operation:?} {status} {code}");
    }
}

#[test]
fn a_conflict_on_an_unconditional_request_is_not_taken_for_a_failed_condition() {
    assert_eq!(
        word(&classify(Operation::Put, false, &answer(409, "TheirOwn"))),
        "Refused"
    );
}

#[test]
fn transport_failures_pause() {
    for (transport, expected) in [
        (Transport::AddressDenied, "AddressDenied"),
        (Transport::Unresolved, "Unreachable"),
        (Transport::Refused, "Unreachable"),
        (Transport::Broken, "Unreachable"),
        (Transport::Tls, "TlsFailed"),
        (Transport::Timeout, "Timeout"),
        (Transport::Unintelligible, "UnexpectedAnswer"),
        (Transport::Unrepresentable, "Refused"),
    ] {
        let error = classify(Operation::Put, false, &Failure::Transport(transport));
        assert_eq!(word(&error), expected, "{transport:?}");
    }
}

#[test]
fn an_unknown_code_of_the_remote_reaches_no_message() {
    let error = classify(Operation::Put, false, &answer(400, "<script>secret</script>"));
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("HTTP 400"), "{shown}");
}

#[test]
fn the_remote_may_say_when_to_come_again() {
    let failure = Failure::Answer {
        status: 503,
        code: Some("SlowDown".into()),
        retry_after: Some(Duration::from_secs(7)),
    };
    let RemoteError::Paused { retry_after, .. } = classify(Operation::Put, false, &failure) else {
        panic!("not a pause")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn no_code_stands_in_the_table_twice() {
    let mut names: Vec<&str> = CODES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

//! The rules by which rows are copied and deleted, one sentence each.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use onespace_core::local::SwiftObject;
use onespace_core::mapping::{MappingId, Mode};
use onespace_core::mark::Mark;
use onespace_core::plan::copy::{
    self, Ask, Expected, Look, Step, Times, Trust, check_fresh, is_young, may_go_unseen,
};
use onespace_core::plan::delete::{self, AfterLook, AfterSwift, First, SwiftSays};
use onespace_core::plan::{Absence, Stop, absence, due_at};
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_core::row::{RawRow, Row};
use onespace_core::timestamp::Timestamp;

const MD5: &str = "0cc175b9c0f1b6a831c399e269772661";
const OTHER: &str = "92eb5ffee6ae2fec3ad71c777531578f";
const SLACK: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn row(created_at: &str, deleted: bool) -> Row {
    Row::parse(RawRow {
        rowid: 1,
        name: "a".into(),
        created_at: created_at.into(),
        size: if deleted { 0 } else { 1 },
        content_type: "text/plain".into(),
        etag: if deleted { "noetag".into() } else { MD5.into() },
        deleted,
        policy_index: 0,
    })
    .unwrap()
}

/// A live row of the time 1000.
fn live() -> Row {
    row("0000001000.00000", false)
}

/// A tombstone of the time 2000.
fn tombstone() -> Row {
    row("0000002000.00000", true)
}

fn marked(etag: &str, data_time: u64, time: u64) -> Option<RemoteObject> {
    let mut object = unmarked(etag, time);
    if let Some(object) = &mut object {
        Mark {
            data_time: at(data_time),
            time: at(time),
            etag: etag.into(),
            mode: Mode::Sync,
            mapping: MappingId("0".repeat(32)),
            source: "ours".into(),
            delete_at: None,
        }
        .write(&mut object.headers.metadata);
    }
    object
}

#[test]
fn a_copy_under_a_kms_key_is_known_by_its_mark_and_length_and_not_by_its_etag() {
    let other = "0123456789abcdef0123456789abcdef";
    let mut copy = marked(MD5, 1000, 1000);
    let object = copy.as_mut().unwrap();
    object.etag = other.into();
    assert_eq!(after_read(copy.clone(), 1000), Step::Send, "a broken body");
    copy.as_mut().unwrap().opaque_etag = true;
    assert_eq!(after_read(copy.clone(), 1000), Step::InStep);
    copy.as_mut().unwrap().size += 1;
    assert_eq!(after_read(copy, 1000), Step::Send, "another length");
}

fn unmarked(etag: &str, last_modified: u64) -> Option<RemoteObject> {
    Some(RemoteObject {
        etag: etag.into(),
        opaque_etag: false,
        size: 1,
        last_modified: at(last_modified),
        headers: RemoteHeaders {
            content_type: Some("text/plain".into()),
            ..RemoteHeaders::default()
        },
        storage_class: None,
    })
}

fn look(object: Option<RemoteObject>) -> Look {
    Look::read(object, "ours").unwrap()
}

fn swift(data_time: u64, time: u64) -> SwiftObject {
    SwiftObject {
        etag: MD5.into(),
        size: 1,
        data_time: Some(at(data_time)),
        time: Some(at(time)),
        ..SwiftObject::default()
    }
}

/// What follows when Swift holds the body MD5 of the time 1000, changed at `time`.
fn after_read(found: Option<RemoteObject>, time: u64) -> Step {
    after_read_of(found, time, false)
}

/// The same of a body that a symlink led to, or not.
fn after_read_of(found: Option<RemoteObject>, time: u64, linked: bool) -> Step {
    let times = Times {
        data_time: at(1000),
        time: at(time),
    };
    let expected = Expected {
        etag: Some(MD5),
        source_etag: MD5,
        size: 1,
        linked,
    };
    let mut headers = unmarked(MD5, 0).unwrap().headers;
    if let Some(Some(Ok(mark))) = found.as_ref().map(|object| Mark::read(&object.headers.metadata)) {
        mark.write(&mut headers.metadata);
    }
    copy::after_read(&look(found), times, expected, &headers, SLACK)
}

fn held(stop: Stop) -> HoldReason {
    match stop {
        Stop::Hold(held) => held.reason,
        Stop::Pause(pause) => panic!("{pause:?}"),
    }
}

#[test]
fn only_a_fresh_body_or_a_name_known_to_be_absent_goes_out_without_a_look() {
    let fresh = live();
    let posted = row("0000001000.00000+0+5f5e100", false);
    let may = |row: &Row, trust, conditions| may_go_unseen(row, trust, conditions, 1 << 20);
    assert!(may(&fresh, Trust::Fresh, true));
    assert!(may(&fresh, Trust::KnownAbsent, true));
    assert!(!may(&fresh, Trust::None, true));
    assert!(
        !may(&fresh, Trust::Fresh, false),
        "the remote must honour If-None-Match"
    );
    assert!(
        !may(&posted, Trust::Fresh, true),
        "most likely copied before its POST"
    );
    assert!(
        !may_go_unseen(&fresh, Trust::Fresh, true, 0),
        "too large to be kept"
    );
    assert!(is_young(&fresh, SLACK, at(1000 + 3599)) && !is_young(&fresh, SLACK, at(1000 + 3600)));
}

#[test]
fn an_answer_older_than_the_row_is_never_copied() {
    let posted = row("0000001000.00000+0+5f5e100", false); // t3 = 2000
    assert_eq!(posted.time.newest(), at(2000));
    assert!(check_fresh(&posted, &swift(1000, 2000)).is_ok());
    for (data_time, time) in [(999, 2000), (1000, 1999)] {
        let stop = check_fresh(&posted, &swift(data_time, time)).unwrap_err();
        assert_eq!(held(stop), HoldReason::SourceBehind);
    }
}

#[test]
fn a_public_proxy_and_ciphertext_pause_the_mapping() {
    let public = SwiftObject {
        data_time: None,
        ..swift(1000, 1000)
    };
    let ciphertext = SwiftObject {
        undecrypted: true,
        ..swift(1000, 1000)
    };
    for (object, reason) in [
        (public, PauseReason::InternalEndpointRequired),
        (ciphertext, PauseReason::EndpointCannotDecrypt),
    ] {
        match check_fresh(&live(), &object).unwrap_err() {
            Stop::Pause(pause) => assert_eq!(pause.reason, reason),
            Stop::Hold(held) => panic!("{held:?}"),
        }
    }
}

#[test]
fn a_copy_of_another_source_is_never_touched() {
    let held = Look::read(marked(MD5, 1000, 1000), "another").unwrap_err();
    assert_eq!(held.reason, HoldReason::ForeignCopy);
    let mut damaged = marked(MD5, 1000, 1000).unwrap();
    damaged.headers.metadata.remove("onespace-time");
    let held = Look::read(Some(damaged), "ours").unwrap_err();
    assert_eq!(held.reason, HoldReason::ForeignCopy);
}

#[test]
fn only_a_whole_marked_copy_settles_a_row_without_asking_swift() {
    assert_eq!(
        copy::after_look(&live(), &look(marked(MD5, 1000, 1000))),
        Ask::Nothing
    );
    assert_eq!(
        copy::after_look(&live(), &look(unmarked(MD5, 9000))),
        Ask::Headers
    );
    assert_eq!(copy::after_look(&live(), &look(None)), Ask::Body);
    let mut cut = marked(MD5, 1000, 1000).unwrap();
    cut.size = 0;
    assert_eq!(copy::after_look(&live(), &look(Some(cut))), Ask::Body);
}

#[test]
fn a_copy_newer_than_what_swift_answered_is_not_overwritten() {
    match after_read(marked(OTHER, 1001, 1001), 1000) {
        Step::Hold(held) => assert_eq!(held.reason, HoldReason::SourceBehind),
        step => panic!("{step:?}"),
    }
}

#[test]
fn an_unmarked_equal_object_is_adopted_and_a_newer_different_one_is_left_alone() {
    assert_eq!(after_read(unmarked(MD5, 1000), 1000), Step::Adopt);
    assert_eq!(
        after_read(unmarked(OTHER, 1000), 1000),
        Step::Send,
        "an older one is overwritten"
    );
    match after_read(unmarked(OTHER, 1000 + 3601), 1000) {
        Step::Hold(held) => assert_eq!(held.reason, HoldReason::RemoteNewer),
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_change_of_metadata_replaces_headers_only() {
    assert_eq!(after_read(marked(MD5, 1000, 1000), 1000), Step::InStep);
    assert_eq!(after_read(marked(MD5, 1000, 1000), 1500), Step::Repost);
    assert_eq!(after_read(marked(OTHER, 900, 900), 1000), Step::Send);
}

#[test]
fn metadata_that_the_remote_alters_are_held_and_not_posted_for_ever() {
    let mut altered = marked(MD5, 1000, 1000).unwrap();
    altered.headers.content_type = Some("binary/octet-stream".into());
    match after_read(Some(altered), 1000) {
        Step::Hold(held) => assert_eq!(held.reason, HoldReason::MetadataAltered),
        step => panic!("{step:?}"),
    }
}

#[test]
fn new_metadata_of_a_links_target_are_posted_though_the_link_did_not_change() {
    let mut former = marked(MD5, 1000, 1000).unwrap();
    former.headers.content_type = Some("binary/octet-stream".into());
    assert_eq!(after_read_of(Some(former), 1000, true), Step::Repost);
}

#[test]
fn a_404_proves_nothing_without_a_tombstone_as_new_as_the_row() {
    assert_eq!(absence(at(1000), Some(at(1000))), Absence::Proven, "expired");
    assert_eq!(absence(at(1000), Some(at(1001))), Absence::Proven);
    assert_eq!(absence(at(1000), Some(at(999))), Absence::Unproven);
    assert_eq!(absence(at(1000), None), Absence::Unproven);
}

#[test]
fn copy_after_counts_from_the_newest_change_and_a_future_time_from_when_it_was_seen() {
    let row = live();
    assert_eq!(due_at(&row, 60, at(5000), at(1059)), Some(at(1060)));
    assert_eq!(due_at(&row, 60, at(5000), at(1060)), None);
    assert_eq!(due_at(&row, 60, at(500), at(520)), Some(at(560)), "seen at 500");
    assert_eq!(due_at(&row, 0, at(0), at(0)), None);
}

#[test]
fn a_tombstone_acts_only_if_it_is_a_users_and_the_policy_propagates_deletes() {
    let first = |row: &Row, propagate| delete::first(row, propagate);
    assert_eq!(first(&tombstone(), true), First::Look);
    assert_eq!(first(&tombstone(), false), First::Leave);
    let release = row("0000002000.00000_1", true);
    assert_eq!(first(&release, true), First::Leave, "a release or the reconciler");
}

#[test]
fn only_a_marked_or_adopted_copy_that_is_not_newer_is_deleted() {
    let after = |found, adopted| delete::after_look(&tombstone(), &look(found), adopted, SLACK);
    assert_eq!(after(marked(MD5, 1000, 1000), None), AfterLook::AskSwift);
    assert_eq!(after(unmarked(MD5, 1000), Some(MD5)), AfterLook::AskSwift);
    assert_eq!(after(None, None), AfterLook::Absent);
    assert_eq!(after(marked(MD5, 2001, 2001), None), AfterLook::Superseded);
    match after(unmarked(MD5, 2000 + 3601), Some(MD5)) {
        AfterLook::Hold(held) => assert_eq!(held.reason, HoldReason::RemoteNewer),
        other => panic!("{other:?}"),
    }
    for adopted in [None, Some(OTHER)] {
        match after(unmarked(MD5, 1000), adopted) {
            AfterLook::Hold(held) => assert_eq!(held.reason, HoldReason::NotOurs),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_copy_marked_archive_goes_only_for_a_later_tombstone() {
    let after = |data_time, time| {
        let mut look = look(marked(MD5, data_time, time));
        if let Some(mark) = &mut look.mark {
            mark.mode = Mode::Archive;
        }
        delete::after_look(&tombstone(), &look, None, SLACK)
    };
    assert_eq!(after(1000, 1999), AfterLook::AskSwift);
    assert_eq!(after(1000, 2000), AfterLook::Superseded);
    assert_eq!(after(2000, 2000), AfterLook::Superseded);
}

#[test]
fn a_delete_goes_on_only_if_swift_proves_it() {
    let after = |says| delete::after_swift(&tombstone(), says);
    assert_eq!(after(SwiftSays::Absent(Some(at(2000)))), AfterSwift::Remove);
    assert_eq!(after(SwiftSays::Absent(Some(at(1999)))), AfterSwift::AskPrimaries);
    assert_eq!(after(SwiftSays::Absent(None)), AfterSwift::AskPrimaries);
    assert_eq!(
        after(SwiftSays::Alive(Some(at(2001)))),
        AfterSwift::Superseded,
        "written again"
    );
    for old in [Some(at(1000)), None] {
        match after(SwiftSays::Alive(old)) {
            AfterSwift::Hold(held) => assert_eq!(held.reason, HoldReason::SourceBehind),
            other => panic!("{other:?}"),
        }
    }
}

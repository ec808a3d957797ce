//! What every remote store must do: one suite over the `Remote` trait, run against every server that we test with.
//!
//! A check that fails says what it saw. Which checks a server is known to fail stands in the test, and is asserted
//! both ways: a server that starts to behave fails the test, too.

mod bodies;
mod conditions;
mod failures;
mod headers;
mod keys;
mod listing;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt;
use onespace_core::remote::RemoteHeaders;
use onespace_stores::body::Body;
use onespace_stores::remote::{Condition, Remote, Stored};

/// The clients of one server that the suite needs. Each has its own check of the same name.
#[derive(Debug)]
pub struct Subject<R> {
    /// A client that works, of an empty bucket.
    pub remote: R,
    /// The same with another secret key.
    pub wrong_secret: R,
    /// The same with a bucket that does not exist.
    pub missing_bucket: R,
    /// A client of a port on which nothing listens.
    pub unreachable: R,
}

/// Runs every check; each in keys of its own. `Err` = what it saw.
pub async fn run<R: Remote>(subject: &Subject<R>) -> BTreeMap<&'static str, Result<()>> {
    let remote = &subject.remote;
    let mut outcomes = BTreeMap::new();
    macro_rules! check {
        ($($module:ident :: $name:ident ($subject:expr)),+ $(,)?) => {
            $( outcomes.insert(stringify!($name), Box::pin($module::$name($subject)).await); )+
        };
    }
    check! {
        bodies::an_empty_body_round_trips(remote),
        bodies::one_byte_round_trips(remote),
        bodies::three_parts_round_trip_under_the_etag_of_their_md5s(remote),
        bodies::a_range_is_exactly_that_range(remote),
        bodies::a_body_with_another_md5_than_announced_is_not_stored(remote),
        bodies::a_body_that_breaks_off_is_an_error_and_no_whole_object(remote),
        bodies::a_body_that_breaks_off_leaves_nothing(remote),
        bodies::a_body_that_breaks_off_leaves_the_object_that_was_there(remote),
        bodies::a_part_that_breaks_off_for_good_leaves_nothing(remote),
        bodies::a_large_body_is_never_in_memory(remote),
        headers::headers_and_metadata_round_trip(remote),
        headers::encoded_metadata_values_mean_the_same(remote),
        headers::underscores_and_dots_in_metadata_names_stay(remote),
        headers::the_time_of_an_object_is_the_time_of_its_write(remote),
        headers::new_headers_keep_body_and_etag(remote),
        headers::new_headers_keep_body_and_etag_of_uneven_parts(remote),
        headers::new_headers_of_a_key_with_odd_characters(remote),
        headers::new_headers_of_another_object_than_seen_are_refused(remote),
        headers::new_headers_of_nothing_are_refused(remote),
        keys::a_key_with_unicode(remote),
        keys::a_key_with_plus_percent_and_space(remote),
        keys::a_key_with_a_double_slash(remote),
        keys::a_key_with_a_slash_at_its_end(remote),
        keys::a_key_with_a_slash_at_its_start(remote),
        keys::a_key_with_dot_segments(remote),
        keys::a_key_of_1024_bytes_in_short_segments(remote),
        keys::a_key_with_a_segment_of_300_bytes(remote),
        keys::a_key_below_another_key(remote),
        listing::a_listing_is_in_byte_order_and_pages_without_gap(remote),
        listing::a_listing_begins_after_a_key_that_is_not_there(remote),
        listing::a_listing_says_etag_and_size(remote),
        listing::a_listing_of_nothing_is_empty(remote),
        conditions::a_put_only_if_absent(remote),
        conditions::a_put_only_onto_the_same_etag(remote),
        conditions::a_multipart_upload_only_if_absent(remote),
        conditions::a_delete_only_of_the_same_etag(remote),
        conditions::a_delete_of_nothing_is_done(remote),
        conditions::of_two_puts_if_absent_one_wins(remote),
        failures::nothing_there_is_none(remote),
        failures::wrong_secret(&subject.wrong_secret),
        failures::missing_bucket(&subject.missing_bucket),
        failures::unreachable(&subject.unreachable),
        failures::a_probe_leaves_nothing(remote),
    }
    outcomes
}

fn no_headers() -> RemoteHeaders {
    RemoteHeaders::default()
}

async fn put<R: Remote>(remote: &R, key: &str, body: &'static [u8]) -> Result<Stored> {
    let body = Body::from_bytes(Bytes::from_static(body));
    Ok(remote
        .put(key, &no_headers(), &Condition::None, body, None)
        .await?)
}

/// Every byte of a body.
async fn read(body: Body) -> Result<Vec<u8>> {
    let length = body.length;
    let bytes = body.stream.try_fold(Vec::new(), async |mut all, chunk| {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    let bytes = bytes.await?;
    ensure!(
        bytes.len() as u64 == length,
        "{} bytes came, {length} were announced",
        bytes.len()
    );
    Ok(bytes)
}

/// Every byte at a key.
async fn get<R: Remote>(remote: &R, key: &str) -> Result<Option<Vec<u8>>> {
    match remote.get(key, None).await? {
        Some((_, body)) => Ok(Some(read(body).await?)),
        None => Ok(None),
    }
}

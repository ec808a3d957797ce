//! A write or delete under a condition.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use onespace_stores::body::Body;
use onespace_stores::remote::{Condition, Remote, RemoteError};

use super::bodies::Letters;
use super::{get, no_headers, put};

async fn put_if<R: Remote>(
    remote: &R,
    key: &str,
    body: &'static [u8],
    condition: &Condition,
) -> Result<bool> {
    let body = Body::from_bytes(Bytes::from_static(body));
    match remote.put(key, &no_headers(), condition, body, None).await {
        Ok(_) => Ok(true),
        Err(RemoteError::ConditionFailed) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn a_put_only_if_absent<R: Remote>(remote: &R) -> Result<()> {
    let key = "conditions/absent";
    ensure!(
        put_if(remote, key, b"first", &Condition::Absent).await?,
        "refused though nothing was there"
    );
    ensure!(
        !put_if(remote, key, b"second", &Condition::Absent).await?,
        "overwritten"
    );
    ensure!(
        get(remote, key).await?.as_deref() == Some(b"first"),
        "another body"
    );
    Ok(())
}

pub(super) async fn a_put_only_onto_the_same_etag<R: Remote>(remote: &R) -> Result<()> {
    let key = "conditions/match";
    let first = Condition::Matches(put(remote, key, b"first").await?.etag);
    ensure!(
        put_if(remote, key, b"second", &first).await?,
        "refused though it was the same"
    );
    ensure!(!put_if(remote, key, b"third", &first).await?, "overwritten");
    ensure!(
        get(remote, key).await?.as_deref() == Some(b"second"),
        "another body"
    );
    remote.delete(key, None).await?;
    ensure!(
        !put_if(remote, key, b"fourth", &first).await?,
        "written though nothing is there"
    );
    Ok(())
}

pub(super) async fn a_multipart_upload_only_if_absent<R: Remote>(remote: &R) -> Result<()> {
    let key = "conditions/parts";
    put(remote, key, b"first").await?;
    let parts = Letters(vec![10]);
    match remote
        .put_parts(key, &no_headers(), &Condition::Absent, &parts.specs(), &parts)
        .await
    {
        Err(RemoteError::ConditionFailed) => {}
        other => bail!("{other:?}"),
    }
    ensure!(
        get(remote, key).await?.as_deref() == Some(b"first"),
        "another body"
    );
    Ok(())
}

pub(super) async fn a_delete_only_of_the_same_etag<R: Remote>(remote: &R) -> Result<()> {
    let key = "conditions/delete";
    let stored = put(remote, key, b"first").await?;
    put(remote, key, b"second").await?;
    match remote.delete(key, Some(&stored.etag)).await {
        Err(RemoteError::ConditionFailed) => {}
        other => bail!("{other:?}"),
    }
    let now = remote.head(key).await?.context("it was deleted")?;
    remote.delete(key, Some(&now.etag)).await?;
    ensure!(remote.head(key).await?.is_none(), "it was not deleted");
    Ok(())
}

pub(super) async fn a_delete_of_nothing_is_done<R: Remote>(remote: &R) -> Result<()> {
    remote.delete("conditions/nothing", None).await?;
    Ok(())
}

pub(super) async fn of_two_puts_if_absent_one_wins<R: Remote>(remote: &R) -> Result<()> {
    for round in 0..20 {
        let key = format!("conditions/race/{round}");
        let (one, two) = tokio::join!(
            put_if(remote, &key, b"one", &Condition::Absent),
            put_if(remote, &key, b"two", &Condition::Absent),
        );
        let winner: &[u8] = match (one?, two?) {
            (true, false) => b"one",
            (false, true) => b"two",
            both => bail!("round {round}: {both:?}"),
        };
        ensure!(
            get(remote, &key).await?.as_deref() == Some(winner),
            "the loser's body"
        );
    }
    Ok(())
}

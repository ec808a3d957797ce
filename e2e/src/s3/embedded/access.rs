//! Before an operation: count it, let its fault happen, refuse what real S3 refuses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::faults::{Counters, Fault, Faults, Line};
use super::store::Store;
use crate::s3::REGION;

/// The keys of the moment: they can be changed while requests come.
pub(super) struct Keys(pub Store);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let (access, secret) = &self.0.lock().keys;
        if access == access_key {
            Ok(secret.clone().into())
        } else {
            Err(s3_error!(InvalidAccessKeyId))
        }
    }
}

pub(super) struct Gate {
    pub counters: Counters,
    pub faults: Faults,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "requests must be signed"));
        }
        check_scope(cx.headers())?;
        let operation = cx.s3_op().name().to_owned();
        let key = cx.s3_path().get_object_key().unwrap_or_default().to_owned();
        self.counters.add(&operation);
        let Some(fault) = self.faults.take(&operation, &key) else {
            return Ok(());
        };
        let line = cx
            .extensions_mut()
            .get::<Arc<Line>>()
            .cloned()
            .unwrap_or_default();
        match fault {
            Fault::Answer {
                status,
                code,
                retry_after,
            } => return Err(answer(status, &code, retry_after)),
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Hang => {
                line.closes.store(true, Ordering::SeqCst);
                self.faults.until_cleared().await;
                return Err(answer(500, "InternalError", None));
            }
            Fault::LoseAnswer => line.closes.store(true, Ordering::SeqCst),
            Fault::Break { after } => line.left.store(after, Ordering::SeqCst),
            Fault::KeepTruncated { after } => {
                line.left.store(after, Ordering::SeqCst);
                line.truncates.store(true, Ordering::SeqCst);
                line.closes.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

/// Signature version 4 for our region only: s3s would take version 2 and any region.
fn check_scope(headers: &HeaderMap) -> S3Result<()> {
    let Some(authorization) = headers.get("authorization").and_then(|value| value.to_str().ok()) else {
        // Presigned: not used against this server.
        return Err(s3_error!(
            AccessDenied,
            "requests must be signed in their headers"
        ));
    };
    if !authorization.starts_with("AWS4-HMAC-SHA256") {
        return Err(s3_error!(InvalidRequest, "only signature version 4 is taken"));
    }
    if !authorization.contains(&format!("/{REGION}/s3/aws4_request")) {
        return Err(s3_error!(AuthorizationHeaderMalformed, "the region is wrong"));
    }
    Ok(())
}

fn answer(status: u16, code: &str, retry_after: Option<u64>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::with_message(code, "an injected fault");
    error.set_status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    if let Some(seconds) = retry_after {
        error.set_headers(HeaderMap::from_iter([(
            http::header::RETRY_AFTER,
            HeaderValue::from(seconds),
        )]));
    }
    error
}

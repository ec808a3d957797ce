//! Requests to the API server: each with a limit of time, and one name for all that is written.

use std::time::Duration;

/// The owner of the fields that are written into ConfigMaps, Secrets and pods.
pub const FIELD_MANAGER: &str = "onespace-operator";

/// The owner of the fields of policies' status.
pub const STATUS_MANAGER: &str = "onespace-operator-status";

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("the API server did not answer within {PATIENCE:?}")]
    Timeout,
    /// A refusal, or no connection.
    #[error("{0}")]
    Kube(#[from] kube::Error),
}

impl ApiError {
    /// The status code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Waits for an answer, not for ever.
///
/// # Errors
/// No answer, or a refusal.
pub async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::Timeout),
    }
}

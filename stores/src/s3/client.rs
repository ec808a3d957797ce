//! Builds the SDK's clients: no redirects, waiting bounded.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::config::S3Config;
use super::keys::SharedKeys;
/// The two clients of one remote. They share their connections.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Exactly one attempt: for bodies that cannot be replayed, and for writes.
    pub once: Client,
    /// Two attempts, each bounded by `Timeouts::answer`: for small requests that change nothing.
    pub twice: Client,
}

/// Builds both clients over this transport; `attempts` are those of [`Clients::twice`].
pub(super) fn build(config: &S3Config, keys: &SharedKeys, http: SharedHttpClient, attempts: u32) -> Clients {
    let mut base = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys.clone())
        // They are in memory, and may be others for the next request.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(config.path_style)
        // Our own bodies watch both directions, and tell a slow source from a slow remote.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .request_checksum_calculation(if config.request_checksums {
            RequestChecksumCalculation::WhenSupported
        } else {
            RequestChecksumCalculation::WhenRequired
        });
    base.set_endpoint_url(config.endpoint.clone());
    let connect = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .build();
    let bounded = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .operation_attempt_timeout(config.timeouts.connect + config.timeouts.answer)
        .build();
    Clients {
        once: Client::from_conf(
            base.clone()
                .retry_config(RetryConfig::disabled())
                .timeout_config(connect)
                .build(),
        ),
        twice: Client::from_conf(
            base.retry_config(RetryConfig::standard().with_max_attempts(attempts))
                .timeout_config(bounded)
                .build(),
        ),
    }
}

//! Clients of the two stores, and what every onespace server shares.

pub mod admin;
pub mod body;
pub mod causes;
pub mod egress;
pub mod metrics_reference;
pub mod mutual_tls;
pub mod remote;
pub mod s3;
pub mod shutdown;
pub mod source;
pub mod swift;
pub mod telemetry;

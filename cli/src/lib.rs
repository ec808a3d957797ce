//! onespace cli.

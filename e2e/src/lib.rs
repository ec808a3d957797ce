//! onespace e2e.

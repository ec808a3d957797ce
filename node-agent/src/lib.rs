//! onespace node-agent.

//! The Swift that an agent follows: its configuration, rings and container databases on this node, and its servers.

pub mod client;
pub mod conf;
pub mod container_db;
pub mod locate;
pub mod ring;

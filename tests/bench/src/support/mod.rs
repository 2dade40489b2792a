//! What the runner and its second process share: bots, TLS of the same kind as theirs, and the processor time they take.

pub mod bots;
pub mod cpu;
pub mod mock;
pub mod tls;

//! The stream without IO, told as in the ladder diagrams of the specifications.

mod acks;
mod codec;
mod early;
mod hostile;
mod ladder;
mod liveness;
mod relayed;
mod requests;
mod resuming;
mod resuming_random;
mod sasl;
mod services;
mod starttls;
mod support;
mod wires;

pub(super) use support::message;

//! The negotiation of a session between two machines.

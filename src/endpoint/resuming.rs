//! Carrying streams on over new sessions: the initiator connects again, the responder lets it.

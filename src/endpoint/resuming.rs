//! Streams that outlive their bytestream: the initiator's attempts to get another one, and the responder's streams that wait
//! for it.

mod initiator;
mod responder;
mod whereabouts;

pub(super) use self::{
    initiator::Initiator,
    responder::{Responder, Resumables},
    whereabouts::Whereabouts,
};

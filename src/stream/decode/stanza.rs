//! The builders of the three kinds of stanzas.
//!
//! Each is used by itself: the one of [`Stanza`] would try one kind after the other, and move their states through one more
//! layer for each event.

use rxml::{AttrMap, Event, Namespace, QName};
use xmpp_parsers::{iq::Iq, presence::Presence, stanza::Stanza};
use xso::{
    Context, FromEventsBuilder, FromXml,
    error::{Error, FromEventsError},
};

use super::message::MessageBuilder;
use crate::stream::addressing::Claims;

/// What a stanza is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Presence,
    Iq,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Message, Self::Presence, Self::Iq].into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }
}

type Builder<T> = Box<<Result<T, Error> as FromXml>::Builder>;

/// Builds a stanza, or an error that says how it breaks its schema.
pub(super) enum StanzaBuilder {
    Message(Box<MessageBuilder>),
    Presence(Builder<Presence>),
    Iq(Builder<Iq>),
}

impl StanzaBuilder {
    /// The addresses come by themselves: a builder would refuse all of the stanza for one that is none.
    pub(super) fn begin(
        kind: Kind,
        name: QName,
        mut attributes: AttrMap,
        context: &Context<'_>,
    ) -> Result<(Self, Claims), FromEventsError> {
        let mut claims = || {
            let mut take = |name: &str| attributes.remove(Namespace::none(), name);
            Claims { from: take("from"), to: take("to") }
        };
        Ok(match kind {
            Kind::Message => {
                let (builder, claims) = MessageBuilder::begin(attributes);
                (Self::Message(builder), claims)
            }
            Kind::Presence => {
                let claims = claims();
                (Self::Presence(begin::<Presence>(name, attributes, context)?), claims)
            }
            Kind::Iq => {
                let claims = claims();
                (Self::Iq(begin::<Iq>(name, attributes, context)?), claims)
            }
        })
    }

    /// Takes an event in the stanza. That nothing is given back until the end spares a move of room for a stanza with each.
    pub(super) fn feed(&mut self, event: Event, context: &Context<'_>) -> Result<(), Error> {
        match self {
            Self::Message(builder) => {
                builder.feed(event, context);
                Ok(())
            }
            Self::Presence(builder) => builder.feed(event, context).map(drop),
            Self::Iq(builder) => builder.feed(event, context).map(drop),
        }
    }

    /// Takes the end of the stanza.
    pub(super) fn end(
        self,
        event: Event,
        context: &Context<'_>,
    ) -> Result<Option<Result<Stanza, Error>>, Error> {
        Ok(match self {
            Self::Message(builder) => Some(builder.end().map(Stanza::Message)),
            Self::Presence(mut builder) => {
                builder.feed(event, context)?.map(|built| built.map(Stanza::Presence))
            }
            Self::Iq(mut builder) => builder.feed(event, context)?.map(|built| built.map(Stanza::Iq)),
        })
    }
}

fn begin<T: FromXml>(
    name: QName,
    attributes: AttrMap,
    context: &Context<'_>,
) -> Result<Builder<T>, FromEventsError> {
    Result::<T, Error>::from_events(name, attributes, context).map(Box::new)
}

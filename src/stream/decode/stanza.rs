//! The builders of the three kinds of stanzas.
//!
//! Each is used by itself: the one of [`Stanza`] would try one kind after the other, and move their states through one more
//! layer for each event.

use rxml::{AttrMap, Event, QName};
use xmpp_parsers::{iq::Iq, message::Message, presence::Presence, stanza::Stanza};
use xso::{
    Context, FromEventsBuilder, FromXml,
    error::{Error, FromEventsError},
};

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
    Message(Builder<Message>),
    Presence(Builder<Presence>),
    Iq(Builder<Iq>),
}

impl StanzaBuilder {
    pub(super) fn begin(
        kind: Kind,
        name: QName,
        attributes: AttrMap,
        context: &Context<'_>,
    ) -> Result<Self, FromEventsError> {
        Ok(match kind {
            Kind::Message => Self::Message(begin::<Message>(name, attributes, context)?),
            Kind::Presence => Self::Presence(begin::<Presence>(name, attributes, context)?),
            Kind::Iq => Self::Iq(begin::<Iq>(name, attributes, context)?),
        })
    }

    pub(super) fn feed(
        &mut self,
        event: Event,
        context: &Context<'_>,
    ) -> Result<Option<Result<Stanza, Error>>, Error> {
        Ok(match self {
            Self::Message(builder) => builder.feed(event, context)?.map(|built| built.map(Stanza::Message)),
            Self::Presence(builder) => builder.feed(event, context)?.map(|built| built.map(Stanza::Presence)),
            Self::Iq(builder) => builder.feed(event, context)?.map(|built| built.map(Stanza::Iq)),
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

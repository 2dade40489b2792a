//! What reads and writes the XML of a stream, without a stream around it.

use xmpp_parsers::stanza::Stanza;

use crate::{
    Limits,
    stream::codec::{Decoded, Decoder, Encoder, OwnHeader},
};

/// Both halves, behind a header.
pub struct Codec {
    encoder: Encoder,
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Codec {
    /// With the default limits.
    #[must_use]
    pub fn new() -> Self {
        let mut codec =
            Self { encoder: Encoder::new(), decoder: Decoder::new(&Limits::default()), bytes: Vec::new() };
        codec.encoder.header(OwnHeader::initiator(None, None), &mut codec.bytes);
        let header = std::mem::take(&mut codec.bytes);
        codec.decode(&header);
        codec
    }

    /// Appends a stanza.
    ///
    /// # Errors
    ///
    /// Why it can't be XML.
    pub fn encode(&mut self, stanza: &Stanza, out: &mut Vec<u8>) -> Result<(), String> {
        self.encoder.stanza(stanza, out)
    }

    /// Reads what comes next on the stream; gives the number of stanzas that were complete, until something was wrong.
    pub fn decode(&mut self, mut bytes: &[u8]) -> usize {
        let mut stanzas = 0;
        while let Ok(Some(decoded)) = self.decoder.decode(&mut bytes) {
            stanzas += usize::from(matches!(decoded, Decoded::Stanza { .. }));
        }
        stanzas
    }

    /// Writes a stanza and reads it again; gives the number of stanzas that came out.
    ///
    /// # Errors
    ///
    /// Why it can't be XML.
    pub fn round_trip(&mut self, stanza: &Stanza) -> Result<usize, String> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.encode(stanza, &mut bytes)?;
        let stanzas = self.decode(&bytes);
        self.bytes = bytes;
        Ok(stanzas)
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use xmpp_parsers::message::{Lang, Message};

    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        let mut codec = Codec::new();
        let message = Message::chat(None).with_body(Lang::new(), "soft, what light".to_owned());
        let stanza = Stanza::Message(message);
        for _ in 0..3 {
            assert_eq!(codec.round_trip(&stanza), Ok(1));
        }
    }
}

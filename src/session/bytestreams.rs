//! Between the sessions and the bytestreams that carry them.

use std::time::Instant;

use jid::Jid;

use super::{
    Output, Purpose, Request, Sessions,
    state::{Session, SessionId, State},
};
use crate::{
    ApiMisuse, Error,
    transport::{self, Ibb, Transport},
    wire::{
        errors,
        ibb::{Close, Data, Open},
    },
};

impl Sessions {
    /// Answers one in-band bytestream request (XEP-0047); gives it back if it is the bot's.
    pub(super) fn handle_ibb(&mut self, now: Instant, request: Request) -> Option<Request> {
        self.heard_from(&request.from);
        let sid = request.payload.attr("sid");
        let Some(id) = sid.and_then(|sid| self.table.find_bytestream(&request.from, sid)) else {
            if self.config.pass_foreign {
                return Some(request);
            }
            let refusal = match request.payload.name() {
                _ if sid.is_none() => errors::bad_request("an in-band bytestream request without sid"),
                // XEP-0047 #create: bytestreams that Jingle did not negotiate are not for us.
                "open" => errors::not_acceptable("in-band bytestreams are opened by Jingle here"),
                _ => errors::item_not_found("there is no such bytestream"),
            };
            self.refuse(request.from, request.id, refusal);
            return None;
        };
        let Some(ibb) = self.active_ibb(id) else {
            // Before the session is accepted, there is no bytestream.
            self.refuse(request.from, request.id, errors::item_not_found("the bytestream is not open"));
            return None;
        };
        match request.payload.name() {
            "open" => match Open::parse(&request.payload) {
                Ok(open) => ibb.handle_open(request.id, &open),
                Err(malformed) => {
                    self.refuse(request.from, request.id, errors::bad_request(malformed.to_string()));
                    return None;
                }
            },
            "data" => ibb.handle_data(now, request.id, Data::parse(&request.payload)),
            "close" => match Close::parse(&request.payload) {
                Ok(_) => ibb.handle_close(now, request.id),
                Err(malformed) => {
                    self.refuse(request.from, request.id, errors::bad_request(malformed.to_string()));
                    return None;
                }
            },
            other => {
                let what = format!("in-band bytestreams have no <{other}/>");
                self.refuse(request.from, request.id, errors::feature_not_implemented(what));
                return None;
            }
        }
        self.after_transport(now, id);
        None
    }

    fn active_ibb(&mut self, id: SessionId) -> Option<&mut Ibb> {
        match &mut self.table.get_mut(id)?.state {
            State::Active(active) => match &mut active.transport {
                Transport::Ibb(ibb) => Some(ibb),
            },
            _ => None,
        }
    }

    /// Does what a session's transport wants done.
    pub(super) fn after_transport(&mut self, now: Instant, id: SessionId) {
        while let Some(session) = self.table.get_mut(id)
            && let Some(output) = session.transport_mut().and_then(Transport::poll_output)
        {
            match output {
                transport::Output::Request(request, payload) => {
                    let to = Jid::from(session.peer.clone());
                    // The bytestream has a deadline of its own for each.
                    let purpose = Purpose::Transport { session: id, request };
                    let iq_id = self.requests.add(Some(to.clone()), purpose, None);
                    self.send_set(to, iq_id, payload);
                }
                transport::Output::Reply(iq_id, reply) => {
                    let peer = session.peer.clone();
                    self.send_iq(peer.into(), iq_id, reply.map(|()| None));
                }
                transport::Output::Open | transport::Output::Progress => {
                    self.outputs.push_back(Output::Changed(id));
                }
                transport::Output::Failed(error) => self.fail(now, id, error),
            }
        }
        self.watch(id);
    }

    // ---- the bytestream as its user sees it ----------------------------------------------

    /// See [`Transport::write`].
    pub(crate) fn write(&mut self, now: Instant, id: SessionId, bytes: &[u8]) -> Result<usize, Error> {
        self.with_transport(now, id, |transport| transport.write(now, bytes))
    }

    /// See [`Transport::flush`].
    pub(crate) fn flush(&mut self, now: Instant, id: SessionId) -> Result<bool, Error> {
        self.with_transport(now, id, |transport| transport.flush(now))
    }

    /// See [`Transport::read`].
    pub(crate) fn read(
        &mut self,
        now: Instant,
        id: SessionId,
        buffer: &mut [u8],
    ) -> Result<transport::Read, Error> {
        self.with_transport(now, id, |transport| transport.read(buffer))
    }

    /// See [`Transport::shutdown`].
    pub(crate) fn shutdown(&mut self, now: Instant, id: SessionId) -> Result<bool, Error> {
        self.with_transport(now, id, |transport| transport.shutdown(now))
    }

    fn with_transport<T>(
        &mut self,
        now: Instant,
        id: SessionId,
        act: impl FnOnce(&mut Transport) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let transport = self.table.get_mut(id).and_then(Session::transport_mut);
        let result = act(transport.ok_or(ApiMisuse::StreamClosed)?);
        self.after_transport(now, id);
        result
    }
}

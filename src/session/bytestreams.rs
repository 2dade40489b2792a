//! Between the sessions and the bytestreams that carry them.

use std::time::Instant;

use bytes::BytesMut;
use jid::Jid;
use xmpp_parsers::jingle::Action;

use super::{
    Output, Purpose, Request, Sessions,
    state::{Session, SessionId, State},
};
use crate::{
    ApiMisuse, Error,
    disco::EarlyData,
    transport::{
        self, Ibb, Transport,
        s5b::{self, S5b},
    },
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
            if self.is_unwelcome(&request) {
                self.turn_away(now, request);
                return None;
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
        let kept = self.kept.clone();
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
            "data" => {
                ibb.count_in(&kept);
                ibb.handle_data(now, request.id, Data::parse(&request.payload));
            }
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
            State::Active(active) => active.transport.ibb_mut(),
            _ => None,
        }
    }

    /// Does what a session's transport wants done.
    pub(super) fn after_transport(&mut self, now: Instant, id: SessionId) {
        loop {
            let Some(session) = self.table.get_mut(id) else { return };
            if let Some(output) = session.transport_mut().and_then(Transport::poll_output) {
                self.span(id).in_scope(|| self.handle_output(now, id, output));
            } else if let Some(output) = session.replacement_mut().and_then(S5b::poll_output) {
                self.span(id).in_scope(|| self.handle_replacement_output(now, id, output));
            } else {
                break;
            }
        }
        self.watch(id);
    }

    fn handle_output(&mut self, now: Instant, id: SessionId, output: transport::Output) {
        let Some(session) = self.table.get(id) else { return };
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
            transport::Output::Open | transport::Output::S5b(s5b::Output::Open) => {
                if let Some(transport) = self.transport_info(id) {
                    tracing::info!(%transport, "the bytestream is open");
                }
                self.outputs.push_back(Output::Changed(id));
            }
            transport::Output::Progress => self.outputs.push_back(Output::Changed(id)),
            transport::Output::Failed(error) => self.fail(now, id, error),
            transport::Output::S5b(s5b::Output::Failed(error)) => self.fall_back(now, id, error),
            transport::Output::S5b(output) => self.handle_s5b_output(now, id, output),
        }
    }

    /// What a SOCKS5 negotiation wants done on its way, whether its bytestream is in use or to be.
    pub(super) fn handle_s5b_output(&mut self, now: Instant, id: SessionId, output: s5b::Output) {
        let Some(session) = self.table.get(id) else { return };
        match output {
            s5b::Output::Info(transport) => {
                let info = session.about_transport(Action::TransportInfo, transport);
                self.tell(id, info);
            }
            s5b::Output::Activate(proxy, query) => {
                let timeout = self.config.s5b.proxy_timeout;
                let purpose = Purpose::Activation { session: id };
                let iq_id = self.requests.add(Some(proxy.clone()), purpose, Some((now + timeout, timeout)));
                self.wake_no_later_than(now + timeout);
                self.send_set(proxy, iq_id, query);
            }
            s5b::Output::Dial(dial) => self.dial(id, dial),
            s5b::Output::Abandon(attempt) => self.abandon(id, attempt),
            s5b::Output::HangUp(socket) => self.hang_up(socket),
            // Its end is judged by whoever waits for it.
            s5b::Output::Open | s5b::Output::Failed(_) => {}
        }
    }

    /// Whether the peer takes what is sent before it has answered; nothing is known of one that began the session.
    pub(crate) fn early_data(&self, id: SessionId) -> EarlyData {
        let needs = self.table.get(id).and_then(|session| session.needs);
        needs.map(|needs| needs.early_data).unwrap_or_default()
    }

    // ---- the bytestream as its user sees it ----------------------------------------------

    /// See [`Transport::write`].
    pub(crate) fn write(
        &mut self,
        now: Instant,
        id: SessionId,
        bytes: &[u8],
    ) -> Result<transport::Write, Error> {
        self.with_transport(now, id, |transport| transport.write(now, bytes))
    }

    /// See [`Transport::flush`].
    pub(crate) fn flush(&mut self, now: Instant, id: SessionId) -> Result<transport::Done, Error> {
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
    pub(crate) fn shutdown(&mut self, now: Instant, id: SessionId) -> Result<transport::Done, Error> {
        self.with_transport(now, id, |transport| transport.shutdown(now))
    }

    /// See [`Transport::take_carried`].
    pub(crate) fn take_carried(&mut self, id: SessionId) -> BytesMut {
        self.table
            .get_mut(id)
            .and_then(Session::transport_mut)
            .map(Transport::take_carried)
            .unwrap_or_default()
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

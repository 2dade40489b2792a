//! Keeping track of iq in both directions: requests that we must answer and replies that we await
//! (RFC 6120 §8.2.3).

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use crate::{Error, PeerMisbehaved, Step};

/// Where the reply to a request of ours arrives.
pub(super) type ReplyReceiver = oneshot::Receiver<Result<IqResponse, Error>>;

/// Length of a request's id in bytes, which is kept until the request is answered. Programs use less than 100.
const MAX_ID: usize = 1024;

/// The peer's requests that our user has yet to answer, the oldest first.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    limit: usize,
    timeout: Duration,
}

#[derive(Debug)]
struct Request {
    id: String,
    deadline: Instant,
}

/// There are too many unanswered requests for one more, or its id is too long to be kept.
#[derive(Debug)]
pub(super) struct Full;

impl Requests {
    pub(super) fn new(limit: usize, timeout: Duration) -> Self {
        Self { waiting: VecDeque::new(), limit, timeout }
    }

    /// A request came. A peer that uses an id twice waits for two answers.
    pub(super) fn add(&mut self, now: Instant, id: &str) -> Result<(), Full> {
        if self.waiting.len() >= self.limit || id.len() > MAX_ID {
            return Err(Full);
        }
        self.waiting.push_back(Request { id: id.to_owned(), deadline: now + self.timeout });
        Ok(())
    }

    /// Whether this request has yet to be answered.
    pub(super) fn awaits(&self, id: &str) -> bool {
        self.waiting.iter().any(|request| request.id == id)
    }

    /// Our user answered.
    pub(super) fn answered(&mut self, id: &str) {
        if let Some(position) = self.waiting.iter().position(|request| request.id == id) {
            self.waiting.remove(position);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|request| request.deadline)
    }

    /// The peer has forgotten what it asked for.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Those of another stream, which came later.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.waiting.append(&mut other.waiting);
    }

    /// The next request whose time is over.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<String> {
        if self.next_deadline()? > now {
            return None;
        }
        self.pop()
    }

    /// The oldest request.
    pub(super) fn pop(&mut self) -> Option<String> {
        self.waiting.pop_front().map(|request| request.id)
    }
}

/// Our requests whose reply has yet to come.
#[derive(Debug)]
pub(super) struct Replies {
    prefix: String,
    next: u64,
    /// By number, and so by deadline too.
    waiting: BTreeMap<u64, Waiting>,
    timeout: Duration,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    reply: oneshot::Sender<Result<IqResponse, Error>>,
}

impl Replies {
    /// Ids begin with the prefix, so that they differ from those that the user gives.
    pub(super) fn new(prefix: String, timeout: Duration) -> Self {
        Self { prefix, next: 0, waiting: BTreeMap::new(), timeout }
    }

    /// An id that this stream has not seen.
    pub(super) fn new_id(&mut self) -> String {
        self.next += 1;
        self.id(self.next)
    }

    /// A request, to be sent, and where its reply will arrive.
    pub(super) fn request(&mut self, now: Instant, request: IqRequest) -> (Iq, ReplyReceiver) {
        let id = self.new_id();
        let (reply, receiver) = oneshot::channel();
        self.waiting.insert(self.next, Waiting { deadline: now + self.timeout, reply });
        let iq = match request {
            IqRequest::Get(payload) => Iq::Get { from: None, to: None, id, payload },
            IqRequest::Set(payload) => Iq::Set { from: None, to: None, id, payload },
        };
        (iq, receiver)
    }

    /// The request could not be sent.
    pub(super) fn forget(&mut self, id: &str) {
        self.take(id);
    }

    /// Hands a reply to whoever waits for it; gives back what nobody waits for.
    ///
    /// Replies match by id alone: there are only two parties on the stream.
    pub(super) fn matches(&mut self, iq: Iq) -> Option<Iq> {
        let Some(waiting) = self.take(iq.id()) else {
            return Some(iq);
        };
        let response = match iq {
            Iq::Result { payload, .. } => IqResponse::Result(payload),
            Iq::Error { error, .. } => IqResponse::Error(error),
            request @ (Iq::Get { .. } | Iq::Set { .. }) => return Some(request),
        };
        // Whoever dropped its future does not want to know.
        let _ = waiting.reply.send(Ok(response));
        None
    }

    /// A reply came that does not follow its schema. Nobody may wait for it.
    pub(super) fn malformed(&mut self, id: &str, why: &str) {
        if let Some(waiting) = self.take(id) {
            let why = format!("malformed reply to an iq: {why}");
            let _ = waiting.reply.send(Err(PeerMisbehaved::XmlStream(why).into()));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.deadline)
    }

    /// Gives up on requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now)
            && let Some((_, waiting)) = self.waiting.pop_first()
        {
            let _ = waiting.reply.send(Err(Error::Timeout(Step::Iq, self.timeout)));
        }
    }

    /// No more replies will come.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    fn take(&mut self, id: &str) -> Option<Waiting> {
        let number = id.strip_prefix(self.prefix.as_str())?.parse().ok()?;
        // `007` is not an id of ours, though it is a number.
        if self.id(number) != id {
            return None;
        }
        self.waiting.remove(&number)
    }
}

/// Nobody answers this request (RFC 6120 §8.3.3.19).
pub(super) fn unanswered(id: String) -> Iq {
    refuse(id, ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "nobody answers this request")
}

/// There are too many requests already (RFC 6120 §8.3.3.18).
pub(super) fn too_many(id: String) -> Iq {
    refuse(id, ErrorType::Wait, DefinedCondition::ResourceConstraint, "too many unanswered requests")
}

/// The request does not follow its schema (RFC 6120 §8.3.3.1).
pub(super) fn malformed(id: String, why: &str) -> Iq {
    refuse(id, ErrorType::Modify, DefinedCondition::BadRequest, why)
}

fn refuse(id: String, type_: ErrorType, condition: DefinedCondition, text: &str) -> Iq {
    Iq::from_error(id, StanzaError::new(type_, condition, "en", text))
}

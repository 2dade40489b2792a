//! Opening a stream.

use std::{fmt::Write as _, future::poll_fn, io, mem, sync::Arc};

use aws_lc_rs::rand;
use jid::Jid;
use tokio::io::{AsyncRead, AsyncWrite};
use xmpp_parsers::stanza::Stanza;

use super::{
    e2e::E2eStream,
    e2e_buffers::{Bytes, buffered},
    e2e_peer::{Judgement, Remote},
    e2e_resume::another,
    e2e_shared::now,
    e2e_worker::{Bare, Opening, Round, Worker},
    encode::Encoder,
    machine::{
        Machine, Role,
        management::{Plan, Resume},
    },
    negotiation::{Agenda, Next},
    options::{Established, FirstStanzas, Protection, Session, StreamInfo, StreamOptions},
};
use crate::{
    ApiMisuse, Error, SecurityError,
    security::{
        Certificate, Proof, TlsInfo, TlsOptions,
        tls_io::{self, Announced, Expectation},
    },
};

/// Opens an XML stream as the initiator, who sends its header first.
///
/// Resolves when the peer's header and features are here; for features of a peer that has none it waits 3 s
/// at most. Dropping the future closes the bytestream.
///
/// # Errors
///
/// [`Error::Stream`] if one side refused the other's header, [`Error::Timeout`] if none came within
/// [`Timeouts::stream_header`](crate::Timeouts::stream_header), [`Error::Transport`] if the bytestream failed,
/// [`Error::PeerIncompatible`] if the responder insists on a stream feature that is not known here,
/// [`Error::Security`] if the peer is not who it should be, or does not agree to the encryption that
/// [`StreamOptions::starttls`] asks for.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub async fn initiate<IO>(io: IO, options: StreamOptions) -> Result<E2eStream, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    initiate_on(Box::new(buffered(io)), options).await
}

/// Opens an XML stream as the responder, who waits for the initiator's header.
///
/// Resolves when that has come and the answer is on its way. Dropping the future closes the bytestream.
///
/// # Errors
///
/// As [`initiate`].
///
/// # Panics
///
/// Outside of a tokio runtime.
pub async fn accept<IO>(io: IO, options: StreamOptions) -> Result<E2eStream, Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    accept_on(Box::new(buffered(io)), options).await
}

/// As [`initiate`].
pub(crate) async fn initiate_on(io: Box<dyn Bytes>, options: StreamOptions) -> Result<E2eStream, Error> {
    open_new(io, Role::Initiator, options).await
}

/// As [`accept`].
pub(crate) async fn accept_on(io: Box<dyn Bytes>, options: StreamOptions) -> Result<E2eStream, Error> {
    open_new(io, Role::Responder, options).await
}

async fn open_new(io: Box<dyn Bytes>, role: Role, mut options: StreamOptions) -> Result<E2eStream, Error> {
    let session = Session::new(options.carrier.take());
    open(io, &[], role, session, options).await
}

pub(super) async fn open(
    io: Box<dyn Bytes>,
    early: &[u8],
    role: Role,
    session: Session,
    mut options: StreamOptions,
) -> Result<E2eStream, Error> {
    let first = options.first.take();
    let opened = negotiate(io, early, role, session, options, Purpose::Begin(first.clone())).await?;
    let unsaid = first.filter(|_| opened.first == Said::NotYet);
    let Judged { worker, remote, to_be_asked, tls } = opened.judge().await?;
    let decision = worker.options.timeouts.decision;
    let carrier = worker.session.carrier();
    let info = worker.shared.with(|inner, _| {
        inner.carrier = carrier;
        inner.remote = remote;
        StreamInfo {
            local: worker.options.local.clone(),
            peer: inner.machine.peer().cloned(),
            id: inner.machine.stream_id().map(str::to_owned),
            negotiated: worker.options.negotiated.clone(),
            tls,
        }
    });
    let mut stream = E2eStream::new(worker.shared.clone(), info);
    tokio::spawn(Worker::run(Box::new(worker)));
    if let Some(established) = to_be_asked {
        stream.ask(*established, decision).await?;
    }
    if let Some(first) = unsaid {
        stream.say(first.copies())?;
    }
    Ok(stream)
}

/// Whether a stanza can be written at all.
///
/// # Errors
///
/// [`ApiMisuse::BadStanza`] says why not.
pub(crate) fn check_stanza(stanza: &Stanza) -> Result<(), ApiMisuse> {
    Encoder::new().stanza(stanza, &mut Vec::new()).map_err(ApiMisuse::BadStanza)
}

/// An XML stream that is up, and what was proved on the way.
pub(super) struct Opened {
    pub(super) worker: Worker,
    proof: Option<Proof>,
    first: Said,
}

/// What the user wants said first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Or there is nothing to say.
    NotYet,
    WithTheHeader,
}

/// An XML stream that is up, and who is at its other end.
pub(super) struct Judged {
    pub(super) worker: Worker,
    /// `None` without encryption, and while it is to be asked about.
    remote: Option<Arc<Remote>>,
    pub(super) to_be_asked: Option<Box<Established>>,
    tls: Option<TlsInfo>,
}

impl Opened {
    pub(super) async fn judge(self) -> Result<Judged, Error> {
        let Self { mut worker, proof, .. } = self;
        let tls = worker.options.protection.tls().cloned();
        let judgement = match mem::replace(&mut worker.options.protection, Protection::None) {
            Protection::Tls(established) => Some(Remote::judge(*established, proof).await),
            Protection::Settled(remote) => Some(Ok(Judgement::Known(remote))),
            Protection::None => None,
            // The machine does not open a stream that lacks it. Were it to, this is where it would end.
            Protection::Starttls(_) => {
                Some(Err(
                    SecurityError::StarttlsNotOffered { offered: "a stream without it".to_owned() }.into()
                ))
            }
        };
        let (remote, to_be_asked) = match judgement {
            Some(Ok(Judgement::Known(remote))) => (Some(remote), None),
            Some(Ok(Judgement::ToBeAsked(established))) => (None, Some(established)),
            Some(Err(error)) => return Err(refuse(worker, error)),
            None => (None, None),
        };
        if let Some(remote) = &remote {
            worker.options.protection = Protection::Settled(Arc::clone(remote));
        }
        Ok(Judged { worker, remote, to_be_asked, tls })
    }
}

/// What a bytestream is negotiated for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A new stream, on which this is to be said first.
    Begin(Option<FirstStanzas>),
    /// As initiator: a new stream, with the peer that has this certificate.
    BeginAnew(Certificate),
    /// As initiator: an earlier stream, with the peer that has this certificate.
    Resume(Resume, Certificate),
    /// As responder: an earlier stream.
    AwaitResume,
}

impl Purpose {
    /// What the next XML stream is for.
    fn agenda(&self, options: &StreamOptions, role: Role) -> Result<Agenda, Error> {
        Ok(match (self, options.agenda(role)?) {
            (Self::Begin(_) | Self::BeginAnew(_), agenda) => agenda,
            (_, Agenda::Starttls) => Agenda::Starttls,
            // The certificate says it all: it was judged when the stream began.
            (Self::Resume(..) | Self::AwaitResume, _) => Agenda::Nothing,
        })
    }

    fn management(&self, agenda: &Agenda, options: &StreamOptions) -> Result<Plan, Error> {
        Ok(match (self, agenda) {
            // Nothing is managed in the clear.
            (_, Agenda::Starttls) => Plan::Off,
            (Self::Begin(_) | Self::BeginAnew(_), _) => options.management(nonce()?),
            (Self::Resume(resume, _), _) => Plan::Resume(resume.clone()),
            (Self::AwaitResume, _) => Plan::AwaitResume,
        })
    }

    /// Says with the header what is to be said first, to a peer that [`settle`](Self::settle) found to be the right one.
    fn say_first(&self, worker: &Worker) -> Result<Said, Error> {
        let (Self::Begin(Some(first)), Role::Initiator) = (self, worker.role) else {
            return Ok(Said::NotYet);
        };
        if first.stanzas.is_empty() || !matches!(worker.options.protection, Protection::Settled(_)) {
            // That acknowledgements are wanted may be told to anybody.
            let enable = |machine: &mut Machine| machine.enable_early(now(), first.responder);
            worker.shared.with(|inner, _| enable(&mut inner.machine));
            return Ok(Said::NotYet);
        }
        let say = |machine: &mut Machine| machine.say_early(now(), first.copies(), first.responder);
        worker.shared.with(|inner, _| say(&mut inner.machine))?;
        Ok(Said::WithTheHeader)
    }

    /// Settles who the peer is, if something is to be said to it with the header and it is believed without another question:
    /// its certificate, and what it has proved before, are all that it has to show. What could be refused behind that would
    /// have been said to a stranger.
    async fn settle(
        &self,
        role: Role,
        options: &mut StreamOptions,
        agenda: &Agenda,
        proof: Option<Proof>,
    ) -> Result<(), Error> {
        let says = matches!(self, Self::Begin(Some(first)) if !first.stanzas.is_empty());
        let is_wanted = says && role == Role::Initiator && !agenda.has_secret();
        match mem::replace(&mut options.protection, Protection::None) {
            Protection::Tls(established) if is_wanted && Remote::is_believed(&established) => {
                options.protection = Protection::Settled(Remote::settle(*established, proof).await?);
            }
            other => options.protection = other,
        }
        Ok(())
    }

    /// Whether this is the peer, before anything is said to it that others must not know.
    fn check(&self, options: &StreamOptions) -> Result<(), SecurityError> {
        let expected = match self {
            Self::Resume(_, expected) | Self::BeginAnew(expected) => Some(expected),
            Self::AwaitResume => None,
            Self::Begin(_) => return Ok(()),
        };
        match (&options.protection, options.protection.channel()) {
            (Protection::Starttls(_), _) => Ok(()),
            (_, None) => Err(SecurityError::NotOffered),
            (_, Some(channel)) => match expected {
                Some(expected) if *expected != channel.peer => {
                    let peer = options.peer.as_ref().map(Jid::to_bare);
                    Err(another(peer, expected, &channel.peer))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Opens XML streams on a bytestream until one of them has nothing more to negotiate (RFC 6120 §4.3). What a stream was
/// told before the next is forgotten.
pub(super) async fn negotiate(
    mut io: Box<dyn Bytes>,
    early: &[u8],
    role: Role,
    mut session: Session,
    mut options: StreamOptions,
    purpose: Purpose,
) -> Result<Opened, Error> {
    let mut early = early.to_vec();
    let mut proof = None;
    let mut agenda = purpose.agenda(&options, role)?;
    loop {
        let settled = match purpose.check(&options) {
            Ok(()) => purpose.settle(role, &mut options, &agenda, proof).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = settled {
            session.terminate(error.reason(), error.peer_text());
            return Err(error);
        }
        let management = purpose.management(&agenda, &options)?;
        let round = Round { agenda, nonce: nonce()?, management };
        let mut worker = Worker::new(io, &early, role, session, options, round);
        let first = purpose.say_first(&worker)?;
        let next = match poll_fn(|cx| worker.poll_open(cx)).await {
            Ok(Opening::Open | Opening::Resumption) => return Ok(Opened { worker, proof, first }),
            Ok(Opening::Negotiated(next)) => next,
            Err(error) => {
                // Telling the peer may take a while.
                tokio::spawn(worker.give_up(error.clone()));
                return Err(error);
            }
        };
        let (bare, unread) = worker.into_bare();
        match next {
            Next::Tls => {
                // The machine saw to it that nothing came behind the last element.
                early = Vec::new();
                Bare { io, session, options } = upgrade(bare, role).await?;
                agenda = purpose.agenda(&options, role)?;
            }
            Next::Restart(proved) => {
                early = unread;
                proof = proved;
                Bare { io, session, options } = bare;
                agenda = Agenda::Nothing;
            }
        }
    }
}

/// STARTTLS after `<proceed/>` (RFC 6120 §5.4.3): the initiator is the TLS client.
async fn upgrade(bare: Bare, role: Role) -> Result<Bare, Error> {
    let Bare { io, mut session, options } = bare;
    match handshake(io, role, &options).await {
        Ok((io, established)) => {
            let options = options.encrypted(established).map_io(tls_io::error_from_io);
            Ok(Bare { io, session, options })
        }
        Err(error) => {
            let error = error.explained_by(session.error());
            session.terminate(error.reason(), error.peer_text());
            Err(error)
        }
    }
}

async fn handshake(
    io: Box<dyn Bytes>,
    role: Role,
    options: &StreamOptions,
) -> Result<(Box<dyn Bytes>, Established), Error> {
    let (Protection::Starttls(tls), Some(peer)) = (&options.protection, &options.peer) else {
        return Err(ApiMisuse::Config("STARTTLS is not set up".to_owned()).into());
    };
    let tls = TlsOptions::clone(tls);
    let expectation =
        Expectation { peer: peer.to_bare(), announced: Announced::Nothing, options: tls.clone() };
    let handshake = async {
        match role {
            Role::Initiator => tls_io::connect(io, expectation).await,
            Role::Responder => tls_io::accept(io, expectation).await,
        }
    };
    let secured = tls_io::in_time(options.timeouts.tls, handshake).await?;
    Ok((Box::new(secured.io), Established { options: tls, connection: secured.connection }))
}

/// Ends a stream that is up with a peer that is not who it should be.
pub(super) fn refuse(worker: Worker, error: Error) -> Error {
    worker.shared.with(|inner, _| inner.machine.refuse(now(), error.clone()));
    tokio::spawn(worker.give_up(error.clone()));
    error
}

/// 128 random bits in hexadecimal: nobody can guess the id of a stream (RFC 6120 §4.7.3).
fn nonce() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::io(&io::Error::other("the system gives no random numbers")))?;
    let mut nonce = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(nonce, "{byte:02x}");
    }
    Ok(nonce)
}

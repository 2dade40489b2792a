//! `E2eStream`, encrypted by STARTTLS.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use jingle_xmlstream::{
    E2eStream, Identity, StreamOptions, TlsOptions, Trust,
    stream::{accept, initiate},
};
use tokio_xmpp::IqRequest;
use xmpp_parsers::ping::Ping;

use super::{Failure, body, message, sockets};

/// From the first message to the last one received.
pub(super) async fn send(count: usize, size: usize) -> Result<Duration, Failure> {
    let (mut romeo, mut juliet) = streams().await?;
    let body = body(size);
    let begin = Instant::now();
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            romeo.feed(message(&body)).await?;
        }
        romeo.flush().await?;
        Ok::<_, Failure>(romeo)
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            juliet.next().await.ok_or("the stream ended early")??;
        }
        Ok::<_, Failure>((juliet, Instant::now()))
    });
    let (romeo, (juliet, end)) = (sending.await??, receiving.await??);
    tokio::try_join!(romeo.close(), juliet.close())?;
    Ok(end - begin)
}

/// The median of so many.
pub(super) async fn ping(count: usize) -> Result<Duration, Failure> {
    let (romeo, juliet) = streams().await?;
    let pinging = tokio::spawn(async move {
        let mut times = Vec::new();
        for _ in 0..count {
            let begin = Instant::now();
            romeo.send_iq(IqRequest::Get(Ping.into())).await?;
            times.push(begin.elapsed());
        }
        Ok::<_, Failure>((romeo, times))
    });
    let (romeo, mut times) = pinging.await??;
    tokio::try_join!(romeo.close(), juliet.close())?;
    times.sort();
    Ok(times.get(count / 2).copied().unwrap_or_default())
}

async fn streams() -> Result<(E2eStream, E2eStream), Failure> {
    let (romeos, juliets) = sockets().await?;
    let romeo = options("romeo@montague.example/orchard", "juliet@capulet.example/balcony")?;
    let juliet = options("juliet@capulet.example/balcony", "romeo@montague.example/orchard")?;
    Ok(tokio::try_join!(initiate(romeos, romeo), accept(juliets, juliet))?)
}

fn options(local: &str, peer: &str) -> Result<StreamOptions, Failure> {
    let tls = TlsOptions::new(Identity::generate()?, Trust::first_use());
    Ok(StreamOptions::new().local(local.parse()?).peer(peer.parse()?).starttls(tls))
}

//! More in one piece than is read at a time: what comes of what is behind it. In stopped time.

use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};
use xmpp_parsers::{stanza::Stanza, stream_error::DefinedCondition};

use super::{
    E2eStream, StreamOptions,
    e2e_visits::PATIENCE,
    e2e_visits_tests::{HEADER, ROOM, stream, written_and_ended},
    initiate,
};
use crate::Error;

/// Stanzas in a piece: a few times what is read at once, and not a multiple of it.
const MANY: usize = 20;

/// How long what is left may take to be seen to: that, and the tick of a timer.
const BEFORE_LONG: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 + 1);

/// Messages with these bodies, and what comes behind them.
fn piece(bodies: std::ops::Range<usize>, behind: &str) -> String {
    let messages = bodies.map(|body| format!("<message><body>{body}</body></message>"));
    messages.collect::<String>() + behind
}

fn put(theirs: &mut DuplexStream, piece: &str) {
    theirs.write_all(piece.as_bytes()).now_or_never().unwrap().unwrap();
}

fn body(stanza: Stanza) -> usize {
    let Stanza::Message(message) = stanza else { panic!("not a message: {stanza:?}") };
    message.bodies.into_values().next().unwrap().parse().unwrap()
}

/// The next message, which is here or comes without anything else from the peer.
async fn hear(stream: &mut E2eStream) -> usize {
    let next = timeout(BEFORE_LONG, stream.next()).await;
    body(next.expect("it comes before long").expect("the stream goes on").expect("nothing is wrong"))
}

#[tokio::test(start_paused = true)]
async fn all_of_a_piece_is_received_in_order_by_somebody_who_was_long_away() {
    let (mut stream, mut theirs) = stream().await;
    let many = 20 * MANY;
    put(&mut theirs, &piece(0..many, ""));
    sleep(Duration::from_secs(1)).await;
    for place in 0..many {
        assert_eq!(hear(&mut stream).await, place);
    }
    assert!(stream.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn all_of_a_piece_is_received_by_somebody_who_is_away_after_each_stanza() {
    for away in [Duration::ZERO, PATIENCE / 2, PATIENCE, 3 * PATIENCE] {
        let (mut stream, mut theirs) = stream().await;
        put(&mut theirs, &piece(0..MANY, ""));
        for place in 0..MANY {
            assert_eq!(hear(&mut stream).await, place, "{away:?}");
            sleep(away).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_is_woken_for_all_of_a_piece() {
    let (mut stream, mut theirs) = stream().await;
    let bodies = tokio::spawn(async move {
        let mut bodies = Vec::new();
        while let Some(stanza) = stream.next().await {
            bodies.push(body(stanza.unwrap()));
        }
        bodies
    });
    sleep(Duration::from_millis(10)).await;
    let before = Instant::now();
    put(&mut theirs, &piece(0..MANY, "</stream:stream>"));
    assert_eq!(bodies.await.unwrap(), (0..MANY).collect::<Vec<_>>());
    assert_eq!(before.elapsed(), Duration::ZERO, "nothing of it waits for a timer");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_behind_many_stanzas_comes_behind_them() {
    for is_awaited in [true, false] {
        let (mut stream, mut theirs) = stream().await;
        put(&mut theirs, &piece(0..MANY, "what light"));
        if is_awaited {
            for place in 0..MANY {
                assert_eq!(
                    stream.next().now_or_never().map(|next| body(next.unwrap().unwrap())),
                    Some(place)
                );
            }
        } else {
            sleep(BEFORE_LONG).await;
            assert!(written_and_ended(&mut theirs).0.contains("bad-format"), "it is noticed without anybody");
            for place in 0..MANY {
                assert_eq!(hear(&mut stream).await, place);
            }
        }
        let end = timeout(BEFORE_LONG, stream.next()).await.expect("it comes before long");
        assert!(
            matches!(&end, Some(Err(Error::Stream(failure))) if failure.condition == DefinedCondition::BadFormat),
            "{end:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_footer_behind_many_stanzas_is_answered_whether_or_not_anybody_receives_them() {
    for taken in [0, 1, MANY / 2, MANY] {
        let (mut stream, mut theirs) = stream().await;
        put(&mut theirs, &piece(0..MANY, "</stream:stream>"));
        for place in 0..taken {
            assert_eq!(hear(&mut stream).await, place);
        }
        sleep(BEFORE_LONG).await;
        assert!(written_and_ended(&mut theirs).0.ends_with("</stream:stream>"), "{taken} were received");
        for place in taken..MANY {
            assert_eq!(hear(&mut stream).await, place);
        }
        let end = timeout(BEFORE_LONG, stream.next()).await.expect("it comes before long");
        assert!(end.is_none(), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_bytestream_ends_is_received_before_that_is_told() {
    let (mut stream, mut theirs) = stream().await;
    put(&mut theirs, &piece(0..MANY, ""));
    drop(theirs);
    for place in 0..MANY {
        assert_eq!(hear(&mut stream).await, place);
        sleep(PATIENCE / 2).await;
    }
    let end = timeout(BEFORE_LONG, stream.next()).await.expect("it comes before long");
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_with_the_header_is_received_though_nothing_comes_behind_it() {
    let (ours, mut theirs) = duplex(ROOM);
    put(&mut theirs, &(HEADER.to_owned() + &piece(0..MANY, "")));
    let mut stream = initiate(ours, StreamOptions::new()).await.unwrap();
    for place in 0..MANY {
        assert_eq!(hear(&mut stream).await, place);
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_stream_begins_with_what_is_behind_the_footer_of_a_long_piece() {
    let (mut stream, mut theirs) = stream().await;
    put(&mut theirs, &piece(0..MANY, "</stream:stream>"));
    put(&mut theirs, &(HEADER.to_owned() + &piece(MANY..2 * MANY, "")));
    for place in 0..MANY {
        assert_eq!(hear(&mut stream).await, place);
    }
    assert!(stream.next().await.is_none());
    let mut next = stream.finish().await.unwrap().reopen().await.unwrap();
    for place in MANY..2 * MANY {
        assert_eq!(hear(&mut next).await, place);
    }
}

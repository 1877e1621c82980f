//! Handoffs to an MTA in this process, with a clock that jumps over every silence.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep};

use super::*;
use crate::config::{AfterTests, BackendAddress};

const REPLAY: [&str; 3] = ["EHLO sender.test", "MAIL FROM:<a@b.test> SIZE=5", "RCPT TO:<c@d.test>"];

fn handoff(pending: &'static [u8]) -> Handoff {
    let replay = REPLAY.map(|line| Bytes::from_static(line.as_bytes())).to_vec();
    Handoff { replay, teaser_sent: true, pending: Bytes::from_static(pending), tls: None }
}

/// An MTA that answers with these replies in turn, `pause` after each line, and then no more; what it heard.
fn mta(
    replies: &'static [&'static str],
    pause: Duration,
) -> (Backend, tempfile::TempDir, tokio::task::JoinHandle<Vec<String>>) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("mta");
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(BufReader::new(stream), replies, pause).await
    });
    let backend =
        Backend { address: BackendAddress::Unix(path), handoff: HandoffMethod::None, after_tests: AfterTests::Relay };
    (backend, place, task)
}

async fn answer(mut stream: BufReader<UnixStream>, replies: &[&str], pause: Duration) -> Vec<String> {
    let mut heard = Vec::new();
    for reply in replies {
        sleep(pause).await;
        stream.write_all(reply.as_bytes()).await.unwrap();
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
            return heard;
        }
        heard.push(line);
    }
    // The rest of what comes, until the other side gives up.
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap_or_default() > 0 {
        heard.push(std::mem::take(&mut line));
    }
    heard
}

async fn outcome(backend: &Backend, handoff: &Handoff) -> Result<HandedOff, HandoffError> {
    let header = Header::for_client("203.0.113.7:1".parse().unwrap(), "192.0.2.10:25".parse().unwrap());
    match hand_off(backend, &header, handoff, None).await? {
        Outcome::Reached(handed_off) => Ok(handed_off),
        Outcome::Given => panic!("a socket that was not there was given away"),
    }
}

const POLITE: &[&str] = &["220 mx\r\n", "250-mx\r\n250-SIZE 9\r\n250 DSN\r\n", "250 2.1.0 Ok\r\n", "250 2.1.5 Ok\r\n"];

#[tokio::test(start_paused = true)]
async fn the_replay_is_verbatim_and_what_was_sent_behind_it_comes_last() {
    let (backend, _place, heard) = mta(POLITE, Duration::ZERO);
    let handed_off = outcome(&backend, &handoff(b"DATA\r\n")).await.unwrap();
    assert_eq!(handed_off.reply, "250 2.1.5 Ok\r\n");
    assert_eq!(handed_off.offer, Some(Features::from_mta(["SIZE 9", "DSN"])));
    drop(handed_off);
    let expected: Vec<String> = REPLAY.iter().copied().chain(["DATA"]).map(|line| format!("{line}\r\n")).collect();
    assert_eq!(heard.await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn where_the_mta_offers_pipelining_it_still_gets_to_say_who_was_refused() {
    const REPLIES: &[&str] =
        &["220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "550 5.1.8 no\r\n", "503 5.5.1 need MAIL\r\n"];
    let (backend, _place, heard) = mta(REPLIES, Duration::ZERO);
    match outcome(&backend, &handoff(b"")).await {
        Err(HandoffError::Refused { reply }) => assert_eq!(reply, "550 5.1.8 no\r\n"),
        other => panic!("{other:?}"),
    }
    assert_eq!(heard.await.unwrap().len(), 3, "all lines came at once");
}

#[tokio::test(start_paused = true)]
async fn an_mta_that_falls_silent_at_any_step_is_given_up_in_time() {
    for answered in 0..POLITE.len() {
        let (backend, _place, _heard) = mta(&POLITE[..answered], Duration::ZERO);
        let began = Instant::now();
        let error = outcome(&backend, &handoff(b"")).await.unwrap_err();
        assert!(error.to_string().contains("does not answer: timed out"), "{answered}: {error}");
        assert!(began.elapsed() <= Duration::from_secs(101), "{answered}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_mta_that_is_slow_at_every_step_is_given_up_before_the_client_gives_up() {
    let (backend, _place, _heard) = mta(POLITE, Duration::from_secs(90));
    let began = Instant::now();
    let error = outcome(&backend, &handoff(b"")).await.unwrap_err();
    assert!(error.to_string().contains("takes too long in all"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(300));
    let (backend, _place, _heard) = mta(POLITE, Duration::from_secs(50));
    outcome(&backend, &handoff(b"")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_an_end_is_none() {
    const ENDLESS: &[&str] = &["220 mx\r\n"];
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("mta");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(ENDLESS[0].as_bytes()).await.unwrap();
        while stream.write_all(b"250-and another thing\r\n").await.is_ok() {}
    });
    let backend =
        Backend { address: BackendAddress::Unix(path), handoff: HandoffMethod::None, after_tests: AfterTests::Relay };
    let error = outcome(&backend, &handoff(b"")).await.unwrap_err();
    assert!(error.to_string().contains("its reply does not end"), "{error}");
}

#[test]
fn a_connection_of_our_own_is_announced_in_a_form_that_postfix_takes() {
    let local = Header::local();
    assert_eq!(announcement(HandoffMethod::ProxyV1, &local), b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 25\r\n");
    assert_eq!(announcement(HandoffMethod::ProxyV2, &local)[12..], [0x20, 0, 0, 0]);
    assert!(announcement(HandoffMethod::None, &local).is_empty());
}

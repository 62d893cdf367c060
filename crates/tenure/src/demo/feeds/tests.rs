//! The feed server over real sockets.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    time::Instant,
};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn server(feeds: usize, rate: f64) -> FeedServer {
    FeedServer::start(&Plan { rate, tick: Duration::from_millis(5), ..Plan::new(feeds) }).unwrap()
}

fn subscribe(server: &FeedServer, feed: &str, position: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("SUBSCRIBE {feed} FROM {position}\n").as_bytes()).unwrap();
    stream
}

fn seqs(stream: impl Read, count: usize) -> Vec<u64> {
    let lines = BufReader::new(stream).lines().take(count);
    lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()["seq"].as_u64().unwrap())
        .collect()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_reader_gets_everything_after_its_position_and_then_what_comes() {
    let server = server(2, 200.0);
    eventually("some records exist", || server.produced()["f000"] > 20);
    assert_eq!(seqs(subscribe(&server, "f000", ""), 30), (1..=30).collect::<Vec<_>>());
    assert_eq!(seqs(subscribe(&server, "f000", "17"), 30), (18..=47).collect::<Vec<_>>());
}

#[test]
fn a_reader_without_a_position_gets_only_what_comes_from_now_on() {
    let server = server(1, 200.0);
    eventually("some records exist", || server.produced()["f000"] > 20);
    let before = server.produced()["f000"];
    let got = seqs(subscribe(&server, "f000", "now"), 10);
    assert!(got[0] > before, "{} came before {before} was there", got[0]);
    assert_eq!(got, (got[0]..got[0] + 10).collect::<Vec<_>>());
    assert_eq!(server.ledger().visits(0)[0].after + 1, got[0]);
}

#[test]
fn production_goes_on_without_readers_and_stops_for_good() {
    let server = server(3, 500.0);
    eventually("records exist", || server.sent() > 100);
    server.stop_production();
    let sent = server.sent();
    let last = server.produced()["f001"];
    assert_eq!(sent, server.produced().values().sum::<u64>());
    assert_eq!(seqs(subscribe(&server, "f001", &(last - 5).to_string()), 5), (last - 4..=last).collect::<Vec<_>>());
    assert_eq!(server.sent(), sent);
    assert_eq!(server.stop_production(), server.report().end);
}

#[test]
fn the_record_shows_readers_from_hello_to_close() {
    let server = server(2, 50.0);
    let first = subscribe(&server, "f000", "");
    eventually("the reader is seen", || server.read_now() == 1);
    assert_eq!(server.report().never_read, 1);
    drop(first);
    eventually("its end is seen", || server.read_now() == 0);
    std::thread::sleep(Duration::from_millis(60));
    let second = subscribe(&server, "f000", "3");
    eventually("the next reader is seen", || server.read_now() == 1);
    let third = subscribe(&server, "f000", "4");
    eventually("an overlap is seen", || server.report().overlaps.len() == 1);
    let report = server.report();
    let [gap] = report.gaps[..] else { panic!("one gap, not {:?}", report.gaps) };
    assert!(gap.length >= Duration::from_millis(60) && gap.until.is_some(), "{gap:?}");
    assert_eq!((report.longest_gap(), report.gaps_between(gap.from, report.end).count), (gap.length, 1));
    assert_eq!(server.ledger().visits(0)[1].after, 3);
    assert_eq!(server.ledger().visits(0)[1].peer, second.local_addr().unwrap());
    drop(third);
}

#[test]
fn a_reset_is_seen_without_anything_being_written() {
    let server = server(1, 0.001);
    let reader = subscribe(&server, "f000", "");
    eventually("the reader is seen", || server.read_now() == 1);
    reader.shutdown(Shutdown::Both).unwrap();
    eventually("its end is seen", || server.read_now() == 0);
}

#[test]
fn a_reader_that_takes_nothing_costs_no_memory_and_gets_all_in_the_end() {
    let server = server(1, 10_000.0);
    let mut slow = subscribe(&server, "f000", "");
    eventually("the first reader is seen", || server.read_now() == 1);
    server.misbehave(0, Manner::Proper);
    eventually("the first reader was sent away", || server.read_now() == 0);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    let slow = subscribe(&server, "f000", "");
    eventually("much more exists than any socket buffer holds", || server.sent() > 60_000);
    server.stop_production();
    let sent = server.sent() as usize;
    assert_eq!(seqs(slow, sent), (1..=sent as u64).collect::<Vec<_>>());
}

#[test]
fn a_web_socket_reader_gets_one_record_per_message_and_its_pings_answered() {
    let server = server(1, 200.0);
    let url = format!("ws://{}/", server.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        socket.send(Message::text("SUBSCRIBE f000 FROM 2\n")).await.unwrap();
        let (mut seq, mut pongs) = (2, 0);
        while seq < 60 || pongs == 0 {
            match socket.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
                    seq += 1;
                    assert_eq!(record["seq"], seq);
                    if seq % 10 == 0 {
                        socket.send(Message::Ping(b"there?".to_vec().into())).await.unwrap();
                    }
                }
                Message::Pong(body) => {
                    assert_eq!(&body[..], b"there?");
                    pongs += 1;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        socket.close(None).await.unwrap();
    });
    eventually("the close is seen", || server.read_now() == 0);
    assert_eq!(server.ledger().visits(0)[0].after, 2);
}

#[test]
fn a_refusing_feed_resets_and_counts_no_reader() {
    let server = server(1, 50.0);
    server.misbehave(0, Manner::Refuse);
    let mut stream = subscribe(&server, "f000", "");
    assert!(!matches!(stream.read(&mut [0; 10]), Ok(n) if n > 0));
    assert_eq!(server.report().never_read, 1);
}

#[test]
fn a_flooding_feed_is_far_ahead_of_its_schedule_and_can_still_be_counted() {
    let server = server(1, 1.0);
    server.misbehave(0, Manner::Flood);
    let flooded = subscribe(&server, "f000", "");
    assert_eq!(seqs(&flooded, 50_000), (1..=50_000).collect::<Vec<_>>());
    server.stop_production();
    let sent = server.sent();
    assert!(sent >= 50_000);
    let rest = subscribe(&server, "f000", &(sent - 3).to_string());
    assert_eq!(seqs(rest, 3), (sent - 2..=sent).collect::<Vec<_>>());
}

#[test]
fn bad_lines_come_before_proper_records() {
    let server = server(2, 100.0);
    server.misbehave(0, Manner::LongLine);
    server.misbehave(1, Manner::HalfUtf8);
    let mut long = BufReader::new(subscribe(&server, "f000", ""));
    let mut line = Vec::new();
    long.read_until(b'\n', &mut line).unwrap();
    assert_eq!(line.len(), manner::LONG_LINE + 1);
    assert_eq!(seqs(long, 3), [1, 2, 3]);
    let mut half = BufReader::new(subscribe(&server, "f001", ""));
    line.clear();
    half.read_until(b'\n', &mut line).unwrap();
    assert!(std::str::from_utf8(&line).is_err());
    assert_eq!(seqs(half, 3), [1, 2, 3]);
}

#[test]
fn a_silent_feed_has_a_reader_and_sends_nothing() {
    let server = server(1, 1_000.0);
    server.misbehave(0, Manner::Silent);
    let mut stream = subscribe(&server, "f000", "");
    eventually("the reader is seen", || server.read_now() == 1);
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0; 10]).is_err());
    server.misbehave(0, Manner::Proper);
    eventually("it is sent away", || server.read_now() == 0);
}

#[test]
fn every_reader_can_be_hung_up_on_at_once() {
    let server = server(20, 5.0);
    let names: Vec<String> = server.names().map(str::to_owned).collect();
    let readers: Vec<TcpStream> = names.iter().map(|name| subscribe(&server, name, "")).collect();
    eventually("all read", || server.read_now() == 20);
    server.hang_up_all();
    eventually("none reads", || server.read_now() == 0);
    drop(readers);
}

/// Not a claim but a measurement, for people: 10,000 readers of 5 records per second on loopback.
/// Run alone, with `-- --ignored --nocapture`; needs 20,000 open files.
#[test]
#[ignore = "a measurement of 20 s; needs 20,000 open files"]
fn ten_thousand_readers_cost_a_fraction_of_one_core() {
    const READERS: usize = 9_900;
    let server = FeedServer::start(&Plan::new(READERS)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let received = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let names: Vec<String> = server.names().map(str::to_owned).collect();
    for name in names {
        let (address, received) = (server.address(), received.clone());
        runtime.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, format!("SUBSCRIBE {name} FROM \n").as_bytes())
                .await
                .unwrap();
            loop {
                stream.readable().await.unwrap();
                let mut bytes = [0; 4096];
                match stream.try_read(&mut bytes) {
                    Ok(0) => return,
                    Ok(n) => {
                        let lines = bytes[..n].iter().filter(|byte| **byte == b'\n').count();
                        received.fetch_add(lines as u64, Ordering::Relaxed);
                    }
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
        });
    }
    runtime.block_on(async {
        while server.read_now() < READERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("all read after {:?}", server.now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (busy, at, records) = (server.busy(), Instant::now(), received.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let share = (server.busy() - busy).as_secs_f64() / at.elapsed().as_secs_f64();
        let pace = (received.load(Ordering::Relaxed) - records) as f64 / at.elapsed().as_secs_f64();
        println!("{READERS} readers, {pace:.0} records/s, {:.1} % of one core", share * 100.0);
        assert!(share < 0.9, "{share}");
    });
    drop(runtime);
}

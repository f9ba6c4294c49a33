//! Bodies: long ones in constant memory, readers that stop, and the memory for repeats.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::origin::Origin;
use super::{ONE_AT_A_TIME, get, timed_get};
use crate::support::process::Process;
use crate::support::raw::RawClient;

const MIB: u64 = 1 << 20;

/// Size of a long body; `FORBEAR_TEST_BODY_MIB=1024` makes it a whole gibibyte.
fn long() -> u64 {
    let wish = std::env::var_os("FORBEAR_TEST_BODY_MIB");
    wish.and_then(|mib| mib.to_str()?.parse::<u64>().ok()).unwrap_or(256) * MIB
}

/// Reads to the end of a response of so many body bytes.
async fn swallow(stream: &mut TcpStream, body: u64) {
    let mut piece = vec![0; 64 << 10];
    let mut head = Vec::new();
    let mut rest = loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert_ne!(count, 0, "the response is cut short");
        head.extend_from_slice(&piece[..count]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
            break body - (head.len() - at - 4) as u64;
        }
    };
    while rest > 0 {
        let count = stream.read(&mut piece).await.unwrap();
        assert_ne!(count, 0, "the response is cut short, {rest} bytes are missing");
        rest -= count as u64;
    }
}

#[tokio::test]
async fn long_bodies_pass_in_constant_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let forbear = Process::start(&format!("[proxy]\n{}", origin.table("api", "")));
    timed_get(&mut RawClient::connect(forbear.proxy).await).await;
    let length = long();

    for way in ["up", "down"] {
        let before = forbear.memory_kib("VmRSS");
        forbear.forget_peak();
        let mut stream = TcpStream::connect(forbear.proxy).await.unwrap();
        let began = Instant::now();
        if way == "up" {
            let head =
                format!("POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; MIB as usize];
            for _ in 0..length / MIB {
                stream.write_all(&piece).await.unwrap();
            }
            swallow(&mut stream, length.to_string().len() as u64).await;
        } else {
            stream.write_all(get(&format!("/api/long/{length}")).as_bytes()).await.unwrap();
            swallow(&mut stream, length).await;
        }
        let grown = forbear.memory_kib("VmHWM").saturating_sub(before);
        let took = began.elapsed();
        println!("{} MiB {way} in {took:.1?}: {grown} KiB more at the most", length / MIB);
        assert!(grown <= 8 * 1024, "{way}: memory grew by {grown} KiB");
    }
    assert_eq!(origin.uploads(), 1, "what is too long to be kept is sent once");
}

#[tokio::test]
async fn readers_that_stop_hold_the_upstream_back_and_cost_little() {
    const READERS: u64 = 16;
    const LENGTH: u64 = 20 * MIB;
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let table = origin.table("api", "in_flight_max = 20");
    let forbear = Process::start(&format!("[proxy]\n{table}"));
    let mut client = RawClient::connect(forbear.proxy).await;
    timed_get(&mut client).await;
    let before = forbear.memory_kib("VmRSS");
    forbear.forget_peak();

    let mut readers = Vec::new();
    for _ in 0..READERS {
        let socket = TcpSocket::new_v4().unwrap();
        // So that the kernel does not swallow the whole of it.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut stream = socket.connect(forbear.proxy).await.unwrap();
        stream.write_all(get(&format!("/api/long/{LENGTH}")).as_bytes()).await.unwrap();
        readers.push(stream);
    }
    // It has settled when nothing more was given for half a second.
    let (mut given, mut still) = (0, 0);
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let now = origin.given();
        still = if now == given && now > 0 { still + 1 } else { 0 };
        given = now;
        if still == 20 {
            break;
        }
    }
    assert_eq!(still, 20, "it has not settled: {given} bytes were given");
    let grown = forbear.memory_kib("VmHWM").saturating_sub(before);
    println!(
        "{READERS} stalled readers: {} of {} MiB were taken from the upstream, {grown} KiB kept",
        given / MIB,
        READERS * LENGTH / MIB
    );
    assert!(given < READERS * LENGTH * 3 / 4, "the upstream was read although nobody reads");
    assert!(grown <= 20 * 1024, "memory grew by {grown} KiB");
    timed_get(&mut client).await;

    for reader in &mut readers {
        swallow(reader, LENGTH).await;
    }
    assert_eq!(origin.given(), READERS * LENGTH);
}

#[tokio::test]
async fn bodies_that_find_no_memory_for_a_repeat_pass_all_the_same_and_are_counted() {
    const POSTS: usize = 40;
    const LENGTH: usize = 256 << 10;
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let table = origin.table("api", "in_flight_max = 64");
    let forbear =
        Process::start(&format!("[proxy]\n[limits]\nreplay_memory_max = \"1MiB\"\n{table}"));
    let mut clients = Vec::new();
    for n in 0..POSTS {
        let mut client = RawClient::connect(forbear.proxy).await;
        let head = format!("POST /api/hold/{n} HTTP/1.1\r\nHost: a\r\n");
        client.send(format!("{head}Content-Length: {LENGTH}\r\n\r\n")).await;
        client.send(vec![b'x'; LENGTH]).await;
        clients.push(client);
    }
    while origin.held().len() < POSTS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    origin.let_go(POSTS);
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, LENGTH.to_string()));
    }
    let counted = forbear.admin().await.metric("forbear_replay_unavailable_total").await;
    println!("{counted} of {POSTS} bodies found no memory for a repeat");
    // At most four of them fit in whole.
    assert!((POSTS as u64 - 4..=POSTS as u64).contains(&counted), "{counted} were counted");
}

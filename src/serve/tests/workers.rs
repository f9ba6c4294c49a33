//! Real sockets: binding, accepting, the bound on connections, and the end.

use tokio::net::TcpStream;

use super::*;
use crate::config::settings::ProxySettings;
use crate::serve::worker::{Bound, Running};

fn settings(workers: usize, connections_max: usize) -> ProxySettings {
    ProxySettings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        workers,
        connections_max,
        header_timeout: TIMEOUTS.header,
        body_timeout: Duration::from_secs(30),
        keep_alive_timeout: TIMEOUTS.keep_alive,
        drain_timeout: Duration::from_secs(25),
        drain_idle: Duration::from_secs(1),
        idle_exit: None,
    }
}

fn start(proxy: &ProxySettings) -> (Running, Recorder) {
    let recorder = Recorder::default();
    let running = bind(proxy).unwrap().start(&recorder).unwrap();
    (running, recorder)
}

fn bind(proxy: &ProxySettings) -> Result<Bound, crate::serve::worker::BindError> {
    let main = proxy.listen.iter().enumerate();
    Bound::bind_all(proxy, main.map(|(i, a)| ("proxy.listen".to_owned(), ListenerId::Main(i), *a)))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect(what)
}

async fn get(socket: &mut TcpStream) -> u16 {
    socket.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"fine") {
        bytes.push(within("an answer", socket.read_u8()).await.unwrap());
    }
    statuses(&bytes)[0]
}

#[tokio::test]
async fn workers_share_every_port_and_the_one_that_was_chosen_is_told() {
    let mut proxy = settings(2, 1000);
    proxy.listen = vec![proxy.listen[0]; 2];
    let (mut running, recorder) = start(&proxy);
    assert_ne!(running.addresses()[0].1, running.addresses()[1].1);
    let mut open = Vec::new();
    for (_, address) in running.addresses() {
        for _ in 0..20 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            assert_eq!(get(&mut socket).await, 200);
            open.push(socket);
        }
    }
    assert_eq!(recorder.lines().len(), 40);
    assert_eq!((running.load().connections_of(0), running.load().connections_of(1)), (20, 20));
    running.abort();
    within("the workers end", running.ended()).await;
    assert_eq!(running.load().connections(), 0);
}

#[tokio::test]
async fn an_address_in_use_is_told_with_setting_and_fix() {
    for workers in [1, 2] {
        let (running, _) = start(&settings(workers, 10));
        let mut proxy = settings(workers, 10);
        proxy.listen = vec![running.addresses()[0].1];
        let error = bind(&proxy).unwrap_err().to_string();
        assert!(error.starts_with("proxy.listen: cannot listen on 127.0.0.1:"), "{error}");
        assert!(error.ends_with("or choose another port."), "{error}");
    }
}

#[tokio::test]
async fn a_full_worker_lets_connections_wait_until_one_leaves() {
    const MAX: usize = 1000;
    crate::serve::worker::raise_open_files();
    let (running, _) = start(&settings(1, MAX));
    let address = running.addresses()[0].1;
    let mut open = Vec::new();
    for _ in 0..MAX {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    let load = running.load().clone();
    within("all places are taken", load.until(|load| load.connections() == MAX as i64)).await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(open.last_mut().unwrap()).await, 200);
    assert_eq!(load.connections(), MAX as i64);
    drop(open.swap_remove(0));
    assert_eq!(get(&mut waiting).await, 200);
}

#[tokio::test]
async fn after_stop_and_drain_the_workers_end_by_themselves() {
    let (mut running, _) = start(&settings(2, 100));
    let address = running.addresses()[0].1;
    let mut socket = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(&mut socket).await, 200);
    running.drain();
    let mut rest = Vec::new();
    within("the idle connection closes", socket.read_to_end(&mut rest)).await.unwrap();
    drop(socket);

    let mut late = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(&mut late).await, 200);
    within("it closes behind its answer", late.read_to_end(&mut rest)).await.unwrap();
    drop(late);

    running.stop_accepting();
    within("the workers end", running.ended()).await;
    assert_eq!((running.load().connections(), running.load().exchanges()), (0, 0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_refusal_reaches_a_client_whose_upload_nobody_read() {
    let (running, _) = start(&settings(1, 10));
    let mut socket = TcpStream::connect(running.addresses()[0].1).await.unwrap();
    socket.write_all(b"POST / HTTP/1.1\r\nHost : x\r\n\r\n").await.unwrap();
    for _ in 0..32 {
        socket.write_all(&[b'x'; 16 * 1024]).await.unwrap();
    }
    let mut bytes = Vec::new();
    within("the end", socket.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(statuses(&bytes), [400]);
}

#[tokio::test]
async fn a_response_that_was_cut_short_does_not_look_complete() {
    let (running, _) = start(&settings(1, 10));
    for (version, resets) in [("1.0", true), ("1.1", false)] {
        let mut socket = TcpStream::connect(running.addresses()[0].1).await.unwrap();
        let request = format!("GET /cut HTTP/{version}\r\nHost: x\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let end = within("the end", socket.read_to_end(&mut bytes)).await;
        assert_eq!(end.is_err(), resets, "{version}: {end:?}");
        assert!(!bytes.ends_with(b"0\r\n\r\n"));
    }
}

//! TLS for clients and between nodes, and what the client port promises: real processes on loopback, with
//! certificates made here. Waits are for conditions, with a deadline.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate::cli::{CliError, Output, Target, TargetTls};
use quorate_api::pb;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// A condition that does not come true in this time never will.
const DEADLINE: Duration = Duration::from_secs(40);

/// Who signs certificates.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate and its key, good for both ends of a connection, over what may be there.
    fn issue(&self, files: &Files, host: &str) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        fs::write(&files.cert, params.signed_by(&key, &self.0).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.ca, self.0.pem()).unwrap();
    }
}

/// A certificate, its key and the CA to trust.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Self {
        let of = |what: &str| dir.join(format!("{name}-{what}.pem"));
        Self { cert: of("cert"), key: of("key"), ca: of("ca") }
    }

    fn issued(dir: &Path, name: &str, ca: &Ca) -> Self {
        let files = Self::new(dir, name);
        ca.issue(&files, "127.0.0.1");
        files
    }

    fn for_clients(&self) -> Vec<String> {
        self.flags(["--cert-file", "--key-file", "--trusted-ca-file"])
    }

    fn for_peers(&self) -> Vec<String> {
        self.flags(["--peer-cert-file", "--peer-key-file", "--peer-trusted-ca-file"])
    }

    fn flags(&self, names: [&str; 3]) -> Vec<String> {
        let files = [&self.cert, &self.key, &self.ca];
        names.iter().zip(files).flat_map(|(name, file)| [name.to_string(), shown(file)]).collect()
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Addresses that are free now.
fn addresses<const N: usize>() -> [String; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|at| held[at].local_addr().unwrap().to_string())
}

/// A node process; killed when dropped.
struct Node {
    child: Child,
    log: PathBuf,
    client: String,
}

impl Node {
    /// Starts `name` of `cluster` (NAME=ADDR,...; none is said if that is empty) with further flags.
    fn start(dir: &Path, name: &str, client: &str, cluster: &str, flags: &[String]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_quorate")), dir, name, client, cluster, flags)
    }

    fn spawn(
        mut program: Command,
        dir: &Path,
        name: &str,
        client: &str,
        cluster: &str,
        flags: &[String],
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let data = shown(&dir.join(name));
        let child = program
            .args(["serve", "--name", name, "--data-dir", &data, "--listen-client", client])
            .args(Some(["--initial-cluster", cluster]).filter(|_| !cluster.is_empty()).iter().flatten())
            .args(["--log-level", "info,quorate=debug"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, client: client.to_owned() }
    }

    fn single(dir: &Path, flags: &[String]) -> Self {
        let [client, peer] = addresses();
        Self::start(dir, "one", &client, &format!("one={peer}"), flags)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn logs(&self, words: &str) {
        self.logs_line(&[words]).await;
    }

    /// Waits for a line with all of these words.
    async fn logs_line(&self, words: &[&str]) {
        until(&format!("{words:?} in {}", self.log.display()), async || {
            let log = self.log();
            let is_there = log.lines().any(|line| words.iter().all(|words| line.contains(words)));
            if is_there { Ok(()) } else { Err(log) }
        })
        .await;
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until the answer is good.
async fn until<T, E: std::fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "still not: {what}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn target(endpoint: &str, tls: TargetTls) -> Target {
    Target { endpoints: vec![endpoint.to_owned()], keyspace: None, output: Output::Table, timeout: 5, tls }
}

fn trusting(ca: &Path) -> TargetTls {
    TargetTls { cacert: Some(ca.to_owned()), ..TargetTls::default() }
}

fn showing(files: &Files, ca: &Path) -> TargetTls {
    TargetTls { cacert: Some(ca.to_owned()), cert: Some(files.cert.clone()), key: Some(files.key.clone()) }
}

async fn put(target: &Target, key: &str, value: &str) -> Result<(), CliError> {
    let mut client = pb::kv_client::KvClient::new(target.connect().await?);
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    client.put(pb::PutRequest { key, value, ..Default::default() }).await?;
    Ok(())
}

async fn get(target: &Target, key: &str) -> Result<String, CliError> {
    let mut client = pb::kv_client::KvClient::new(target.connect().await?);
    let range = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let response = client.range(range).await?.into_inner();
    let pair = response.kvs.first().ok_or_else(|| CliError::Usage("no such key".into()))?;
    Ok(String::from_utf8(pair.value.to_vec()).unwrap())
}

/// Runs the client command as a person would.
fn command(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_ca() {
    let dir = TempDir::new().unwrap();
    let (ca, other) = (Ca::new("right"), Ca::new("wrong"));
    let server = Files::issued(dir.path(), "server", &ca);
    let right = Files::issued(dir.path(), "right", &ca);
    let wrong = Files::issued(dir.path(), "wrong", &other);
    let mut flags = server.for_clients();
    flags.push("--client-cert-auth".into());
    let [of_keyspace] = addresses();
    flags.extend(["--listen-keyspace".into(), format!("default={of_keyspace}")]);
    let mut node = Node::single(dir.path(), &flags);
    let https = format!("https://{}", node.client);

    let good = target(&https, showing(&right, &server.ca));
    until("a put with the right certificate", async || put(&good, "key", "value").await).await;
    assert_eq!(get(&good, "key").await.unwrap(), "value");

    let (ca_file, cert, key) = (shown(&server.ca), shown(&right.cert), shown(&right.key));
    let tls = ["--endpoints", &node.client, "--cacert", &ca_file, "--cert", &cert, "--key", &key];
    let (is_good, text) = command(&[&tls[..], &["get", "key"]].concat());
    assert!(is_good && text.contains("value"), "{text}");
    // What members say of themselves leads back to TLS.
    until("status", async || match command(&[&tls[..], &["status"]].concat()) {
        (true, text) if text.contains(&https) && text.contains("leader") => Ok(()),
        (_, text) => Err(text),
    })
    .await;

    // The generator has a client of its own.
    let load = ["bench", "mixed", "--clients", "4", "--keys", "10", "--duration", "1", "--warm-up", "0"];
    let (is_good, text) = command(&[&tls[..], &load].concat());
    assert!(is_good && text.contains("operations") && !text.contains("errors"), "{text}");
    let (is_good, text) = command(&[&["--endpoints", &https, "--cacert", &ca_file], &load[..]].concat());
    assert!(!is_good && text.contains("ertificate"), "{text}");
    let of_other = shown(&wrong.ca);
    let (is_good, text) = command(&[&["--endpoints", &https, "--cacert", &of_other], &load[..]].concat());
    assert!(!is_good && text.contains("UnknownIssuer"), "{text}");
    let (is_good, text) = command(&[&["--endpoints", &https], &load[..]].concat());
    assert!(!is_good && text.contains("https:// needs --cacert"), "{text}");

    // Without a certificate, or with a stranger's: the handshake fails, perhaps seen by the first call only.
    for (tls, what) in [(trusting(&server.ca), "without"), (showing(&wrong, &server.ca), "other CA")] {
        let refused = put(&target(&https, tls), "key", what).await.unwrap_err().to_string();
        assert!(refused.contains("ertificate") || refused.contains("CA"), "{what}: {refused}");
    }
    node.logs("the TLS handshake failed: peer sent no certificates").await;
    node.logs("the TLS handshake failed: invalid peer certificate").await;
    // A keyspace's port wants the same.
    let of_keyspace = format!("https://{of_keyspace}");
    assert_eq!(get(&target(&of_keyspace, showing(&right, &server.ca)), "key").await.unwrap(), "value");
    let refused = put(&target(&of_keyspace, trusting(&server.ca)), "key", "?").await.unwrap_err().to_string();
    assert!(refused.contains("ertificate") || refused.contains("CA"), "{refused}");
    // A client that does not trust the node.
    let refused = put(&target(&https, showing(&right, &wrong.ca)), "key", "?").await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");

    // Plain text: closed without a word and without a reset.
    let http = format!("http://{}", node.client);
    assert!(put(&target(&http, TargetTls::default()), "key", "plain").await.is_err());
    let mut stream = TcpStream::connect(&node.client).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty(), "{answer:?}");
    node.logs("it does not speak TLS").await;

    assert_eq!(get(&good, "key").await.unwrap(), "value");
    assert!(node.is_running());
    let (log, key) = (node.log(), fs::read_to_string(&server.key).unwrap());
    assert!(
        key.lines().skip(1).all(|line| line.starts_with("---") || !log.contains(line)),
        "the key is in the log"
    );
}

#[tokio::test]
async fn health_is_there_over_http_1_and_tls() {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let dir = TempDir::new().unwrap();
    let server = Files::issued(dir.path(), "server", &Ca::new("ca"));
    let node = Node::single(dir.path(), &server.for_clients()[..4]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&server.ca).unwrap()).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    until("health", async || {
        let stream = TcpStream::connect(&node.client).await?;
        let mut stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await?;
        let ask = b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let is_healthy = answer.starts_with("HTTP/1.1 200") && answer.contains("\"health\":\"true\"");
        if is_healthy { Ok(()) } else { Err(std::io::Error::other(answer)) }
    })
    .await;
}

#[tokio::test]
async fn certificates_change_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let server = Files::issued(dir.path(), "server", &old);
    // Copies: the server's own CA file changes, too.
    let (trusts_old, trusts_new) = (dir.path().join("old.pem"), dir.path().join("new.pem"));
    fs::write(&trusts_old, old.0.pem()).unwrap();
    fs::write(&trusts_new, new.0.pem()).unwrap();
    let mut node = Node::single(dir.path(), &server.for_clients()[..4]);
    let https = format!("https://{}", node.client);
    let (of_old, of_new) = (target(&https, trusting(&trusts_old)), target(&https, trusting(&trusts_new)));
    until("a put, old CA", async || put(&of_old, "key", "1").await).await;
    assert!(get(&of_new, "key").await.is_err());
    // Connections keep what they began with.
    let mut open = pb::kv_client::KvClient::new(of_old.connect().await.unwrap());

    new.issue(&server, "127.0.0.1");
    until("a get, new CA", async || get(&of_new, "key").await).await;
    assert!(get(&of_old, "key").await.is_err());
    open.range(pb::RangeRequest { key: "key".into(), ..Default::default() }).await.unwrap();

    // A key that is not of the certificate, then no certificate at all: neither is taken.
    fs::write(&server.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    node.logs("the key does not belong to this certificate").await;
    fs::write(&server.cert, "nothing").unwrap();
    node.logs("there is no certificate in PEM form in it").await;
    assert_eq!(get(&of_new, "key").await.unwrap(), "1");
    old.issue(&server, "127.0.0.1");
    until("a get, old CA again", async || get(&of_old, "key").await).await;
    assert!(node.is_running());
}

#[tokio::test]
async fn wrong_files_at_start_are_named() {
    let dir = TempDir::new().unwrap();
    let right = Files::issued(dir.path(), "right", &Ca::new("ca"));
    let other = Files::issued(dir.path(), "other", &Ca::new("ca"));
    let mixed = Files { cert: right.cert, key: other.key, ca: dir.path().join("nowhere.pem") };
    let mut node = Node::single(dir.path(), &mixed.for_clients()[..4]);
    node.logs("quorate: --cert-file").await;
    node.logs("the key does not belong to this certificate").await;
    until("the node's end", async || if node.is_running() { Err("it runs") } else { Ok(()) }).await;
    let node = Node::single(dir.path(), &mixed.for_peers());
    node.logs("nowhere.pem").await;
}

/// Three nodes, of which the third has a certificate of another CA, while it trusts the right one: it is kept out as
/// dialler and as listener, and two serve without it. Given a right certificate it joins, without a restart.
#[tokio::test]
async fn peers_of_another_ca_do_not_get_in() {
    let dir = TempDir::new().unwrap();
    let (ca, other) = (Ca::new("right"), Ca::new("wrong"));
    let [pa, pb, pc, ca_, cb, cc] = addresses();
    let cluster = format!("a={pa},b={pb},c={pc}");
    let wrong = Files::issued(dir.path(), "c", &other);
    fs::write(&wrong.ca, ca.0.pem()).unwrap();
    let start = |name: &str, client: &str, files: &Files| {
        Node::start(dir.path(), name, client, &cluster, &files.for_peers())
    };
    let mut a = start("a", &ca_, &Files::issued(dir.path(), "a", &ca));
    let mut b = start("b", &cb, &Files::issued(dir.path(), "b", &ca));
    let of = |node: &Node| target(&node.client, TargetTls::default());
    // A cluster begins with all its members.
    let mut c = start("c", &cc, &Files::issued(dir.path(), "c-right", &ca));
    until("a put at c", async || put(&of(&c), "key", "first").await).await;
    c.kill();
    let mut c = start("c", &cc, &wrong);
    until("a put at a", async || put(&of(&a), "key", "value").await).await;
    until("a get at b", async || get(&of(&b), "key").await).await;
    // Many TLS records in one frame.
    let large = "x".repeat(1 << 20);
    until("a large put at b", async || put(&of(&b), "large", &large).await).await;
    assert!(until("a large get at a", async || get(&of(&a), "large").await).await == large);
    // Both sides say whose certificate is wrong.
    let problem = "its certificate is not of the CA in --peer-trusted-ca-file here";
    for node in [&a, &b] {
        node.logs_line(&["no connection to peer", problem]).await;
        node.logs_line(&["turned a peer away", problem]).await;
    }
    c.logs_line(&["no connection to peer", "it does not know the CA of our certificate"]).await;
    c.logs_line(&["turned a peer away", "it does not know the CA of our certificate"]).await;
    assert!(!c.log().contains("connected to peer"), "{}", c.log());
    // It knows no leader, and is connected with all the same after a while.
    let channel = until("a connection with c", async || of(&c).connect().await).await;
    let mut client = pb::kv_client::KvClient::new(channel);
    let refused = client.range(with_leader(pb::RangeRequest { key: "key".into(), ..Default::default() }));
    is_no_leader(&refused.await.unwrap_err());

    ca.issue(&wrong, "127.0.0.1");
    assert_eq!(until("a get at c", async || get(&of(&c), "key").await).await, "value");
    assert!(a.is_running() && b.is_running() && c.is_running());
}

/// A certificate of the right CA for another host: it may not be dialled, and what dials with it is not believed.
#[tokio::test]
async fn peers_are_who_their_certificates_name() {
    let dir = TempDir::new().unwrap();
    let ca = Ca::new("ca");
    let [pa, pb, client_a, client_b] = addresses();
    let cluster = format!("a={pa},b={pb}");
    let elsewhere = Files::new(dir.path(), "b");
    ca.issue(&elsewhere, "elsewhere.example");
    let files = Files::issued(dir.path(), "a", &ca);
    let a = Node::start(dir.path(), "a", &client_a, &cluster, &files.for_peers());
    let b = Node::start(dir.path(), "b", &client_b, &cluster, &elsewhere.for_peers());
    a.logs("its certificate is for other names than its address").await;
    a.logs("but its certificate is for other names").await;
    b.logs("turned away: node").await;
}

#[tokio::test]
async fn a_peer_with_tls_and_one_without_say_so() {
    let dir = TempDir::new().unwrap();
    let [pa, pb, client_a, client_b] = addresses();
    let cluster = format!("a={pa},b={pb}");
    let files = Files::issued(dir.path(), "a", &Ca::new("ca"));
    let mut with = Node::start(dir.path(), "a", &client_a, &cluster, &files.for_peers());
    let mut without = Node::start(dir.path(), "b", &client_b, &cluster, &[]);
    // As dialler and as listener, on both sides.
    with.logs("it does not speak TLS: set --peer-cert-file").await;
    with.logs("no connection to peer").await;
    with.logs("turned a peer away").await;
    without.logs("turned away: this node's peer port speaks TLS only").await;
    without.logs("it speaks TLS, which this node does not").await;
    assert!(with.is_running() && without.is_running());
    // Attempts go on, lines do not.
    for node in [&with, &without] {
        assert!(node.log().matches("turned a peer away").count() <= 2, "{}", node.log());
    }
}

fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    request
}

#[track_caller]
fn is_no_leader(status: &Status) {
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"), "{status:?}");
}

async fn watch(channel: Channel, require_leader: bool) -> tonic::Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { key: "key".into(), ..Default::default() };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let mut client = pb::watch_client::WatchClient::new(channel);
    // The client goes on to listen: its side stays open.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let requests = if require_leader { with_leader(requests) } else { Request::new(requests) };
    let mut stream = client.watch(requests).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().created);
    stream
}

#[tokio::test]
async fn clients_that_require_a_leader_are_told_when_there_is_none() {
    let dir = TempDir::new().unwrap();
    let [pa, pb, client_a, client_b] = addresses();
    let cluster = format!("a={pa},b={pb}");
    let a = Node::start(dir.path(), "a", &client_a, &cluster, &[]);
    let mut b = Node::start(dir.path(), "b", &client_b, &cluster, &[]);
    let target = target(&a.client, TargetTls::default());
    until("a put", async || put(&target, "key", "value").await).await;
    let channel = target.connect_patiently().await.unwrap();
    let mut kv = pb::kv_client::KvClient::new(channel.clone());
    let range = pb::RangeRequest { key: "key".into(), serializable: true, ..Default::default() };
    // Of every partition, which the first put does not need.
    until("all leaders", async || kv.clone().range(with_leader(range.clone())).await).await;
    let mut patient = watch(channel.clone(), false).await;
    let mut strict = watch(channel.clone(), true).await;
    let mut lease = pb::lease_client::LeaseClient::new(channel.clone());
    let keep = with_leader(tokio_stream::pending::<pb::LeaseKeepAliveRequest>());
    // The answer to opening it comes with its first message.
    let keep_alive = tokio::spawn(async move {
        match lease.lease_keep_alive(keep).await {
            Ok(stream) => stream.into_inner().message().await,
            Err(status) => Err(status),
        }
    });

    b.kill();
    let ended = tokio::time::timeout(DEADLINE, strict.message()).await.unwrap();
    is_no_leader(&ended.unwrap_err());
    is_no_leader(&keep_alive.await.unwrap().unwrap_err());
    is_no_leader(&kv.range(with_leader(range.clone())).await.unwrap_err());
    is_no_leader(
        &kv.put(with_leader(pb::PutRequest { key: "key".into(), ..Default::default() })).await.unwrap_err(),
    );
    // Others may wait, and read what this node has.
    kv.range(range).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), patient.message()).await.is_err(), "it has ended");

    let _b = Node::start(dir.path(), "b", &client_b, &cluster, &[]);
    until("a put", async || put(&target, "key", "again").await).await;
    let event = tokio::time::timeout(DEADLINE, patient.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.events.len(), 1);
}

/// hyper's usual bound is 200 streams; a Kubernetes API server has thousands.
#[tokio::test]
async fn a_connection_carries_a_thousand_streams() {
    const STREAMS: usize = 1_000;
    let dir = TempDir::new().unwrap();
    let node = Node::single(dir.path(), &[]);
    let target = target(&node.client, TargetTls::default());
    until("a put", async || put(&target, "other", "value").await).await;
    let channel = target.connect_patiently().await.unwrap();
    let mut streams = Vec::new();
    for opening in (0..STREAMS).map(|_| tokio::spawn(watch(channel.clone(), true))).collect::<Vec<_>>() {
        streams.push(tokio::time::timeout(DEADLINE, opening).await.expect("a stream does not open").unwrap());
    }
    // All are open; there is room for a call on the same connection.
    let mut kv = pb::kv_client::KvClient::new(channel);
    kv.put(pb::PutRequest { key: "key".into(), ..Default::default() }).await.unwrap();
    for stream in &mut streams {
        let event = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.events.len(), 1);
    }
}

/// SIGTERM: open streams are told, idle connections go, and the node ends without cutting anything off.
#[tokio::test]
async fn a_node_that_is_told_to_stop_drains() {
    let dir = TempDir::new().unwrap();
    let server = Files::issued(dir.path(), "server", &Ca::new("ca"));
    let mut node = Node::single(dir.path(), &server.for_clients()[..4]);
    let target = target(&format!("https://{}", node.client), trusting(&server.ca));
    until("a put", async || put(&target, "key", "value").await).await;
    let mut stream = watch(target.connect_patiently().await.unwrap(), false).await;
    let idle = target.connect().await.unwrap();
    let silent = TcpStream::connect(&node.client).await.unwrap();
    let told = Command::new("kill").args(["-TERM", &node.child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ended = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap().unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: server stopped"));
    until("the node's end", async || if node.is_running() { Err("it runs") } else { Ok(()) }).await;
    assert!(node.child.wait().unwrap().success());
    assert!(node.log().contains("stopped") && !node.log().contains("cut off"), "{}", node.log());
    drop((idle, silent));
}

/// Clients must not use up the files that the log and the store need.
#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let dir = TempDir::new().unwrap();
    let [client, peer] = addresses();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_quorate")]);
    let node = Node::spawn(limited, dir.path(), "one", &client, &format!("one={peer}"), &[]);
    node.logs("connections_max=100").await;
    let target = target(&node.client, TargetTls::default());
    until("a put", async || put(&target, "key", "value").await).await;
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(TcpStream::connect(&node.client).await.unwrap());
    }
    node.logs("clients' connections are refused").await;
    assert!(put(&target, "key", "no room").await.is_err());
    assert_eq!(node.log().matches("clients' connections are refused").count(), 1);
    drop(open);
    until("a put when there is room", async || put(&target, "key", "again").await).await;
    assert_eq!(get(&target, "key").await.unwrap(), "again");
}

/// A node joins over a client port with TLS, by its own certificate; then peers let it in by that. One that would talk to peers without TLS
/// is told before it is anything.
#[tokio::test]
async fn a_node_joins_with_the_certificates_that_it_has() {
    let dir = TempDir::new().unwrap();
    let ca = Ca::new("ours");
    let (first, second) = (Files::issued(dir.path(), "first", &ca), Files::issued(dir.path(), "second", &ca));
    let both = |files: &Files| [files.for_clients(), files.for_peers()].concat();
    let node = Node::single(dir.path(), &both(&first));
    let https = format!("https://{}", node.client);
    let good = target(&https, showing(&first, &first.ca));
    until("a put", async || put(&good, "key", "value").await).await;
    let [client, peer] = addresses();
    let join =
        |join: &str| vec!["--listen-peer".to_owned(), peer.clone(), "--join".to_owned(), join.to_owned()];

    let flags = [join(&https), second.for_clients()].concat();
    let mut plain = Node::start(dir.path(), "plain", &client, "", &flags);
    plain.logs("speak TLS with each other: set --peer-cert-file").await;
    assert!(!plain.child.wait().unwrap().success());
    assert!(!dir.path().join("plain").join("IDENTITY").exists());

    let flags = [join(&https), both(&second)].concat();
    let joiner = Node::start(dir.path(), "joiner", &client, "", &flags);
    joiner.logs("has joined").await;
    joiner.logs("connected to peer").await;
    let (ca_file, cert, key) = (shown(&first.ca), shown(&first.cert), shown(&first.key));
    let tls = ["--endpoints", &node.client, "--cacert", &ca_file, "--cert", &cert, "--key", &key];
    until("the joiner tells its addresses", async || {
        match command(&[&tls[..], &["node", "list"]].concat()) {
            (true, text) if text.contains(&format!("https://{client}")) => Ok(()),
            (_, text) => Err(text),
        }
    })
    .await;
}

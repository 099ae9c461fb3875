//! TLS: certificates and keys from files, for clients and between nodes.
//!
//! [`Current`] holds a configuration built from files and follows them: every two seconds it looks whether one of
//! them has changed, so that new certificates need no restart. Files that cannot be used, or a certificate whose
//! key has not been replaced yet, leave the configuration as it is, with a line in the log. Connections keep
//! what they began with.
//!
//! * Clients are offered TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. With a CA they must present a certificate of it, as with etcd.
//! * Peers speak TLS 1.3 and present certificates to each other, in both directions. A node must also be named
//!   by its certificate: the host of its address in `--initial-cluster` is checked when it is dialled, and when it dials.
//!
//! Caveats: no revocation lists and no OCSP; who must go loses access when the CA is replaced, or when its certificate
//! expires and it connects anew. What a certificate says about a client (its common name) gives no rights yet.
//! Nothing of a key's content is logged or part of an error.

use crate::config::{ClientTls, PeerTls};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tracing::{info, warn};

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How often files are looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);
/// How long we read what the other side still sends after we have ended, and how much of it.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 << 10;
/// What peers say they want to speak, so that a client at the wrong port fails in the handshake.
const PEER_PROTOCOL: &[u8] = b"quorate-peer";
/// The first byte of a TLS connection: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("--{flag} {path}: {cause}")]
    Unreadable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// What should be in it is not.
    #[error("--{flag} {path}: there is no {what} in PEM form in it")]
    Missing {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// What should be there.
        what: &'static str,
    },
    /// The certificate and the key do not belong together.
    #[error("--{flag} {path}: the key does not belong to this certificate")]
    Mismatch {
        /// The certificate's setting.
        flag: &'static str,
        /// The certificate's file.
        path: String,
    },
    /// It is not of a kind that can be used.
    #[error("--{flag} {path}: {cause}")]
    Unusable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// Why not.
        cause: rustls::Error,
    },
    /// The CA cannot be used to verify others.
    #[error("--{flag} {path}: {cause}")]
    Verifier {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// Why not.
        cause: VerifierBuilderError,
    },
}

/// A configuration built from files, rebuilt when they change.
pub struct Current<T> {
    value: parking_lot::RwLock<Arc<T>>,
}

/// Both sides of a connection between nodes.
pub struct PeerConfig {
    /// For those who dial us.
    pub server: Arc<ServerConfig>,
    /// For those we dial.
    pub client: Arc<ClientConfig>,
}

impl<T: Send + Sync + 'static> Current<T> {
    /// Builds a configuration, then follows its files for as long as somebody holds it.
    fn follow(
        whose: &'static str,
        files: Vec<PathBuf>,
        build: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        // Looked at before they are read: what changes in between is read again.
        let mut seen = stamps(&files);
        let current = Arc::new(Self { value: parking_lot::RwLock::new(Arc::new(build()?)) });
        let held = Arc::downgrade(&current);
        let (files, build) = (Arc::new(files), Arc::new(build));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                let (files, build, before) = (files.clone(), build.clone(), seen.clone());
                let look = tokio::task::spawn_blocking(move || {
                    let now = stamps(&files);
                    let rebuilt = (now != before).then(|| build());
                    (now, rebuilt)
                });
                let Ok((now, rebuilt)) = look.await else { return };
                let Some(current) = held.upgrade() else { return };
                seen = now;
                match rebuilt {
                    None => {}
                    Some(Ok(value)) => {
                        *current.value.write() = Arc::new(value);
                        info!(whose, "TLS files have changed: new connections use the new ones");
                    }
                    Some(Err(error)) => {
                        warn!(whose, %error, "TLS files have changed, but cannot be used: the old ones stay in force");
                    }
                }
            }
        });
        Ok(current)
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<T> {
        self.value.read().clone()
    }
}

/// What tells one state of a file from another: device, inode, size, and when content and inode changed.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok()?;
        let content = (data.mtime(), data.mtime_nsec());
        let inode = (data.ctime(), data.ctime_nsec());
        Some((data.dev(), data.ino(), data.size(), content.0, content.1, inode.0, inode.1))
    };
    files.iter().map(stamp).collect()
}

/// The client port's side.
pub fn for_clients(tls: &ClientTls) -> Result<Arc<Current<ServerConfig>>, TlsError> {
    let tls = tls.clone();
    let files = [&tls.cert, &tls.key].into_iter().chain(&tls.ca).cloned().collect();
    Current::follow("clients", files, move || {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable("cert-file", &tls.cert))?;
        let builder = match &tls.ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(verifier("trusted-ca-file", ca)?),
        };
        let chain = certificates("cert-file", &tls.cert)?;
        let mut config = builder
            .with_single_cert(chain, key("key-file", &tls.key)?)
            .map_err(unusable("cert-file", &tls.cert))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    })
}

/// Both sides of connections between nodes.
pub fn for_peers(tls: &PeerTls) -> Result<Arc<Current<PeerConfig>>, TlsError> {
    let tls = tls.clone();
    let files = vec![tls.cert.clone(), tls.key.clone(), tls.ca.clone()];
    Current::follow("peers", files, move || {
        let versions = [&rustls::version::TLS13];
        let unusable = || unusable("peer-cert-file", &tls.cert);
        let chain = certificates("peer-cert-file", &tls.cert)?;
        let key = key("peer-key-file", &tls.key)?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .map_err(unusable())?
            .with_client_cert_verifier(verifier("peer-trusted-ca-file", &tls.ca)?)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable())?;
        server.alpn_protocols = vec![PEER_PROTOCOL.to_vec()];
        // Connections live for days. Resuming one would save nothing and skip looking at the certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .map_err(unusable())?
            .with_root_certificates(roots("peer-trusted-ca-file", &tls.ca)?)
            .with_client_auth_cert(chain, key)
            .map_err(unusable())?;
        client.alpn_protocols = vec![PEER_PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(PeerConfig { server: Arc::new(server), client: Arc::new(client) })
    })
}

/// For a client of nodes: whom it trusts, and what it shows.
pub(crate) fn for_client(ca: &Path, shown: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable("cacert", ca))?
        .with_root_certificates(roots("cacert", ca)?);
    match shown {
        None => Ok(builder.with_no_client_auth()),
        Some((path, of_key)) => builder
            .with_client_auth_cert(certificates("cert", path)?, key("key", of_key)?)
            .map_err(unusable("cert", path)),
    }
}

/// Named wherever one is needed, so that no other in the tree can make it a matter of chance.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(flag: &'static str, path: &Path) -> impl FnOnce(rustls::Error) -> TlsError {
    let path = path.display().to_string();
    move |cause| match cause {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { flag, path },
        cause => TlsError::Unusable { flag, path, cause },
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |cause| TlsError::Unreadable { flag, path: path.display().to_string(), cause };
    std::fs::read(path).map_err(unreadable)
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let missing = || TlsError::Missing { flag, path: path.display().to_string(), what: "certificate" };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(missing)
}

fn key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's error may quote what it stumbled over, so it goes no further.
    let missing = |_| TlsError::Missing { flag, path: path.display().to_string(), what: "private key" };
    PrivateKeyDer::from_pem_slice(&read(flag, path)?).map_err(missing)
}

fn roots(flag: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(flag, path)? {
        roots.add(certificate).map_err(unusable(flag, path))?;
    }
    Ok(roots)
}

fn verifier(
    flag: &'static str,
    path: &Path,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(flag, path)?), provider());
    let verifier = |cause| TlsError::Verifier { flag, path: path.display().to_string(), cause };
    builder.build().map_err(verifier)
}

/// The name that a peer's certificate must have: the host of HOST:PORT.
pub fn host_of(address: &str) -> Result<ServerName<'static>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("«{host}» is not a name that a certificate can have"))
}

/// Whether a certificate names the host of `address`.
pub fn is_for(certificate: &CertificateDer<'_>, address: &str) -> bool {
    let (Ok(name), Ok(parsed)) = (host_of(address), ParsedCertificate::try_from(certificate)) else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

/// Whether the other side begins as TLS does. Waits for its first byte and leaves it there.
pub async fn begins_as_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == HANDSHAKE_RECORD),
    }
}

/// Ends a connection so that the last thing we said arrives: to close with bytes unread would reset it.
pub async fn close_gently(mut stream: TcpStream) {
    let linger = async {
        let mut unread = [0; 4096];
        let mut bytes = 0;
        stream.shutdown().await?;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut unread).await? {
                0 => break,
                more => bytes += more,
            }
        }
        io::Result::Ok(())
    };
    // It is over, however it ends.
    let _ = tokio::time::timeout(LINGER_MAX, linger).await;
}

/// What went wrong between two nodes, and what to do about it. Meant to follow the peer's name.
pub fn explain(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, Error};
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                format!("it ended the connection during the TLS handshake ({error}); its log may say why")
            }
            _ => error.to_string(),
        };
    };
    let advice = match cause {
        Error::InvalidMessage(_) => {
            "it does not speak TLS: set --peer-cert-file, --peer-key-file and --peer-trusted-ca-file there, too"
        }
        Error::NoCertificatesPresented => {
            "it presents no certificate: peers need one of the CA in --peer-trusted-ca-file"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not of the CA in --peer-trusted-ca-file here: compare the CAs of both nodes"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "its certificate is for other names than its address in --initial-cluster: it needs that as a SAN"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: renew it there (no restart needed), or set the clocks right"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet: are the clocks right?",
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "its certificate is for another purpose: peers' need both serverAuth and clientAuth",
        Error::InvalidCertificate(_) => "its certificate cannot be used",
        Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => {
            "it does not know the CA of our certificate: compare --peer-trusted-ca-file there with --peer-cert-file here"
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "it finds our certificate expired: renew --peer-cert-file here (no restart needed), or set the clocks right"
        }
        Error::AlertReceived(
            Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown,
        ) => "it refuses our certificate; its log says why",
        Error::AlertReceived(Alert::CertificateRequired) => "it wants a certificate from us and got none",
        Error::AlertReceived(Alert::NoApplicationProtocol) | Error::NoApplicationProtocol => {
            "it does not speak the peer protocol of quorate: is this its peer port?"
        }
        _ => "the TLS handshake failed",
    };
    format!("{advice} ({cause})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (address, name) in [("a.b:1", "a.b"), ("10.0.0.1:2380", "10.0.0.1"), ("[::1]:2380", "::1")] {
            assert_eq!(host_of(address).unwrap(), ServerName::try_from(name).unwrap(), "{address}");
        }
        assert!(host_of("no name:1").is_err());
    }

    #[test]
    fn what_is_not_right_is_named_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let check = |text: &str, problem: &str| {
            std::fs::write(&path, text).unwrap();
            let error = key("key-file", &path).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("--key-file"), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        };
        check("SECRET", "no private key");
        check("-----BEGIN PRIVATE KEY-----\nSECRET!\n-----END PRIVATE KEY-----\n", "no private key");
        check("-----BEGIN SECRET\n", "no private key");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(key("key-file", &path), Err(TlsError::Unreadable { .. })));
    }
}

//! Which files of TLS go together.

use super::{ConfigError, ServeArgs, senseless};
use std::path::PathBuf;

/// The files of TLS for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The certificate and what leads to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA whose certificates clients must present; `None` is anyone.
    pub ca: Option<PathBuf>,
}

/// The files of TLS between nodes, who verify each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// This node's certificate and what leads to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of all nodes' certificates.
    pub ca: PathBuf,
}

pub(super) fn client_tls(args: &ServeArgs) -> Result<Option<ClientTls>, ConfigError> {
    let (cert, key) = match (&args.cert_file, &args.key_file) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (Some(_), None) => return senseless("cert-file", "needs --key-file, too"),
        (None, Some(_)) => return senseless("key-file", "needs --cert-file, too"),
        (None, None) if args.trusted_ca_file.is_some() => {
            return senseless("trusted-ca-file", "needs --cert-file and --key-file, too");
        }
        (None, None) if args.client_cert_auth == Some(true) => {
            return senseless("client-cert-auth", "needs --cert-file, --key-file and --trusted-ca-file, too");
        }
        (None, None) => return Ok(None),
    };
    match (args.client_cert_auth, &args.trusted_ca_file) {
        (Some(true), None) => senseless("client-cert-auth", "needs --trusted-ca-file, too"),
        // etcd demands certificates even so; to let everybody in would be worse.
        (Some(false), Some(_)) => senseless(
            "client-cert-auth",
            "is false, but --trusted-ca-file is set, which demands certificates: leave one of them out",
        ),
        (_, ca) => Ok(Some(ClientTls { cert, key, ca: ca.clone() })),
    }
}

pub(super) fn peer_tls(args: &ServeArgs) -> Result<Option<PeerTls>, ConfigError> {
    match (&args.peer_cert_file, &args.peer_key_file, &args.peer_trusted_ca_file) {
        (Some(cert), Some(key), Some(ca)) => {
            Ok(Some(PeerTls { cert: cert.clone(), key: key.clone(), ca: ca.clone() }))
        }
        (None, None, None) => Ok(None),
        _ => senseless(
            "peer-cert-file",
            "goes with --peer-key-file and --peer-trusted-ca-file, all three or none: nodes verify each other",
        ),
    }
}

//! Addresses that are taken at the start, so that a mistake is told at once, and listened at later: a client that is refused goes to another node, one that is not waits.

use crate::serve::ServeError;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted; the system may bound them further.
const LISTEN_BACKLOG: u32 = 1_024;

/// An address of ours. Those who connect wait until they are accepted, or, while it is closed, are refused.
pub(crate) struct Port {
    pub(crate) address: String,
    whom: &'static str,
    state: PortState,
}

enum PortState {
    Open(TcpListener),
    Closed(TcpSocket),
}

impl Port {
    /// Sees that it is free, and holds it.
    pub(crate) async fn take(address: &str, whom: &'static str) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|cause| Self::problem(address, whom, cause))?;
        Ok(Self { address: address.to_owned(), whom, state: PortState::Open(listener) })
    }

    /// Nobody can connect until it is listened at, but the address stays ours.
    pub(crate) fn closed(self) -> Result<Self, ServeError> {
        let Self { address, whom, state } = self;
        let PortState::Open(listener) = state else { return Ok(Self { address, whom, state }) };
        let close = || {
            let at = listener.local_addr()?;
            drop(listener);
            let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Connections of this node's earlier life may linger there.
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            Ok(socket)
        };
        let socket = close().map_err(|cause| Self::problem(&address, whom, cause))?;
        Ok(Self { address, whom, state: PortState::Closed(socket) })
    }

    /// Who connects waits from here on.
    pub(crate) fn opened(self) -> Result<Self, ServeError> {
        let (address, whom) = (self.address.clone(), self.whom);
        Ok(Self { state: PortState::Open(self.listen()?), address, whom })
    }

    /// Who connects is accepted by whoever has this.
    pub(crate) fn listen(self) -> Result<TcpListener, ServeError> {
        let Self { address, whom, state } = self;
        match state {
            PortState::Open(listener) => Ok(listener),
            PortState::Closed(socket) => {
                socket.listen(LISTEN_BACKLOG).map_err(|cause| Self::problem(&address, whom, cause))
            }
        }
    }

    fn problem(address: &str, whom: &'static str, cause: std::io::Error) -> ServeError {
        ServeError::Listen { address: address.to_owned(), whom, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn an_address_that_is_closed_refuses_and_stays_ours() {
        let port = Port::take("127.0.0.1:0", "clients").await.unwrap();
        let PortState::Open(listener) = &port.state else { panic!("it is open when it is taken") };
        let address = listener.local_addr().unwrap();
        let name = address.to_string();
        assert!(matches!(Port::take(&name, "peers").await, Err(ServeError::Listen { whom: "peers", .. })));
        // Whoever has connected before is not among those who are accepted later.
        drop(TcpStream::connect(address).await.unwrap());
        let port = port.closed().unwrap().closed().unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // Another program that does not share addresses cannot have it.
        let other = TcpSocket::new_v4().unwrap();
        assert_eq!(other.bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let listener = port.opened().unwrap().listen().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
    }
}

//! Calls to a server's HTTP side.

use crate::Failure;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a node says there.
pub(crate) async fn get(endpoint: &str, path: &str) -> Result<Value, Failure> {
    call(endpoint, "GET", path, "").await
}

/// Has it carry something out.
pub(crate) async fn post(endpoint: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let told = call(endpoint, "POST", path, &body.to_string()).await?;
    match told.get("error") {
        Some(error) => Err(format!("{path}: {error}").into()),
        None => Ok(told),
    }
}

async fn call(endpoint: &str, method: &str, path: &str, body: &str) -> Result<Value, Failure> {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("the node's answer has no end of its head")?;
    Ok(serde_json::from_str(body)?)
}

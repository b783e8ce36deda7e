//! Connections, lines, requests and answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use margay_cni_api::wire::Envelope;
use margay_cni_api::{CniError, Code, MAX_LINE, PROTOCOL, Request, Response};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::backend::CniBackend;
use super::socket::Socket;

/// After a failure to accept (no file descriptors are left), so that it does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the future is dropped; requests under way are dropped with it, and their plugins
/// answer "try again later".
pub(crate) async fn serve<B: CniBackend>(socket: &Socket, backend: Arc<B>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.listener().accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(attend(stream, Arc::clone(&backend)));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a CNI plugin");
                    sleep(PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a CNI request panicked");
                }
            }
        }
    }
}

async fn attend<B: CniBackend>(stream: UnixStream, backend: Arc<B>) {
    if let Err(error) = converse(stream, &*backend).await {
        debug!(%error, "a CNI plugin went away");
    }
}

/// One connection, line after line until its end.
async fn converse<B: CniBackend>(mut stream: UnixStream, backend: &B) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut read).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let answer =
            if whole { answer(&line, backend).await } else { encode::<()>(Err(too_long())) };
        write.write_all(&answer).await?;
        if !whole {
            return Ok(());
        }
    }
}

/// The answer to one line, ready to be sent.
async fn answer<B: CniBackend>(line: &[u8], backend: &B) -> Vec<u8> {
    let request = match decode(line) {
        Ok(request) => request,
        Err(error) => return encode::<()>(Err(error)),
    };
    match request {
        Request::PlanEndpoint(request) => encode(backend.plan_endpoint(request).await),
        Request::Allocate(request) => encode(backend.allocate(request).await),
        Request::Release(request) => encode(backend.release(request).await),
        Request::CheckAddress(request) => encode(backend.check_address(request).await),
        Request::AddEndpoint(request) => encode(backend.add_endpoint(request).await),
        Request::DelEndpoint(request) => encode(backend.del_endpoint(request).await),
        Request::CheckEndpoint(request) => encode(backend.check_endpoint(request).await),
        Request::GcEndpoints(request) => encode(backend.gc_endpoints(request).await),
        Request::GcAddresses(request) => encode(backend.gc_addresses(request).await),
        Request::Status(request) => encode(backend.status(request).await),
        Request::AddressStatus(request) => encode(backend.address_status(request).await),
    }
}

fn decode(line: &[u8]) -> Result<Request, CniError> {
    /// Read first: another version's request need not decode as ours.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let undecodable = |error: serde_json::Error| {
        CniError::new(
            Code::DECODE,
            format!("the request to margay-agent is none: {error}"),
            "install margay-cni, margay-ipam and margay-agent of one release",
        )
    };
    let Version { version } = serde_json::from_slice(line).map_err(undecodable)?;
    if version != PROTOCOL {
        return Err(CniError::new(
            Code::PROTOCOL_MISMATCH,
            format!(
                "the plugin speaks version {version} of the CNI socket's protocol, margay-agent {PROTOCOL}"
            ),
            "install margay-cni, margay-ipam and margay-agent of one release",
        ));
    }
    let envelope: Envelope = serde_json::from_slice(line).map_err(undecodable)?;
    Ok(envelope.request)
}

fn encode<T: Serialize>(result: Result<T, CniError>) -> Vec<u8> {
    let response = match result {
        Ok(answer) => Response::Ok(answer),
        Err(error) => Response::Error(error),
    };
    let mut line = serde_json::to_vec(&response).unwrap_or_else(|error| {
        warn!(%error, "an answer to a CNI plugin does not encode");
        Vec::new()
    });
    line.push(b'\n');
    line
}

fn too_long() -> CniError {
    CniError::new(
        Code::DECODE,
        format!("the request to margay-agent is longer than {MAX_LINE} bytes or has no newline"),
        "",
    )
}

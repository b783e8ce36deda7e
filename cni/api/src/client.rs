//! The blocking client of the plugins.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{CniError, Code};
use crate::wire::{Call, Envelope, MAX_LINE, PROTOCOL, Response};

/// How long an answer may take: longer than the agent itself waits for a policy, shorter than the
/// two minutes after which the kubelet gives a sandbox up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks one agent. Every call is a connection of its own, so that an agent which restarts between
/// two calls of one ADD is not noticed.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

// === impl Client ===

impl Client {
    /// A client of the agent that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: ANSWER_TIMEOUT }
    }

    /// The same client with another limit on how long an answer may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Where the agent is expected.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The agent's own error as it is; [`Code::TRY_AGAIN_LATER`] when the agent is not there, goes
    /// away or is silent for too long; [`Code::DECODE`] when its answer is none.
    pub fn call<C: Call>(&self, call: C) -> Result<C::Answer, CniError> {
        let mut line = serde_json::to_vec(&Envelope { version: PROTOCOL, request: call.into() })
            .map_err(|error| {
                CniError::new(Code::DECODE, format!("encoding a request: {error}"), "")
            })?;
        line.push(b'\n');
        let answer = self.exchange(&line).map_err(|error| self.unreachable(&error))?;
        match serde_json::from_slice(&answer) {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Error(error)) => Err(error),
            Err(error) => Err(CniError::new(
                Code::DECODE,
                format!("the answer of margay-agent at {} is none: {error}", self.socket.display()),
                "install margay-cni, margay-ipam and margay-agent of one release",
            )),
        }
    }

    fn exchange(&self, line: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.write_all(line)?;
        let mut answer = Vec::new();
        BufReader::new(stream).take(MAX_LINE as u64).read_until(b'\n', &mut answer)?;
        if answer.last() == Some(&b'\n') {
            Ok(answer)
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
        }
    }

    fn unreachable(&self, error: &io::Error) -> CniError {
        let socket = self.socket.display();
        match error.kind() {
            // A read that runs into SO_RCVTIMEO fails with EAGAIN.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CniError::new(
                Code::TRY_AGAIN_LATER,
                format!("margay-agent at {socket} did not answer within {:?}", self.timeout),
                "look at the agent's log and at its /readiness, then try again",
            ),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => CniError::new(
                Code::TRY_AGAIN_LATER,
                format!("margay-agent at {socket} went away before it answered: {error}"),
                "look at the agent's log, start it again and try again",
            ),
            _ => CniError::new(
                Code::TRY_AGAIN_LATER,
                format!("margay-agent is not there at {socket}: {error}"),
                "start margay-agent on this node, or let \"agentSocket\" of the network \
                 configuration name the agent's --socket, then try again",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::{Readiness, Status};

    fn serve_once(answer: &'static [u8]) -> (tempfile::TempDir, Client, thread::JoinHandle<()>) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a socket in it");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a request");
            stream.write_all(answer).expect("an answer");
        });
        (dir, Client::new(path), server)
    }

    #[test]
    fn an_answer_comes_back_typed() {
        let (_dir, client, server) = serve_once(b"{\"ok\":{\"state\":\"ready\"}}\n");
        assert_eq!(client.call(Status {}), Ok(Readiness::Ready));
        server.join().expect("the server ends");
    }

    #[test]
    fn the_agents_error_comes_back_as_it_is() {
        let (_dir, client, server) =
            serve_once(b"{\"error\":{\"code\":102,\"msg\":\"full\",\"details\":\"add a pool\"}}\n");
        let error = client.call(Status {}).expect_err("an error");
        assert_eq!(error, CniError::new(Code::NO_ADDRESS, "full", "add a pool"));
        server.join().expect("the server ends");
    }

    #[test]
    fn a_missing_agent_is_try_again_later_and_names_the_socket() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.sock");
        let error = Client::new(&path).call(Status {}).expect_err("nobody listens");
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.contains(path.to_str().expect("utf-8")), "{error}");
        assert!(error.details.contains("agentSocket"), "{error}");
    }

    #[test]
    fn an_agent_that_dies_before_it_answers_is_try_again_later() {
        let (_dir, client, server) = serve_once(b"{\"ok\":{\"sta");
        let error = client.call(Status {}).expect_err("half an answer");
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.contains("went away"), "{error}");
        server.join().expect("the server ends");
    }

    #[test]
    fn a_silent_agent_is_try_again_later() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("agent.sock");
        let _listener = UnixListener::bind(&path).expect("a socket in it");
        let client = Client::new(&path).with_timeout(Duration::from_millis(50));
        let error = client.call(Status {}).expect_err("nobody answers");
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.contains("did not answer within 50ms"), "{error}");
    }
}

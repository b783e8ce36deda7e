//! An agent without a dataplane: it keeps leases and endpoints in memory, and fails on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use margay_cni_api::wire::Envelope;
use margay_cni_api::{
    AttachmentRef, CniError, Code, Deleted, Done, EndpointPlan, Lease, Readiness, Request,
    Response, Swept,
};
use serde::Serialize;

/// What goes wrong at a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is answered with an error.
    Fail(CniError),
    /// The agent dies before it answers: the connection closes and nobody listens any more.
    Die,
    /// It is never answered.
    Hang,
}

/// Called at the moment of a request, before its answer.
type Witness = Box<dyn FnMut(&Request) + Send>;

/// What the agent knows, and how it behaves.
pub(crate) struct State {
    pub(crate) plan: EndpointPlan,
    pub(crate) readiness: Readiness,
    pub(crate) address_readiness: Readiness,
    /// Keyed by the request's name on the wire.
    pub(crate) faults: BTreeMap<&'static str, Fault>,
    pub(crate) witness: Option<Witness>,
    pub(crate) requests: Vec<Request>,
    /// Addresses by container id.
    leases: BTreeMap<String, Vec<IpAddr>>,
    /// Host interfaces by container id.
    endpoints: BTreeMap<String, String>,
    next: u32,
    dead: bool,
}

/// A running agent.
pub(crate) struct Agent {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

// === impl State ===

impl State {
    fn new() -> Self {
        Self {
            plan: EndpointPlan {
                mtu: 1450,
                mac: None,
                queues: 1,
                tx_checksum_offload: true,
                addresses: Vec::new(),
                pod_cidrs: vec!["10.77.0.0/24".into(), "fd00:77::/112".into()],
            },
            readiness: Readiness::Ready,
            address_readiness: Readiness::Ready,
            faults: BTreeMap::new(),
            witness: None,
            requests: Vec::new(),
            leases: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            next: 1,
            dead: false,
        }
    }

    fn lease(&mut self, container: &str, ipv4: bool, ipv6: bool) -> Lease {
        let next = self.next;
        let addresses = self.leases.entry(container.to_owned()).or_insert_with(|| {
            let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 65, 0, 0).to_bits() + next);
            let v6 = Ipv6Addr::new(0xfd00, 0x65, 0, 0, 0, 0, 0, next as u16);
            [ipv4.then_some(IpAddr::V4(v4)), ipv6.then_some(IpAddr::V6(v6))]
                .into_iter()
                .flatten()
                .collect()
        });
        let addresses = addresses.clone();
        self.next += 1;
        Lease { addresses }
    }

    /// The answer to a request, as a line.
    fn answer(&mut self, request: Request) -> String {
        match request {
            Request::PlanEndpoint(_) => line(Ok(self.plan.clone())),
            Request::Allocate(ask) => {
                let id = ask.attachment.container_id;
                line(Ok(self.lease(&id, ask.families.ipv4, ask.families.ipv6)))
            }
            Request::Release(ask) => {
                let existed = self.leases.remove(&ask.attachment.container_id).is_some();
                line(Ok(Deleted { existed }))
            }
            Request::CheckAddress(ask) => {
                let held = self.leases.get(&ask.attachment.container_id) == Some(&ask.addresses);
                line(if held { Ok(Done {}) } else { Err(not_there("the reservation")) })
            }
            Request::AddEndpoint(ask) => {
                self.endpoints.insert(ask.attachment.container_id, ask.host_interface);
                line(Ok(Done {}))
            }
            Request::DelEndpoint(ask) => {
                let existed = self.endpoints.remove(&ask.attachment.container_id).is_some();
                line(Ok(Deleted { existed }))
            }
            Request::CheckEndpoint(ask) => {
                let there = self.endpoints.get(&ask.attachment.container_id);
                let good = there == Some(&ask.host_interface);
                line(if good { Ok(Done {}) } else { Err(not_there("the endpoint")) })
            }
            Request::GcEndpoints(ask) => line(Ok(sweep(&mut self.endpoints, &ask.valid))),
            Request::GcAddresses(ask) => line(Ok(sweep(&mut self.leases, &ask.valid))),
            Request::Status(_) => line(Ok(self.readiness.clone())),
            Request::AddressStatus(_) => line(Ok(self.address_readiness.clone())),
        }
    }
}

fn not_there(what: &str) -> CniError {
    CniError::new(Code::CHECK_FAILED, format!("{what} is not there"), "")
}

fn sweep<T>(kept: &mut BTreeMap<String, T>, valid: &[AttachmentRef]) -> Swept {
    let stale: Vec<String> = kept
        .keys()
        .filter(|id| !valid.iter().any(|valid| valid.container_id == **id))
        .cloned()
        .collect();
    for id in &stale {
        kept.remove(id);
    }
    Swept { removed: stale, errors: Vec::new() }
}

fn line<T: Serialize>(answer: Result<T, CniError>) -> String {
    let response = match answer {
        Ok(answer) => Response::Ok(answer),
        Err(error) => Response::Error(error),
    };
    serde_json::to_string(&response).expect("an answer") + "\n"
}

/// The request's name on the wire.
fn name(request: &Request) -> String {
    let value = serde_json::to_value(request).expect("a request");
    value["request"].as_str().expect("a name").to_owned()
}

// === impl Agent ===

impl Agent {
    pub(crate) fn start(socket: &Path) -> Self {
        let agent =
            Self { socket: socket.to_path_buf(), state: Arc::new(Mutex::new(State::new())) };
        agent.listen();
        agent
    }

    /// Listens (again), with everything that was known before.
    pub(crate) fn listen(&self) {
        self.state().dead = false;
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).expect("the agent's socket");
        let (socket, state) = (self.socket.clone(), Arc::clone(&self.state));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (socket, state) = (socket.clone(), Arc::clone(&state));
                thread::spawn(move || converse(stream, &socket, &state));
            }
        });
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked")
    }

    pub(crate) fn fault(&self, request: &'static str, fault: Fault) {
        self.state().faults.insert(request, fault);
    }

    pub(crate) fn witness(&self, witness: impl FnMut(&Request) + Send + 'static) {
        self.state().witness = Some(Box::new(witness));
    }

    /// Container ids of the endpoints.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.state().endpoints.keys().cloned().collect()
    }

    /// Container ids that hold addresses.
    pub(crate) fn leases(&self) -> Vec<String> {
        self.state().leases.keys().cloned().collect()
    }

    /// Takes an address away, as a bug would.
    pub(crate) fn lose_lease(&self, container: &str) {
        self.state().leases.remove(container);
    }

    pub(crate) fn lose_endpoint(&self, container: &str) {
        self.state().endpoints.remove(container);
    }

    /// The requests of one name, in order.
    pub(crate) fn requests(&self, wanted: &str) -> Vec<Request> {
        self.state().requests.iter().filter(|request| name(request) == wanted).cloned().collect()
    }
}

fn converse(stream: UnixStream, socket: &Path, state: &Mutex<State>) {
    let mut write = stream.try_clone().expect("a second handle");
    for text in BufReader::new(stream).lines().map_while(Result::ok) {
        let envelope: Envelope = serde_json::from_str(&text).expect("a request of the plugin");
        let request = envelope.request;
        let mut state = state.lock().expect("no test thread panicked");
        if state.dead {
            return;
        }
        state.requests.push(request.clone());
        if let Some(mut witness) = state.witness.take() {
            witness(&request);
            state.witness = Some(witness);
        }
        let fault = state.faults.get(name(&request).as_str()).cloned();
        let answer = match fault {
            None => state.answer(request),
            Some(Fault::Fail(error)) => line::<Done>(Err(error)),
            Some(Fault::Die) => {
                state.dead = true;
                let _ = std::fs::remove_file(socket);
                return;
            }
            Some(Fault::Hang) => {
                drop(state);
                thread::park();
                return;
            }
        };
        drop(state);
        let _ = write.write_all(answer.as_bytes());
    }
}

//! Binding a socket and talking over it.

use std::pin::Pin;

use margay_protocol::message::{AgentHello, DaemonHello, DaemonMessage};
use margay_protocol::socket::{self, BindError, UnixAddress};
use margay_protocol::{AgentMessage, Dataplane, Session, Step, VERSION, proto};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// A dataplane that acknowledges whatever keeps to the protocol.
struct Yes;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Dataplane for Yes {
    type SyncStream = Answers<proto::FromDaemon>;
    type ListFlowsStream = Answers<proto::Flow>;
    type ListNamesStream = Answers<proto::NameAddress>;
    type TraceStream = Answers<proto::Sighting>;
    type ProbeStream = Answers<proto::Sighting>;
    type WatchFlowsStream = Answers<proto::FlowReports>;

    async fn sync(
        &self,
        request: Request<Streaming<proto::FromAgent>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut session = Session::default();
        let answers = request.into_inner().filter_map(move |message| {
            let answer = message.and_then(|m| Ok(AgentMessage::try_from(m)?));
            match answer.and_then(|m| Ok(session.on(m)?)) {
                Ok(Step::Wait) => None,
                Ok(step) => Some(Ok((&answer_to(step)).into())),
                Err(status) => Some(Err(status)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_flows(
        &self,
        _: Request<proto::FlowFilter>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn list_names(
        &self,
        _: Request<proto::ListNamesRequest>,
    ) -> Result<Response<Self::ListNamesStream>, Status> {
        Err(Status::unimplemented("no names here"))
    }

    async fn list_rule_counts(
        &self,
        _: Request<proto::ListRuleCountsRequest>,
    ) -> Result<Response<proto::RuleCounts>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn watch_flows(
        &self,
        _: Request<proto::WatchFlowsRequest>,
    ) -> Result<Response<Self::WatchFlowsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn get_counters(
        &self,
        _: Request<proto::GetCountersRequest>,
    ) -> Result<Response<proto::Counters>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_cycles(
        &self,
        _: Request<proto::GetCyclesRequest>,
    ) -> Result<Response<proto::Cycles>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn trace(
        &self,
        _: Request<proto::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn probe(
        &self,
        _: Request<proto::ProbeRequest>,
    ) -> Result<Response<Self::ProbeStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

fn answer_to(step: Step) -> DaemonMessage {
    match step {
        Step::Replace { sequence, .. } | Step::Apply { sequence, .. } => {
            DaemonMessage::Ack { sequence, generation: sequence }
        }
        Step::Stale { sequence } => DaemonMessage::Refused { sequence, reason: "stale".into() },
        Step::Wait | Step::Greet(_) => {
            DaemonMessage::Hello(DaemonHello { version: VERSION, instance: 7, generation: 0 })
        }
    }
}

fn hello(version: u32) -> AgentMessage {
    AgentMessage::Hello(AgentHello { version, node: "n".into(), release: "0".into() })
}

async fn say(
    address: &UnixAddress,
    messages: Vec<AgentMessage>,
) -> Vec<Result<DaemonMessage, Status>> {
    let mut client = socket::connect(address).await.unwrap();
    let messages: Vec<_> = messages.iter().map(proto::FromAgent::from).collect();
    let answers = client.sync(tokio_stream::iter(messages)).await.unwrap().into_inner();
    answers.map(|a| a.map(|m| DaemonMessage::try_from(m).unwrap())).collect().await
}

#[tokio::test]
async fn an_agent_and_a_daemon_talk_over_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let address: UnixAddress = format!("unix:{}/run/d.sock", dir.path().display()).parse().unwrap();
    let (listener, _file) = socket::bind(address.path()).unwrap();
    tokio::spawn(socket::serve(listener, Yes, std::future::pending()));

    let talk = vec![
        hello(VERSION),
        AgentMessage::Begin,
        AgentMessage::InSync { sequence: 1 },
        AgentMessage::Commit { sequence: 2 },
    ];
    let answers: Vec<_> = say(&address, talk).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(
        answers[..],
        [
            DaemonMessage::Hello(DaemonHello { instance: 7, .. }),
            DaemonMessage::Ack { sequence: 1, .. },
            DaemonMessage::Ack { sequence: 2, .. },
        ]
    ));
    let answers = say(&address, vec![hello(VERSION + 1)]).await;
    let refusal = answers[0].as_ref().unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file behind");

    let (_listener, file) = socket::bind(&path).unwrap();
    assert!(matches!(socket::bind(&path), Err(BindError::InUse { .. })));
    assert!(path.exists());
    drop(file);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(socket::bind(&path), Err(BindError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn connecting_to_nobody_says_who_is_missing() {
    let address: UnixAddress = "unix:/nowhere/d.sock".parse().unwrap();
    let error = socket::connect(&address).await.unwrap_err().to_string();
    assert_eq!(error, "/nowhere/d.sock: no dataplane answers on this socket; is margayd running?");
}

#[test]
fn only_absolute_paths_are_addresses() {
    for good in ["unix:/run/a", "unix:///run/a", "/run/a"] {
        let address: UnixAddress = good.parse().unwrap();
        assert_eq!(address.to_string(), "unix:/run/a");
    }
    for bad in ["", "unix:", "unix:run/a", "tcp:/run/a", "unix://host/a"] {
        assert!(bad.parse::<UnixAddress>().is_err(), "{bad}");
    }
}

//! The service as a proxy meets it: over a socket, with health and counters, and never open.

mod common;

use std::path::Path;

use common::{Asking, Node, TILL, WEB, policy};
use margay_authz::proto::authorization_client::AuthorizationClient;
use margay_authz::proto::check_response::HttpResponse;
use margay_authz::proto::{CheckRequest, CheckResponse};
use margay_authz::serve;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn served(node: &Node) -> (TempDir, Channel) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authz.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let connections = UnixListenerStream::new(listener);
    tokio::spawn(serve(connections, node.authorizer.clone(), std::future::pending()));
    let channel = connect(&path).await;
    (folder, channel)
}

async fn connect(path: &Path) -> Channel {
    let address = format!("unix:{}", path.display());
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

async fn check(channel: &Channel, request: CheckRequest) -> CheckResponse {
    AuthorizationClient::new(channel.clone()).check(request).await.unwrap().into_inner()
}

/// Code, HTTP status of the refusal, header, body.
fn read(response: CheckResponse) -> (i32, Option<i32>, String, String) {
    let code = response.status.unwrap().code;
    let (status, headers, body) = match response.http_response.unwrap() {
        HttpResponse::OkResponse(ok) => (None, ok.headers, String::new()),
        HttpResponse::DeniedResponse(d) => (d.status.map(|s| s.code), d.headers, d.body),
    };
    let header = headers.into_iter().next().unwrap().header.unwrap();
    assert_eq!(header.key, "x-margay-verdict");
    (code, status, header.value, body)
}

#[tokio::test]
async fn an_answer_carries_verdict_tier_policy_and_rule() {
    let node =
        Node::with([policy("web", json!([{"action": "Allow", "http": {"methods": ["GET"]}}]))]);
    let (_folder, channel) = served(&node).await;
    let response = check(&channel, Asking::from(TILL).http("GET", "/").request()).await;
    let metadata = response.dynamic_metadata.clone().unwrap();
    assert!(metadata.fields.contains_key("policy") && metadata.fields.contains_key("workload"));
    let header = "allow; reason=rule; workload=shop/web/eth0; tier=default; \
                  policy=NetworkPolicy/shop/web; rule=0";
    assert_eq!(read(response), (0, None, header.to_owned(), String::new()));

    let response = check(&channel, Asking::from(TILL).http("PUT", "/").request()).await;
    let header = "deny; reason=tier-default; workload=shop/web/eth0; tier=default";
    let body = "denied: no rule matches (tier default)\n";
    assert_eq!(read(response), (7, Some(403), header.to_owned(), body.to_owned()));
}

#[tokio::test]
async fn whatever_is_wrong_is_a_refusal_and_never_a_failed_call() {
    let node = Node::with([]);
    let (_folder, channel) = served(&node).await;
    let good = Asking::from(TILL);
    assert_eq!(read(check(&channel, good.clone().request()).await).0, 0);
    let mut no_source = good.clone();
    no_source.0.source = None;
    for bad in [
        CheckRequest::default(),
        no_source.request(),
        Asking::from("nonsense").request(),
        Asking::from("2001:db8::1").request(),
        good.to(WEB, 65_536).request(),
    ] {
        let (code, status, header, body) = read(check(&channel, bad).await);
        assert_eq!((code, status), (3, Some(403)));
        assert_eq!(header, "deny; reason=bad-request");
        assert!(body.starts_with("denied: "), "{body}");
    }
}

#[tokio::test]
async fn nothing_passes_and_nothing_is_healthy_before_the_datastore_was_read() {
    let node = Node::unread();
    let (_folder, channel) = served(&node).await;
    let (code, status, ..) = read(check(&channel, Asking::from(TILL).request()).await);
    assert_eq!((code, status), (14, Some(503)));
    assert_eq!(health(&channel, "").await, ServingStatus::NotServing);

    let node = Node::with([]);
    let (_folder, channel) = served(&node).await;
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        while health(&channel, service).await != ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    }
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
    answer.into_inner().status()
}

#[tokio::test]
async fn every_question_is_counted_once_by_what_it_came_to() {
    let node =
        Node::with([policy("web", json!([{"action": "Allow", "http": {"methods": ["GET"]}}]))]);
    for method in ["GET", "GET", "PUT"] {
        node.ask(Asking::from(TILL).http(method, "/"));
    }
    node.ask(Asking::from(TILL).to(TILL, 80));
    node.authorizer.rule(CheckRequest::default());
    let counts: Vec<_> = node.authorizer.counts().filter(|c| c.count > 0).collect();
    let counts: Vec<_> = counts.iter().map(|c| (c.verdict, c.reason, c.count)).collect();
    assert_eq!(
        counts,
        [
            ("allow", "rule", 2),
            ("deny", "tier-default", 1),
            ("deny", "unknown-destination", 1),
            ("deny", "bad-request", 1),
        ]
    );
}

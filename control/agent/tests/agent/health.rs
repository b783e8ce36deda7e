//! What load balancers outside are told.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Directory, POOL};

/// A balanced service with a health check, and its endpoint on a node.
fn service(port: u16, node: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  externalTrafficPolicy: Local
  healthCheckNodePort: {port}
  ports: [{{port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [10.244.0.9], nodeName: {node}}}]
"
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The answer to a GET, status line first; empty if nobody listens.
async fn get(address: SocketAddr) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        let request = b"GET /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        stream.read_to_string(&mut answer).await.expect("an answer");
    }
    answer
}

async fn until(address: SocketAddr, what: &str, is: impl Fn(&str) -> bool) -> String {
    for _ in 0..500 {
        let answer = get(address).await;
        if is(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_comes_changes_and_goes_with_its_service() {
    let (directory, port) = (Directory::new(), free_port());
    directory.write("pool.yaml", POOL);
    directory.write("web.yaml", &service(port, "a"));
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    let (four, six) = ((Ipv4Addr::LOCALHOST, port), (Ipv6Addr::LOCALHOST, port));
    for address in [SocketAddr::from(four), SocketAddr::from(six)] {
        let answer = until(address, "good", |answer| answer.starts_with("HTTP/1.1 200")).await;
        let lower = answer.to_lowercase();
        assert!(lower.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
        assert!(lower.contains("\r\nx-load-balancing-endpoint-weight: 1\r\n"), "{answer}");
        let body: serde_json::Value =
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).expect("JSON");
        assert_eq!(
            body,
            serde_json::json!({
                "service": {"namespace": "default", "name": "web"},
                "localEndpoints": 1,
                "serviceProxyHealthy": true,
            })
        );
    }
    directory.write("web.yaml", &service(port, "b"));
    let answer = until(four.into(), "bad", |answer| answer.starts_with("HTTP/1.1 503")).await;
    assert!(answer.contains(r#""localEndpoints":0"#), "{answer}");
    directory.write("web.yaml", &service(port, "a"));
    until(four.into(), "good again", |answer| answer.starts_with("HTTP/1.1 200")).await;
    drop(dataplane);
    let answer = until(four.into(), "bad", |answer| answer.starts_with("HTTP/1.1 503")).await;
    assert!(answer.contains(r#""serviceProxyHealthy":false"#), "{answer}");
    directory.remove("web.yaml");
    until(four.into(), "closed", str::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_is_taken_when_it_is_free() {
    let directory = Directory::new();
    let other = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = other.local_addr().expect("its address").port();
    directory.write("pool.yaml", POOL);
    directory.write("web.yaml", &service(port, "a"));
    let dataplane = directory.dataplane("a");
    let _agent = directory.agent("a", "192.0.2.1/24");
    dataplane.until("told a state", |told| told.full_states == 1).await;
    drop(other);
    until((Ipv4Addr::LOCALHOST, port).into(), "good", |a| a.starts_with("HTTP/1.1 200")).await;
}

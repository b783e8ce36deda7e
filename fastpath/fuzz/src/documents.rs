//! What people and container runtimes write: YAML documents, CNI's configuration and requests.

use margay_datastore::{Format, Reader};
use margay_resources::Resource;
use margay_resources::documents::DocumentReader;

/// A document of the `dir:` datastore, as YAML and as JSON. What is accepted is accepted again as it
/// is stored.
pub fn documents(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for format in [Format::Yaml, Format::Json] {
        for parsed in DocumentReader.read(text, format) {
            match parsed.object {
                Ok(value) => {
                    let resource = Resource::from_value(&value).expect("what was accepted");
                    let _ = resource.to_value();
                }
                Err(problems) => {
                    assert!(!problems.is_empty(), "refused without a reason");
                    let _: Vec<String> = problems.iter().map(ToString::to_string).collect();
                }
            }
        }
    }
}

/// A network configuration, as a container runtime gives it to the CNI plugin.
pub fn cni_config(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Err(error) = margay_cni::examine(value)
    {
        assert!(!error.msg.is_empty(), "refused without a reason");
    }
}

/// A line to the agent's socket.
pub fn cni_request(bytes: &[u8]) {
    let Ok(envelope) = serde_json::from_slice::<margay_cni_api::Envelope>(bytes) else { return };
    let text = serde_json::to_string(&envelope).expect("an envelope always serialises");
    let again: margay_cni_api::Envelope = serde_json::from_str(&text).expect("what we wrote");
    assert_eq!(again, envelope, "a request of ours is not understood");
}

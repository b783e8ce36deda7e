//! What workload endpoints may use of the network: what is stored with them is what the runtime asked
//! for; their Pods' annotations, which may change at any time, go before it.

use std::collections::BTreeMap;

use margay_datastore::Datastore;
use margay_resources::v3::QosControls;
use margay_resources::{Kind, qos};
use serde_json::Value;

/// Shows each endpoint with what is in force for it. Where the Pod cannot be read it shows what is
/// stored.
pub(super) async fn show_in_force(store: &dyn Datastore, endpoints: &mut [Value]) {
    for endpoint in endpoints {
        let text = |pointer| endpoint.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let key = Kind::Pod.key(text("/metadata/namespace"), text("/spec/pod"));
        let Ok(pod) = store.get(&key).await else { continue };
        let annotations = pod.value.pointer("/metadata/annotations").cloned().unwrap_or_default();
        let annotations: BTreeMap<String, String> =
            serde_json::from_value(annotations).unwrap_or_default();
        let stored = endpoint.pointer("/spec/qosControls").cloned().unwrap_or_default();
        let stored: QosControls = serde_json::from_value(stored).unwrap_or_default();
        let (controls, _) = qos::read(&annotations, &stored);
        let Some(spec) = endpoint.get_mut("spec").and_then(Value::as_object_mut) else { continue };
        match serde_json::to_value(&controls) {
            Ok(value) if controls != QosControls::default() => {
                spec.insert("qosControls".to_owned(), value);
            }
            _ => drop(spec.remove("qosControls")),
        }
    }
}

//! Objects about the cluster as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::object::{Object, is_default};
use super::value::Net;

/// The state of the cluster as a whole.
pub type ClusterInformation = Object<ClusterInformationSpec>;
/// Settings of the controllers.
pub type KubeControllersConfiguration = Object<KubeControllersConfigurationSpec>;

/// The state of the cluster as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInformationSpec {
    /// Names the cluster.
    #[serde(default, rename = "clusterGUID", skip_serializing_if = "String::is_empty")]
    pub cluster_guid: String,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_type: String,
    /// Version that the datastore was last used by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub calico_version: String,
    /// `false` while the datastore is being migrated: no pod may be added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// Product.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Settings of the controllers. Durations are texts such as `5m`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeControllersConfigurationSpec {
    /// Least severity that is logged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_severity_screen: String,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health_checks: String,
    /// Between compactions of etcd.
    #[serde(default, rename = "etcdV3CompactionPeriod", skip_serializing_if = "String::is_empty")]
    pub etcd_v3_compaction_period: String,
    /// TCP port of metrics; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_port: Option<i64>,
    /// TCP port of profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_profile_port: Option<i64>,
    /// The controllers.
    #[serde(default)]
    pub controllers: Controllers,
}

/// The controllers; a missing one is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controllers {
    /// Follows nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeController>,
    /// Follows policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Reconciler>,
    /// Follows pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_endpoint: Option<Reconciler>,
    /// Follows service accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Reconciler>,
    /// Follows namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Reconciler>,
    /// Assigns addresses to services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerController>,
    /// Renames policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_migration: Option<Value>,
}

/// How often a controller compares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciler {
    /// A duration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reconciler_period: String,
}

/// Settings of the controller of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeController {
    /// A duration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reconciler_period: String,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sync_labels: String,
    /// Host endpoints that are made automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<AutoHostEndpoint>,
    /// How long an address without a pod is kept, a duration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leak_grace_period: String,
}

/// Host endpoints that are made automatically.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoHostEndpoint {
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub auto_create: String,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub create_default_host_endpoint: String,
    /// Further host endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<HostEndpointTemplate>,
}

/// A host endpoint for each of many nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointTemplate {
    /// End of the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// Addresses of the node that count.
    #[serde(default, rename = "interfaceCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub interface_cidrs: Vec<Net>,
    /// Interfaces, a regular expression.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_pattern: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// The nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_selector: String,
}

/// Settings of the controller of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerController {
    /// `AllServices` or `RequestedServicesOnly`.
    #[serde(default, rename = "assignIPs", skip_serializing_if = "String::is_empty")]
    pub assign_ips: String,
}

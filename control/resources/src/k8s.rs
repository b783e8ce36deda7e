//! The objects of Kubernetes that are read, as `k8s-openapi` has them.

pub use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

pub use crate::cnp::ClusterNetworkPolicy;

//! Objects of every kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::decode::decode;
use crate::field::{FieldPath, Problem, ResourceError};
use crate::kind::{Kind, Recognised};
use crate::{conf, defaults, k8s, v3, validate};

/// Declares the variants: the kind, its type, and how its metadata is reached.
macro_rules! resources {
    ($($kind:ident($type:ty);)+) => {
        /// An object of any kind, with its defaults.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource {
            $(#[doc = concat!("See [`Kind::", stringify!($kind), "`].")] $kind(Box<$type>),)+
        }

        impl Resource {
            /// The kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Name, namespace, labels, annotations.
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)+ }
            }

            /// As [`Self::metadata`].
            pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(object) => &mut object.metadata,)+ }
            }

            fn serialized(&self) -> Result<Value, serde_json::Error> {
                match self { $(Self::$kind(object) => serde_json::to_value(object),)+ }
            }

            fn decoded(kind: Kind, value: &Value, strict: bool) -> Reading {
                match kind {
                    $(Kind::$kind => {
                        let mut decoded = decode::<$type>(value);
                        let object = decoded.object.take();
                        let resource = object.map(|object| Self::$kind(Box::new(object)));
                        let unknown = std::mem::take(&mut decoded.unknown);
                        let resource = resource.map(|mut resource| {
                            defaults::apply(&mut resource);
                            if let Self::ClusterNetworkPolicy(policy) = &mut resource {
                                policy.spec.mark_unknown(&unknown);
                            }
                            if strict {
                                decoded.note_all(resource.validate());
                            }
                            resource
                        });
                        Reading { resource, problems: decoded.problems, unknown }
                    })+
                }
            }
        }
    };
}

resources! {
    Namespace(k8s::Namespace);
    KubernetesNode(k8s::Node);
    Pod(k8s::Pod);
    Service(k8s::Service);
    EndpointSlice(k8s::EndpointSlice);
    KubernetesNetworkPolicy(k8s::NetworkPolicy);
    ServiceAccount(k8s::ServiceAccount);
    ServiceCidr(k8s::ServiceCIDR);
    ClusterNetworkPolicy(k8s::ClusterNetworkPolicy);
    NetworkPolicy(v3::NetworkPolicy);
    GlobalNetworkPolicy(v3::GlobalNetworkPolicy);
    StagedNetworkPolicy(v3::StagedNetworkPolicy);
    StagedGlobalNetworkPolicy(v3::StagedGlobalNetworkPolicy);
    StagedKubernetesNetworkPolicy(v3::StagedKubernetesNetworkPolicy);
    Tier(v3::Tier);
    NetworkSet(v3::NetworkSet);
    GlobalNetworkSet(v3::GlobalNetworkSet);
    HostEndpoint(v3::HostEndpoint);
    Profile(v3::Profile);
    IpPool(v3::IpPool);
    IpReservation(v3::IpReservation);
    IpamConfiguration(v3::IpamConfiguration);
    BgpConfiguration(v3::BgpConfiguration);
    BgpPeer(v3::BgpPeer);
    BgpFilter(v3::BgpFilter);
    CalicoNodeStatus(v3::CalicoNodeStatus);
    FelixConfiguration(v3::FelixConfiguration);
    KubeControllersConfiguration(v3::KubeControllersConfiguration);
    ClusterInformation(v3::ClusterInformation);
    Node(v3::Node);
    WorkloadEndpoint(v3::WorkloadEndpoint);
    IpamBlock(v3::IpamBlock);
    BlockAffinity(v3::BlockAffinity);
    IpamHandle(v3::IpamHandle);
}

/// What came of reading an object.
struct Reading {
    resource: Option<Resource>,
    problems: Vec<Problem>,
    unknown: Vec<FieldPath>,
}

/// An object that was checked, and what it says that nobody understands.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The object with its defaults.
    pub resource: Resource,
    /// Fields that are ignored, with the reason.
    pub warnings: Vec<Problem>,
}

// === impl Resource ===

impl Resource {
    /// Reads an object as it comes out of a datastore: its fields must have the right types, the
    /// defaults are applied, unknown fields are ignored, and nothing is validated.
    ///
    /// # Errors
    /// A kind that is not ours, or fields of the wrong type: all of them.
    pub fn from_value(value: &Value) -> Result<Self, ResourceError> {
        let kind = kind_of(value).map_err(|problem| error(value, vec![problem]))?;
        let mut reading = Self::decoded(kind, value, false);
        match reading.resource.take() {
            Some(resource) if reading.problems.is_empty() => Ok(resource),
            _ => Err(error(value, reading.problems)),
        }
    }

    /// Reads and validates an object as a person wrote it.
    ///
    /// Unknown fields are errors in what people write for Calico and in Kubernetes' NetworkPolicy,
    /// since a policy with a misspelt field would do something else than it says. They are warnings
    /// in the other kinds of Kubernetes and in what machines write, of which there are newer
    /// versions than this one knows; a ClusterNetworkPolicy is read as far as it is understood, but
    /// its subject has to be: a rule with unknown fields is closed, a policy for others than it was
    /// meant for would not be. The settings of `FelixConfiguration` are too many to know.
    ///
    /// # Errors
    /// A kind that is not ours, or everything that is wrong with the object, by field.
    pub fn check(value: &Value) -> Result<Checked, ResourceError> {
        let kind = kind_of(value).map_err(|problem| error(value, vec![problem]))?;
        let mut reading = Self::decoded(kind, value, true);
        let unknown = (reading.unknown.drain(..))
            .filter(|path| *path != FieldPath::of_keys(&["apiVersion"]))
            .filter(|path| *path != FieldPath::of_keys(&["kind"]));
        let by_people = kind.is_calico() && !kind.is_written_by_machines();
        let strict = by_people || kind == Kind::KubernetesNetworkPolicy;
        let subject = FieldPath::of_keys(&["spec", "subject"]);
        let is_subjects =
            |path: &FieldPath| kind == Kind::ClusterNetworkPolicy && path.0.starts_with(&subject.0);
        let mut warnings = Vec::new();
        for path in unknown {
            let wrong = strict || is_subjects(&path);
            let sink = if wrong { &mut reading.problems } else { &mut warnings };
            sink.push(Problem::new(path, format!("{kind} has no such field")));
        }
        reading.problems.sort_by(|a, b| a.field.cmp(&b.field));
        match reading.resource.take() {
            Some(resource) if reading.problems.is_empty() => {
                if let Self::FelixConfiguration(felix) = &resource {
                    warnings.extend(conf::without_effect(&felix.spec));
                }
                Ok(Checked { resource, warnings })
            }
            _ => Err(error(value, reading.problems)),
        }
    }

    /// Everything that is wrong with the object beyond the types of its fields.
    pub fn validate(&self) -> Vec<Problem> {
        validate::validate(self)
    }

    /// The object as JSON, with `apiVersion` and `kind`.
    pub fn to_value(&self) -> Value {
        // None of the types has a map with keys that are no texts, so this cannot fail.
        let mut value = self.serialized().unwrap_or_else(|_| Value::Object(Map::new()));
        if let Some(map) = value.as_object_mut() {
            map.insert("apiVersion".to_owned(), self.kind().api_version().into());
            map.insert("kind".to_owned(), self.kind().kind().into());
        }
        value
    }

    /// The name; empty when it is missing.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// The namespace; empty for what lives in none.
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
}

/// The kind of a document.
fn kind_of(value: &Value) -> Result<Kind, Problem> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let problem = |key, message: String| Err(Problem::new(FieldPath::of_keys(&[key]), message));
    if !value.is_object() {
        return Err(Problem::new(
            FieldPath::default(),
            "expected an object with apiVersion and kind",
        ));
    }
    if kind.is_empty() {
        return problem("kind", "is missing; say what the object is, e.g. NetworkPolicy".into());
    }
    if api_version.is_empty() {
        return problem(
            "apiVersion",
            "is missing; for Calico's kinds it is projectcalico.org/v3".into(),
        );
    }
    match Kind::recognise(api_version, kind) {
        Recognised::Kind(kind) => Ok(kind),
        Recognised::OtherVersion(ours) => {
            problem("apiVersion", format!("{api_version} of {kind} is not supported; use {ours}"))
        }
        Recognised::UnknownCalico | Recognised::Foreign => {
            problem("kind", format!("{api_version} has no kind {kind} that is known here"))
        }
    }
}

fn error(value: &Value, problems: Vec<Problem>) -> ResourceError {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let name = format!("{namespace}/{name}");
    ResourceError { kind: text("/kind").to_owned(), name, problems }
}

#[cfg(test)]
mod tests;

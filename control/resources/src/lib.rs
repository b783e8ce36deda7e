//! Every object that Margay reads, typed: parsing, defaults, validation and selectors.
//!
//! In the order of use:
//! - [`kind`]: what kinds there are;
//! - [`v3`]: the types of Calico's objects; [`k8s`] and [`cnp`]: those of Kubernetes;
//! - [`resource`]: [`Resource`], an object of any kind: from JSON and back;
//! - [`field`]: which field of which object is wrong, and why;
//! - [`selector`]: Calico's selectors and Kubernetes' label selectors;
//! - [`qos`]: what a Pod may use of the network;
//! - [`conf`]: the settings that are in force on a node;
//! - [`documents`]: YAML and JSON texts with objects in them, checked, with lines.
//!
//! Inside: `quantity` reads Kubernetes' numbers, `decode` finds every field of a wrong type, `defaults` fills in what is missing, and
//! `validate` holds what the types cannot say.

pub mod kind;
pub mod v3;
pub mod cnp;
pub mod k8s;
pub mod field;
pub mod resource;
pub mod selector;
pub mod qos;
pub mod conf;
pub mod documents;

mod quantity;
mod decode;
mod duration;
mod defaults;
mod validate;

pub use field::{FieldPath, Problem, ResourceError, Step};
pub use kind::{Kind, Recognised};
pub use resource::{Checked, Resource};
pub use selector::{Labels, Selector};

//! The CNI plugin; under a name that ends in `ipam` it is the IPAM plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay_cni::run(margay_cni::Role::from_executable())
}

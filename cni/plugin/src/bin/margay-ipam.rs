//! The IPAM plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay_cni::run(margay_cni::Role::Ipam)
}

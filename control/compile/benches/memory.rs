//! What the agent holds: bytes for each pod and each policy.
//!
//! `cargo bench -p margay-compile --bench memory` prints a line `NAME: NUMBER bytes` for each.

mod cluster;

use cluster::{compile, of_a_node, pod, policy, surroundings, workload};
use margay_compile::ResourceChange;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const PODS: usize = 5_000;
const POLICIES: usize = 10_000;

fn main() {
    let mut compiler = of_a_node();
    compile(&mut compiler, &surroundings());
    let mut per_each = |name: &str, count: usize, change: &dyn Fn(usize) -> ResourceChange| {
        let before = ALLOCATED.current_usage();
        for i in 0..count {
            compiler.apply(change(i)).expect("the bench's objects can be compiled");
        }
        compiler.flush();
        let bytes = ALLOCATED.current_usage() - before;
        println!("{name}: {} bytes ({count} of them)", bytes / count);
    };
    per_each("a pod of the cluster", PODS, &|i| pod(i, None));
    per_each("a pod of the node", cluster::NAMESPACES, &workload);
    per_each("a policy", POLICIES, &policy);
}
